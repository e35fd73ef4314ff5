/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A web server under short connections, each one request and one answer of 64 bytes:
 *
 *   short_connections server            prints its port; serves until it is killed
 *   short_connections client PORT COUNT THREADS [PER_SECOND]      at most so many, from all threads together
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE 64
#define MAX_THREADS 16

static struct sockaddr_in address = {.sin_family = AF_INET};
static long count, left;
static double each_ns; /* between the begin of two; 0: as fast as it can */
static struct timespec begun;

/* Until connection number `at` is due. */
static void wait_for_turn(long at) {
    const double due = each_ns * (double)at + (double)begun.tv_nsec;
    const struct timespec until = {.tv_sec = begun.tv_sec + (time_t)(due / 1e9),
                                   .tv_nsec = (long)(due - 1e9 * (double)(time_t)(due / 1e9))};
    if (each_ns > 0)
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static void *serve(void *listener) {
    char message[MESSAGE];
    while (listener != NULL) {
        const int connection = accept(*(int *)listener, NULL, NULL);
        if (connection < 0)
            continue;
        if (recv(connection, message, MESSAGE, MSG_WAITALL) == MESSAGE)
            send(connection, message, MESSAGE, MSG_NOSIGNAL);
        close(connection);
    }
    return NULL;
}

/* A reset at the end leaves no port waiting. */
static void *ask(void *unused) {
    const struct linger reset = {.l_onoff = 1};
    char message[MESSAGE] = "GET /";
    for (long rest; (rest = __sync_fetch_and_sub(&left, 1)) > 0;) {
        wait_for_turn(count - rest);
        const int connection = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(connection, (struct sockaddr *)&address, sizeof(address)) != 0 ||
            send(connection, message, MESSAGE, MSG_NOSIGNAL) != MESSAGE ||
            recv(connection, message, MESSAGE, MSG_WAITALL) != MESSAGE ||
            recv(connection, message, 1, 0) != 0) {
            perror("short_connections");
            exit(1);
        }
        setsockopt(connection, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        close(connection);
    }
    return unused;
}

static int server(void) {
    pthread_t threads[2];
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 4096) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0)
        return 1;
    printf("%u\n", ntohs(address.sin_port));
    fflush(stdout);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, serve, &listener);
    pause();
    return 0;
}

int main(int arguments, char **words) {
    pthread_t threads[MAX_THREADS];
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (arguments == 2 && strcmp(words[1], "server") == 0)
        return server();
    if (arguments < 5 || arguments > 6 || strcmp(words[1], "client") != 0)
        return 2;
    address.sin_port = htons((uint16_t)atoi(words[2]));
    count = left = atol(words[3]);
    each_ns = arguments == 6 ? 1e9 / atof(words[5]) : 0;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    const int started = atoi(words[4]) < MAX_THREADS ? atoi(words[4]) : MAX_THREADS;
    for (int i = 0; i < started; i++)
        pthread_create(&threads[i], NULL, ask, NULL);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
