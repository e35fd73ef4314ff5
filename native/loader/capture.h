/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The privileged part: load, attach and pin the capture programs; select processes; read cut vectors.
 * Plain C, no Node. Every function returns 0 or a negative errno and, on failure, fills `error`
 * (256 bytes, may be NULL) with one sentence that names what failed. Not thread safe.
 */
#ifndef RECOVERY_CAPTURE_H
#define RECOVERY_CAPTURE_H

#include "told.h"

#include <stddef.h>
#include <stdint.h>

#define CAPTURE_ERROR_BYTES 256
#define CAPTURE_KINDS 16
#define CAPTURE_MAX_CPUS 256

struct capture; /* opaque */

struct capture_options {
    const char *pin_dir;   /* bpffs directory of this instance, e.g. /sys/fs/bpf/recovery-line */
    uint32_t ring_bytes;   /* power of two, multiple of the page size; used only when created */
    uint32_t cgroup_level; /* depth of process cgroups below the cgroup2 root (root = 0) */
    const char *variant; /* "progress=…,sockets=…,life=…" forces parts (parts.h); NULL: the best that runs */
};

/* Opens what is pinned in pin_dir, or loads, attaches and pins it anew. Pinned programs go on recording
 * with no process alive. `created` (may be NULL) is 1 when anew. -EPERM: rights; -ENOTSUP: kernel feature;
 * -ESTALE: pinned by another version or for another cgroup_level, unpin first. */
int capture_open(const struct capture_options *options, struct capture **out, int *created, char *error);
/* 0 if `text` forces parts of the capture as capture_open takes it; else -EINVAL. Asks no kernel. */
int capture_check_variant(const char *text, char *error);
/* Closes our descriptors; pinned objects stay and go on recording. */
void capture_close(struct capture *capture);
/* Detaches and unpins everything in pin_dir. 0 also when there was nothing. */
int capture_unpin(const char *pin_dir, char *error);

/* Descriptor of the BPF_MAP_TYPE_RINGBUF and its size in bytes; owned by `capture`. */
int capture_ring(struct capture *capture, int *fd, uint32_t *ring_bytes);

/* Starts or stops recording everything that runs in the cgroup (and its descendants), as one life of a
 * process: its records bear `incarnation`. Idempotent; another incarnation begins with fresh flags. Stopping
 * and beginning anew forget what only the kernel knew: flush first. -EINVAL: the cgroup is not at
 * cgroup_level, so nothing of it would ever be recorded. */
int capture_select(struct capture *capture, uint64_t cgroup_id, int on, uint32_t incarnation, char *error);

/* The same for what ran before it was recorded: its connections are taken up though others were told that it
 * is outside. `parent`: cgroup of its application; the cgroup may lie at any level then, of CAPTURE_LEVELS
 * others. 0: the one above it. -ENOSPC: so many levels are in use. */
int capture_attach(struct capture *capture, uint64_t cgroup_id, uint32_t incarnation, uint64_t parent,
                   char *error);

/* Path of a cgroup below the cgroup2 mount, "/" for the mount itself. -ENOENT: there is none with this id. */
int capture_cgroup_path(uint64_t cgroup_id, char *path, size_t bytes);

struct capture_counters {
    uint32_t cpus;
    uint64_t committed[CAPTURE_KINDS];              /* records, by kind, summed over CPUs */
    uint64_t lost[CAPTURE_MAX_CPUS][CAPTURE_KINDS]; /* found no room; others tell what they would have told */
    uint64_t recursion_misses; /* runs that the kernel left out, of all programs together: statistics */
};
int capture_counters(struct capture *capture, struct capture_counters *out, char *error);

/* Why processes can't be followed. */
struct capture_verdict {
    uint64_t cgroup_id;
    uint32_t incarnation;
    uint32_t bits;          /* 1 << enum recovery_verdict; they stick for the incarnation */
    uint64_t other;         /* shared-socket: cgroup id of the other process, of the first such socket */
    uint64_t local, remote; /* and the socket's names */
};
/* Of all selected processes that have any. *out is malloc'ed; free() it. */
int capture_verdicts(struct capture *capture, struct capture_verdict **out, size_t *count, char *error);

/* One connection of a process at one instant. */
struct capture_cut_entry {
    uint8_t flags; /* RECOVERY_FLAG_UNIX or 0 */
    uint8_t
        live; /* 1: behind a descriptor of the process; 0: its socket exists, but no descriptor shows it */
    uint8_t told; /* enum capture_told */
    uint8_t reserved[5];
    uint64_t local, remote;  /* names as in struct recovery_record */
    uint64_t sent, received; /* 64-bit offsets: handed to / taken from the kernel by the process */
    uint64_t seen;           /* >= received: how far it has looked (MSG_PEEK) */
    uint64_t unacknowledged; /* bytes sent and not acknowledged by the peer's kernel */
    uint64_t queued;         /* bytes in the receive queue, not yet taken */
};
/* Every connection of the process whose socket exists, sorted by flags, local, remote; what has ended stands
 * in records. The process should be frozen. What no record tells yet goes into the ring first; *pending 1:
 * there was not room for all of it, read the ring and ask again. *entries is malloc'ed; free() it. *complete
 * 0: it holds a connection without a name. AF_UNIX offsets count bytes of a stream socket and whole messages
 * of a seqpacket socket. -ESRCH: not selected. */
int capture_cut(struct capture *capture, uint64_t cgroup_id, struct capture_cut_entry **entries,
                size_t *count, int *complete, int *pending, char *error);

/* Puts into the ring whatever the processes did and no record tells yet: of sockets that exist, and last
 * records of closed ends that had found no room. *pending as above. Processes that are not selected are
 * passed over. count 0: those that are known to have moved since, where no record tells of each call
 * (progress=exit). */
int capture_flush(struct capture *capture, const uint64_t *cgroup_ids, size_t count, int *pending,
                  char *error);

/* Announces TCP connections that a restore (TCP_REPAIR) is about to make: they keep their old names and
 * offsets instead of getting new ones. `sent - unacknowledged` is the first byte of the restored send queue,
 * `received` the first byte of the restored receive queue. Without this a restored connection is reported as
 * unmatched. `seen` and `told` go on, too. */
int capture_expect_restore(struct capture *capture, const struct capture_cut_entry *entries, size_t count,
                           char *error);

/* Output commit: what the selected process sends to somebody outside over TCP waits from now on until
 * capture_release; for good, also where nothing runs any more: it ends with the last socket of the cgroup.
 * Before the process runs. -ENOTSUP: this capture can't. */
int capture_hold(struct capture *capture, uint64_t cgroup_id, char *error);

/* A connection of a holding process, once it had something to send. */
struct capture_output {
    uint64_t cgroup_id;
    uint64_t local, remote;    /* names as in struct recovery_record */
    uint64_t released, wanted; /* offsets; it waits where the second is greater and it is not free */
    uint64_t since;            /* when it began to wait, boot-time ns */
    uint32_t address[4];       /* of the other end, in network order; IPv4 is mapped */
    uint32_t port;
    uint32_t free; /* 1: the other end is of the application, or was said to be */
};
/* How often something was held: while it stands still, nothing new waits. */
int capture_held(struct capture *capture, uint64_t *count, char *error);
/* *out is malloc'ed; free() it. */
int capture_outputs(struct capture *capture, struct capture_output **out, size_t *count, char *error);

/* Raises `released`, frees where `free` is 1, and has them try to send at once. Marks never fall; who has
 * none any more is passed over. count 0: they try. */
int capture_release(struct capture *capture, const struct capture_output *outputs, size_t count, char *error);

/* What a holding process sends and nobody holds, or holds for ever; each is told once (bpf/shared.h). */
struct capture_unheld {
    uint64_t cgroup_id;
    uint32_t kind; /* enum unheld_kind */
    uint32_t port;
    uint32_t address[4];
};
int capture_take_unheld(struct capture *capture, struct capture_unheld **out, size_t *count, char *error);

/* One way to do one part of the capture. */
struct capture_part {
    char part[16];    /* "progress", "sockets", "life", ... */
    char variant[16]; /* best first */
    uint8_t in_use;
    uint8_t usable;                   /* its programs were loaded, attached and run here */
    char reason[CAPTURE_ERROR_BYTES]; /* one sentence: what it gives and costs, or the kernel's own answer */
};
/* Tries every variant of every part; leaves nothing behind. `capture` (may be NULL) tells which are in use.
 * Returns the count (<= max). */
int capture_parts(const struct capture *capture, struct capture_part *out, int max);

/* One capability and whether it is here; reason is one sentence. */
struct capture_capability {
    const char *name; /* static: "btf", "permission", "ring-buffer", "cgroup2" */
    int supported;
    char reason[CAPTURE_ERROR_BYTES];
};
/* Probes without leaving anything behind. Returns the count (<= max). */
int capture_probe(struct capture_capability *out, int max);

#endif /* RECOVERY_CAPTURE_H */
