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
 * lost_before: memory rings: records of the SAME process that found no room since its previous committed
 *   record. The kernel writes 0: what found no room is covered by the next record, or by a flush.
 * thread: memory rings: the thread. The kernel writes the incarnation of the process, as it was selected.
 *
 * RECOVERY_FLAG_OPEN and RECOVERY_FLAG_END on a SEND or RECEIVE: unit [0, 1) of <channel>/open,
 * <channel>/end.
 *
 *   flags          kind     channel whose /open or /end it is   when
 *   OPEN           SEND     local to remote                     the connector is connected
 *   OPEN           RECEIVE  remote to local                     the acceptor has a descriptor
 *   END            SEND     local to remote                     this end was closed or shut down for sending
 *   END            RECEIVE  remote to local                     the other end's end has arrived
 *   END | FAILING  SEND     local to remote                     its task was dying, and not with exit code 0
 *   END | FAILING  RECEIVE  remote to local                     both ends are gone; nobody saw it receive
 *
 * RECOVERY_VERDICT: the kernel can't follow the process any more. local: enum recovery_verdict; remote:
 * cgroup id of the other process (RECOVERY_VERDICT_SHARED_SOCKET) or 0. A hint: the truth are the process's
 * flags.
 *
 * RECOVERY_PEER: who is at the other end of the connection (local, remote). It is told again once SOURCE or
 *   SINK becomes true.
 *
 *   length  its process id; 0: it is recorded, or nobody was found
 *   begin   when that process began, ns of CLOCK_BOOTTIME; where length is 0 the cgroup id of the recorded
 *           process, or 0: nobody was found
 *   flags   OPEN: this end has connected   END: that program closed the other end just then
 *           SOURCE: data has come from it  SINK: data was sent to it
 *
 * RECOVERY_DATAGRAM: the process has sent datagrams to a place (RECOVERY_FLAG_SOURCE; of UDP begin, time_ns
 * and length are the address, as RECOVERY_PEER has it), or has taken some from one that somebody recorded may
 * have sent to (RECOVERY_FLAG_SINK). local: number of a socket; 0: whichever has UDP port `remote`, or, with
 * RECOVERY_FLAG_UNIX, any that anybody may send to.
 *
 * RECOVERY_PAGE_FAULT without RECOVERY_FLAG_DSM: a fault that the process handles by userfaultfd; local: the
 *   page's address in its memory, remote, begin, length: 0.
 *
 * Records of a DSM runtime (RECOVERY_PAGE_*, and any kind with RECOVERY_FLAG_DSM). Its communicating parties
 * are entities: number 2r is the application process of rank r ("p<r>"), 2r + 1 the home in the same OS
 * process ("h<r>"). The channel from entity A to entity B is named dsm:A-B, e.g. dsm:p0-h1, and counts whole
 * messages.
 *
 *   process  number of the entity that this happened to; the ring's reader knows which OS process wrote it
 *   cpu      enum recovery_dsm_message: what the message was for
 *   local    own entity number (16 bits)
 *              | page version << 16 (37 bits: at most 2^53-1 in all)
 *   remote   other entity number (16 bits)
 *              | entity number of the version's last writer << 16 (16 bits)
 *              | checkpoint interval in which it wrote << 32 (21 bits)
 *   begin    sequence number of the message on its channel: the range is [begin, begin + 1); 0 for a fault
 *   length   page number (PAGE_*), or number of the lock or barrier (SEND, RECEIVE)
 *   flags    RECOVERY_FLAG_SOURCE: this end is the source of the copy or invalidation; else its destination
 */
#ifndef RECOVERY_RING_H
#define RECOVERY_RING_H

#if !defined(__BPF__) && !defined(__bpf__)
#include <stdint.h>
#endif

#define RECOVERY_RING_LAYOUT_VERSION 3
#define RECOVERY_RECORD_BYTES 56
#define RECOVERY_SLOT_BYTES 64

enum recovery_kind {
    RECOVERY_SEND = 1,            /* [begin, begin+length) handed to the kernel */
    RECOVERY_RECEIVE = 2,         /* [begin, begin+length) taken from the kernel */
    RECOVERY_PAGE_FAULT = 3,      /* of a DSM runtime: a request for a page, no dependency */
    RECOVERY_PAGE_COPY = 4,       /* the data of a page moves */
    RECOVERY_PAGE_INVALIDATE = 5, /* the destination drops its copy, and retains it while it is the newest */
    RECOVERY_GAP = 6,             /* lost_before records are missing and nothing else is known */
    RECOVERY_VERDICT = 7,         /* the process communicates in a way that can't be followed */
    RECOVERY_PEEK = 8,            /* [begin, begin+length) looked at and left where it is */
    RECOVERY_PEER = 9,            /* who is at the other end of a connection */
    RECOVERY_DATAGRAM = 10,       /* with whom the process may have exchanged datagrams */
    RECOVERY_KIND_COUNT = 16
};

enum recovery_flag {
    RECOVERY_FLAG_UNIX = 1,     /* local and remote are AF_UNIX cookies, not TCP sequence numbers */
    RECOVERY_FLAG_SINK = 2,     /* peer: this end has sent it data */
    RECOVERY_FLAG_WRITE = 4,    /* page fault: write access; else of a DSM: ownership moves */
    RECOVERY_FLAG_SOURCE = 8,   /* of a page: this end is the source; peer: data has come from it */
    RECOVERY_FLAG_DSM = 16,     /* local and remote name entities of a DSM runtime */
    RECOVERY_FLAG_OPEN = 32,    /* the one unit of <channel>/open */
    RECOVERY_FLAG_END = 64,     /* the one unit of <channel>/end */
    RECOVERY_FLAG_FAILING = 128 /* END: the task that closed was dying, and not with exit code 0 */
};

/* What a message of a DSM runtime was for (field `cpu` of its records). */
enum recovery_dsm_message {
    RECOVERY_DSM_NONE = 0,
    RECOVERY_DSM_DATA = 1,  /* home to process: a copy of the page */
    RECOVERY_DSM_GRANT = 2, /* home to process: ownership without data */
    RECOVERY_DSM_INVALIDATE = 3,
    RECOVERY_DSM_WRITEBACK = 4, /* owner to home: the newest copy */
    RECOVERY_DSM_LOCK_ACQUIRE = 5,
    RECOVERY_DSM_LOCK_GRANT = 6,
    RECOVERY_DSM_LOCK_RELEASE = 7,
    RECOVERY_DSM_BARRIER_ARRIVE = 8,
    RECOVERY_DSM_BARRIER_RELEASE = 9
};

/* Why a process can't be followed: value = number of the bit among its flags. */
enum recovery_verdict {
    RECOVERY_VERDICT_UDP = 1,
    RECOVERY_VERDICT_MPTCP = 2,
    RECOVERY_VERDICT_KTLS = 3,
    RECOVERY_VERDICT_UNIX_DGRAM = 4,
    RECOVERY_VERDICT_OLD_CONNECTION = 5, /* its numbers say nothing: made by TCP_REPAIR, unannounced */
    RECOVERY_VERDICT_OTHER_SOCKET = 6,   /* vsock, packet, sctp, bytes spliced out of AF_UNIX, ... */
    RECOVERY_VERDICT_FOREIGN_PAGER = 7,  /* userfaultfd: another process fills its memory */
    RECOVERY_VERDICT_SHARED_SOCKET = 8,  /* another recorded process used the same end of a connection */
    RECOVERY_VERDICT_UNIX_OOB = 9,       /* took an AF_UNIX byte out of its order (MSG_OOB) */
    RECOVERY_VERDICT_MISSED = 10,        /* a program run was left out; what it uses leaves no position */
    RECOVERY_VERDICT_OVERFLOW = 11,      /* too many ends closed without room for their last records */
    RECOVERY_VERDICT_TAKEN_OVER = 12,    /* took up an end that had been told to be outside */
    RECOVERY_VERDICT_DATAGRAM = 13       /* used UDP: none where all of its application is on this host */
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
    uint64_t time_ns; /* of records in quick succession, the time of one shortly before */
    uint32_t length;
    uint32_t thread;
};

#if defined(__cplusplus)
static_assert(sizeof(struct recovery_record) == RECOVERY_RECORD_BYTES, "record is 56 bytes");
#else
_Static_assert(sizeof(struct recovery_record) == RECOVERY_RECORD_BYTES, "record is 56 bytes");
#endif

#endif /* RECOVERY_RING_H */
