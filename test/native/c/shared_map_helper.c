/* SPDX-License-Identifier: Apache-2.0 */
/* Maps argv[1] shared and writable, a private copy of it, and shared memory without a file; then waits to be
 * killed. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int count, char **words) {
    const int fd = count == 2 ? open(words[1], O_RDWR) : -1;

    if (fd < 0 || mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0) == MAP_FAILED ||
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
        return 1;
    puts("private");
    fflush(stdout);
    if (getchar() == EOF || mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED)
        return 1;
    puts("shared");
    fflush(stdout);
    pause();
    return 0;
}
