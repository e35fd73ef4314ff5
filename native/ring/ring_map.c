/* SPDX-License-Identifier: Apache-2.0 */
#include "ring_map.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int ring_map_open(struct ring_map *map, int fd, uint64_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);

    memset(map, 0, sizeof(*map));
    if (bytes < page || (bytes & (bytes - 1)) != 0 || bytes > UINT32_MAX)
        return -EINVAL;
    void *consumer = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (consumer == MAP_FAILED)
        return -errno;
    void *producer = mmap(NULL, page + bytes, PROT_READ, MAP_SHARED, fd, (off_t)page);
    if (producer == MAP_FAILED) {
        const int error = -errno;
        munmap(consumer, page);
        return error;
    }
    map->consumer_position = consumer;
    map->producer_position = producer;
    map->data = (const uint8_t *)producer + page;
    map->bytes = bytes;
    map->page_bytes = page;
    return 0;
}

void ring_map_close(struct ring_map *map) {
    if (map->consumer_position == NULL)
        return;
    munmap(map->consumer_position, map->page_bytes);
    munmap((void *)map->producer_position, map->page_bytes + map->bytes);
    memset(map, 0, sizeof(*map));
}
