/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring reader on a ring of any content: it may refuse, it may never read or advance past the producer.
 *
 *   input: u16 start (slots of 8 bytes), u16 distance to the producer, u16 buffer bytes, then the ring's
 * bytes
 *
 * With clang -fsanitize=fuzzer this is a libFuzzer target. With -DSTANDALONE: ring_fuzz SEED SECONDS makes
 * its own inputs, half of them plausible rings with a few bytes changed.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../../native/include/recovery_ring.h"
#include "../../../native/ring/ring_read.h"

#define RING_BYTES 1024u
#define INPUT_BYTES (6 + RING_BYTES)

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                  \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

static uint16_t take16(const uint8_t *data) {
    return (uint16_t)(data[0] | data[1] << 8);
}

/* Until it is empty, busy or refused; the buffer is exactly as large as told, so that ASan sees one byte
 * more. */
static void drain_all(struct ring_reader *reader, uint64_t producer, size_t capacity) {
    uint8_t *out = malloc(capacity + 1);
    struct ring_batch batch;

    for (int rounds = 0;; rounds++) {
        const uint64_t before = reader->position;
        const int status = ring_drain(reader, out, capacity, &batch);
        CHECK(status == 0 || status == -EBADMSG);
        CHECK(batch.position == reader->position);
        CHECK(batch.records * RECOVERY_SLOT_BYTES <= capacity);
        if (status != 0) {
            CHECK(reader->position == before && batch.records == 0);
            break;
        }
        CHECK(reader->position - before <= producer - before);
        CHECK(batch.records * RECOVERY_SLOT_BYTES <= reader->position - before);
        for (size_t i = 0; i < batch.records; i++) {
            uint64_t at;
            memcpy(&at, out + i * RECOVERY_SLOT_BYTES, sizeof(at));
            CHECK(at >= before && at < reader->position);
        }
        CHECK(ring_commit(reader, batch.position) == 0);
        if (reader->position == before)
            break;
        CHECK(rounds <= (int)RING_BYTES / 8);
    }
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint64_t consumer, producer;
    uint8_t *ring; /* of exact size for ASan */
    struct ring_map map = {
        .consumer_position = &consumer, .producer_position = &producer, .bytes = RING_BYTES};
    struct ring_reader reader;

    if (size < 6)
        return 0;
    ring = calloc(1, RING_BYTES);
    CHECK(ring != NULL);
    memcpy(ring, data + 6, size - 6 < RING_BYTES ? size - 6 : RING_BYTES);
    map.data = ring;
    consumer = (uint64_t)take16(data) * 8;
    producer = consumer + take16(data + 2) % (RING_BYTES / 8 + 3) * 8;
    ring_reader_init(&reader, &map);
    drain_all(&reader, producer, take16(data + 4) % 700);
    free(ring);
    return 0;
}

#ifdef STANDALONE

static void make_input(uint8_t *input) {
    for (size_t i = 0; i < INPUT_BYTES; i++)
        input[i] = (uint8_t)rand();
    if (rand() % 2 == 0)
        return;
    for (size_t at = 0; at + 8 <= RING_BYTES;) {
        static const uint32_t lengths[] = {56, 56, 56, 56, 20, 0, 56 | 1u << 30, 56 | 1u << 31, 1000};
        const uint32_t header = lengths[rand() % 9];
        memcpy(input + 6 + at, &header, sizeof(header));
        at += ((header & 0x3fffffff) + 15) & ~7u;
    }
    input[0] = input[1] = 0;
    for (int i = rand() % 4; i > 0; i--)
        input[rand() % (int)INPUT_BYTES] ^= (uint8_t)(1 << rand() % 8);
}

int main(int argc, char **argv) {
    static uint8_t input[INPUT_BYTES];
    const time_t end = time(NULL) + (argc > 2 ? atoi(argv[2]) : 2);
    unsigned long runs = 0;

    srand(argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1);
    for (; time(NULL) < end; runs++) {
        make_input(input);
        LLVMFuzzerTestOneInput(input, rand() % 8 == 0 ? (size_t)rand() % INPUT_BYTES : INPUT_BYTES);
    }
    printf("%lu runs\n", runs);
    return 0;
}

#endif
