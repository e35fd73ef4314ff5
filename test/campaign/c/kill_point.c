/* SPDX-License-Identifier: Apache-2.0 */
/* LD_PRELOAD: every call that changes something below KILL_DIR is a point with a name, "before|within|after
 * CALL PATH-KIND"; digits of the path are N, random ids U. A program names points of its own by
 * access("/kill-point/NAME"), and says what it is about by access("/kill-context/WORD"), which goes in front
 * of the names that follow.
 *
 * KILL_LOG=FILE      append the name of each point, one a line
 * KILL_NAME, KILL_NTH  SIGKILL at the NTH point with that name, counted from 1; the name goes to standard
 * error first. "within" a write is after half of its bytes. Nothing of this is in the product: it is
 * preloaded into it. */
#define _GNU_SOURCE
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define NAME_BYTES 512

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder, *wanted;
static char context[64];
static unsigned long nth, met;
static int log_fd = -1;
/* FAIL_ERRNO; 0: kill. */
static int failure;

#define REAL(name)                                                                                           \
    static __typeof__(&name) real_##name;                                                                    \
    if (real_##name == NULL)                                                                                 \
        real_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name);

#undef fwrite_unlocked

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("KILL_LOG"), *count = getenv("KILL_NTH");

    folder = getenv("KILL_DIR");
    wanted = getenv("KILL_NAME");
    nth = count ? strtoul(count, NULL, 10) : 1;
    failure = getenv("FAIL_ERRNO") ? atoi(getenv("FAIL_ERRNO")) : 0;
    if (path != NULL) {
        const long fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        log_fd = (int)fd;
    }
}

static int is_hex(const char *at, int count) {
    for (int i = 0; i < count; i++)
        if (!isxdigit((unsigned char)at[i]))
            return 0;
    return 1;
}

/* "/segments/000012/000003.log" becomes "/segments/N/N.log". */
static void kind_of(const char *path, char *kind) {
    const char *const end = kind + NAME_BYTES - 1;

    while (*path != 0 && kind < end) {
        if (is_hex(path, 8) && path[8] == '-' && is_hex(path + 9, 4) && path[13] == '-' &&
            strlen(path) >= 36) {
            *kind++ = 'U';
            path += 36;
        } else if (isdigit((unsigned char)*path)) {
            *kind++ = 'N';
            while (isdigit((unsigned char)*path))
                path++;
        } else {
            *kind++ = *path++;
        }
    }
    *kind = 0;
}

static void die(const char *name) {
    syscall(SYS_write, 2, name, strlen(name));
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

/* What LevelDB does for itself it does at any time, in its own thread: it is named after no context, but for
 * its log of writes, which a commit waits for, and what we remove. */
static int is_levels_own(const char *name) {
    const char *const file = strstr(name, "/segments/N/");

    if (file == NULL || strstr(name, " unlink ") != NULL || strstr(name, " rmdir ") != NULL)
        return 0;
    return strcmp(file, "/segments/N/N.log") != 0;
}

static void named(const char *name, char *line, size_t size) {
    snprintf(line, size, "%s%s\n", is_levels_own(name) ? "" : context, name);
}

/* 1: the step is to fail. */
static int point(const char *name) {
    char line[NAME_BYTES + 120];
    const int saved = errno;
    int fails = 0;

    if (strcmp(context, "rig: ") == 0)
        return 0;
    pthread_mutex_lock(&lock);
    named(name, line, sizeof(line));
    const int length = (int)strlen(line);
    if (log_fd >= 0)
        syscall(SYS_write, log_fd, line, length);
    if (wanted != NULL && (int)strlen(wanted) == length - 1 && strncmp(line, wanted, length - 1) == 0 &&
        ++met == nth) {
        if (failure == 0)
            die(line);
        syscall(SYS_write, 2, line, length);
        fails = 1;
    }
    pthread_mutex_unlock(&lock);
    errno = fails ? failure : saved;
    return fails;
}

static const char *below(const char *path) {
    if (path == NULL || folder == NULL)
        return NULL;
    const size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && (path[length] == 0 || path[length] == '/') ? path + length
                                                                                            : NULL;
}

static int at(const char *when, const char *call, const char *path) {
    char kind[NAME_BYTES], name[NAME_BYTES + 40];
    const char *const rest = below(path);

    if (rest == NULL)
        return 0;
    kind_of(*rest == 0 ? "/" : rest, kind);
    snprintf(name, sizeof(name), "%s %s %s", when, call, kind);
    return point(name);
}

/* The path of an open file in `path`; "" for none below the folder. */
static const char *path_of(int fd, char *path) {
    char link[64];

    path[0] = 0;
    if (folder == NULL || fd < 3 || fd == log_fd)
        return path;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    const ssize_t length = readlink(link, path, 4095);
    path[length < 0 ? 0 : length] = 0;
    return path;
}

#define ON_PATH(name, result, parameters, path, ...)                                                         \
    result name parameters {                                                                                 \
        REAL(name)                                                                                           \
        if (at("before", #name, path))                                                                       \
            return -1;                                                                                       \
        const result r = real_##name(__VA_ARGS__);                                                           \
        at("after", #name, path);                                                                            \
        return r;                                                                                            \
    }
#define ON_FILE(name, label, parameters, fd, ...)                                                            \
    int name parameters {                                                                                    \
        char path[4096];                                                                                     \
        REAL(name)                                                                                           \
        path_of(fd, path);                                                                                   \
        if (at("before", label, path))                                                                       \
            return -1;                                                                                       \
        const int r = real_##name(__VA_ARGS__);                                                              \
        at("after", label, path);                                                                            \
        return r;                                                                                            \
    }

ON_PATH(rename, int, (const char *from, const char *to), to, from, to)
ON_PATH(unlink, int, (const char *path), path, path)
ON_PATH(rmdir, int, (const char *path), path, path)
ON_PATH(mkdir, int, (const char *path, mode_t mode), path, path, mode)
ON_PATH(chmod, int, (const char *path, mode_t mode), path, path, mode)
ON_FILE(fsync, "sync", (int fd), fd, fd)
ON_FILE(fdatasync, "sync", (int fd), fd, fd)
ON_FILE(ftruncate64, "truncate", (int fd, off64_t size), fd, fd, size)
ON_FILE(flock, "lock", (int fd, int how), fd, fd, how)

/* Opening for reading changes nothing and is no point; a folder is opened to be synced. */
int open64(const char *path, int flags, ...) {
    REAL(open64)
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    const int changes = (flags & (O_ACCMODE | O_CREAT | O_TRUNC)) != O_RDONLY;
    if (changes && at("before", "open", path))
        return -1;
    const int fd = real_open64(path, flags, mode);
    if (changes)
        at("after", "open", path);
    return fd;
}

int open(const char *path, int flags, ...) __attribute__((alias("open64")));

FILE *fopen64(const char *path, const char *mode) {
    REAL(fopen64)
    if (mode[0] == 'r')
        return real_fopen64(path, mode);
    if (at("before", "open", path))
        return NULL;
    FILE *const file = real_fopen64(path, mode);
    at("after", "open", path);
    return file;
}

/* F_SETLK of LevelDB. */
int fcntl64(int fd, int command, ...) {
    char path[4096];
    REAL(fcntl64)
    va_list rest;
    va_start(rest, command);
    void *const argument = va_arg(rest, void *);
    va_end(rest);
    if (command != F_SETLK)
        return real_fcntl64(fd, command, argument);
    if (at("before", "lock", path_of(fd, path)))
        return -1;
    const int r = real_fcntl64(fd, command, argument);
    at("after", "lock", path);
    return r;
}

static int is_next(const char *when, const char *call, const char *path);

ssize_t write(int fd, const void *bytes, size_t count) {
    char path[4096];
    REAL(write)
    if (at("before", "write", path_of(fd, path)))
        return -1;
    if (is_next("within", "write", path))
        real_write(fd, bytes, count / 2);
    at("within", "write", path);
    const ssize_t r = real_write(fd, bytes, count);
    at("after", "write", path);
    return r;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    char path[4096];
    REAL(pwrite64)
    if (at("before", "write", path_of(fd, path)))
        return -1;
    if (is_next("within", "write", path))
        real_pwrite64(fd, bytes, count / 2, offset);
    at("within", "write", path);
    const ssize_t r = real_pwrite64(fd, bytes, count, offset);
    at("after", "write", path);
    return r;
}

/* LevelDB's: into a buffer, which the kernel does not see; half of the bytes are flushed where the kill comes
 * in between. */
size_t fwrite_unlocked(const void *bytes, size_t size, size_t count, FILE *file) {
    char path[4096];
    REAL(fwrite_unlocked)
    if (at("before", "write", path_of(fileno_unlocked(file), path)))
        return 0;
    if (is_next("within", "write", path)) {
        real_fwrite_unlocked(bytes, 1, size * count / 2, file);
        fflush_unlocked(file);
    }
    at("within", "write", path);
    return real_fwrite_unlocked(bytes, size, count, file);
}

int fflush_unlocked(FILE *file) {
    char path[4096];
    REAL(fflush_unlocked)
    if (file == NULL)
        return real_fflush_unlocked(file);
    const int r = real_fflush_unlocked(file);
    at("after", "flush", path_of(fileno_unlocked(file), path));
    return r;
}

int bind(int fd, const struct sockaddr *address, socklen_t length) {
    REAL(bind)
    const char *const path =
        address->sa_family == AF_UNIX ? ((const struct sockaddr_un *)address)->sun_path : NULL;
    if (at("before", "bind", path))
        return -1;
    const int r = real_bind(fd, address, length);
    at("after", "bind", path);
    return r;
}

int access(const char *path, int mode) {
    REAL(access)
    if (strncmp(path, "/kill-point/", 12) == 0)
        point(path + 12);
    else if (strncmp(path, "/kill-context/", 14) == 0)
        snprintf(context, sizeof(context), path[14] == 0 ? "" : "%s: ", path + 14);
    return real_access(path, mode);
}

static int is_next(const char *when, const char *call, const char *path) {
    char kind[NAME_BYTES], name[NAME_BYTES + 40], line[NAME_BYTES + 120];
    const char *const rest = below(path);

    if (rest == NULL || wanted == NULL || met + 1 != nth)
        return 0;
    kind_of(rest, kind);
    snprintf(name, sizeof(name), "%s %s %s", when, call, kind);
    named(name, line, sizeof(line));
    return strncmp(line, wanted, strlen(wanted)) == 0 && line[strlen(wanted)] == '\n';
}
