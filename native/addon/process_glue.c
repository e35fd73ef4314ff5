/* SPDX-License-Identifier: Apache-2.0 */
/* What Node does not offer: who a user is, becoming another program, a thread's priority that nobody inherits,
 * and setting a timer of another process. */
#define _GNU_SOURCE /* syscall */
#include "glue.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
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

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif
#define NANOSECONDS 1000000000ll

/* Of the file behind another process's descriptor. */
static int set_timer_of(int pid, int fd, int64_t interval, uint64_t ticks) {
    const struct timespec every = {.tv_sec = interval / NANOSECONDS, .tv_nsec = interval % NANOSECONDS};
    const struct itimerspec timer = {.it_interval = every, .it_value = every};
    const int process = (int)syscall(SYS_pidfd_open, pid, 0);
    int status = process < 0 ? -errno : 0, file = -1;

    if (status == 0) {
        file = (int)syscall(SYS_pidfd_getfd, process, fd, 0);
        status = file < 0 ? -errno : 0;
    }
    if (status == 0 && timerfd_settime(file, 0, &timer, NULL) != 0)
        status = -errno;
    if (status == 0 && ioctl(file, TFD_IOC_SET_TICKS, &ticks) != 0)
        status = -errno;
    if (file >= 0)
        close(file);
    if (process >= 0)
        close(process);
    return status;
}

/* setTimer(pid, fd, interval, ticks): a timerfd of another process is periodic from now on, and has ticks to
 * be read. Interval in ns and ticks are bigints. */
static napi_value set_timer(napi_env env, napi_callback_info info) {
    napi_value arguments[4];
    uint64_t pid, fd, ticks;
    int64_t interval;
    bool lossless[2] = {false, false};

    if (!glue_arguments(env, info, 4, arguments) || !glue_u64(env, arguments[0], &pid) ||
        !glue_u64(env, arguments[1], &fd))
        return NULL;
    if (napi_get_value_bigint_int64(env, arguments[2], &interval, &lossless[0]) != napi_ok ||
        napi_get_value_bigint_uint64(env, arguments[3], &ticks, &lossless[1]) != napi_ok || !lossless[0] ||
        !lossless[1] || interval <= 0) {
        napi_throw_type_error(env, NULL, "expected an interval in ns and ticks as bigints");
        return NULL;
    }
    const int status = set_timer_of((int)pid, (int)fd, interval, ticks);
    return status == 0 ? glue_undefined(env) : glue_throw(env, status, strerror(-status));
}

struct scheduling { /* struct sched_attr; <linux/sched/types.h> and glibc's <sched.h> exclude each other */
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

/* setOwnNice(nice): of the calling thread; threads and processes that it starts have 0. One that has more
 * priority already, or another policy than SCHED_OTHER, keeps it. */
static napi_value set_own_nice(napi_env env, napi_callback_info info) {
    struct scheduling attributes = {.size = sizeof(attributes)};
    napi_value arguments[1];
    int32_t nice;

    if (!glue_arguments(env, info, 1, arguments))
        return NULL;
    if (napi_get_value_int32(env, arguments[0], &nice) != napi_ok) {
        napi_throw_type_error(env, NULL, "expected a number");
        return NULL;
    }
    if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) != 0)
        return glue_throw(env, -errno, strerror(errno));
    if (attributes.policy != SCHED_OTHER || attributes.nice <= nice)
        return glue_undefined(env);
    attributes.nice = nice;
    attributes.flags = 1; /* SCHED_FLAG_RESET_ON_FORK */
    if (syscall(SYS_sched_setattr, 0, &attributes, 0) != 0)
        return glue_throw(env, -errno, strerror(errno));
    return glue_undefined(env);
}

struct exit_info { /* struct pidfd_info, its first 64 bytes (Linux 6.15); <linux/pidfd.h> may be older */
    uint64_t mask;
    uint8_t rest[52];
    int32_t exit_code;
};

#define PIDFD_GET_INFO_CALL _IOWR(0xFF, 11, struct exit_info)
#define PIDFD_INFO_EXIT_BIT (1u << 3)

/* openProcess(pid) -> a descriptor, or undefined: it is gone, or none is left. */
static napi_value open_process(napi_env env, napi_callback_info info) {
    napi_value arguments[1], descriptor;
    uint64_t pid;

    if (!glue_arguments(env, info, 1, arguments) || !glue_u64(env, arguments[0], &pid))
        return NULL;
    const int fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0); /* closed on exec */
    if (fd < 0)
        return glue_undefined(env);
    napi_create_int32(env, fd, &descriptor);
    return descriptor;
}

/* waitStatus(descriptor) -> as wait(2) told its parent, or undefined: nobody has waited for it yet, or the
 * kernel does not tell. */
static napi_value wait_status(napi_env env, napi_callback_info info) {
    struct exit_info told = {.mask = PIDFD_INFO_EXIT_BIT};
    napi_value arguments[1], status;
    uint64_t fd;

    if (!glue_arguments(env, info, 1, arguments) || !glue_u64(env, arguments[0], &fd))
        return NULL;
    if (ioctl((int)fd, PIDFD_GET_INFO_CALL, &told) != 0 || (told.mask & PIDFD_INFO_EXIT_BIT) == 0)
        return glue_undefined(env);
    napi_create_int32(env, told.exit_code, &status);
    return status;
}

void process_glue_init(napi_env env, napi_value exports) {
    glue_define(env, exports, "setTimer", set_timer);
    glue_define(env, exports, "user", find_user);
    glue_define(env, exports, "execute", execute);
    glue_define(env, exports, "setOwnNice", set_own_nice);
    glue_define(env, exports, "openProcess", open_process);
    glue_define(env, exports, "waitStatus", wait_status);
}
