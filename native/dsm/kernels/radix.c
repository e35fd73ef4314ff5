/* SPDX-License-Identifier: Apache-2.0 */
/* Radix sort of n 32-bit keys, 8 bits a pass: histograms of all processes, their prefix sums, then everybody
 * scatters into the other array, all over the pages: much false sharing. */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS 256u
#define PASSES 4u

struct layout {
    uint32_t *keys[2], *counts; /* counts[rank][bucket] */
};

static struct layout layout_of(const struct run *run) {
    uint32_t *memory = run->memory;
    return (struct layout){{memory, memory + run->n}, memory + 2 * run->n};
}

static size_t bytes(const struct run *run) {
    return (2 * run->n + DSM_MAX_PROCESSES * BUCKETS) * sizeof(uint32_t);
}

static void count(const uint32_t *keys, size_t from, size_t to, unsigned pass, uint32_t *into) {
    memset(into, 0, BUCKETS * sizeof(*into));
    for (size_t i = from; i < to; i++)
        into[keys[i] >> (8 * pass) & (BUCKETS - 1)]++;
}

/* Where the first key of each bucket of this process goes. */
static void first_places(const struct run *run, const uint32_t *counts, uint32_t *places) {
    uint32_t place = 0;

    for (unsigned bucket = 0; bucket < BUCKETS; bucket++)
        for (unsigned rank = 0; rank < run->size; rank++) {
            if (rank == run->rank)
                places[bucket] = place;
            place += counts[rank * BUCKETS + bucket];
        }
}

static void compute(struct run *run) {
    const struct layout shared = layout_of(run);
    uint32_t places[BUCKETS], mine[BUCKETS];
    size_t from, to;

    run_share(run, run->n, &from, &to);
    for (size_t i = from; run->kept.step == 0 && i < to; i++)
        shared.keys[0][i] = run_random((uint32_t)i);
    for (unsigned pass = run->kept.step; pass < PASSES; pass++) {
        const uint32_t *keys = shared.keys[pass % 2];
        count(keys, from, to, pass, mine);
        memcpy(shared.counts + run->rank * BUCKETS, mine, sizeof(mine));
        run_barrier(run);
        first_places(run, shared.counts, places);
        for (size_t i = from; i < to; i++)
            shared.keys[(pass + 1) % 2][places[keys[i] >> (8 * pass) & (BUCKETS - 1)]++] = keys[i];
        run_barrier(run);
        run_step(run);
    }
}

static int by_value(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static int correct(const struct run *run) {
    uint32_t *keys = run_allocate(run->n * sizeof(*keys));

    for (size_t i = 0; i < run->n; i++)
        keys[i] = run_random((uint32_t)i);
    qsort(keys, run->n, sizeof(*keys), by_value);
    const int equal = memcmp(keys, layout_of(run).keys[0], run->n * sizeof(*keys)) == 0;
    free(keys);
    return equal;
}

const struct kernel radix_kernel = {"radix", "radix sort of n keys", 8192, 4u << 20, 1, bytes, compute,
                                    correct};
