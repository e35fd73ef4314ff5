/* SPDX-License-Identifier: Apache-2.0 */
/* Output commit for JavaScript: native/loader/output.c. An attach helper holds nothing. */
#include "glue.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The capture of argument 0, loaded in this process; throws and returns NULL. */
static struct capture *own_capture(napi_env env, napi_value argument) {
    struct source *source = glue_source(env, argument);

    if (source == NULL || source->capture != NULL)
        return source == NULL ? NULL : source->capture;
    glue_throw(env, -ENOTSUP, "output can only be held by a collector with rights of its own");
    return NULL;
}

static void set_address(napi_env env, napi_value object, const uint32_t *words, uint32_t port) {
    const struct in6_addr *address = (const struct in6_addr *)words;
    char text[INET6_ADDRSTRLEN] = "";
    napi_value host;

    if (IN6_IS_ADDR_V4MAPPED(address))
        inet_ntop(AF_INET, &words[3], text, sizeof(text));
    else
        inet_ntop(AF_INET6, address, text, sizeof(text));
    napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &host);
    napi_set_named_property(env, object, "host", host);
    glue_set_number(env, object, "port", port);
}

/* holdOutput(handle, cgroupId) */
static napi_value hold_output(napi_env env, napi_callback_info info) {
    char error[CAPTURE_ERROR_BYTES] = "";
    napi_value arguments[2];
    struct capture *capture;
    uint64_t cgroup;

    if (!glue_arguments(env, info, 2, arguments) || (capture = own_capture(env, arguments[0])) == NULL ||
        !glue_u64(env, arguments[1], &cgroup))
        return NULL;
    const int status = capture_hold(capture, cgroup, error);
    return status == 0 ? NULL : glue_throw(env, status, error);
}

/* heldCount(handle) */
static napi_value held_count(napi_env env, napi_callback_info info) {
    char error[CAPTURE_ERROR_BYTES] = "";
    napi_value arguments[1];
    struct capture *capture;
    uint64_t count = 0;

    if (!glue_arguments(env, info, 1, arguments) || (capture = own_capture(env, arguments[0])) == NULL)
        return NULL;
    const int status = capture_held(capture, &count, error);
    return status == 0 ? glue_number(env, (double)count) : glue_throw(env, status, error);
}

static napi_value output_object(napi_env env, const struct capture_output *output) {
    napi_value object;

    napi_create_object(env, &object);
    glue_set_number(env, object, "cgroupId", (double)output->cgroup_id);
    glue_set_number(env, object, "local", (double)output->local);
    glue_set_number(env, object, "remote", (double)output->remote);
    glue_set_number(env, object, "released", (double)output->released);
    glue_set_number(env, object, "wanted", (double)output->wanted);
    glue_set_number(env, object, "since", (double)output->since);
    glue_set_number(env, object, "free", output->free);
    set_address(env, object, output->address, output->port);
    return object;
}

/* outputs(handle) -> [{ cgroupId, local, remote, released, wanted, since, free, host, port }] */
static napi_value outputs(napi_env env, napi_callback_info info) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct capture_output *found = NULL;
    size_t count = 0;
    napi_value arguments[1], array;
    struct capture *capture;

    if (!glue_arguments(env, info, 1, arguments) || (capture = own_capture(env, arguments[0])) == NULL)
        return NULL;
    const int status = capture_outputs(capture, &found, &count, error);
    if (status != 0)
        return glue_throw(env, status, error);
    napi_create_array_with_length(env, count, &array);
    for (size_t i = 0; i < count; i++)
        napi_set_element(env, array, (uint32_t)i, output_object(env, &found[i]));
    free(found);
    return array;
}

static bool field(napi_env env, napi_value object, const char *name, uint64_t *out) {
    napi_value value;
    return napi_get_named_property(env, object, name, &value) == napi_ok && glue_u64(env, value, out);
}

static bool read_output(napi_env env, napi_value object, struct capture_output *output) {
    uint64_t free;

    if (!field(env, object, "local", &output->local) || !field(env, object, "remote", &output->remote) ||
        !field(env, object, "released", &output->released) || !field(env, object, "free", &free))
        return false;
    output->free = free != 0;
    return true;
}

/* release(handle, [{ local, remote, released, free }]) */
static napi_value release_outputs(napi_env env, napi_callback_info info) {
    char error[CAPTURE_ERROR_BYTES] = "";
    napi_value arguments[2], object;
    struct capture *capture;
    uint32_t count;

    if (!glue_arguments(env, info, 2, arguments) || (capture = own_capture(env, arguments[0])) == NULL)
        return NULL;
    if (napi_get_array_length(env, arguments[1], &count) != napi_ok) {
        napi_throw_type_error(env, NULL, "expected an array of outputs");
        return NULL;
    }
    struct capture_output *list = calloc((size_t)count + 1, sizeof(*list));
    if (list == NULL)
        return glue_throw(env, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < count; i++) {
        if (napi_get_element(env, arguments[1], i, &object) == napi_ok && read_output(env, object, &list[i]))
            continue;
        free(list);
        return NULL;
    }
    const int status = capture_release(capture, list, count, error);
    free(list);
    return status == 0 ? NULL : glue_throw(env, status, error);
}

/* takeUnheld(handle) -> [{ cgroupId, kind, host, port }] */
static napi_value take_unheld(napi_env env, napi_callback_info info) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct capture_unheld *found = NULL;
    size_t count = 0;
    napi_value arguments[1], array, object;
    struct capture *capture;

    if (!glue_arguments(env, info, 1, arguments) || (capture = own_capture(env, arguments[0])) == NULL)
        return NULL;
    const int status = capture_take_unheld(capture, &found, &count, error);
    if (status != 0)
        return glue_throw(env, status, error);
    napi_create_array_with_length(env, count, &array);
    for (size_t i = 0; i < count; i++) {
        napi_create_object(env, &object);
        glue_set_number(env, object, "cgroupId", (double)found[i].cgroup_id);
        glue_set_number(env, object, "kind", found[i].kind);
        set_address(env, object, found[i].address, found[i].port);
        napi_set_element(env, array, (uint32_t)i, object);
    }
    free(found);
    return array;
}

void output_glue_init(napi_env env, napi_value exports) {
    glue_define(env, exports, "holdOutput", hold_output);
    glue_define(env, exports, "heldCount", held_count);
    glue_define(env, exports, "outputs", outputs);
    glue_define(env, exports, "release", release_outputs);
    glue_define(env, exports, "takeUnheld", take_unheld);
}
