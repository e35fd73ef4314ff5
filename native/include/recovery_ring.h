/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record of a kernel or memory ring. ONE definition: C11, C++ and BPF compile it,
 * src/format/ring-layout.ts mirrors it, a test proves both equal.
 *
 *   0        1        2                 4                          8
 *   +--------+--------+-----------------+--------------------------+
 *   | kind   | flags  | cpu       u16   | lost_before          u32 |
 *   +--------+--------+-----------------+--------------------------+
 *   | process     u64   cgroup id of the process (unit of recovery) |  8
 *   +---------------------------------------------------------------+
 *   | local       u64   this end's name of the connection           | 16
 *   +---------------------------------------------------------------+
 *   | remote      u64   the other end's name                        | 24
 *   +---------------------------------------------------------------+
 *   | begin       u64   first 64-bit offset of the range            | 32
 *   +---------------------------------------------------------------+
 *   | time_ns     u64   CLOCK_BOOTTIME; pictures only               | 40
 *   +-------------------------------+-------------------------------+
 *   | length      u32               | thread      u32               | 48
 *   +-------------------------------+-------------------------------+  56
 *
 * Little endian. In BPF_MAP_TYPE_RINGBUF an 8-byte kernel header precedes it: one slot = 64 bytes.
 *
 * local, remote: TCP: the initial sequence number of the local and of the remote end (u32 each).
 *   AF_UNIX: the socket cookie of the local and of the peer socket.
 *   The byte direction "local to remote" is one channel, "remote to local" the other.
 * begin: offset 0 is the first byte of data (SYN not counted). The range is [begin, begin + length).
 * lost_before: records of the SAME process that found no room since its previous committed record.
 */
#ifndef RECOVERY_RING_H
#define RECOVERY_RING_H

#if !defined(__BPF__) && !defined(__bpf__)
#include <stdint.h>
#endif

#define RECOVERY_RING_LAYOUT_VERSION 1
#define RECOVERY_RECORD_BYTES 56
#define RECOVERY_SLOT_BYTES 64

enum recovery_kind {
    RECOVERY_SEND = 1,            /* [begin, begin+length) handed to the kernel */
    RECOVERY_RECEIVE = 2,         /* [begin, begin+length) taken from the kernel */
    RECOVERY_PAGE_FAULT = 3,      /* reserved for the DSM producers */
    RECOVERY_PAGE_COPY = 4,       /* reserved */
    RECOVERY_PAGE_INVALIDATE = 5, /* reserved */
    RECOVERY_GAP = 6,             /* lost_before records are missing and nothing else is known */
    RECOVERY_UNMATCHED = 7,       /* the process communicated in a way we cannot match; local = enum recovery_unmatched */
    RECOVERY_KIND_COUNT = 8
};

enum recovery_flag {
    RECOVERY_FLAG_UNIX = 1,   /* local and remote are AF_UNIX cookies, not TCP sequence numbers */
    RECOVERY_FLAG_NAIVE = 2,  /* offsets by the naive rule (no tcp_sendmsg_locked): may be wrong under concurrent threads */
    RECOVERY_FLAG_WRITE = 4   /* page fault: write access */
};

/* Why communication could not be matched (RECOVERY_UNMATCHED). */
enum recovery_unmatched {
    RECOVERY_UNMATCHED_UDP = 1,
    RECOVERY_UNMATCHED_MPTCP = 2,
    RECOVERY_UNMATCHED_KTLS = 3,
    RECOVERY_UNMATCHED_UNIX_DGRAM = 4,
    RECOVERY_UNMATCHED_OLD_CONNECTION = 5, /* established before capture began: no initial sequence numbers */
    RECOVERY_UNMATCHED_OTHER_SOCKET = 6    /* netlink, vsock, packet, sctp, ... */
};

struct recovery_record {
    uint8_t kind;
    uint8_t flags;
    uint16_t cpu;
    uint32_t lost_before;
    uint64_t process;
    uint64_t local;
    uint64_t remote;
    uint64_t begin;
    uint64_t time_ns;
    uint32_t length;
    uint32_t thread;
};

#if defined(__cplusplus)
static_assert(sizeof(struct recovery_record) == RECOVERY_RECORD_BYTES, "record is 56 bytes");
#else
_Static_assert(sizeof(struct recovery_record) == RECOVERY_RECORD_BYTES, "record is 56 bytes");
#endif

#endif /* RECOVERY_RING_H */
