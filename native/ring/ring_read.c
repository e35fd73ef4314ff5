/* SPDX-License-Identifier: Apache-2.0 */
#include "ring_read.h"

#include <errno.h>
#include <string.h>

#include "../include/recovery_ring.h"
#include "barrier.h"

/* The kernel's slot header: u32 length with two flags, u32 page offset (not ours). */
#define HEADER_BYTES 8u
#define HEADER_BUSY (1u << 31)
#define HEADER_DISCARD (1u << 30)

_Static_assert(RECOVERY_SLOT_BYTES == RECOVERY_RECORD_BYTES + HEADER_BYTES,
               "a slot is a header and a record");

void ring_reader_init(struct ring_reader *reader, const struct ring_map *map) {
    reader->map = map;
    ring_rewind(reader);
}

void ring_rewind(struct ring_reader *reader) {
    reader->position = *reader->map->consumer_position;
}

uint64_t ring_fill(const struct ring_reader *reader) {
    return ring_load_acquire64(reader->map->producer_position) - *reader->map->consumer_position;
}

int ring_commit(struct ring_reader *reader, uint64_t position) {
    const uint64_t consumer = *reader->map->consumer_position;

    if (position - consumer > reader->position - consumer || position % HEADER_BYTES != 0)
        return -EINVAL;
    ring_store_release64(reader->map->consumer_position, position);
    return 0;
}

/* Bytes from one slot to the next. */
static uint64_t slot_bytes(uint32_t length) {
    return ((uint64_t)length + HEADER_BYTES + 7) & ~(uint64_t)7;
}

/* Copies `count` bytes of the ring from offset `at`; they may go around its end. */
static void copy_out(uint8_t *to, const struct ring_map *map, uint64_t at, size_t count) {
    const uint64_t begin = at & (map->bytes - 1), straight = map->bytes - begin;

    if (straight >= count) {
        memcpy(to, map->data + begin, count);
        return;
    }
    memcpy(to, map->data + begin, straight);
    memcpy(to + straight, map->data, count - straight);
}

static void copy_slot(uint8_t *to, const struct ring_map *map, uint64_t position) {
    memcpy(to, &position, HEADER_BYTES);
    copy_out(to + HEADER_BYTES, map, position + HEADER_BYTES, RECOVERY_RECORD_BYTES);
}

/* True if some order of the positions is impossible: a damaged page, or another reader. */
static int positions_broken(const struct ring_reader *reader, uint64_t producer) {
    const uint64_t consumer = *reader->map->consumer_position;

    return producer - consumer > reader->map->bytes || reader->position - consumer > producer - consumer ||
           (reader->position | producer) % HEADER_BYTES != 0;
}

int ring_drain(struct ring_reader *reader, uint8_t *out, size_t capacity, struct ring_batch *batch) {
    const struct ring_map *map = reader->map;
    const uint64_t producer = ring_load_acquire64(map->producer_position);
    uint64_t position = reader->position;
    size_t used = 0;

    memset(batch, 0, sizeof(*batch));
    batch->position = position;
    if (positions_broken(reader, producer))
        return -EBADMSG;
    while (position != producer && capacity - used >= RECOVERY_SLOT_BYTES) {
        const uint8_t *slot = map->data + (position & (map->bytes - 1));
        const uint32_t header = ring_load_acquire32((const uint32_t *)slot);
        const uint32_t length = header & ~(HEADER_BUSY | HEADER_DISCARD);

        if (header & HEADER_BUSY) {
            batch->busy = 1;
            break;
        }
        if (slot_bytes(length) > producer - position) {
            memset(batch, 0, sizeof(*batch));
            batch->position = reader->position;
            return -EBADMSG;
        }
        if (length == RECOVERY_RECORD_BYTES && !(header & HEADER_DISCARD)) {
            copy_slot(out + used, map, position);
            used += RECOVERY_SLOT_BYTES;
        } else if (!(header & HEADER_DISCARD)) {
            batch->foreign++;
        }
        position += slot_bytes(length);
    }
    batch->records = used / RECOVERY_SLOT_BYTES;
    batch->position = reader->position = position;
    return 0;
}
