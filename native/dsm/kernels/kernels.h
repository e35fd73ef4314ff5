/* SPDX-License-Identifier: Apache-2.0 */
/* The programs that run on the DSM: each fills its input, computes with everybody, and lets rank 0 compare
 * the result with a sequential run in private memory. */
#ifndef RECOVERY_DSM_KERNELS_H
#define RECOVERY_DSM_KERNELS_H

#include "../recovery_dsm.h"

/* What every kernel gets. `n` and `iterations` mean what the kernel says. */
struct run {
    struct dsm *dsm;
    void *memory;
    unsigned rank, size;
    size_t n;
    unsigned iterations;
    unsigned every;    /* steps between checkpoints of one entity; 0: none */
    unsigned pause_us; /* after each step */
    /* Registered state: steps that are done, and what a kernel must know of the one it is in. A kernel that
     * finds `step` above 0 goes on there: its input is in the shared memory. */
    struct {
        uint32_t step, work;
    } kept;
};

struct kernel {
    const char *name, *about;
    size_t n, max_n; /* default and greatest `n` */
    unsigned iterations;
    size_t (*bytes)(const struct run *run); /* of shared memory */
    void (*compute)(struct run *run);       /* in every process */
    int (*correct)(const struct run *run);  /* in rank 0, after the last barrier */
};

extern const struct kernel sor_kernel, lu_kernel, matmul_kernel, radix_kernel, tsp_kernel;

/* The library's calls; they print the error and exit(DSM_EXIT_FAILED) if one fails. */
void run_barrier(struct run *run);
void run_lock(struct run *run, unsigned id);
void run_unlock(struct run *run, unsigned id);
/* The end of a step: pauses, and checkpoints what is due; each entity at a time of its own. */
void run_step(struct run *run);

/* Rows [from, to) of `count` that belong to `rank`. */
void run_share(const struct run *run, size_t count, size_t *from, size_t *to);
/* Number `index` of a fixed pseudo-random sequence. */
uint32_t run_random(uint32_t index);
/* calloc that never returns NULL. */
void *run_allocate(size_t bytes);

#endif /* RECOVERY_DSM_KERNELS_H */
