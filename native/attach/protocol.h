/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a collector without rights asks of the attach helper, over the SOCK_SEQPACKET pair it inherited.
 *
 *   request   one packet: struct attach_request, then `count` items: cut entries (expect-restore) or cgroup
 * ids (flush), none elsewhere answer    one packet, of a list several: struct attach_answer, then `bytes` of
 * body
 *
 * One machine, one build: native byte order, no versions to negotiate; `hello` says the build's version so
 * that two of different ages refuse each other. One request at a time; the answers come in its order.
 *
 *   operation        cgroup   number        count   body of the answer
 *   hello            0        0             0       struct attach_hello; descriptors: the ring, its reader's
 * lock select           id       incarnation   0       none; only for cgroups below the one the helper was
 * told unselect         id       incarnation   0       none counters         0        0             0 struct
 * attach_counters cut              id       0             0       cut entries, a packet full at a time;
 * `more` until the last flush            0        0             1 …     none; `pending` verdicts         0 0
 * 0       struct capture_verdict, as cut expect-restore   0        0             1 …     none userfaults 0 0
 * 0       struct userfault_counts parts            0        0             0       struct capture_part, as cut
 *
 * status < 0: a negative errno, and the body is one sentence of at most CAPTURE_ERROR_BYTES - 1. A request
 * that breaks the table, or any field's range, is answered -EPROTO, and nothing else happens.
 */
#ifndef RECOVERY_ATTACH_PROTOCOL_H
#define RECOVERY_ATTACH_PROTOCOL_H

#include "../loader/capture.h"

#define ATTACH_MAGIC 0x61724c52u
#define ATTACH_VERSION 3u
#define ATTACH_ENTRIES 512  /* of one packet: 32 KiB, far below a socket's buffer */
#define ATTACH_CGROUPS 4096 /* of one packet */
#define ATTACH_MAX_OFFSET ((1ull << 53) - 1)

enum attach_operation {
    ATTACH_HELLO = 1,
    ATTACH_SELECT,
    ATTACH_UNSELECT,
    ATTACH_COUNTERS,
    ATTACH_CUT,
    ATTACH_FLUSH,
    ATTACH_VERDICTS,
    ATTACH_EXPECT_RESTORE,
    ATTACH_USERFAULTS,
    ATTACH_PARTS,
    ATTACH_SELECT_ATTACHED /* below its own cgroup as all others, but it ran before */
};

struct attach_request {
    uint32_t magic;
    uint16_t operation;
    uint16_t count; /* of items behind this header */
    uint64_t cgroup;
    uint32_t number;
    uint32_t reserved;
};

struct attach_answer {
    uint32_t magic;
    int32_t status;
    uint32_t bytes;   /* of the body */
    uint8_t more;     /* 1: another packet of this answer follows */
    uint8_t complete; /* of a cut, in its last packet */
    uint8_t pending;  /* of a cut, in its last packet, and of a flush */
    uint8_t reserved;
};

struct attach_hello {
    uint32_t version;
    uint32_t ring_bytes;
    uint32_t created;    /* 1: the programs were loaded by this helper */
    uint32_t userfaults; /* 1: page faults are watched */
};

/* struct capture_counters, summed over the CPUs. */
struct attach_counters {
    uint64_t committed[CAPTURE_KINDS];
    uint64_t lost[CAPTURE_KINDS];
    uint64_t recursion_misses;
};

_Static_assert(sizeof(struct attach_request) == 24 && sizeof(struct attach_answer) == 16, "no padding");
_Static_assert(sizeof(struct capture_cut_entry) == 64, "no padding");

#define ATTACH_BODY_BYTES (ATTACH_ENTRIES * sizeof(struct capture_cut_entry))
#define ATTACH_PACKET_BYTES (sizeof(struct attach_answer) + ATTACH_BODY_BYTES)
_Static_assert(ATTACH_CGROUPS * sizeof(uint64_t) <= ATTACH_BODY_BYTES, "cgroup ids fit");

#endif
