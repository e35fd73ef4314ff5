/* SPDX-License-Identifier: Apache-2.0 */
/* LU decomposition of a diagonally dominant n × n matrix, in place, without pivoting; rows are dealt out
 * cyclically. */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

static size_t bytes(const struct run *run) {
    return run->n * run->n * sizeof(double);
}

static void fill_row(double *matrix, size_t n, size_t row) {
    for (size_t column = 0; column < n; column++)
        matrix[row * n + column] =
            run_random((uint32_t)(row * n + column)) % 1000 / 1000.0 + (row == column ? (double)n : 0);
}

/* Row `row` loses its element under pivot `k`. */
static void eliminate(double *matrix, size_t n, size_t row, size_t k) {
    double *here = matrix + row * n;
    const double *pivot = matrix + k * n;
    const double factor = here[k] / pivot[k];

    here[k] = factor;
    for (size_t column = k + 1; column < n; column++)
        here[column] -= factor * pivot[column];
}

static void compute(struct run *run) {
    double *matrix = run->memory;
    const size_t n = run->n;

    if (run->kept.step == 0) {
        for (size_t row = run->rank; row < n; row += run->size)
            fill_row(matrix, n, row);
        run_barrier(run);
    }
    for (size_t k = run->kept.step; k + 1 < n; k++) {
        for (size_t row = run->rank; row < n; row += run->size)
            if (row > k)
                eliminate(matrix, n, row, k);
        run_barrier(run);
        run_step(run);
    }
}

static int correct(const struct run *run) {
    double *matrix = run_allocate(bytes(run));

    for (size_t row = 0; row < run->n; row++)
        fill_row(matrix, run->n, row);
    for (size_t k = 0; k + 1 < run->n; k++)
        for (size_t row = k + 1; row < run->n; row++)
            eliminate(matrix, run->n, row, k);
    const int equal = memcmp(matrix, run->memory, bytes(run)) == 0;
    free(matrix);
    return equal;
}

const struct kernel lu_kernel = {"lu",   "LU decomposition of an n x n matrix", 96, 2048, 1, bytes, compute,
                                 correct};
