/* SPDX-License-Identifier: Apache-2.0 */
/* native/ring/ring_read.h for JavaScript: one call a batch, the caller's buffer is filled in place. */
#include "glue.h"

#include <errno.h>
#include <time.h>

/* drain(handle, Uint8Array out, Float64Array(3) status) -> records; status = position, foreign, busy */
static napi_value drain(napi_env env, napi_callback_info info) {
    struct ring_batch batch;
    void *out, *status;
    size_t capacity, status_length;
    napi_value arguments[3];
    struct source *source;

    if (!glue_arguments(env, info, 3, arguments) || (source = glue_source(env, arguments[0])) == NULL ||
        !glue_array(env, arguments[1], napi_uint8_array, &out, &capacity) ||
        !glue_array(env, arguments[2], napi_float64_array, &status, &status_length))
        return NULL;
    if (status_length < 3)
        return glue_throw(env, -EINVAL, "the status array is too short");
    if (ring_drain(&source->reader, out, capacity, &batch) != 0)
        return glue_throw(env, -EBADMSG, "the kernel ring holds an impossible header or position");
    ((double *)status)[0] = (double)batch.position;
    ((double *)status)[1] = batch.foreign;
    ((double *)status)[2] = batch.busy;
    return glue_number(env, (double)batch.records);
}

/* commit(handle, position) */
static napi_value commit(napi_env env, napi_callback_info info) {
    uint64_t position;
    napi_value arguments[2];
    struct source *source;

    if (!glue_arguments(env, info, 2, arguments) || (source = glue_source(env, arguments[0])) == NULL ||
        !glue_u64(env, arguments[1], &position))
        return NULL;
    if (ring_commit(&source->reader, position) != 0)
        return glue_throw(env, -EINVAL, "the position was not read or is already let go");
    return NULL;
}

static napi_value rewind_reader(napi_env env, napi_callback_info info) {
    napi_value arguments[1];
    struct source *source;

    if (glue_arguments(env, info, 1, arguments) && (source = glue_source(env, arguments[0])) != NULL)
        ring_rewind(&source->reader);
    return NULL;
}

/* state(handle) -> { fd, ringBytes, created, consumer, position, fill } */
static napi_value state(napi_env env, napi_callback_info info) {
    napi_value arguments[1], object;
    struct source *source;

    if (!glue_arguments(env, info, 1, arguments) || (source = glue_source(env, arguments[0])) == NULL)
        return NULL;
    napi_create_object(env, &object);
    glue_set_number(env, object, "fd", source->ring_fd);
    glue_set_number(env, object, "ringBytes", (double)source->map.bytes);
    glue_set_number(env, object, "created", source->created);
    glue_set_number(env, object, "consumer", (double)*source->map.consumer_position);
    glue_set_number(env, object, "position", (double)source->reader.position);
    glue_set_number(env, object, "fill", (double)ring_fill(&source->reader));
    return object;
}

/* fill(handle) -> bytes */
static napi_value fill(napi_env env, napi_callback_info info) {
    napi_value arguments[1];
    struct source *source;

    if (!glue_arguments(env, info, 1, arguments) || (source = glue_source(env, arguments[0])) == NULL)
        return NULL;
    return glue_number(env, (double)ring_fill(&source->reader));
}

/* bootTime() -> ns of CLOCK_BOOTTIME, the clock of the records */
static napi_value boot_time(napi_env env, napi_callback_info info) {
    struct timespec now;

    (void)info;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return glue_number(env, (double)now.tv_sec * 1e9 + (double)now.tv_nsec);
}

void ring_glue_init(napi_env env, napi_value exports) {
    glue_define(env, exports, "drain", drain);
    glue_define(env, exports, "commit", commit);
    glue_define(env, exports, "rewind", rewind_reader);
    glue_define(env, exports, "state", state);
    glue_define(env, exports, "fill", fill);
    glue_define(env, exports, "bootTime", boot_time);
}
