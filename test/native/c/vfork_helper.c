/* SPDX-License-Identifier: Apache-2.0 */
/* Starts a program again and again, and each time is long in the midst of it. */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    for (unsigned turn = 0;; turn++) {
        const pid_t child = vfork();
        if (child == 0) {
            usleep(500000); /* the parent waits, and both use one memory */
            _exit(0);
        }
        waitpid(child, NULL, 0);
        printf("%u\n", turn);
        fflush(stdout);
        usleep(100000);
    }
}
