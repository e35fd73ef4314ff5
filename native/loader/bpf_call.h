/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bpf(2) commands we use, one line each at the call site. All return a descriptor, 0 or a negative errno;
 * descriptors are close-on-exec (the kernel's default for bpf).
 */
#ifndef RECOVERY_BPF_CALL_H
#define RECOVERY_BPF_CALL_H

#include <errno.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline uint64_t bpf_pointer(const void *pointer) {
    return (uint64_t)(uintptr_t)pointer;
}

static inline int bpf_call(enum bpf_cmd command, union bpf_attr *attr) {
    const long result = syscall(SYS_bpf, command, attr, sizeof(*attr));
    return result < 0 ? -errno : (int)result;
}

#define BPF_DO(command, ...)                                                                                 \
    ({                                                                                                       \
        union bpf_attr attr_;                                                                                \
        memset(&attr_, 0, sizeof(attr_));                                                                    \
        __VA_ARGS__;                                                                                         \
        bpf_call(command, &attr_);                                                                           \
    })

static inline int bpf_map_make(uint32_t type, uint32_t key_bytes, uint32_t value_bytes, uint32_t entries) {
    return BPF_DO(BPF_MAP_CREATE, attr_.map_type = type, attr_.key_size = key_bytes,
                  attr_.value_size = value_bytes, attr_.max_entries = entries);
}

static inline int bpf_map_get(int fd, const void *key, void *value) {
    return BPF_DO(BPF_MAP_LOOKUP_ELEM, attr_.map_fd = (uint32_t)fd, attr_.key = bpf_pointer(key),
                  attr_.value = bpf_pointer(value));
}

static inline int bpf_map_put(int fd, const void *key, const void *value, uint64_t flags) {
    return BPF_DO(BPF_MAP_UPDATE_ELEM, attr_.map_fd = (uint32_t)fd, attr_.key = bpf_pointer(key),
                  attr_.value = bpf_pointer(value), attr_.flags = flags);
}

static inline int bpf_map_remove(int fd, const void *key) {
    return BPF_DO(BPF_MAP_DELETE_ELEM, attr_.map_fd = (uint32_t)fd, attr_.key = bpf_pointer(key));
}

/* The key after `key`; NULL: the first. -ENOENT: there is none. */
static inline int bpf_map_next(int fd, const void *key, void *next) {
    return BPF_DO(BPF_MAP_GET_NEXT_KEY, attr_.map_fd = (uint32_t)fd, attr_.key = bpf_pointer(key),
                  attr_.next_key = bpf_pointer(next));
}

static inline int bpf_pin(int fd, const char *path) {
    return BPF_DO(BPF_OBJ_PIN, attr_.bpf_fd = (uint32_t)fd, attr_.pathname = bpf_pointer(path));
}

static inline int bpf_pinned(const char *path) {
    return BPF_DO(BPF_OBJ_GET, attr_.pathname = bpf_pointer(path));
}

static inline int bpf_info(int fd, void *info, uint32_t bytes) {
    return BPF_DO(BPF_OBJ_GET_INFO_BY_FD, attr_.info.bpf_fd = (uint32_t)fd, attr_.info.info_len = bytes,
                  attr_.info.info = bpf_pointer(info));
}

/* Runs a SEC("syscall") program; `context` is in and out. */
static inline int bpf_run(int fd, void *context, uint32_t bytes) {
    return BPF_DO(BPF_PROG_RUN, attr_.test.prog_fd = (uint32_t)fd, attr_.test.ctx_in = bpf_pointer(context),
                  attr_.test.ctx_size_in = bytes);
}

/* A descriptor to read() the output of an iterator program from; `info` chooses what it walks. */
static inline int bpf_iterate(int program_fd, const union bpf_iter_link_info *info) {
    const int link = BPF_DO(BPF_LINK_CREATE, attr_.link_create.prog_fd = (uint32_t)program_fd,
                            attr_.link_create.attach_type = BPF_TRACE_ITER,
                            attr_.link_create.iter_info = bpf_pointer(info),
                            attr_.link_create.iter_info_len = sizeof(*info));
    if (link < 0)
        return link;
    const int iterator = BPF_DO(BPF_ITER_CREATE, attr_.iter_create.link_fd = (uint32_t)link);
    close(link); /* the iterator holds it */
    return iterator;
}

#endif
