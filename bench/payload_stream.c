// SPDX-License-Identifier: Apache-2.0
/* payload_stream BYTES WRITE: sends BYTES over one loopback connection in writes of WRITE, prints the
 * seconds. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void *drain(void *argument) {
    const int fd = *(int *)argument;
    static char buffer[1 << 18];

    while (recv(fd, buffer, sizeof(buffer), 0) > 0)
        ;
    return NULL;
}

int main(int count, char **arguments) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    struct timespec start, end;
    pthread_t reader;
    const int on = 1;

    if (count != 3)
        return 2;
    const uint64_t bytes = strtoull(arguments[1], NULL, 10), piece = strtoull(arguments[2], NULL, 10);
    char *buffer = calloc(1, piece);
    const int listener = socket(AF_INET, SOCK_STREAM, 0), out = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (void *)&address, size) || listen(listener, 1) ||
        getsockname(listener, (void *)&address, &size) || connect(out, (void *)&address, size))
        return 1;
    int in = accept(listener, NULL, NULL);
    setsockopt(out, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    pthread_create(&reader, NULL, drain, &in);
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (uint64_t at = 0; at < bytes;) {
        const ssize_t done = send(out, buffer, piece, 0);
        if (done <= 0)
            return 1;
        at += done;
    }
    shutdown(out, SHUT_WR);
    pthread_join(reader, NULL);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.6f\n", end.tv_sec - start.tv_sec + (end.tv_nsec - start.tv_nsec) / 1e9);
    return 0;
}
