/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tells JavaScript when the kernel woke the ring's readers: for the first record after they let everything
 * go, and above half full (BPF_RB_FORCE_WAKEUP); and when something came over one of several sockets.
 *
 * The ring stays readable as long as anything is uncommitted, so a level-triggered poll would spin between
 * two commits. An inner epoll watches the descriptors edge-triggered; libuv watches the inner epoll, and
 * taking its events makes it quiet until the next wake-up. It never keeps the event loop alive.
 *
 * Lifetime: wake_stop may come from JavaScript, the garbage collector or the end of the environment; libuv
 * frees the memory in on_closed. The asynchronous clean-up hook makes a dying environment wait for that.
 */
#include "glue.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <uv.h>

/* More at once only mean another call back. */
#define TAKEN_EVENTS 16

struct wake {
    uv_poll_t poll; /* first: libuv hands us this pointer */
    napi_env env;
    napi_ref callback;
    napi_async_context context;
    napi_async_cleanup_hook_handle hook;
    struct wake **slot; /* where its owner keeps it; NULL once stopped */
    int epoll_fd;
};

static void on_closed(uv_handle_t *handle) {
    struct wake *wake = (struct wake *)handle;

    close(wake->epoll_fd);
    if (wake->hook != NULL)
        napi_remove_async_cleanup_hook(wake->hook);
    free(wake);
}

void wake_stop(struct wake *wake) {
    if (wake->slot == NULL)
        return;
    *wake->slot = NULL;
    wake->slot = NULL;
    uv_poll_stop(&wake->poll);
    napi_delete_reference(wake->env, wake->callback);
    napi_async_destroy(wake->env, wake->context);
    uv_close((uv_handle_t *)&wake->poll, on_closed);
}

static void on_cleanup(napi_async_cleanup_hook_handle hook, void *data) {
    (void)hook;
    wake_stop(data);
}

static void call_back(struct wake *wake) {
    napi_handle_scope scope;
    napi_value callback, receiver, error;
    bool pending = false;

    if (napi_open_handle_scope(wake->env, &scope) != napi_ok)
        return;
    napi_env env = wake->env; /* the callback may stop us */
    napi_get_reference_value(env, wake->callback, &callback);
    napi_get_global(env, &receiver);
    napi_make_callback(env, wake->context, receiver, callback, 0, NULL, NULL);
    if (napi_is_exception_pending(env, &pending) == napi_ok && pending) {
        napi_get_and_clear_last_exception(env, &error);
        napi_fatal_exception(env, error);
    }
    napi_close_handle_scope(env, scope);
}

static void on_readable(uv_poll_t *poll, int status, int events) {
    struct wake *wake = (struct wake *)poll;
    struct epoll_event taken[TAKEN_EVENTS];

    (void)events;
    if (status == 0 && epoll_wait(wake->epoll_fd, taken, TAKEN_EVENTS, 0) > 0)
        call_back(wake);
}

int wake_watch(struct wake *wake, int fd) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};

    return epoll_ctl(wake->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

/* Past this point the wake-up is only freed through wake_stop. */
static void start(napi_env env, struct wake *wake, struct wake **slot, napi_value callback) {
    napi_value name;

    wake->env = env;
    wake->slot = slot;
    *slot = wake;
    napi_create_string_utf8(env, "recovery-line:wake", NAPI_AUTO_LENGTH, &name);
    napi_async_init(env, NULL, name, &wake->context);
    napi_create_reference(env, callback, 1, &wake->callback);
    napi_add_async_cleanup_hook(env, on_cleanup, wake, &wake->hook);
    uv_poll_start(&wake->poll, UV_READABLE, on_readable);
    uv_unref((uv_handle_t *)&wake->poll);
}

int wake_open(napi_env env, napi_value callback, struct wake **slot) {
    napi_valuetype type;
    uv_loop_t *loop;

    if (*slot != NULL || napi_typeof(env, callback, &type) != napi_ok || type != napi_function)
        return -EINVAL;
    struct wake *wake = calloc(1, sizeof(*wake));
    if (wake == NULL)
        return -ENOMEM;
    wake->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int error = wake->epoll_fd < 0 ? -errno : 0;
    if (error == 0 && napi_get_uv_event_loop(env, &loop) != napi_ok)
        error = -EINVAL;
    if (error == 0)
        error = uv_poll_init(loop, &wake->poll, wake->epoll_fd);
    if (error == 0) {
        start(env, wake, slot, callback);
        return 0;
    }
    if (wake->epoll_fd >= 0)
        close(wake->epoll_fd);
    free(wake);
    return error;
}

/* onWake(handle, callback): once a handle */
static napi_value on_wake(napi_env env, napi_callback_info info) {
    napi_value arguments[2];
    struct source *source;

    if (!glue_arguments(env, info, 2, arguments) || (source = glue_source(env, arguments[0])) == NULL)
        return NULL;
    int error = wake_open(env, arguments[1], &source->wake);
    if (error == -EINVAL)
        return glue_throw(env, error, "onWake takes a function, once");
    if (error == 0 && (error = wake_watch(source->wake, source->ring_fd)) != 0)
        wake_stop(source->wake);
    return error == 0 ? NULL : glue_throw(env, error, "the ring cannot be watched");
}

void wake_glue_init(napi_env env, napi_value exports) {
    glue_define(env, exports, "onWake", on_wake);
}
