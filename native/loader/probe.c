/* SPDX-License-Identifier: Apache-2.0 */
/* What this kernel can do, asked of its type information (BTF) and of the kernel itself, never of its
 * version. */
#define _GNU_SOURCE
#include "bpf_call.h"
#include "internal.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/btf.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define BTF_FILE "/sys/kernel/btf/vmlinux"
#define MAX_BTF_BYTES (256u << 20)

static const uint32_t page_multiple = 1 << 16; /* a ring size that suits any page size */

/* ---- rights ---- */

static bool has_capability(const struct __user_cap_data_struct *data, unsigned int capability) {
    return data[capability / 32].effective >> (capability % 32) & 1;
}

int probe_rights(char *error) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    if (syscall(SYS_capget, &header, data) != 0 || has_capability(data, CAP_SYS_ADMIN))
        return 0;
    const bool bpf = has_capability(data, CAP_BPF), perfmon = has_capability(data, CAP_PERFMON);
    if (bpf && perfmon)
        return 0;
    return capture_fail(error, -EPERM,
                        "Capturing needs CAP_BPF and CAP_PERFMON (or root); this process lacks %s.",
                        bpf       ? "CAP_PERFMON"
                        : perfmon ? "CAP_BPF"
                                  : "both");
}

/* ---- type information ---- */

struct type_info {
    uint8_t *bytes;
    size_t size;
    const uint8_t *types, *types_end;
    const char *strings;
    uint32_t string_bytes;
};

static uint8_t *read_whole(const char *path, size_t *size) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    uint8_t *bytes = NULL;
    size_t done = 0;

    if (fd < 0)
        return NULL;
    if (fstat(fd, &status) == 0 && status.st_size > 0 && status.st_size <= MAX_BTF_BYTES)
        bytes = malloc((size_t)status.st_size);
    while (bytes != NULL && done < (size_t)status.st_size) {
        const ssize_t got = read(fd, bytes + done, (size_t)status.st_size - done);
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    close(fd);
    *size = done;
    return bytes;
}

static int open_types(struct type_info *info) {
    info->bytes = read_whole(BTF_FILE, &info->size);
    const struct btf_header *header = (const void *)info->bytes;

    if (info->bytes == NULL)
        return -ENOENT;
    if (info->size < sizeof(*header) || header->magic != BTF_MAGIC ||
        (uint64_t)header->hdr_len + header->type_off + header->type_len > info->size ||
        (uint64_t)header->hdr_len + header->str_off + header->str_len > info->size) {
        free(info->bytes);
        return -EINVAL;
    }
    info->types = info->bytes + header->hdr_len + header->type_off;
    info->types_end = info->types + header->type_len;
    info->strings = (const char *)info->bytes + header->hdr_len + header->str_off;
    info->string_bytes = header->str_len;
    return 0;
}

/* Bytes that follow a struct btf_type. */
static size_t tail_bytes(const struct btf_type *type) {
    const size_t members = BTF_INFO_VLEN(type->info);

    switch (BTF_INFO_KIND(type->info)) {
    case BTF_KIND_INT:
    case BTF_KIND_VAR:
    case BTF_KIND_DECL_TAG:
        return 4;
    case BTF_KIND_ARRAY:
        return sizeof(struct btf_array);
    case BTF_KIND_STRUCT:
    case BTF_KIND_UNION:
    case BTF_KIND_DATASEC:
    case BTF_KIND_ENUM64:
        return members * 12;
    case BTF_KIND_ENUM:
    case BTF_KIND_FUNC_PROTO:
        return members * 8;
    default:
        return 0;
    }
}

static bool has_type(const struct type_info *info, unsigned int kind, const char *name) {
    for (const uint8_t *at = info->types; at + sizeof(struct btf_type) <= info->types_end;) {
        const struct btf_type *type = (const void *)at;
        if (BTF_INFO_KIND(type->info) == kind && type->name_off < info->string_bytes &&
            strcmp(info->strings + type->name_off, name) == 0)
            return true;
        at += sizeof(*type) + tail_bytes(type);
    }
    return false;
}

/* The first of `names` (NULL ends) that is missing, or NULL. */
static const char *missing_tracepoint(const struct type_info *info, const char *const *names) {
    char typedef_name[128];

    for (; *names != NULL; names++) {
        snprintf(typedef_name, sizeof(typedef_name), "btf_trace_%s", *names);
        if (!has_type(info, BTF_KIND_TYPEDEF, typedef_name))
            return *names;
    }
    return NULL;
}

static const char *const EXACT[] = {"tcp_sendmsg_locked", NULL};
static const char *const TCP[] = {"sock_send_length",    "sock_recv_length", "tcp_rcv_space_adjust",
                                  "inet_sock_set_state", "tcp_destroy_sock", NULL};
static const char *const SOCKETS[] = {"sock_send_length", "sock_recv_length", NULL};
static const char *const ITERATORS[] = {"bpf_iter_task_file", "bpf_iter_bpf_sk_storage_map", NULL};

static const char *missing_function(const struct type_info *info, const char *const *names) {
    for (; *names != NULL; names++)
        if (!has_type(info, BTF_KIND_FUNC, *names))
            return *names;
    return NULL;
}

/* ---- the answers ---- */

static void yes(struct capture_capability *out, const char *name, const char *reason) {
    out->name = name;
    out->supported = 1;
    snprintf(out->reason, sizeof(out->reason), "%s", reason);
}

static void no(struct capture_capability *out, const char *name, const char *format, const char *what) {
    out->name = name;
    out->supported = 0;
    snprintf(out->reason, sizeof(out->reason), format, what);
}

static void probe_tracepoints(struct capture_capability *out, const struct type_info *info, const char *name,
                              const char *const *needed, const char *floor, const char *reason) {
    const char *missing = info == NULL ? NULL : missing_tracepoint(info, needed);
    char format[CAPTURE_ERROR_BYTES];

    if (info == NULL)
        return no(out, name, "The kernel's type information is missing: %s.", BTF_FILE);
    if (missing == NULL)
        return yes(out, name, reason);
    snprintf(format, sizeof(format), "This kernel has no tracepoint %%s (%s).", floor);
    no(out, name, format, missing);
}

static void probe_ring(struct capture_capability *out) {
    const int fd = bpf_map_make(BPF_MAP_TYPE_RINGBUF, 0, 0, page_multiple);

    if (fd < 0)
        return no(out, "ring-buffer", "A BPF ring buffer cannot be made: %s.", strerror(-fd));
    close(fd);
    yes(out, "ring-buffer", "BPF_MAP_TYPE_RINGBUF works.");
}

static void probe_iterators(struct capture_capability *out, const struct type_info *info) {
    const char *missing = info == NULL ? NULL : missing_function(info, ITERATORS);

    if (info == NULL)
        no(out, "socket-iterator", "The kernel's type information is missing: %s.", BTF_FILE);
    else if (missing != NULL)
        no(out, "socket-iterator", "This kernel has no iterator %s.", missing);
    else
        yes(out, "socket-iterator", "Cut vectors can be read from socket state.");
}

static void probe_cgroup(struct capture_capability *out) {
    char path[PATH_MAX], reason[CAPTURE_ERROR_BYTES];

    if (cgroup_mount(path, sizeof(path)) != 0)
        return no(out, "cgroup2", "No cgroup2 hierarchy is mounted (%s).", "/proc/self/mountinfo");
    snprintf(reason, sizeof(reason), "cgroup2 is mounted at %.200s.", path);
    yes(out, "cgroup2", reason);
}

static void probe_permission(struct capture_capability *out) {
    char error[CAPTURE_ERROR_BYTES] = "";

    if (probe_rights(error) != 0)
        no(out, "permission", "%s", error);
    else
        yes(out, "permission", "This process may load tracing programs.");
}

int capture_probe(struct capture_capability *out, int max) {
    struct type_info types;
    const struct type_info *info = open_types(&types) == 0 ? &types : NULL;
    struct capture_capability all[8];
    int count = 0;

    if (info == NULL)
        no(&all[count++], "btf", "The kernel's type information is missing: %s.", BTF_FILE);
    else
        yes(&all[count++], "btf", "The kernel carries its type information.");
    probe_permission(&all[count++]);
    probe_ring(&all[count++]);
    probe_tracepoints(&all[count++], info, "tcp-exact", EXACT, "Linux 6.16 has it",
                      "TCP byte ranges are exact for any number of threads.");
    probe_tracepoints(&all[count++], info, "tcp-naive", TCP, "Linux 6.3 has it",
                      "TCP byte ranges can be recorded.");
    probe_tracepoints(&all[count++], info, "unix", SOCKETS, "Linux 6.3 has it",
                      "AF_UNIX streams can be recorded.");
    probe_iterators(&all[count++], info);
    probe_cgroup(&all[count++]);
    if (info != NULL)
        free(types.bytes);
    for (int i = 0; i < count && i < max; i++)
        out[i] = all[i];
    return count < max ? count : max;
}

bool probe_exact(void) {
    struct type_info types;
    if (open_types(&types) != 0)
        return false;
    const bool exact = missing_tracepoint(&types, EXACT) == NULL;
    free(types.bytes);
    return exact;
}

int probe_required(char *error) {
    static const char *const REQUIRED[] = {"btf", "ring-buffer", "tcp-naive", "socket-iterator", "cgroup2"};
    struct capture_capability found[8];
    const int count = capture_probe(found, 8);

    for (size_t i = 0; i < sizeof(REQUIRED) / sizeof(REQUIRED[0]); i++)
        for (int j = 0; j < count; j++)
            if (strcmp(found[j].name, REQUIRED[i]) == 0 && !found[j].supported)
                return capture_fail(error, -ENOTSUP, "%s", found[j].reason);
    return 0;
}
