/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Red-black successive over-relaxation on an n × n grid with a hot edge; each process owns a band of rows.
 * The colours lie in arrays of their own, so that what one phase writes nobody reads in the same phase, not
 * even on the same page.
 */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

#define OMEGA 1.5

/* Point (row, column) has colour (row + column) % 2 and is number column / 2 of its row in that colour. */
struct grid {
    double *colour[2];
    size_t n, width;
};

static size_t bytes(const struct run *run) {
    return 2 * run->n * ((run->n + 1) / 2) * sizeof(double);
}

static struct grid grid_at(void *memory, size_t n) {
    const size_t width = (n + 1) / 2;
    double *first = memory;
    return (struct grid){{first, first + n * width}, n, width};
}

static double *point(const struct grid *grid, size_t row, size_t column) {
    return grid->colour[(row + column) % 2] + row * grid->width + column / 2;
}

static void fill(const struct grid *grid, size_t from, size_t to) {
    for (size_t row = from; row < to; row++)
        for (size_t column = 0; column < grid->n; column++)
            *point(grid, row, column) =
                row == 0 ? 100.0 : run_random((uint32_t)(row * grid->n + column)) % 100 / 100.0;
}

/* Rows [from, to) of one colour; inner points only. */
static void relax(const struct grid *grid, size_t from, size_t to, unsigned colour) {
    for (size_t row = from < 1 ? 1 : from; row < to && row < grid->n - 1; row++)
        for (size_t column = 1 + (row + colour + 1) % 2; column < grid->n - 1; column += 2) {
            double *here = point(grid, row, column);
            const double mean = (*point(grid, row - 1, column) + *point(grid, row + 1, column) +
                                 *point(grid, row, column - 1) + *point(grid, row, column + 1)) /
                                4;
            *here += OMEGA * (mean - *here);
        }
}

static void compute(struct run *run) {
    const struct grid grid = grid_at(run->memory, run->n);
    size_t from, to;

    run_share(run, run->n, &from, &to);
    if (run->kept.step == 0) {
        fill(&grid, from, to);
        run_barrier(run);
    }
    for (unsigned iteration = run->kept.step; iteration < run->iterations; iteration++) {
        for (unsigned colour = 0; colour < 2; colour++) {
            relax(&grid, from, to, colour);
            run_barrier(run);
        }
        run_step(run);
    }
}

static int correct(const struct run *run) {
    void *memory = run_allocate(bytes(run));
    const struct grid grid = grid_at(memory, run->n);

    fill(&grid, 0, run->n);
    for (unsigned iteration = 0; iteration < run->iterations; iteration++)
        for (unsigned colour = 0; colour < 2; colour++)
            relax(&grid, 0, run->n, colour);
    const int equal = memcmp(memory, run->memory, bytes(run)) == 0;
    free(memory);
    return equal;
}

const struct kernel sor_kernel = {"sor",  "red-black SOR on an n x n grid", 256, 4096, 20, bytes, compute,
                                  correct};
