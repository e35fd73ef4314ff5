/* SPDX-License-Identifier: Apache-2.0 */
/* Counts a timer of 1 ms, in whole numbers of 10 in the file `count`. */
#include <stdint.h>
#include <stdio.h>
#include <sys/timerfd.h>
#include <unistd.h>

int main(void) {
    const struct itimerspec every = {{0, 1000000}, {0, 1000000}};
    const int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    uint64_t due, sum = 0, told = 0;

    timerfd_settime(timer, 0, &every, NULL);
    while (read(timer, &due, sizeof(due)) == sizeof(due)) {
        sum += due;
        if (sum - told < 10)
            continue;
        told = sum;
        FILE *file = fopen("count.new", "w");
        fprintf(file, "%lu", (unsigned long)(sum / 10));
        fclose(file);
        rename("count.new", "count");
    }
}
