/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "ring_write.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "barrier.h"

#define HEADER_BYTES 8u
#define HEADER_DISCARD (1u << 30)
/* The reader tells sequence numbers from their low half: no two neighbours of a ring may be further apart. */
#define SEQUENCE_STRIDE (1u << 30)

_Static_assert(RECOVERY_SLOT_BYTES == RECOVERY_RECORD_BYTES + HEADER_BYTES,
               "a slot is a header and a record");

static uint64_t *consumer_position(const struct ring_writer *writer) {
    return (uint64_t *)writer->base;
}

/* producer position, then untold losses */
static uint64_t *producer_page(const struct ring_writer *writer) {
    return (uint64_t *)(writer->data - (writer->data - writer->base) / 2);
}

static int make_memory(uint64_t bytes, size_t page) {
    const int fd = memfd_create("recovery-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)(2 * page + bytes)) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        const int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

int ring_writer_open(struct ring_writer *writer, uint64_t bytes, int *fd) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);

    memset(writer, 0, sizeof(*writer));
    if (bytes < MEMORY_RING_MIN_BYTES || bytes > MEMORY_RING_MAX_BYTES || (bytes & (bytes - 1)) != 0)
        return -EINVAL;
    const int made = make_memory(bytes, page);
    if (made < 0)
        return made;
    uint8_t *base = mmap(NULL, 2 * page + bytes, PROT_READ | PROT_WRITE, MAP_SHARED, made, 0);
    if (base == MAP_FAILED) {
        const int error = -errno;
        close(made);
        return error;
    }
    writer->base = base;
    writer->data = base + 2 * page;
    writer->bytes = bytes;
    writer->mapped = 2 * page + bytes;
    *fd = made;
    return 0;
}

/* True if one more slot fits. A consumer position that nobody could have written means: no room. */
static int has_room(struct ring_writer *writer) {
    if (writer->position - writer->consumer_seen + RECOVERY_SLOT_BYTES <= writer->bytes)
        return 1;
    const uint64_t consumer = ring_load_acquire64(consumer_position(writer));
    if (writer->position - consumer > writer->bytes)
        return 0;
    writer->consumer_seen = consumer;
    return writer->position - consumer + RECOVERY_SLOT_BYTES <= writer->bytes;
}

/* Fills the slot at the producer position and hands it over. `record` NULL: a discarded slot. */
static void publish(struct ring_writer *writer, const struct recovery_record *record, uint64_t sequence) {
    uint8_t *slot = writer->data + (writer->position & (writer->bytes - 1));
    const uint32_t header[2] = {RECOVERY_RECORD_BYTES | (record == NULL ? HEADER_DISCARD : 0),
                                (uint32_t)sequence};

    memcpy(slot, header, HEADER_BYTES);
    if (record != NULL) {
        struct recovery_record copy = *record;
        copy.lost_before = writer->lost > UINT32_MAX ? UINT32_MAX : (uint32_t)writer->lost;
        memcpy(slot + HEADER_BYTES, &copy, sizeof(copy));
    }
    writer->last = sequence;
    writer->position += RECOVERY_SLOT_BYTES;
    ring_store_release64(producer_page(writer), writer->position); /* pairs with memory_ring_drain */
}

static int lose(struct ring_writer *writer) {
    writer->lost++;
    ring_store_release64(producer_page(writer) + 1, writer->lost);
    return 0;
}

/* Before a long silence of this ring ends: slots that only carry sequence numbers. 0: no room for them. */
static int stride(struct ring_writer *writer, const uint64_t *counter) {
    while (__atomic_load_n(counter, __ATOMIC_RELAXED) - writer->last >= SEQUENCE_STRIDE) {
        if (!has_room(writer))
            return 0;
        publish(writer, NULL, writer->last + SEQUENCE_STRIDE);
    }
    return 1;
}

int ring_write(struct ring_writer *writer, const struct recovery_record *record, uint64_t *counter) {
    if (!stride(writer, counter) || !has_room(writer))
        return lose(writer);
    const int told = writer->lost != 0;
    publish(writer, record, __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED));
    if (told) {
        writer->lost = 0;
        ring_store_release64(producer_page(writer) + 1, 0);
    }
    return 1;
}

int ring_wants_reader(struct ring_writer *writer) {
    const uint64_t half = writer->bytes / 2;

    if (writer->position - writer->asked < half || writer->position - writer->consumer_seen < half)
        return 0;
    const uint64_t consumer = ring_load_acquire64(consumer_position(writer));
    if (writer->position - consumer <= writer->bytes) /* else nobody could have written it */
        writer->consumer_seen = consumer;
    if (writer->position - writer->consumer_seen < half)
        return 0;
    writer->asked = writer->position;
    return 1;
}

void ring_writer_close(struct ring_writer *writer) {
    if (writer->base != NULL)
        munmap(writer->base, writer->mapped);
    memset(writer, 0, sizeof(*writer));
}
