/* SPDX-License-Identifier: Apache-2.0 */
/* Obeys letters on its standard input, and answers each with itself: m maps argv[1] shared and writable, r
 * shared and read-only by a descriptor that may write, p makes the mapping writable, q read-only again, s
 * stores another byte through it, u unmaps. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 4096 };

int main(int count, char **words) {
    const int fd = count == 2 ? open(words[1], O_RDWR) : -1;
    char *map = MAP_FAILED;

    for (int order; fd >= 0 && (order = getchar()) != EOF;) {
        if (order == 'm')
            map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        else if (order == 'r')
            map = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
        else if (order == 'p')
            mprotect(map, SIZE, PROT_READ | PROT_WRITE);
        else if (order == 'q')
            mprotect(map, SIZE, PROT_READ);
        else if (order == 's')
            map[0]++;
        else if (order == 'u')
            munmap(map, SIZE);
        else
            continue;
        if (map == MAP_FAILED)
            return 1;
        putchar(order);
        fflush(stdout);
    }
    return fd < 0;
}
