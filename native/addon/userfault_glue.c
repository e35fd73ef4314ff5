/* SPDX-License-Identifier: Apache-2.0 */
/* native/loader/userfault.h for JavaScript. The hook outlives no handle: the garbage collector closes what
 * was forgotten, and the kernel what a killed process held. */
#include "glue.h"

#include <errno.h>
#include <stdlib.h>

#include "../loader/userfault.h"

#define MAX_TIMED_CALLS 100000000u

static const napi_type_tag userfault_tag = {0x7265636f76657279ull, 0x6c696e652d756666ull};

static const char *const OPERATIONS[USERFAULT_OPERATIONS] = {
    "fault", "register",     "unregister", "copy", "zeropage",
    "move",  "writeprotect", "continue",   "drop", "unread"};

struct handle {
    struct userfault *userfault; /* NULL: closed */
};

static void finalize(napi_env env, void *data, void *hint) {
    struct handle *handle = data;

    (void)env, (void)hint;
    userfault_close(handle->userfault);
    free(handle);
}

/* The open handle of argument 0; throws and returns NULL. */
static struct handle *open_handle(napi_env env, napi_callback_info info) {
    napi_value arguments[1];
    void *data = NULL;
    bool tagged = false;

    if (!glue_arguments(env, info, 1, arguments))
        return NULL;
    if (napi_check_object_type_tag(env, arguments[0], &userfault_tag, &tagged) != napi_ok || !tagged ||
        napi_get_value_external(env, arguments[0], &data) != napi_ok) {
        napi_throw_type_error(env, NULL, "not a userfault handle");
        return NULL;
    }
    struct handle *handle = data;
    if (handle->userfault == NULL)
        napi_throw_type_error(env, NULL, "the userfault handle is closed");
    return handle->userfault == NULL ? NULL : handle;
}

/* userfaultOpen(captureHandle | undefined) -> handle */
static napi_value open_userfault(napi_env env, napi_callback_info info) {
    char error[CAPTURE_ERROR_BYTES] = "";
    napi_value arguments[1], external;
    napi_valuetype type;
    struct capture *capture = NULL;

    if (!glue_arguments(env, info, 1, arguments) || napi_typeof(env, arguments[0], &type) != napi_ok)
        return NULL;
    if (type != napi_undefined) {
        struct source *source = glue_source(env, arguments[0]);
        if (source == NULL)
            return NULL;
        if ((capture = source->capture) == NULL)
            return glue_throw(env, -ENOTSUP, "this handle only reads a ring");
    }
    struct handle *handle = calloc(1, sizeof(*handle));
    if (handle == NULL)
        return glue_throw(env, -ENOMEM, "out of memory");
    const int status = userfault_open(capture, &handle->userfault, error);
    if (status != 0) {
        free(handle);
        return glue_throw(env, status, error);
    }
    if (napi_create_external(env, handle, finalize, NULL, &external) != napi_ok) {
        finalize(env, handle, NULL);
        return NULL;
    }
    napi_type_tag_object(env, external, &userfault_tag);
    return external;
}

/* userfaultClose(handle) */
static napi_value close_userfault(napi_env env, napi_callback_info info) {
    struct handle *handle = open_handle(env, info);

    if (handle == NULL)
        return NULL;
    userfault_close(handle->userfault);
    handle->userfault = NULL;
    return glue_undefined(env);
}

static napi_value counts_object(napi_env env, const struct userfault_counts *values) {
    napi_value object, one;

    napi_create_object(env, &object);
    for (int i = 0; i < USERFAULT_OPERATIONS; i++) {
        napi_create_object(env, &one);
        glue_set_number(env, one, "calls", (double)values->calls[i]);
        glue_set_number(env, one, "bytes", (double)values->bytes[i]);
        napi_set_named_property(env, object, OPERATIONS[i], one);
    }
    return object;
}

/* userfaultCounts(handle) -> { fault: { calls, bytes }, … } */
static napi_value counts(napi_env env, napi_callback_info info) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct userfault_counts values;
    struct handle *handle = open_handle(env, info);

    if (handle == NULL)
        return NULL;
    const int status = userfault_counts(handle->userfault, &values, error);
    return status == 0 ? counts_object(env, &values) : glue_throw(env, status, error);
}

/* helpedUserfaultCounts(captureHandle) -> the same, of the hook that its attach helper holds */
static napi_value helped_counts(napi_env env, napi_callback_info info) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct userfault_counts values;
    napi_value arguments[1];
    struct source *source;

    if (!glue_arguments(env, info, 1, arguments) || (source = glue_source(env, arguments[0])) == NULL)
        return NULL;
    if (source->remote == NULL)
        return glue_throw(env, -ENOTSUP, "no helper is behind this handle");
    const int status = remote_userfaults(source->remote, &values, error);
    return status == 0 ? counts_object(env, &values) : glue_throw(env, status, error);
}

/* timeSystemCall(count) -> nanoseconds */
static napi_value time_system_call(napi_env env, napi_callback_info info) {
    uint64_t count;
    napi_value arguments[1];

    if (!glue_arguments(env, info, 1, arguments) || !glue_u64(env, arguments[0], &count))
        return NULL;
    if (count == 0 || count > MAX_TIMED_CALLS)
        return glue_throw(env, -EINVAL, "the number of calls is out of range");
    return glue_number(env, userfault_time_system_call((uint32_t)count));
}

void userfault_glue_init(napi_env env, napi_value exports) {
    glue_define(env, exports, "userfaultOpen", open_userfault);
    glue_define(env, exports, "userfaultClose", close_userfault);
    glue_define(env, exports, "userfaultCounts", counts);
    glue_define(env, exports, "helpedUserfaultCounts", helped_counts);
    glue_define(env, exports, "timeSystemCall", time_system_call);
}
