/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "memory_ring.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "../include/recovery_ring.h"
#include "barrier.h"
#include "ring_write.h"

#define HEADER_BYTES 8u
#define HEADER_DISCARD (1u << 30)
#define NEEDED_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define TMPFS_TYPE 0x01021994

/* A memfd on huge pages could still raise SIGBUS where none is left: only the ordinary kind will do. */
static int check_memory(int fd, size_t page, uint64_t *bytes) {
    struct stat status;
    struct statfs system;
    const int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || fstatfs(fd, &system) != 0 || system.f_type != TMPFS_TYPE)
        return -EMEDIUMTYPE;
    if ((seals & NEEDED_SEALS) != NEEDED_SEALS)
        return -EPERM;
    if (fstat(fd, &status) != 0)
        return -errno;
    if (status.st_size < (off_t)(2 * page + MEMORY_RING_MIN_BYTES) ||
        status.st_size > (off_t)(2 * page + MEMORY_RING_MAX_BYTES))
        return -EINVAL;
    *bytes = (uint64_t)status.st_size - 2 * page;
    return (*bytes & (*bytes - 1)) == 0 ? 0 : -EINVAL;
}

int memory_ring_open(struct memory_ring *ring, int fd) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint64_t bytes = 0;

    memset(ring, 0, sizeof(*ring));
    const int error = check_memory(fd, page, &bytes);
    if (error != 0)
        return error;
    uint8_t *base = mmap(NULL, 2 * page + bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return errno == EACCES ? -EPERM : -errno;
    ring->base = base;
    ring->data = base + 2 * page;
    ring->bytes = bytes;
    ring->mapped = 2 * page + bytes;
    ring->page_bytes = page;
    return 0;
}

static const uint64_t *producer_page(const struct memory_ring *ring) {
    return (const uint64_t *)(ring->base + ring->page_bytes);
}

static int refuse(const struct memory_ring *ring, struct memory_batch *batch) {
    batch->records = 0;
    batch->position = ring->position;
    return -EBADMSG;
}

int memory_ring_drain(struct memory_ring *ring, uint8_t *out, size_t capacity, struct memory_batch *batch) {
    const uint64_t producer = ring_load_acquire64(producer_page(ring));
    uint64_t position = ring->position, sequence = ring->sequence;
    size_t used = 0;

    if (producer - ring->committed > ring->bytes || position - ring->committed > producer - ring->committed ||
        producer % RECOVERY_SLOT_BYTES != 0)
        return refuse(ring, batch);
    for (; position != producer && capacity - used >= RECOVERY_SLOT_BYTES; position += RECOVERY_SLOT_BYTES) {
        const uint8_t *slot = ring->data + (position & (ring->bytes - 1));
        const uint64_t header = ring_load_acquire64((const uint64_t *)slot);
        const uint32_t step = (uint32_t)(header >> 32) - (uint32_t)sequence;

        if (((uint32_t)header & ~HEADER_DISCARD) != RECOVERY_RECORD_BYTES || step == 0 || step > 1u << 31)
            return refuse(ring, batch);
        sequence += step;
        if ((uint32_t)header & HEADER_DISCARD)
            continue;
        memcpy(out + used, &sequence, HEADER_BYTES);
        memcpy(out + used + HEADER_BYTES, slot + HEADER_BYTES, RECOVERY_RECORD_BYTES);
        used += RECOVERY_SLOT_BYTES;
    }
    batch->records = used / RECOVERY_SLOT_BYTES;
    batch->position = ring->position = position;
    ring->sequence = sequence;
    return 0;
}

int memory_ring_commit(struct memory_ring *ring, uint64_t position) {
    if (position - ring->committed > ring->position - ring->committed || position % RECOVERY_SLOT_BYTES != 0)
        return -EINVAL;
    ring->committed = position;
    ring_store_release64((uint64_t *)ring->base, position);
    return 0;
}

uint64_t memory_ring_lost(const struct memory_ring *ring) {
    return ring_load_acquire64(producer_page(ring) + 1);
}

uint64_t memory_ring_pending(const struct memory_ring *ring) {
    return ring_load_acquire64(producer_page(ring)) - ring->position;
}

void memory_ring_close(struct memory_ring *ring) {
    if (ring->base != NULL)
        munmap(ring->base, ring->mapped);
    memset(ring, 0, sizeof(*ring));
}
