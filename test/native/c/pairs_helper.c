/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pairs CPU: for each line "tcp COUNT" or "unix COUNT" on standard input makes a new connection with itself,
 * sends and receives one byte COUNT times, and prints the CPU time of one send and one receive together in
 * ns. "short COUNT": makes and closes COUNT connections, and prints the CPU time of one.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP 2000

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int listen_somewhere(struct sockaddr_in *address) {
    socklen_t length = sizeof(*address);
    const int listener = socket(AF_INET, SOCK_STREAM, 0);

    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)address, length) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)address, &length) != 0)
        die("listen");
    return listener;
}

static void connect_to(int listener, const struct sockaddr_in *address, int ends[2]) {
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(ends[0], (const struct sockaddr *)address, sizeof(*address)) != 0)
        die("tcp");
    ends[1] = accept(listener, NULL, NULL);
}

static void tcp_pair(int ends[2]) {
    struct sockaddr_in address;
    const int listener = listen_somewhere(&address), one = 1;

    connect_to(listener, &address, ends);
    setsockopt(ends[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    close(listener);
}

static void make_and_close(long count) {
    struct sockaddr_in address;
    const int listener = listen_somewhere(&address);

    for (long i = 0; i < count; i++) {
        int ends[2];
        connect_to(listener, &address, ends);
        close(ends[0]);
        close(ends[1]);
    }
    close(listener);
}

static void move(const int ends[2], long count) {
    char byte = 'x';
    for (long i = 0; i < count; i++)
        if (send(ends[0], &byte, 1, 0) != 1 || recv(ends[1], &byte, 1, 0) != 1)
            die("pair");
}

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now); /* what others do on this machine costs us nothing */
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

int main(int argc, char **argv) {
    char kind[8];
    long count;
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    CPU_SET(argc > 1 ? atoi(argv[1]) : 0, &cpus);
    sched_setaffinity(0, sizeof(cpus), &cpus);
    /* Where it is permitted nobody cools our caches in the middle of a round of some 100 ms. */
    sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1});
    while (scanf("%7s %ld", kind, &count) == 2) {
        int ends[2];
        if (strcmp(kind, "short") == 0) {
            const double begin = now_ns();
            make_and_close(count);
            printf("%.3f\n", (now_ns() - begin) / (double)count);
            fflush(stdout);
            continue;
        }
        if (strcmp(kind, "tcp") == 0)
            tcp_pair(ends);
        else if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0)
            die("unix");
        move(ends, WARM_UP);
        const double start = now_ns();
        move(ends, count);
        printf("%.3f\n", (now_ns() - start) / (double)count);
        fflush(stdout);
        close(ends[0]);
        close(ends[1]);
    }
    return 0;
}
