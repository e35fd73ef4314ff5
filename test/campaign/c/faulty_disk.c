/* SPDX-License-Identifier: Apache-2.0 */
/* LD_PRELOAD: below FAULT_DIR one write, sync, rename or new file in FAULT_RATE fails or does less than
 * asked: short writes, EINTR, EIO, ENOSPC. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static _Atomic uint64_t turn;
static uint64_t rate, seed;
static int only; /* FAULT_ERRNO: no other error, and no short writes */
static const char *folder;

__attribute__((constructor)) static void begin(void) {
    const char *text = getenv("FAULT_RATE"), *start = getenv("FAULT_SEED");

    folder = getenv("FAULT_DIR");
    only = getenv("FAULT_ERRNO") ? atoi(getenv("FAULT_ERRNO")) : 0;
    rate = text ? strtoull(text, NULL, 10) : 0;
    seed = start ? strtoull(start, NULL, 10) : 1;
}

/* 0: no fault now; else a number to choose by. */
static uint64_t fault(int fd) {
    char link[64], path[4096];

    if (rate == 0 || folder == NULL)
        return 0;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    const ssize_t length = readlink(link, path, sizeof(path) - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder)) != 0)
        return 0;
    uint64_t x = (++turn + seed * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
    x ^= x >> 31;
    x *= 0x94d049bb133111ebu;
    x ^= x >> 29;
    return x % rate == 0 ? x / rate + 1 : 0;
}

static int code_of(uint64_t chosen) {
    static const int codes[] = {EIO, ENOSPC, EINTR};
    return only != 0 ? only : codes[chosen % 3];
}

#define REAL(name, type) ((type)dlsym(RTLD_NEXT, name))

ssize_t write(int fd, const void *bytes, size_t count) {
    const uint64_t chosen = fd > 2 ? fault(fd) : 0;

    if (chosen != 0 && (only != 0 || chosen & 1 || count < 2)) {
        errno = code_of(chosen >> 1);
        return -1;
    }
    if (chosen != 0)
        count = 1 + chosen % (count - 1);
    return REAL("write", ssize_t(*)(int, const void *, size_t))(fd, bytes, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    const uint64_t chosen = fault(fd);

    if (chosen != 0 && (only != 0 || chosen & 1 || count < 2)) {
        errno = code_of(chosen >> 1);
        return -1;
    }
    if (chosen != 0)
        count = 1 + chosen % (count - 1);
    return REAL("pwrite64", ssize_t(*)(int, const void *, size_t, off64_t))(fd, bytes, count, at);
}

int fsync(int fd) {
    const uint64_t chosen = fault(fd);

    if (chosen != 0) {
        errno = code_of(chosen >> 1);
        return -1;
    }
    return REAL("fsync", int (*)(int))(fd);
}

int fdatasync(int fd) {
    const uint64_t chosen = fault(fd);

    if (chosen != 0) {
        errno = code_of(chosen >> 1);
        return -1;
    }
    return REAL("fdatasync", int (*)(int))(fd);
}

#undef fwrite_unlocked

/* LevelDB writes through these two. */
size_t fwrite_unlocked(const void *bytes, size_t size, size_t count, FILE *file) {
    const uint64_t chosen = fault(fileno_unlocked(file));

    if (chosen != 0) {
        errno = code_of(chosen >> 1);
        if (only != 0 || chosen & 1 || size * count < 2)
            return 0;
        count = 1 + chosen % (size * count - 1);
        size = 1;
    }
    return REAL("fwrite_unlocked", size_t(*)(const void *, size_t, size_t, FILE *))(bytes, size, count, file);
}

int fflush_unlocked(FILE *file) {
    const uint64_t chosen = file == NULL ? 0 : fault(fileno_unlocked(file));

    if (chosen != 0) {
        errno = code_of(chosen >> 1);
        return EOF;
    }
    return REAL("fflush_unlocked", int (*)(FILE *))(file);
}

/* What a path names changes. */
static uint64_t fault_at(const char *path) {
    const int fd = folder != NULL && strncmp(path, folder, strlen(folder)) == 0
                       ? open(folder, O_RDONLY | O_CLOEXEC)
                       : -1;
    const uint64_t chosen = fd < 0 ? 0 : fault(fd);

    if (fd >= 0)
        close(fd);
    return chosen;
}

int rename(const char *from, const char *to) {
    const uint64_t chosen = fault_at(to);

    if (chosen != 0) {
        errno = code_of(chosen >> 1);
        return -1;
    }
    return REAL("rename", int (*)(const char *, const char *))(from, to);
}

FILE *fopen64(const char *path, const char *mode) {
    const uint64_t chosen = mode[0] == 'r' ? 0 : fault_at(path);

    if (chosen != 0) {
        errno = code_of(chosen >> 1);
        return NULL;
    }
    return REAL("fopen64", FILE * (*)(const char *, const char *))(path, mode);
}
