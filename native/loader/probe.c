/* SPDX-License-Identifier: Apache-2.0 */
/* What every variant of the capture needs. Which of them this kernel runs is found by trying: parts.c. */
#define _GNU_SOURCE
#include "bpf_call.h"
#include "internal.h"

#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>

#define BTF_FILE "/sys/kernel/btf/vmlinux"

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

bool probe_has_rights(void) {
    return probe_rights(NULL) == 0;
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

static void probe_ring(struct capture_capability *out) {
    const int fd = bpf_map_make(BPF_MAP_TYPE_RINGBUF, 0, 0, page_multiple);

    if (fd < 0)
        return no(out, "ring-buffer", "A BPF ring buffer cannot be made: %s.", strerror(-fd));
    close(fd);
    yes(out, "ring-buffer", "BPF_MAP_TYPE_RINGBUF works.");
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

static void probe_types(struct capture_capability *out) {
    if (access(BTF_FILE, R_OK) != 0)
        no(out, "btf", "The kernel's type information is missing: %s.", BTF_FILE);
    else
        yes(out, "btf", "The kernel carries its type information.");
}

int capture_probe(struct capture_capability *out, int max) {
    struct capture_capability all[4];
    int count = 0;

    probe_types(&all[count++]);
    probe_permission(&all[count++]);
    probe_ring(&all[count++]);
    probe_cgroup(&all[count++]);
    for (int i = 0; i < count && i < max; i++)
        out[i] = all[i];
    return count < max ? count : max;
}

int probe_required(char *error) {
    struct capture_capability found[4];
    const int count = capture_probe(found, 4);

    for (int i = 0; i < count; i++)
        if (!found[i].supported && strcmp(found[i].name, "permission") != 0)
            return capture_fail(error, -ENOTSUP, "%s", found[i].reason);
    return 0;
}
