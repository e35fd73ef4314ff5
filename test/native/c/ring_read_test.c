/* SPDX-License-Identifier: Apache-2.0 */
/* native/ring against a fake ring in memfd memory. Prints "ok" or the line that failed. Run under ASan and
 * UBSan. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../../native/include/recovery_ring.h"
#include "../../../native/ring/barrier.h"
#include "../../../native/ring/ring_read.h"

#define BUSY (1u << 31)
#define DISCARD (1u << 30)
#define PAGE 4096u
#define RING_BYTES 4096u

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                  \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

static struct ring_map map;
static struct ring_reader reader;
static uint8_t *data;
static uint64_t *producer;

/* Lays the memory out as ring_map does: consumer page, producer page, data; behind it nothing may be read. */
static void fake_open(uint64_t start) {
    const int fd = memfd_create("ring", 0);
    CHECK(fd >= 0 && ftruncate(fd, 2 * PAGE + RING_BYTES) == 0);
    uint8_t *base = mmap(NULL, 3 * PAGE + RING_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(base != MAP_FAILED);
    const int rights = PROT_READ | PROT_WRITE, how = MAP_SHARED | MAP_FIXED;
    CHECK(mmap(base, 2 * PAGE + RING_BYTES, rights, how, fd, 0) == base);
    close(fd);
    map.consumer_position = (uint64_t *)base;
    producer = (uint64_t *)(base + PAGE);
    map.producer_position = producer;
    map.data = data = base + 2 * PAGE;
    map.bytes = RING_BYTES;
    map.page_bytes = PAGE;
    *map.consumer_position = *producer = start;
    ring_reader_init(&reader, &map);
}

static void fake_close(void) {
    munmap(map.consumer_position, 3 * PAGE + RING_BYTES);
}

static void header(uint64_t position, uint32_t value) {
    __atomic_store_n((uint32_t *)(data + (position & (RING_BYTES - 1))), value, __ATOMIC_RELEASE);
}

/* Writes into the ring, around its end if need be. */
static void write_ring(uint64_t position, const void *bytes, size_t count) {
    for (size_t i = 0; i < count; i++)
        data[(position + i) & (RING_BYTES - 1)] = ((const uint8_t *)bytes)[i];
}

/* Reserves a slot whose record carries `serial` in begin; returns its position. */
static uint64_t put(uint64_t serial, uint32_t flags) {
    struct recovery_record record = {.kind = RECOVERY_SEND, .begin = serial};
    const uint64_t at = *producer;
    write_ring(at + 8, &record, sizeof(record));
    header(at, RECOVERY_RECORD_BYTES | flags);
    ring_store_release64(producer, at + RECOVERY_SLOT_BYTES);
    return at;
}

static uint64_t serial_of(const uint8_t *out, size_t index) {
    struct recovery_record record;
    memcpy(&record, out + index * RECOVERY_SLOT_BYTES + 8, sizeof(record));
    return record.begin;
}

static void test_wrap(uint64_t start) {
    uint8_t *out = malloc(RING_BYTES);
    struct ring_batch batch;
    uint64_t written = 0, read = 0;

    fake_open(start);
    for (int round = 0; round < 500; round++) {
        const int more = 1 + round % 40;
        for (int i = 0; i < more; i++)
            put(written++, 0);
        CHECK(ring_drain(&reader, out, RING_BYTES, &batch) == 0 && batch.records == (size_t)more);
        for (size_t i = 0; i < batch.records; i++) {
            uint64_t position;
            memcpy(&position, out + i * RECOVERY_SLOT_BYTES, 8);
            CHECK(serial_of(out, i) == read && position == start + read * RECOVERY_SLOT_BYTES);
            read++;
        }
        CHECK(ring_commit(&reader, batch.position) == 0 && ring_fill(&reader) == 0);
    }
    fake_close();
    free(out);
}

static void test_odd_slots(void) {
    uint8_t out[8 * RECOVERY_SLOT_BYTES];
    struct ring_batch batch;

    fake_open(RING_BYTES - 3 * 64 -
              8); /* off the slot grid, so that one record crosses the end of the ring */
    put(1, 0);
    put(2, DISCARD);
    put(3, 0);
    const uint64_t busy = put(4, BUSY);
    put(5, 0);
    CHECK(ring_drain(&reader, out, sizeof(out), &batch) == 0);
    CHECK(batch.records == 2 && batch.busy && batch.position == busy);
    CHECK(serial_of(out, 0) == 1 && serial_of(out, 1) == 3);
    header(busy, RECOVERY_RECORD_BYTES);
    CHECK(ring_drain(&reader, out, sizeof(out), &batch) == 0 && batch.records == 2 && !batch.busy);
    CHECK(serial_of(out, 0) == 4 && serial_of(out, 1) == 5);
    header(*producer, 20); /* a foreign length: 8 + 20, rounded to 32 */
    ring_store_release64(producer, *producer + 32);
    put(6, 0);
    CHECK(ring_drain(&reader, out, sizeof(out), &batch) == 0 && batch.records == 1 && batch.foreign == 1);
    CHECK(serial_of(out, 0) == 6);
    fake_close();
}

static void test_commit_and_rewind(void) {
    uint8_t out[2 * RECOVERY_SLOT_BYTES + 63];
    struct ring_batch batch;

    fake_open(0);
    for (int i = 0; i < 5; i++)
        put((uint64_t)i, 0);
    CHECK(ring_drain(&reader, out, 63, &batch) == 0 && batch.records == 0 && batch.position == 0);
    CHECK(ring_drain(&reader, out, sizeof(out), &batch) == 0 && batch.records == 2 && batch.position == 128);
    CHECK(ring_fill(&reader) == 320);
    CHECK(ring_commit(&reader, 129) == -EINVAL && ring_commit(&reader, 192) == -EINVAL);
    CHECK(ring_commit(&reader, 124) == -EINVAL && ring_commit(&reader, 64) == 0 &&
          ring_commit(&reader, 0) == -EINVAL);
    ring_rewind(&reader);
    CHECK(ring_drain(&reader, out, sizeof(out), &batch) == 0 && batch.records == 2 && serial_of(out, 0) == 1);
    fake_close();
}

static void refuse(struct ring_batch *batch, uint8_t *out, size_t bytes) {
    const uint64_t before = reader.position;
    CHECK(ring_drain(&reader, out, bytes, batch) == -EBADMSG);
    CHECK(batch->records == 0 && batch->position == before && reader.position == before);
}

static void test_hostile(void) {
    static const uint32_t lengths[] = {
        57, 64, 1000, 4096, 0x3fffffff, 0x3ffffff8 | DISCARD, 0x3fffffff | DISCARD};
    uint8_t out[4 * RECOVERY_SLOT_BYTES];
    struct ring_batch batch;

    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        fake_open(64 * i);
        header(put(1, 0), lengths[i]);
        refuse(&batch, out, sizeof(out));
        fake_close();
    }
    fake_open(4096);
    *producer = 4096 + RING_BYTES + 64; /* more than the ring holds */
    refuse(&batch, out, sizeof(out));
    *producer = 64; /* behind the reader */
    refuse(&batch, out, sizeof(out));
    *producer = 4096 + 12; /* off the grid */
    refuse(&batch, out, sizeof(out));
    fake_close();
}

/* Random bytes in the whole ring: any answer but a crash, and never an advance past the producer. */
static void test_fuzz(unsigned seed) {
    uint8_t *out = malloc(RING_BYTES);
    struct ring_batch batch;

    fake_open(0);
    srand(seed);
    for (int round = 0; round < 20000; round++) {
        const uint64_t start = (uint64_t)(rand() % 1024) * 8;
        *map.consumer_position = start;
        ring_rewind(&reader);
        *producer = start + (uint64_t)(rand() % 513) * 8;
        for (size_t at = 0; at < RING_BYTES; at += 8)
            header(at,
                   rand() % 4 ? (uint32_t)(rand() % 80) | (rand() % 9 ? 0 : DISCARD) : (uint32_t)rand() * 2u);
        if (ring_drain(&reader, out, RING_BYTES, &batch) == 0)
            CHECK(batch.position - start <= *producer - start && batch.records <= RING_BYTES / 64);
    }
    fake_close();
    free(out);
}

#define STREAM 500000u
static void *produce(void *unused) {
    for (uint64_t serial = 0; serial < STREAM;) {
        if (*producer - ring_load_acquire64(map.consumer_position) > RING_BYTES - 64) {
            sched_yield(); /* a full ring on a busy machine: the reader needs the CPU, not we */
            continue;
        }
        const uint64_t at = *producer;
        header(at, RECOVERY_RECORD_BYTES | BUSY);
        ring_store_release64(producer, at + 64);
        struct recovery_record record = {.kind = RECOVERY_SEND, .begin = serial++};
        memcpy(data + (at & (RING_BYTES - 1)) + 8, &record, sizeof(record));
        header(at, RECOVERY_RECORD_BYTES | (serial % 5 == 0 ? DISCARD : 0));
    }
    return unused;
}

static void test_live_producer(void) {
    uint8_t out[32 * RECOVERY_SLOT_BYTES];
    struct ring_batch batch;
    pthread_t thread;
    uint64_t next = 0;

    fake_open(0);
    CHECK(pthread_create(&thread, NULL, produce, NULL) == 0);
    while (reader.position != (uint64_t)STREAM * 64) {
        CHECK(ring_drain(&reader, out, sizeof(out), &batch) == 0);
        for (size_t i = 0; i < batch.records; i++, next++) {
            if (next % 5 == 4)
                next++; /* every fifth was discarded */
            CHECK(serial_of(out, i) == next);
        }
        CHECK(ring_commit(&reader, batch.position) == 0);
        if (batch.records == 0)
            sched_yield();
    }
    pthread_join(thread, NULL);
    fake_close();
}

int main(int argc, char **argv) {
    const unsigned seed = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1;

    CHECK(ring_map_open(&map, -1, 4095) == -EINVAL && ring_map_open(&map, -1, 3 * 4096) == -EINVAL);
    CHECK(ring_map_open(&map, -1, 8192) == -EBADF);
    test_wrap(0);
    test_wrap(UINT64_MAX - 40 * 64 + 1); /* the 64-bit positions themselves wrap */
    test_odd_slots();
    test_commit_and_rewind();
    test_hostile();
    test_fuzz(seed);
    test_live_producer();
    puts("ok");
    return 0;
}
