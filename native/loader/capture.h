/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The privileged part: load, attach and pin the capture programs; select processes; read cut vectors.
 * Plain C, no Node. Every function returns 0 or a negative errno and, on failure, fills `error`
 * (256 bytes, may be NULL) with one sentence that names what failed. Not thread safe.
 */
#ifndef RECOVERY_CAPTURE_H
#define RECOVERY_CAPTURE_H

#include <stddef.h>
#include <stdint.h>

#define CAPTURE_ERROR_BYTES 256
#define CAPTURE_KINDS 8
#define CAPTURE_MAX_CPUS 256

struct capture; /* opaque */

struct capture_options {
    const char *pin_dir;   /* bpffs directory of this instance, e.g. /sys/fs/bpf/recovery-line */
    uint32_t ring_bytes;   /* power of two, multiple of the page size; used only when created */
    uint32_t cgroup_level; /* depth of process cgroups below the cgroup2 root (root = 0) */
    int force_naive; /* tests: the variant for kernels without tcp_sendmsg_locked; used only when created */
};

/* Opens what is pinned in pin_dir, or loads, attaches and pins it anew. Pinned programs go on recording
 * with no process alive. `created` (may be NULL) is 1 when anew. -EPERM: rights; -ENOTSUP: kernel feature;
 * -ESTALE: pinned by another version or for another cgroup_level, unpin first. */
int capture_open(const struct capture_options *options, struct capture **out, int *created, char *error);
/* Closes our descriptors; pinned objects stay and go on recording. */
void capture_close(struct capture *capture);
/* Detaches and unpins everything in pin_dir. 0 also when there was nothing. */
int capture_unpin(const char *pin_dir, char *error);

/* Descriptor of the BPF_MAP_TYPE_RINGBUF and its size in bytes; owned by `capture`. */
int capture_ring(struct capture *capture, int *fd, uint32_t *ring_bytes);

/* Starts or stops recording everything that runs in the cgroup (and its descendants). Idempotent. Stopping
 * forgets what only the kernel knew of it: losses not yet taken, last offsets of closed connections. -EINVAL:
 * the cgroup is not at cgroup_level, so nothing of it would ever be recorded. */
int capture_select(struct capture *capture, uint64_t cgroup_id, int on, char *error);

/* Path of a cgroup below the cgroup2 mount, "/" for the mount itself. -ENOENT: there is none with this id. */
int capture_cgroup_path(uint64_t cgroup_id, char *path, size_t bytes);

struct capture_counters {
    uint32_t cpus;
    uint64_t committed[CAPTURE_KINDS]; /* records, by kind, summed over CPUs */
    uint64_t lost[CAPTURE_MAX_CPUS][CAPTURE_KINDS];
    uint64_t recursion_misses; /* of all programs together */
    int naive;                 /* 1: tcp_sendmsg_locked is missing on this kernel */
};
int capture_counters(struct capture *capture, struct capture_counters *out, char *error);

/* Losses of one process not yet reported in any record's lost_before; reads and clears them. */
int capture_take_lost(struct capture *capture, uint64_t cgroup_id, uint64_t *lost, char *error);

/* One connection of a process at one instant. */
struct capture_cut_entry {
    uint8_t flags; /* RECOVERY_FLAG_UNIX, RECOVERY_FLAG_NAIVE */
    uint8_t live;  /* 1: an open descriptor was read by the iterator; 0: closed, last offsets */
    uint8_t gone;  /* 1: the socket is no more, nothing but these last offsets is left of it */
    uint8_t reserved[5];
    uint64_t local, remote;  /* names as in struct recovery_record */
    uint64_t sent, received; /* 64-bit offsets: handed to / taken from the kernel by the process */
    uint64_t unacknowledged; /* bytes sent and not acknowledged by the peer's kernel */
    uint64_t queued;         /* bytes in the receive queue, not yet taken */
};
/* Every connection the process ever used, live (socket iterator) or closed (kernel map), sorted by flags,
 * local, remote. The process should be frozen. *entries is malloc'ed; free() it. `complete` 0: the cut is
 * partial, because the closed-connection map overflowed or the process holds a TCP connection from before the
 * capture. AF_UNIX offsets count bytes of a stream socket and whole messages of a seqpacket socket. -ESRCH:
 * not selected. */
int capture_cut(struct capture *capture, uint64_t cgroup_id, struct capture_cut_entry **entries,
                size_t *count, int *complete, char *error);

/* Forgets closed connections (entries with live = 0; those that are not `gone` yet may be named again) that
 * the caller has stored for good: the kernel keeps at most 2^18 of them for all processes together. Later
 * cuts no longer name them. */
int capture_forget_closed(struct capture *capture, uint64_t cgroup_id,
                          const struct capture_cut_entry *entries, size_t count, char *error);

/* Announces TCP connections that a restore (TCP_REPAIR) is about to make: they keep their old names and
 * offsets instead of getting new ones. `sent - unacknowledged` is the first byte of the restored send queue,
 * `received` the first byte of the restored receive queue. Without this a restored connection is reported as
 * unmatched. */
int capture_expect_restore(struct capture *capture, const struct capture_cut_entry *entries, size_t count,
                           char *error);

/* One capability and whether it is here; reason is one sentence. */
struct capture_capability {
    const char *name; /* static: "btf", "ring-buffer", "tcp-exact", "tcp-naive", "socket-iterator", "cgroup2",
                         "unix", ... */
    int supported;
    char reason[CAPTURE_ERROR_BYTES];
};
/* Probes without leaving anything behind. Returns the count (<= max). */
int capture_probe(struct capture_capability *out, int max);

#endif /* RECOVERY_CAPTURE_H */
