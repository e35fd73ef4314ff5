/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Node does not offer about files: pipes, holes, times to the nanosecond, special files, extended attributes.
 * Paths are buffers without NUL: a name need not be UTF-8. No call follows a symbolic link at the end of a
 * path.
 */
#define _GNU_SOURCE /* SEEK_DATA, pipe2 */
#include "glue.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define PATH_BYTES 4096
#define NAME_BYTES 256
/* The kernel's limits (XATTR_LIST_MAX, XATTR_SIZE_MAX). */
#define MAX_LIST_BYTES 65536
#define MAX_VALUE_BYTES 65536
#define NANOSECONDS 1000000000ll

static bool glue_path(napi_env env, napi_value value, char out[PATH_BYTES]) {
    void *bytes;
    size_t length;
    bool is_buffer = false;

    if (napi_is_buffer(env, value, &is_buffer) == napi_ok && is_buffer &&
        napi_get_buffer_info(env, value, &bytes, &length) == napi_ok && length < PATH_BYTES &&
        memchr(bytes, 0, length) == NULL) {
        memcpy(out, bytes, length);
        out[length] = 0;
        return true;
    }
    napi_throw_type_error(env, NULL, "expected a path as a buffer without NUL that is not too long");
    return false;
}

static bool glue_time(napi_env env, napi_value value, struct timespec *out) {
    int64_t nanoseconds;
    bool lossless = false;

    if (napi_get_value_bigint_int64(env, value, &nanoseconds, &lossless) != napi_ok || !lossless) {
        napi_throw_type_error(env, NULL, "expected nanoseconds as a bigint of 64 bits");
        return false;
    }
    out->tv_sec = nanoseconds / NANOSECONDS;
    out->tv_nsec = nanoseconds % NANOSECONDS;
    if (out->tv_nsec < 0) { /* before 1970 */
        out->tv_sec--;
        out->tv_nsec += NANOSECONDS;
    }
    return true;
}

/* makePipe(size, contents) -> [reading end, writing end]: a pipe of that size that holds the contents. */
static napi_value make_pipe(napi_env env, napi_callback_info info) {
    napi_value arguments[2], list;
    uint64_t size;
    void *contents;
    size_t length;
    int ends[2];

    if (!glue_arguments(env, info, 2, arguments) || !glue_u64(env, arguments[0], &size))
        return NULL;
    if (size > INT_MAX || napi_get_buffer_info(env, arguments[1], &contents, &length) != napi_ok) {
        napi_throw_type_error(env, NULL, "expected a size and a buffer");
        return NULL;
    }
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return glue_throw(env, -errno, strerror(errno));
    int status = fcntl(ends[1], F_SETPIPE_SZ, (int)size) < 0 ? -errno : 0;
    if (status == 0 && length > 0) {
        const ssize_t written = write(ends[1], contents, length);
        status = written < 0 ? -errno : written != (ssize_t)length ? -ENOSPC : 0;
    }
    if (status != 0) {
        close(ends[0]);
        close(ends[1]);
        return glue_throw(env, status, strerror(-status));
    }
    napi_create_array(env, &list);
    for (uint32_t i = 0; i < 2; i++)
        napi_set_element(env, list, i, glue_number(env, ends[i]));
    return list;
}

/* fileExtents(fd, size) -> [begin, end, begin, end, …]: what is no hole */
static napi_value file_extents(napi_env env, napi_callback_info info) {
    napi_value arguments[2], list;
    uint64_t fd, size;
    uint32_t count = 0;

    if (!glue_arguments(env, info, 2, arguments) || !glue_u64(env, arguments[0], &fd) ||
        !glue_u64(env, arguments[1], &size))
        return NULL;
    napi_create_array(env, &list);
    for (off_t at = 0; (uint64_t)at < size;) {
        const off_t begin = lseek((int)fd, at, SEEK_DATA);
        if (begin < 0 && errno == ENXIO)
            break;
        if (begin < 0)
            return glue_throw(env, -errno, "the data of the file cannot be found");
        if ((uint64_t)begin >= size)
            break;
        at = lseek((int)fd, begin, SEEK_HOLE);
        if (at < 0)
            return glue_throw(env, -errno, "the holes of the file cannot be found");
        const uint64_t end = (uint64_t)at < size ? (uint64_t)at : size;
        napi_set_element(env, list, count++, glue_number(env, (double)begin));
        napi_set_element(env, list, count++, glue_number(env, (double)end));
    }
    return list;
}

/* setFileTimes(path, atime, mtime), in ns */
static napi_value set_file_times(napi_env env, napi_callback_info info) {
    char path[PATH_BYTES];
    struct timespec times[2];
    napi_value arguments[3];

    if (!glue_arguments(env, info, 3, arguments) || !glue_path(env, arguments[0], path) ||
        !glue_time(env, arguments[1], &times[0]) || !glue_time(env, arguments[2], &times[1]))
        return NULL;
    if (utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) != 0)
        return glue_throw(env, -errno, "the times cannot be set");
    return glue_undefined(env);
}

/* makeNode(path, mode, device): a fifo, socket or device; `mode` with its type, `device` as stat tells it */
static napi_value make_node(napi_env env, napi_callback_info info) {
    char path[PATH_BYTES];
    uint64_t mode, device;
    napi_value arguments[3];

    if (!glue_arguments(env, info, 3, arguments) || !glue_path(env, arguments[0], path) ||
        !glue_u64(env, arguments[1], &mode) || !glue_u64(env, arguments[2], &device))
        return NULL;
    if (mknod(path, (mode_t)mode, (dev_t)device) != 0)
        return glue_throw(env, -errno, "the special file cannot be made");
    return glue_undefined(env);
}

/* One name and its value into `list`; false: an error is pending. A value that went meanwhile is left out. */
static bool add_attribute(napi_env env, const char *path, const char *name, napi_value list,
                          uint32_t *count) {
    char value[MAX_VALUE_BYTES];
    napi_value pair, part;

    const ssize_t length = lgetxattr(path, name, value, sizeof(value));
    if (length < 0 && errno == ENODATA)
        return true;
    if (length < 0) {
        glue_throw(env, -errno, "an extended attribute cannot be read");
        return false;
    }
    napi_create_array_with_length(env, 2, &pair);
    napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &part);
    napi_set_element(env, pair, 0, part);
    if (napi_create_buffer_copy(env, (size_t)length, value, NULL, &part) != napi_ok)
        return false;
    napi_set_element(env, pair, 1, part);
    napi_set_element(env, list, (*count)++, pair);
    return true;
}

/* fileAttributes(path) -> [[name, value], …]; none where the file system has none */
static napi_value file_attributes(napi_env env, napi_callback_info info) {
    char names[MAX_LIST_BYTES];
    char path[PATH_BYTES];
    napi_value arguments[1], list;
    uint32_t count = 0;

    if (!glue_arguments(env, info, 1, arguments) || !glue_path(env, arguments[0], path))
        return NULL;
    ssize_t length = llistxattr(path, names, sizeof(names));
    if (length < 0 && errno == ENOTSUP)
        length = 0;
    if (length < 0)
        return glue_throw(env, -errno, "the extended attributes cannot be listed");
    napi_create_array(env, &list);
    for (const char *name = names; name < names + length; name += strlen(name) + 1)
        if (!add_attribute(env, path, name, list, &count))
            return NULL;
    return list;
}

/* setFileAttribute(path, name, value | undefined): undefined removes it */
static napi_value set_file_attribute(napi_env env, napi_callback_info info) {
    char path[PATH_BYTES], name[NAME_BYTES];
    napi_value arguments[3];
    void *value = NULL;
    size_t length = 0;
    bool is_buffer = false;

    if (!glue_arguments(env, info, 3, arguments) || !glue_path(env, arguments[0], path) ||
        !glue_string(env, arguments[1], name, sizeof(name)))
        return NULL;
    if (napi_is_buffer(env, arguments[2], &is_buffer) == napi_ok && is_buffer)
        napi_get_buffer_info(env, arguments[2], &value, &length);
    const int result = is_buffer ? lsetxattr(path, name, value, length, 0) : lremovexattr(path, name);
    if (result != 0)
        return glue_throw(env, -errno, "an extended attribute cannot be set");
    return glue_undefined(env);
}

void file_glue_init(napi_env env, napi_value exports) {
    glue_define(env, exports, "makePipe", make_pipe);
    glue_define(env, exports, "fileExtents", file_extents);
    glue_define(env, exports, "setFileTimes", set_file_times);
    glue_define(env, exports, "makeNode", make_node);
    glue_define(env, exports, "fileAttributes", file_attributes);
    glue_define(env, exports, "setFileAttribute", set_file_attribute);
}
