/* SPDX-License-Identifier: Apache-2.0 */
/* flock on a file or directory; the kernel lets go when the process dies, however it dies. */
#include "glue.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#define PATH_BYTES 4096

/* lock(path) -> descriptor; errno EWOULDBLOCK: another process holds it */
static napi_value lock(napi_env env, napi_callback_info info) {
    char path[PATH_BYTES];
    napi_value arguments[1];

    if (!glue_arguments(env, info, 1, arguments) || !glue_string(env, arguments[0], path, sizeof(path)))
        return NULL;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return glue_throw(env, -errno, "the lock cannot be opened");
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return glue_number(env, fd);
    const int error = -errno;
    close(fd);
    return glue_throw(env, error, error == -EWOULDBLOCK ? "the lock is held" : "the lock cannot be taken");
}

/* unlock(descriptor) */
static napi_value unlock(napi_env env, napi_callback_info info) {
    uint64_t fd;
    napi_value arguments[1];

    if (glue_arguments(env, info, 1, arguments) && glue_u64(env, arguments[0], &fd))
        close((int)fd);
    return NULL;
}

void lock_glue_init(napi_env env, napi_value exports) {
    glue_define(env, exports, "lock", lock);
    glue_define(env, exports, "unlock", unlock);
}
