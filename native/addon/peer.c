/* SPDX-License-Identifier: Apache-2.0 */
/* Who is at the other end of a unix socket: what the kernel noted when it connected, which nobody can forge.
 */
#define _GNU_SOURCE
#include "glue.h"

#include <errno.h>
#include <sys/socket.h>

/* peer(descriptor) -> { pid, uid, gid } */
static napi_value peer(napi_env env, napi_callback_info info) {
    uint64_t fd;
    struct ucred credentials;
    socklen_t size = sizeof(credentials);
    napi_value arguments[1], object;

    if (!glue_arguments(env, info, 1, arguments) || !glue_u64(env, arguments[0], &fd))
        return NULL;
    if (getsockopt((int)fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
        return glue_throw(env, -errno, "the peer's credentials cannot be read");
    napi_create_object(env, &object);
    glue_set_number(env, object, "pid", credentials.pid);
    glue_set_number(env, object, "uid", credentials.uid);
    glue_set_number(env, object, "gid", credentials.gid);
    return object;
}

void peer_glue_init(napi_env env, napi_value exports) {
    glue_define(env, exports, "peer", peer);
}
