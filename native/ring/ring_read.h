/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batch reader of a ring. It reads ahead of the consumer position: ring_drain copies, ring_commit lets go.
 * The caller commits only what it has stored, so a killed reader finds every unstored record again.
 *
 * Order: consumer position <= reader position <= producer position <= consumer position + ring bytes.
 * One reader at a time; not thread safe.
 */
#ifndef RECOVERY_RING_READ_H
#define RECOVERY_RING_READ_H

#include "ring_map.h"

struct ring_reader {
    const struct ring_map *map; /* outlives the reader */
    uint64_t position;          /* next slot to read */
};

/* What one ring_drain did. */
struct ring_batch {
    size_t records;    /* slots of RECOVERY_SLOT_BYTES written to the caller's buffer */
    uint32_t foreign;  /* slots of another length, skipped: records that nobody can read */
    int busy;          /* 1: stopped at a slot that its producer has not committed yet */
    uint64_t position; /* reader position afterwards; ring_commit takes it */
};

/* Starts at the consumer position. */
void ring_reader_init(struct ring_reader *reader, const struct ring_map *map);

/* Copies committed records until `capacity` bytes are full, a slot is busy, or the ring is empty.
 * Each takes 64 bytes in `out`: its ring position (u64), then struct recovery_record. Discarded slots are
 * skipped. 0, or -EBADMSG: a header or position is impossible; the reader stays where it was and the batch is
 * empty. */
int ring_drain(struct ring_reader *reader, uint8_t *out, size_t capacity, struct ring_batch *batch);

/* Lets everything before `position` go. -EINVAL outside [consumer position, reader position] or off the
 * 8-byte grid. */
int ring_commit(struct ring_reader *reader, uint64_t position);

/* Goes back to the consumer position: the next drain yields again what was not committed. */
void ring_rewind(struct ring_reader *reader);

/* Bytes held by the ring, read or not: producer - consumer. */
uint64_t ring_fill(const struct ring_reader *reader);

#endif /* RECOVERY_RING_READ_H */
