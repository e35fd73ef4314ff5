/* SPDX-License-Identifier: Apache-2.0 */
/* Shortest round trip through n cities by branch and bound. Beginnings of tours are dealt out by a counter
 * under one lock; the best length so far stands under another, and is read without it: the memory is
 * sequentially consistent. */
#include "kernels.h"

#include <limits.h>
#include <stdbool.h>
#include <string.h>

#define MAX_CITIES 14u
#define WORK_LOCK 0u
#define BEST_LOCK 1u

struct shared {
    uint32_t next; /* beginning to try next: its second and third city */
    uint8_t other_page[DSM_PAGE_BYTES - sizeof(uint32_t)];
    uint32_t best;
};

struct search {
    uint32_t n, distance[MAX_CITIES][MAX_CITIES], best;
    struct run *run; /* NULL: the sequential run */
};

static size_t bytes(const struct run *run) {
    (void)run;
    return sizeof(struct shared);
}

static void place_cities(struct search *search, uint32_t n) {
    search->n = n;
    for (uint32_t a = 0; a < n; a++)
        for (uint32_t b = 0; b < n; b++) {
            const int dx = (int)(run_random(2 * a) % 1000) - (int)(run_random(2 * b) % 1000);
            const int dy = (int)(run_random(2 * a + 1) % 1000) - (int)(run_random(2 * b + 1) % 1000);
            search->distance[a][b] = (uint32_t)((dx < 0 ? -dx : dx) + (dy < 0 ? -dy : dy));
        }
}

static uint32_t best_so_far(const struct search *search) {
    return search->run == NULL ? search->best
                               : *(volatile uint32_t *)&((struct shared *)search->run->memory)->best;
}

static void improve(struct search *search, uint32_t length) {
    if (search->run == NULL) {
        search->best = length;
        return;
    }
    struct shared *shared = search->run->memory;
    run_lock(search->run, BEST_LOCK);
    if (length < shared->best)
        shared->best = length;
    run_unlock(search->run, BEST_LOCK);
}

static void extend(struct search *search, uint32_t city, uint32_t visited, uint32_t length) {
    if (length >= best_so_far(search))
        return;
    if (visited == (1u << search->n) - 1) {
        if (length + search->distance[city][0] < best_so_far(search))
            improve(search, length + search->distance[city][0]);
        return;
    }
    for (uint32_t next = 1; next < search->n; next++)
        if (!(visited & 1u << next))
            extend(search, next, visited | 1u << next, length + search->distance[city][next]);
}

/* Beginning number `work`: false where there is none. */
static int try_beginning(struct search *search, uint32_t work) {
    const uint32_t others = search->n - 1, second = 1 + work / others, third = 1 + work % others;

    if (second > others)
        return 0;
    if (second != third)
        extend(search, third, 1u | 1u << second | 1u << third,
               search->distance[0][second] + search->distance[second][third]);
    return 1;
}

static void compute(struct run *run) {
    struct shared *shared = run->memory;
    struct search search = {.run = run};
    bool again = run->kept.step > 0; /* the beginning that we had drawn is ours still */

    place_cities(&search, (uint32_t)run->n);
    if (!again) {
        if (run->rank == 0)
            shared->best = UINT_MAX;
        run_barrier(run);
    }
    do {
        if (!again) {
            run_lock(run, WORK_LOCK);
            run->kept.work = shared->next++;
            run_unlock(run, WORK_LOCK);
            run_step(run);
        }
        again = false;
    } while (try_beginning(&search, run->kept.work));
    run_barrier(run);
}

static int correct(const struct run *run) {
    struct search search = {.best = UINT_MAX};
    uint32_t work = 0;

    place_cities(&search, (uint32_t)run->n);
    while (try_beginning(&search, work))
        work++;
    return search.best == ((struct shared *)run->memory)->best;
}

const struct kernel tsp_kernel = {
    "tsp", "shortest round trip through n cities", 10, MAX_CITIES, 1, bytes, compute, correct};
