/* SPDX-License-Identifier: Apache-2.0 */
/* C = A · B, n × n; every process fills and computes a band of rows and reads all of B. */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

static size_t bytes(const struct run *run) {
    return 3 * run->n * run->n * sizeof(double);
}

static void fill(double *a, double *b, size_t n, size_t from, size_t to) {
    for (size_t i = from * n; i < to * n; i++) {
        a[i] = run_random((uint32_t)i) % 1000 / 1000.0;
        b[i] = run_random((uint32_t)(i + n * n)) % 1000 / 1000.0;
    }
}

static void multiply_row(const double *a, const double *b, double *c, size_t n, size_t row) {
    for (size_t column = 0; column < n; column++) {
        double sum = 0;
        for (size_t k = 0; k < n; k++)
            sum += a[row * n + k] * b[k * n + column];
        c[row * n + column] = sum;
    }
}

static void compute(struct run *run) {
    const size_t n = run->n;
    double *a = run->memory, *b = a + n * n, *c = b + n * n;
    size_t from, to;

    run_share(run, n, &from, &to);
    if (run->kept.step == 0) {
        fill(a, b, n, from, to);
        run_barrier(run);
    }
    for (size_t row = from + run->kept.step; row < to; row++) {
        multiply_row(a, b, c, n, row);
        run_step(run);
    }
    run_barrier(run);
}

static int correct(const struct run *run) {
    const size_t n = run->n;
    double *a = run_allocate(bytes(run)), *b = a + n * n, *c = b + n * n;

    fill(a, b, n, 0, n);
    for (size_t row = 0; row < n; row++)
        multiply_row(a, b, c, n, row);
    const int equal = memcmp(a, run->memory, bytes(run)) == 0;
    free(a);
    return equal;
}

const struct kernel matmul_kernel = {"matmul", "product of two n x n matrices", 96, 2048, 1, bytes, compute,
                                     correct};
