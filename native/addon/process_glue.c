/* SPDX-License-Identifier: Apache-2.0 */
/* Two things Node does not offer: who a user is, and becoming another program. */
#include "glue.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME_BYTES 256
#define MAX_STRINGS 65536u
#define ENTRY_BYTES 16384 /* of the user database */

/* user(name) -> { uid, gid } | undefined */
static napi_value find_user(napi_env env, napi_callback_info info) {
    char name[NAME_BYTES], buffer[ENTRY_BYTES];
    struct passwd entry, *found = NULL;
    napi_value arguments[1], object;

    if (!glue_arguments(env, info, 1, arguments) || !glue_string(env, arguments[0], name, sizeof(name)))
        return NULL;
    if (getpwnam_r(name, &entry, buffer, sizeof(buffer), &found) != 0 || found == NULL)
        return glue_undefined(env);
    napi_create_object(env, &object);
    glue_set_number(env, object, "uid", found->pw_uid);
    glue_set_number(env, object, "gid", found->pw_gid);
    return object;
}

static void free_strings(char **strings) {
    for (char **at = strings; at != NULL && *at != NULL; at++)
        free(*at);
    free(strings);
}

/* A NULL-ended copy of an array of strings; throws and returns NULL. */
static char **copy_strings(napi_env env, napi_value array) {
    uint32_t count = 0;
    napi_value element;

    if (napi_get_array_length(env, array, &count) != napi_ok || count > MAX_STRINGS) {
        napi_throw_type_error(env, NULL, "expected an array of strings");
        return NULL;
    }
    char **strings = calloc((size_t)count + 1, sizeof(*strings));
    for (uint32_t i = 0; strings != NULL && i < count; i++) {
        size_t bytes = 0;
        if (napi_get_element(env, array, i, &element) != napi_ok ||
            napi_get_value_string_utf8(env, element, NULL, 0, &bytes) != napi_ok ||
            (strings[i] = calloc(1, bytes + 1)) == NULL ||
            !glue_string(env, element, strings[i], bytes + 1)) {
            free_strings(strings);
            return NULL;
        }
    }
    return strings;
}

/* execute(path, arguments, environment): this process becomes the program; returns only by throwing. */
static napi_value execute(napi_env env, napi_callback_info info) {
    napi_value arguments[3];

    if (!glue_arguments(env, info, 3, arguments))
        return NULL;
    char path[4096];
    if (!glue_string(env, arguments[0], path, sizeof(path)))
        return NULL;
    char **words = copy_strings(env, arguments[1]);
    char **environment = words == NULL ? NULL : copy_strings(env, arguments[2]);
    if (environment == NULL) {
        free_strings(words);
        return NULL;
    }
    for (int fd = 0; fd <= 2; fd++) /* Node marks all it was given close-on-exec */
        fcntl(fd, F_SETFD, 0);
    execve(path, words, environment);
    const int status = -errno;
    free_strings(words);
    free_strings(environment);
    return glue_throw(env, status, strerror(-status));
}

void process_glue_init(napi_env env, napi_value exports) {
    glue_define(env, exports, "user", find_user);
    glue_define(env, exports, "execute", execute);
}
