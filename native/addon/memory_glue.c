/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory rings for JavaScript: a SOCK_SEQPACKET listener that instrumented runtimes connect to, their
 * messages with the ring descriptors that come along (Node's own sockets can take none), and
 * native/ring/memory_ring.h.
 *
 * Descriptors of sockets are plain numbers; JavaScript closes them (fs.closeSync). Every received descriptor
 * is mapped or refused at once and closed here. A ring handle is a tagged external; the garbage collector
 * unmaps what was forgotten.
 */
#define _GNU_SOURCE
#include "glue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../ring/memory_ring.h"

#define MESSAGE_BYTES 16384
#define MAX_RINGS 8

static const napi_type_tag ring_tag = {0x7265636f76657279ull, 0x6d656d2d72696e67ull};

static struct memory_ring *ring_of(napi_env env, napi_value value) {
    bool tagged = false;
    void *data = NULL;

    if (napi_check_object_type_tag(env, value, &ring_tag, &tagged) != napi_ok || !tagged ||
        napi_get_value_external(env, value, &data) != napi_ok) {
        napi_throw_type_error(env, NULL, "not a memory ring");
        return NULL;
    }
    if (((struct memory_ring *)data)->base == NULL) {
        napi_throw_type_error(env, NULL, "the memory ring is closed");
        return NULL;
    }
    return data;
}

static void finalize(napi_env env, void *data, void *hint) {
    (void)env, (void)hint;
    memory_ring_close(data);
    free(data);
}

/* memoryListen(path) -> descriptor; only this user may connect. errno EADDRINUSE: something is there already
 */
static napi_value memory_listen(napi_env env, napi_callback_info info) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    napi_value arguments[1];

    if (!glue_arguments(env, info, 1, arguments) ||
        !glue_string(env, arguments[0], address.sun_path, sizeof(address.sun_path)))
        return NULL;
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return glue_throw(env, -errno, "no unix socket can be made");
    const mode_t before = umask(0177);
    const int bound = bind(fd, (struct sockaddr *)&address, sizeof(address));
    const int error = -errno;
    umask(before);
    if (bound == 0 && listen(fd, 64) == 0)
        return glue_number(env, fd);
    const int thrown = bound == 0 ? -errno : error;
    close(fd);
    return glue_throw(env, thrown, "the socket for memory rings can't be bound");
}

/* memoryAccept(listener) -> descriptor, or undefined: nobody waits */
static napi_value memory_accept(napi_env env, napi_callback_info info) {
    uint64_t listener;
    napi_value arguments[1];

    if (!glue_arguments(env, info, 1, arguments) || !glue_u64(env, arguments[0], &listener))
        return NULL;
    const int fd = accept4((int)listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        return glue_number(env, fd);
    if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)
        return glue_undefined(env);
    return glue_throw(env, -errno, "a connection can't be accepted");
}

/* ---- waiting */

static const napi_type_tag watch_tag = {0x7265636f76657279ull, 0x6d656d2d77617463ull};

struct watch {
    struct wake *wake; /* NULL once closed */
};

static struct watch *watch_of(napi_env env, napi_value value) {
    bool tagged = false;
    void *data = NULL;

    if (napi_check_object_type_tag(env, value, &watch_tag, &tagged) == napi_ok && tagged &&
        napi_get_value_external(env, value, &data) == napi_ok && ((struct watch *)data)->wake != NULL)
        return data;
    napi_throw_type_error(env, NULL, "not an open watch");
    return NULL;
}

static void finalize_watch(napi_env env, void *data, void *hint) {
    struct watch *watch = data;

    (void)env, (void)hint;
    if (watch->wake != NULL)
        wake_stop(watch->wake);
    free(watch);
}

/* memoryWatch(callback) -> a watch: the callback runs when something has come over a descriptor of it */
static napi_value memory_watch(napi_env env, napi_callback_info info) {
    napi_value arguments[1], external;

    if (!glue_arguments(env, info, 1, arguments))
        return NULL;
    struct watch *watch = calloc(1, sizeof(*watch));
    const int error = watch == NULL ? -ENOMEM : wake_open(env, arguments[0], &watch->wake);
    if (error != 0) {
        free(watch);
        return glue_throw(env, error, "sockets can't be watched");
    }
    if (napi_create_external(env, watch, finalize_watch, NULL, &external) != napi_ok) {
        finalize_watch(env, watch, NULL);
        return NULL;
    }
    napi_type_tag_object(env, external, &watch_tag);
    return external;
}

/* memoryWatchSocket(watch, descriptor): until it is closed */
static napi_value memory_watch_socket(napi_env env, napi_callback_info info) {
    napi_value arguments[2];
    struct watch *watch;
    uint64_t fd;

    if (!glue_arguments(env, info, 2, arguments) || (watch = watch_of(env, arguments[0])) == NULL ||
        !glue_u64(env, arguments[1], &fd))
        return NULL;
    const int error = wake_watch(watch->wake, (int)fd);
    return error == 0 ? NULL : glue_throw(env, error, "a socket can't be watched");
}

/* memoryUnwatch(watch); a second time is misuse */
static napi_value memory_unwatch(napi_env env, napi_callback_info info) {
    napi_value arguments[1];
    struct watch *watch;

    if (glue_arguments(env, info, 1, arguments) && (watch = watch_of(env, arguments[0])) != NULL)
        wake_stop(watch->wake);
    return NULL;
}

/* ---- one message */

struct received {
    char text[MESSAGE_BYTES];
    size_t length;
    int fds[MAX_RINGS];
    size_t count;
    int flags;
};

static void take_descriptors(struct msghdr *message, struct received *into) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (into->count < MAX_RINGS)
                into->fds[into->count++] = fd;
            else
                close(fd);
        }
    }
}

/* recvmsg's result, or -errno. */
static ssize_t receive(int fd, struct received *into) {
    union {
        char bytes[CMSG_SPACE(MAX_RINGS * sizeof(int))];
        struct cmsghdr aligned;
    } control;
    struct iovec part = {.iov_base = into->text, .iov_len = sizeof(into->text)};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

    into->count = 0;
    const ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0)
        return -errno;
    into->length = (size_t)got;
    into->flags = message.msg_flags;
    take_descriptors(&message, into);
    return got;
}

/* Maps one descriptor. NULL: an exception is pending. */
static napi_value wrap_ring(napi_env env, int fd) {
    struct memory_ring *ring = calloc(1, sizeof(*ring));
    napi_value external;

    const int error = ring == NULL ? -ENOMEM : memory_ring_open(ring, fd);
    if (error != 0) {
        free(ring);
        return glue_throw(env, error, "a descriptor is not a sealed memory ring");
    }
    if (napi_create_external(env, ring, finalize, NULL, &external) != napi_ok) {
        finalize(env, ring, NULL);
        return NULL;
    }
    napi_type_tag_object(env, external, &ring_tag);
    return external;
}

static napi_value as_object(napi_env env, const struct received *message) {
    napi_value object, text, rings;

    napi_create_object(env, &object);
    napi_create_string_utf8(env, message->text, message->length, &text);
    napi_set_named_property(env, object, "text", text);
    napi_create_array(env, &rings);
    for (size_t i = 0; i < message->count; i++) {
        napi_value ring = wrap_ring(env, message->fds[i]);
        if (ring == NULL)
            return NULL;
        napi_set_element(env, rings, (uint32_t)i, ring);
    }
    napi_set_named_property(env, object, "rings", rings);
    return object;
}

/* memoryReceive(descriptor) -> { text, rings }; undefined: nothing there; null: the other end has closed.
 * errno EMSGSIZE: more than MESSAGE_BYTES or MAX_RINGS; those of memory_ring_open */
static napi_value memory_receive(napi_env env, napi_callback_info info) {
    static struct received message; /* N-API calls of one thread never overlap */
    uint64_t fd;
    napi_value arguments[1], result = NULL;

    if (!glue_arguments(env, info, 1, arguments) || !glue_u64(env, arguments[0], &fd))
        return NULL;
    const ssize_t got = receive((int)fd, &message);
    if (got == -EAGAIN || got == -EINTR)
        return glue_undefined(env);
    if (got == 0 || got == -ECONNRESET || got == -EPIPE)
        napi_get_null(env, &result);
    else if (got < 0)
        return glue_throw(env, (int)got, "a message can't be received");
    else if (message.flags & (MSG_TRUNC | MSG_CTRUNC))
        glue_throw(env, -EMSGSIZE, "a message is longer, or has more descriptors, than allowed");
    else
        result = as_object(env, &message);
    for (size_t i = 0; i < message.count; i++)
        close(message.fds[i]);
    return result;
}

/* ---- rings */

/* memoryDrain(ring, Uint8Array out, Float64Array(1) position) -> records. errno EBADMSG: the producer lies */
static napi_value memory_drain(napi_env env, napi_callback_info info) {
    struct memory_batch batch;
    void *out, *position;
    size_t capacity, positions;
    napi_value arguments[3];
    struct memory_ring *ring;

    if (!glue_arguments(env, info, 3, arguments) || (ring = ring_of(env, arguments[0])) == NULL ||
        !glue_array(env, arguments[1], napi_uint8_array, &out, &capacity) ||
        !glue_array(env, arguments[2], napi_float64_array, &position, &positions))
        return NULL;
    if (positions < 1)
        return glue_throw(env, -EINVAL, "the position array is too short");
    if (memory_ring_drain(ring, out, capacity, &batch) != 0)
        return glue_throw(env, -EBADMSG, "the memory ring holds an impossible header or position");
    *(double *)position = (double)batch.position;
    return glue_number(env, (double)batch.records);
}

/* memoryCommit(ring, position) */
static napi_value memory_commit(napi_env env, napi_callback_info info) {
    uint64_t position;
    napi_value arguments[2];
    struct memory_ring *ring;

    if (!glue_arguments(env, info, 2, arguments) || (ring = ring_of(env, arguments[0])) == NULL ||
        !glue_u64(env, arguments[1], &position))
        return NULL;
    if (memory_ring_commit(ring, position) != 0)
        return glue_throw(env, -EINVAL, "the position was not read or is already let go");
    return NULL;
}

/* memoryLost(ring) -> records without room that no record has told */
static napi_value memory_lost(napi_env env, napi_callback_info info) {
    napi_value arguments[1];
    struct memory_ring *ring;

    if (!glue_arguments(env, info, 1, arguments) || (ring = ring_of(env, arguments[0])) == NULL)
        return NULL;
    const uint64_t lost = memory_ring_lost(ring);
    return glue_number(env, lost > 9007199254740991ull ? 9007199254740991.0 : (double)lost);
}

/* memoryFill(ring) -> share of the ring that is written and not yet drained; more than 1 if the producer lies
 */
static napi_value memory_fill(napi_env env, napi_callback_info info) {
    napi_value arguments[1];
    struct memory_ring *ring;

    if (!glue_arguments(env, info, 1, arguments) || (ring = ring_of(env, arguments[0])) == NULL)
        return NULL;
    return glue_number(env, (double)memory_ring_pending(ring) / (double)ring->bytes);
}

/* memoryClose(ring); a second time is misuse */
static napi_value memory_close(napi_env env, napi_callback_info info) {
    napi_value arguments[1];
    struct memory_ring *ring;

    if (glue_arguments(env, info, 1, arguments) && (ring = ring_of(env, arguments[0])) != NULL)
        memory_ring_close(ring);
    return NULL;
}

void memory_glue_init(napi_env env, napi_value exports) {
    glue_define(env, exports, "memoryListen", memory_listen);
    glue_define(env, exports, "memoryAccept", memory_accept);
    glue_define(env, exports, "memoryWatch", memory_watch);
    glue_define(env, exports, "memoryWatchSocket", memory_watch_socket);
    glue_define(env, exports, "memoryUnwatch", memory_unwatch);
    glue_define(env, exports, "memoryReceive", memory_receive);
    glue_define(env, exports, "memoryDrain", memory_drain);
    glue_define(env, exports, "memoryCommit", memory_commit);
    glue_define(env, exports, "memoryLost", memory_lost);
    glue_define(env, exports, "memoryFill", memory_fill);
    glue_define(env, exports, "memoryClose", memory_close);
}
