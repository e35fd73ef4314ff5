/* SPDX-License-Identifier: Apache-2.0 */
#include "glue.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const napi_type_tag source_tag = {0x7265636f76657279ull, 0x6c696e652d726e67ull};

napi_value glue_throw(napi_env env, int negative_errno, const char *message) {
    napi_value text, error, number;

    napi_create_string_utf8(env, message, NAPI_AUTO_LENGTH, &text);
    napi_create_error(env, NULL, text, &error);
    napi_create_int32(env, -negative_errno, &number);
    napi_set_named_property(env, error, "errno", number);
    napi_throw(env, error);
    return NULL;
}

bool glue_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *values) {
    size_t given = count;

    if (napi_get_cb_info(env, info, &given, values, NULL, NULL) == napi_ok && given >= count)
        return true;
    napi_throw_type_error(env, NULL, "too few arguments");
    return false;
}

struct source *glue_source(napi_env env, napi_value value) {
    bool tagged = false;
    void *data = NULL;

    if (napi_check_object_type_tag(env, value, &source_tag, &tagged) != napi_ok || !tagged ||
        napi_get_value_external(env, value, &data) != napi_ok) {
        napi_throw_type_error(env, NULL, "not a capture handle");
        return NULL;
    }
    struct source *source = data;
    if (source->open)
        return source;
    napi_throw_type_error(env, NULL, "the capture handle is closed");
    return NULL;
}

void glue_close_source(struct source *source) {
    if (!source->open)
        return;
    source->open = false;
    if (source->wake != NULL)
        wake_stop(source->wake);
    source->wake = NULL;
    ring_map_close(&source->map);
    if (source->owns_fd)
        close(source->ring_fd);
    if (source->capture != NULL)
        capture_close(source->capture);
    source->capture = NULL;
    if (source->remote != NULL) {
        remote_close(source->remote);
        free(source->remote);
        source->remote = NULL;
        if (source->lock_fd >= 0)
            close(source->lock_fd);
    }
}

static void finalize(napi_env env, void *data, void *hint) {
    (void)env, (void)hint;
    glue_close_source(data);
    free(data);
}

napi_value glue_wrap_source(napi_env env, struct source *source) {
    napi_value external;

    if (napi_create_external(env, source, finalize, NULL, &external) != napi_ok) {
        finalize(env, source, NULL);
        return NULL;
    }
    napi_type_tag_object(env, external, &source_tag);
    return external;
}

bool glue_u64(napi_env env, napi_value value, uint64_t *out) {
    double number;

    if (napi_get_value_double(env, value, &number) == napi_ok && number >= 0 &&
        number <= 9007199254740991.0 && number == (double)(uint64_t)number) {
        *out = (uint64_t)number;
        return true;
    }
    napi_throw_type_error(env, NULL, "expected an integer from 0 to 2^53-1");
    return false;
}

bool glue_string(napi_env env, napi_value value, char *out, size_t size) {
    size_t length;

    if (napi_get_value_string_utf8(env, value, NULL, 0, &length) == napi_ok && length < size &&
        napi_get_value_string_utf8(env, value, out, size, &length) == napi_ok && strlen(out) == length)
        return true;
    napi_throw_type_error(env, NULL, "expected a string without NUL that is not too long");
    return false;
}

bool glue_array(napi_env env, napi_value value, napi_typedarray_type type, void **data, size_t *length) {
    napi_typedarray_type actual;
    bool is_array = false;

    napi_is_typedarray(env, value, &is_array);
    if (is_array && napi_get_typedarray_info(env, value, &actual, length, data, NULL, NULL) == napi_ok &&
        actual == type)
        return true;
    napi_throw_type_error(env, NULL, "expected another typed array");
    return false;
}

napi_value glue_number(napi_env env, double value) {
    napi_value number = NULL;
    napi_create_double(env, value, &number);
    return number;
}

napi_value glue_undefined(napi_env env) {
    napi_value value = NULL;
    napi_get_undefined(env, &value);
    return value;
}

void glue_set_number(napi_env env, napi_value object, const char *name, double value) {
    napi_set_named_property(env, object, name, glue_number(env, value));
}

void glue_define(napi_env env, napi_value exports, const char *name, napi_callback function) {
    napi_value value;

    if (napi_create_function(env, name, NAPI_AUTO_LENGTH, function, NULL, &value) == napi_ok)
        napi_set_named_property(env, exports, name, value);
}

static napi_value init(napi_env env, napi_value exports) {
    capture_glue_init(env, exports);
    ring_glue_init(env, exports);
    wake_glue_init(env, exports);
    lock_glue_init(env, exports);
    memory_glue_init(env, exports);
    peer_glue_init(env, exports);
    process_glue_init(env, exports);
    file_glue_init(env, exports);
    userfault_glue_init(env, exports);
    output_glue_init(env, exports);
    return exports;
}

NAPI_MODULE(NODE_GYP_MODULE_NAME, init)
