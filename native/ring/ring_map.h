/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The three mappings of a BPF_MAP_TYPE_RINGBUF.
 *
 *   consumer page   read-write   how far the reader has let go
 *   producer page   read-only    how far slots are reserved
 *   data            read-only    `bytes` long
 *
 * The kernel offers the data twice in a row, so that a slot that wraps reads straight on. We take it once:
 * each page counts to the resident memory as often as it is mapped, and only slots of foreign length wrap.
 *
 * Lifetime: 1. ring_map_open takes no ownership of the descriptor; it may be closed right after.
 *           2. No pointer of the map may be used after ring_map_close.
 */
#ifndef RECOVERY_RING_MAP_H
#define RECOVERY_RING_MAP_H

#include <stddef.h>
#include <stdint.h>

struct ring_map {
    uint64_t *consumer_position;       /* bytes ever let go; written only by the one reader */
    const uint64_t *producer_position; /* bytes ever reserved */
    const uint8_t *data;               /* `bytes` of them */
    uint64_t bytes;                    /* power of two */
    size_t page_bytes;
};

/* Maps the ring behind `fd`. 0, -EINVAL (size no power of two or no multiple of the page), or mmap's -errno.
 */
int ring_map_open(struct ring_map *map, int fd, uint64_t bytes);
/* Unmaps; harmless on a zeroed or already closed map. */
void ring_map_close(struct ring_map *map);

#endif /* RECOVERY_RING_MAP_H */
