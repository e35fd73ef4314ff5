/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the BPF programs and native/loader both see: keys and values of the maps. Needs uint*_t and
 * recovery_ring.h first. Any change here, or in the meaning of a field, raises CAPTURE_MAP_VERSION: pinned
 * maps of another version are refused.
 */
#ifndef RECOVERY_SHARED_H
#define RECOVERY_SHARED_H

#define CAPTURE_MAP_VERSION 5
#define CAPTURE_MAGIC 0x31656e696c766365ull /* "ecvline1" */

/* Pinned last: its presence says that the instance is complete. Map `config`, one element. */
struct capture_config {
    uint64_t magic;
    uint32_t map_version;
    uint32_t ring_layout_version;
    uint32_t ring_bytes;
    uint32_t cgroup_level;
    uint32_t naive;
    uint32_t reserved;
};

/* Map `processes`: cgroup id -> this. An entry exists while the process is selected. */
struct process_state {
    uint64_t lost;       /* records without room, not yet reported in a lost_before */
    uint32_t unmatched;  /* bit per enum recovery_unmatched already reported */
    uint32_t incomplete; /* 1: a connection's last offsets could not be kept; cuts are partial from now on */
    uint64_t selection;  /* when it was selected, CLOCK_BOOTTIME ns: tells one selection from the next */
};

/* Map `filter`: at a cgroup id modulo its size a 0 says that no cgroup with such an id was ever selected. It
 * is set before the process's entry and never cleared, so it can't say so wrongly; it spares nearly everybody
 * else the look into a hash. */
#define CAPTURE_FILTER_ENTRIES 8192u

/* Map `counters`, one element per CPU. */
struct cpu_counters {
    uint64_t committed[RECOVERY_KIND_COUNT];
    uint64_t lost[RECOVERY_KIND_COUNT];
};

/* Map `closed`: the last offsets of what can't be read from an open descriptor any more. */
struct closed_key {
    uint64_t process;
    uint64_t local;
    uint64_t remote;
    uint64_t flags; /* RECOVERY_FLAG_UNIX or 0 */
};
struct closed_value {
    uint64_t sent;
    uint64_t received;
};

/* Map `restored`: the next connection that TCP_REPAIR establishes at these sequence numbers is an old
 * acquaintance. */
struct restored_key {
    uint32_t write_seq;
    uint32_t rcv_nxt;
};
struct restored_value {
    uint32_t local;
    uint32_t remote;
    uint64_t sent;     /* offset that write_seq stands for */
    uint64_t received; /* offset that rcv_nxt stands for */
};

enum cut_flag {
    CUT_UNNAMED = 1, /* a TCP connection from before the capture: it can't be named, so the cut is partial */
    CUT_UNSEEN = 2 /* the process took bytes that raised no event: `received` is too small, the cut partial */
};

/* What the iterators print. */
struct cut_record {
    uint64_t process; /* owner; 0 = nobody has used it yet */
    uint64_t local, remote;
    uint64_t sent, received;
    uint64_t unacknowledged, queued;
    uint32_t flags; /* enum recovery_flag */
    uint32_t cut_flags;
};

/* Argument of the syscall program take_lost. */
struct take_lost_args {
    uint64_t process;
    uint64_t lost;
};

#endif
