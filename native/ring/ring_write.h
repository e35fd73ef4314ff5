/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The producer's end of a memory ring: one memfd, one writing thread, the slots of recovery_ring.h.
 *
 *   page 0   consumer position (u64), written by the reader
 *   page 1   producer position (u64), then records lost and not yet told (u64); written by the producer
 *   page 2…  data, `bytes` long, a power of two
 *
 * A slot is 64 bytes: u32 length (56, or 56 | 1 << 30 = discard), u32 low half of the record's sequence
 * number, struct recovery_record. Sequence numbers rise along one ring and are dense over all rings of one
 * process, so that the reader merges its threads exactly, without a clock. They start at 1.
 *
 * The memfd is sealed against shrinking and growing before anybody else sees it: a reader can't be hit by
 * SIGBUS. The reader trusts nothing in it (memory_ring.h); the writer trusts nothing in page 0 either.
 *
 * Lifetime: 1. The descriptor belongs to the caller and may be closed once the reader has it.
 *           2. The memory outlives the writing process as long as a reader maps it: what was written is not
 * lost.
 */
#ifndef RECOVERY_RING_WRITE_H
#define RECOVERY_RING_WRITE_H

#include <stddef.h>
#include <stdint.h>

#include "../include/recovery_ring.h"

#define MEMORY_RING_MIN_BYTES 4096u
#define MEMORY_RING_MAX_BYTES (64u << 20)

struct ring_writer {
    uint8_t *base;          /* the whole memfd */
    uint8_t *data;          /* base + 2 pages */
    uint64_t bytes;         /* of data */
    uint64_t position;      /* bytes ever written */
    uint64_t consumer_seen; /* an old consumer position: saves reading the shared line on every record */
    uint64_t last;          /* last sequence number written */
    uint64_t lost;          /* records since then that found no room */
    uint64_t asked;         /* `position` when the reader was last asked to come */
    size_t mapped;
};

/* Makes a ring of `bytes` (a power of two from MEMORY_RING_MIN_BYTES to MEMORY_RING_MAX_BYTES) and its
 * descriptor. 0, -EINVAL, or -errno of memfd_create, ftruncate, fcntl, mmap. */
int ring_writer_open(struct ring_writer *writer, uint64_t bytes, int *fd);

/* Appends one record; `sequence` is the process's counter, raised by one if and only if there was room.
 * `counter` may be shared by threads. Takes everything of `record` but lost_before. 1: written, 0: lost and
 * counted. */
int ring_write(struct ring_writer *writer, const struct recovery_record *record, uint64_t *counter);

/* True where the reader should come before its time: the ring is half full, and so it was not, or half a ring
 * ago, when this was last true. How to call the reader is the caller's affair. */
int ring_wants_reader(struct ring_writer *writer);

/* Unmaps; harmless on a zeroed or closed writer. */
void ring_writer_close(struct ring_writer *writer);

#endif /* RECOVERY_RING_WRITE_H */
