/* SPDX-License-Identifier: Apache-2.0 */
/* native/ring/ring_write and memory_ring against each other, and the reader against producers that lie.
 * Prints "ok" or the line that failed. Run under sanitizers; `program bench` prints nanoseconds a record. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../../../native/ring/memory_ring.h"
#include "../../../native/ring/ring_write.h"

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                  \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

#define BYTES 4096u
#define SLOTS (BYTES / 64)

static struct ring_writer writer;
static struct memory_ring ring;
static uint64_t counter;
static uint8_t out[BYTES];
static struct memory_batch batch;

static void open_pair(uint64_t bytes) {
    int fd;
    counter = 0;
    CHECK(ring_writer_open(&writer, bytes, &fd) == 0 && memory_ring_open(&ring, fd) == 0);
    close(fd);
}

static void close_pair(void) {
    ring_writer_close(&writer);
    memory_ring_close(&ring);
    ring_writer_close(&writer);
    memory_ring_close(&ring);
}

static int put(uint64_t serial) {
    const struct recovery_record record = {.kind = RECOVERY_SEND, .begin = serial, .lost_before = 99};
    return ring_write(&writer, &record, &counter);
}

static struct recovery_record record_at(size_t index, uint64_t *sequence) {
    struct recovery_record record;
    memcpy(sequence, out + index * 64, 8);
    memcpy(&record, out + index * 64 + 8, sizeof(record));
    return record;
}

static void test_wrap(void) {
    uint64_t written = 0, read = 0, sequence;

    open_pair(BYTES);
    for (int round = 0; round < 1000; round++) {
        const unsigned more = 1 + (unsigned)round % SLOTS;
        for (unsigned i = 0; i < more; i++)
            CHECK(put(written++));
        CHECK(memory_ring_pending(&ring) == more * 64);
        CHECK(memory_ring_drain(&ring, out, sizeof(out), &batch) == 0 && batch.records == more);
        for (size_t i = 0; i < more; i++, read++) {
            const struct recovery_record record = record_at(i, &sequence);
            CHECK(record.begin == read && sequence == read + 1 && record.lost_before == 0);
        }
        CHECK(memory_ring_commit(&ring, batch.position) == 0);
    }
    close_pair();
}

static void test_overflow(void) {
    uint64_t sequence;

    open_pair(BYTES);
    for (unsigned i = 0; i < SLOTS; i++)
        CHECK(put(i));
    for (int i = 0; i < 7; i++)
        CHECK(!put(1000));
    CHECK(memory_ring_lost(&ring) == 7 && counter == SLOTS);
    CHECK(memory_ring_drain(&ring, out, sizeof(out), &batch) == 0 && batch.records == SLOTS);
    CHECK(!put(1000)); /* drained is not committed */
    CHECK(memory_ring_commit(&ring, 64) == 0 && put(2000) && memory_ring_lost(&ring) == 0);
    CHECK(memory_ring_drain(&ring, out, sizeof(out), &batch) == 0 && batch.records == 1);
    CHECK(record_at(0, &sequence).lost_before == 8 && sequence == SLOTS + 1);
    CHECK(memory_ring_commit(&ring, batch.position) == 0 && put(2001));
    CHECK(memory_ring_drain(&ring, out, 63, &batch) == 0 && batch.records == 0);
    CHECK(memory_ring_drain(&ring, out, sizeof(out), &batch) == 0 && batch.records == 1);
    CHECK(record_at(0, &sequence).lost_before == 0);
    CHECK(memory_ring_commit(&ring, batch.position + 64) == -EINVAL);
    CHECK(memory_ring_commit(&ring, batch.position - 1) == -EINVAL);
    close_pair();
}

static void give_back(uint64_t slots) {
    CHECK(memory_ring_drain(&ring, out, slots * 64, &batch) == 0 && batch.records == slots);
    CHECK(memory_ring_commit(&ring, batch.position) == 0);
}

/* The reader is asked to come once, at half full, and again only after half a ring more. */
static void test_wanted(void) {
    unsigned asked = 0;

    open_pair(BYTES);
    for (unsigned i = 1; i <= SLOTS; i++) {
        CHECK(put(i));
        const int wanted = ring_wants_reader(&writer);
        CHECK(wanted == (i == SLOTS / 2 || i == SLOTS));
        CHECK(!ring_wants_reader(&writer));
    }
    CHECK(!put(0) && !ring_wants_reader(&writer)); /* it was asked already */
    give_back(SLOTS);
    for (unsigned i = 1; i <= 10 * SLOTS; i++) { /* a reader that comes in time is left alone */
        CHECK(put(i));
        asked += (unsigned)ring_wants_reader(&writer);
        if (i % (SLOTS / 4) == 0)
            give_back(SLOTS / 4);
    }
    CHECK(asked == 0);
    for (unsigned i = 0; i < SLOTS / 2; i++)
        CHECK(put(i));
    *(uint64_t *)writer.base = ~0ull; /* nobody can have read so far */
    CHECK(ring_wants_reader(&writer) && !ring_wants_reader(&writer));
    close_pair();
}

/* Another thread of the process wrote 5 billion records meanwhile. */
static void test_long_silence(void) {
    uint64_t sequence;

    open_pair(BYTES);
    CHECK(put(1));
    counter = 5000000000ull;
    CHECK(put(2));
    CHECK(memory_ring_drain(&ring, out, sizeof(out), &batch) == 0 && batch.records == 2);
    CHECK(record_at(1, &sequence).begin == 2 && sequence == 5000000001ull);
    close_pair();
}

static void test_refused_descriptors(void) {
    struct memory_ring other;
    struct ring_writer small;
    int fd;

    CHECK(ring_writer_open(&small, 4095, &fd) == -EINVAL &&
          ring_writer_open(&small, 3 << 12, &fd) == -EINVAL);
    CHECK(ring_writer_open(&small, 128u << 20, &fd) == -EINVAL &&
          ring_writer_open(&small, 2048, &fd) == -EINVAL);
    CHECK(memory_ring_open(&other, -1) == -EMEDIUMTYPE);
    fd = open("/dev/zero", O_RDWR);
    CHECK(memory_ring_open(&other, fd) == -EMEDIUMTYPE);
    close(fd);
    char name[] = "/tmp/memory-ring-XXXXXX";
    fd = mkstemp(name);
    CHECK(unlink(name) == 0 && ftruncate(fd, 3 * 4096) == 0);
    CHECK(memory_ring_open(&other, fd) == -EMEDIUMTYPE || memory_ring_open(&other, fd) == -EPERM);
    close(fd);
    static const int seals[] = {0, F_SEAL_SHRINK | F_SEAL_GROW, F_SEAL_SEAL | F_SEAL_GROW};
    for (size_t i = 0; i < sizeof(seals) / sizeof(*seals); i++) {
        fd = memfd_create("unsealed", MFD_ALLOW_SEALING);
        CHECK(ftruncate(fd, 3 * 4096) == 0 && fcntl(fd, F_ADD_SEALS, seals[i]) == 0);
        CHECK(memory_ring_open(&other, fd) == -EPERM);
        close(fd);
    }
    static const off_t sizes[] = {0, 4096, 2 * 4096, 2 * 4096 + 4095, 5 * 4096, (off_t)1 << 40};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        fd = memfd_create("odd", MFD_ALLOW_SEALING);
        CHECK(ftruncate(fd, sizes[i]) == 0 &&
              fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
        CHECK(memory_ring_open(&other, fd) == -EINVAL);
        close(fd);
    }
    fd = memfd_create("frozen", MFD_ALLOW_SEALING);
    CHECK(ftruncate(fd, 3 * 4096) == 0 &&
          fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0);
    CHECK(memory_ring_open(&other, fd) == -EPERM);
    close(fd);
}

static void test_impossible(void) {
    uint64_t *producer;

    open_pair(BYTES);
    producer = (uint64_t *)(writer.base + 4096);
    CHECK(put(1));
    static const uint64_t bad[] = {65, 63, BYTES + 64, UINT64_MAX - 63, (uint64_t)1 << 63};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        *producer = bad[i];
        CHECK(memory_ring_drain(&ring, out, sizeof(out), &batch) == -EBADMSG && batch.records == 0);
    }
    *producer = 64;
    static const uint32_t lengths[] = {0, 55, 57, 64, 56 | 1u << 31, UINT32_MAX, 1u << 30};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        memcpy(writer.data, &lengths[i], 4);
        CHECK(memory_ring_drain(&ring, out, sizeof(out), &batch) == -EBADMSG && ring.position == 0);
    }
    const uint32_t good = 56, again = 1;
    memcpy(writer.data, &good, 4);
    CHECK(memory_ring_drain(&ring, out, sizeof(out), &batch) == 0 && batch.records == 1);
    CHECK(put(2)); /* a sequence number that does not rise */
    memcpy(writer.data + 64 + 4, &again, 4);
    CHECK(memory_ring_drain(&ring, out, sizeof(out), &batch) == -EBADMSG);
    *(uint64_t *)writer.base = 12345; /* the writer's own distrust: no room, no crash */
    for (unsigned i = 0; i < 3 * SLOTS; i++)
        put(i);
    close_pair();
}

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static volatile int stop;
/* Scribbles over all of the ring, positions included, while it is read. */
static void *scribble(void *seed) {
    unsigned state = (unsigned)(uintptr_t)seed;

    while (!stop) {
        const unsigned dice = (unsigned)rand_r(&state);
        uint64_t *word = (uint64_t *)(writer.base + (dice % (3 * 4096) & ~7u));
        const uint64_t values[] = {dice, 56 | (uint64_t)dice << 32, ring.position + dice % 80 * 64,
                                   ~(uint64_t)dice};
        __atomic_store_n(word, values[dice >> 7 & 3], __ATOMIC_RELAXED);
        if (dice & 3)
            continue;
        /* Now and then something that can be read: some slots, their headers in order. */
        for (unsigned i = 0; i < dice % SLOTS; i++)
            __atomic_store_n((uint64_t *)(writer.data + ((ring.position + i * 64) & (BYTES - 1))),
                             56 | (ring.sequence + 1 + i) << 32, __ATOMIC_RELAXED);
        __atomic_store_n((uint64_t *)(writer.base + 4096), ring.position + (dice >> 4) % 65 * 64,
                         __ATOMIC_RELAXED);
    }
    return NULL;
}

static void test_hostile(unsigned seed) {
    pthread_t thread;
    uint8_t *exact = malloc(BYTES); /* ASan watches its ends */
    size_t good = 0, refused = 0;

    open_pair(BYTES);
    stop = 0;
    CHECK(pthread_create(&thread, NULL, scribble, (void *)(uintptr_t)seed) == 0);
    const double until = now_ns() + 20e9;
    for (int round = 0; round < 200000 || ((good < 1000 || refused < 1000) && now_ns() < until); round++) {
        if (round % 1000 == 0)
            sched_yield();
        const uint64_t before = ring.position;
        if (memory_ring_drain(&ring, exact, BYTES, &batch) == 0) {
            CHECK(batch.position - before <= BYTES && batch.records <= SLOTS);
            CHECK(memory_ring_commit(&ring, batch.position) == 0);
            good += batch.records;
        } else {
            CHECK(ring.position == before && batch.records == 0);
            refused++;
        }
        (void)memory_ring_lost(&ring);
    }
    stop = 1;
    pthread_join(thread, NULL);
    CHECK(refused >= 1000 && good >= 1000);
    fprintf(stderr, "hostile producer: %zu records, %zu refusals\n", good, refused);
    close_pair();
    free(exact);
}

#define STREAM 300000u
static void *produce(void *unused) {
    for (uint64_t serial = 0; serial < STREAM;)
        if (put(serial))
            serial++;
        else
            sched_yield();
    return unused;
}

static void test_live(void) {
    pthread_t thread;
    uint64_t next = 0, lost = 0, sequence;

    open_pair(BYTES);
    CHECK(pthread_create(&thread, NULL, produce, NULL) == 0);
    while (next < STREAM) {
        CHECK(memory_ring_drain(&ring, out, sizeof(out), &batch) == 0);
        for (size_t i = 0; i < batch.records; i++, next++) {
            const struct recovery_record record = record_at(i, &sequence);
            CHECK(record.begin == next && sequence == next + 1);
            lost += record.lost_before;
        }
        if (batch.records == 0)
            sched_yield();
        CHECK(memory_ring_commit(&ring, batch.position) == 0);
    }
    pthread_join(thread, NULL);
    fprintf(stderr, "live producer: %u records, %llu tries without room\n", STREAM, (unsigned long long)lost);
    close_pair();
}

/* Nanoseconds a record of a writer that always has room: the median of some runs. */
static int bench(void) {
    enum { RUNS = 9, RECORDS = 1 << 16 };
    double best = 1e9;
    const struct recovery_record record = {.kind = RECOVERY_PAGE_COPY, .process = 1, .length = 1};
    uint8_t *buffer = malloc(RECORDS * 64);

    open_pair(RECORDS * 64);
    for (int run = 0; run < RUNS; run++) {
        const double start = now_ns();
        for (int i = 0; i < RECORDS; i++)
            CHECK(ring_write(&writer, &record, &counter));
        const double each = (now_ns() - start) / RECORDS;
        if (run > 0 && each < best) /* the first run pays for the pages */
            best = each;
        CHECK(memory_ring_drain(&ring, buffer, RECORDS * 64, &batch) == 0 && batch.records == RECORDS);
        CHECK(memory_ring_commit(&ring, batch.position) == 0);
    }
    double floor = 1e9;
    for (int run = 0; run < RUNS; run++) {
        const double start = now_ns();
        for (int i = 0; i < RECORDS; i++) {
            memcpy(buffer + (size_t)i * 64, &record, sizeof(record));
            __asm__ volatile("" ::: "memory");
        }
        const double each = (now_ns() - start) / RECORDS;
        if (each < floor)
            floor = each;
    }
    printf("{\"nsPerRecord\":%.2f,\"nsCopy\":%.2f}\n", best, floor);
    close_pair();
    free(buffer);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "bench") == 0)
        return bench();
    test_wrap();
    test_overflow();
    test_wanted();
    test_long_silence();
    test_refused_descriptors();
    test_impossible();
    test_live();
    if (argc > 1) /* data races on purpose: not under ThreadSanitizer */
        test_hostile((unsigned)strtoul(argv[1], NULL, 10));
    puts("ok");
    return 0;
}
