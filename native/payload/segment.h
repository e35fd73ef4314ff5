/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk side of the payload log: chunks are joined per channel, written to the open segment, synced by a
 * thread of its own, so that a slow disk never stops the ring from being drained. One thread calls all of
 * this. An error of the disk costs the bytes of that write (holes), never the log: the next write opens a new
 * segment.
 */
#ifndef RECOVERY_PAYLOAD_SEGMENT_H
#define RECOVERY_PAYLOAD_SEGMENT_H

#include <stdint.h>
#include "payload_record.h"

struct segments; /* opaque */

struct segments_options {
    const char *directory;  /* exists; files in it are made 0600 */
    uint64_t segment_bytes; /* a segment is sealed at this size */
    uint64_t limit_bytes;   /* of all segments together, as they occupy the disk; the oldest are removed */
};

struct segments_place {
    uint32_t segment;
    uint64_t position; /* the end of what is durable */
};

struct segments *segments_open(const struct segments_options *options);
/* Takes a chunk as the ring delivers it; the bytes are copied. */
void segments_add(struct segments *segments, const struct payload_chunk *chunk, const uint8_t *bytes);
/* Notes that bytes found no room in the ring. */
void segments_lost(struct segments *segments, uint64_t bytes);
/* Hands everything added to the kernel and wakes the syncing thread. */
void segments_write(struct segments *segments);
/* Waits until everything written is durable. 0, or the errno of the first failure since the last call. */
int segments_sync(struct segments *segments, struct segments_place *place);
/* Bytes of payload written, and lost because the disk failed. */
void segments_figures(const struct segments *segments, uint64_t *written, uint64_t *failed);
/* Writes, syncs, frees. */
int segments_close(struct segments *segments);

#endif
