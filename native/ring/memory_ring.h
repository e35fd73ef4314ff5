/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader's end of a memory ring (layout: ring_write.h), written for producers that lie.
 *
 * Every header and position is copied once and judged on the copy; the reader's own positions are private, so
 * that a producer that scribbles over the whole ring, also while it is read, gets -EBADMSG or nonsense
 * records of its own and nothing else. Records that come out obey no rule yet: src/format/ring-record.ts
 * judges them.
 *
 * Order: consumer position <= reader position <= producer position <= consumer position + ring bytes.
 * One reader at a time; not thread safe.
 */
#ifndef RECOVERY_MEMORY_RING_H
#define RECOVERY_MEMORY_RING_H

#include <stddef.h>
#include <stdint.h>

struct memory_ring {
    uint8_t *base;
    const uint8_t *data;
    uint64_t bytes;     /* of data */
    uint64_t position;  /* next slot to read */
    uint64_t committed; /* what page 0 should say; its shared copy is never read again */
    uint64_t sequence;  /* of the last slot read */
    size_t mapped;
    size_t page_bytes;
};

/* What one memory_ring_drain did. */
struct memory_batch {
    size_t records;    /* slots of RECOVERY_SLOT_BYTES written to the caller's buffer */
    uint64_t position; /* reader position afterwards; memory_ring_commit takes it */
};

/* Maps a ring that came from another process and starts at its first record. Takes no ownership of `fd`.
 * 0; -EMEDIUMTYPE: not a memfd; -EPERM: not sealed against shrinking, growing and unsealing, or not writable;
 * -EINVAL: its size is not that of a ring; mmap's -errno. */
int memory_ring_open(struct memory_ring *ring, int fd);

/* Copies records until `capacity` bytes are full or the ring is empty. Each takes 64 bytes in `out`: its
 * sequence number (u64), then struct recovery_record. 0, or -EBADMSG: a header, position or sequence number
 * is impossible; then the batch is empty and the ring should be given up. */
int memory_ring_drain(struct memory_ring *ring, uint8_t *out, size_t capacity, struct memory_batch *batch);

/* Gives everything before `position` back to the producer. -EINVAL outside [committed, position read]. */
int memory_ring_commit(struct memory_ring *ring, uint64_t position);

/* Records that found no room and that no record has told yet. For a live producer: a hint that may rise. */
uint64_t memory_ring_lost(const struct memory_ring *ring);

/* Bytes written and not yet drained; more than `bytes` if the producer lies. */
uint64_t memory_ring_pending(const struct memory_ring *ring);

/* Unmaps; harmless on a zeroed or closed ring. */
void memory_ring_close(struct memory_ring *ring);

#endif /* RECOVERY_MEMORY_RING_H */
