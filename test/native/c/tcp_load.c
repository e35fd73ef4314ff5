/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcp_load server PORT                       echoes on every connection, one child each; prints its port
 *                                            (0: one that is free)
 * tcp_load client PORT CONNECTIONS PAUSE_US  sends pieces of random size on random connections and reads the
 * echo SIGTERM: the client finishes its round and closes; whatever was sent has then been received.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_PIECE 6000
#define MAX_CONNECTIONS 64
#define ROUNDS_PER_CONNECTION 700

static volatile sig_atomic_t stop;
static char buffer[MAX_PIECE];

static void on_term(int signal) {
    (void)signal;
    stop = 1;
}

static struct sockaddr_in address(const char *port) {
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((unsigned short)atoi(port)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void no_delay(int fd) {
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void echo(int fd) {
    no_delay(fd);
    for (;;) {
        const ssize_t got = recv(fd, buffer, 1 + (size_t)rand() % sizeof(buffer), 0);
        if (got <= 0)
            _exit(0);
        for (ssize_t sent = 0; sent < got;) {
            const ssize_t more = send(fd, buffer + sent, (size_t)(got - sent), MSG_NOSIGNAL);
            if (more <= 0)
                _exit(1);
            sent += more;
        }
    }
}

static int serve(const char *port) {
    const int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in here = address(port);
    socklen_t length = sizeof(here);

    signal(SIGCHLD, SIG_IGN);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(listener, (struct sockaddr *)&here, sizeof(here)) != 0 || listen(listener, 64) != 0 ||
        getsockname(listener, (struct sockaddr *)&here, &length) != 0)
        return perror("tcp_load"), 1;
    printf("%u\n", ntohs(here.sin_port));
    fflush(stdout);
    for (;;) {
        const int fd = accept(listener, NULL, NULL);
        if (fd >= 0 && fork() == 0)
            echo(fd);
        close(fd);
    }
}

static int dial(const char *port) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in there = address(port);

    if (connect(fd, (struct sockaddr *)&there, sizeof(there)) != 0) {
        perror("tcp_load");
        exit(1);
    }
    no_delay(fd);
    return fd;
}

static int load(const char *port, int connections, unsigned pause_us) {
    int fds[MAX_CONNECTIONS], rounds[MAX_CONNECTIONS] = {0};

    for (int i = 0; i < connections; i++)
        fds[i] = dial(port);
    while (!stop) {
        const int i = rand() % connections;
        const ssize_t piece = 1 + rand() % MAX_PIECE;
        ssize_t sent = 0, got = 0;
        while (sent < piece)
            sent += send(fds[i], buffer, (size_t)(piece - sent), MSG_NOSIGNAL);
        while (got < piece) {
            const ssize_t more = recv(fds[i], buffer, (size_t)(piece - got), 0);
            if (more > 0)
                got += more;
        }
        if (++rounds[i] == ROUNDS_PER_CONNECTION) {
            close(fds[i]);
            fds[i] = dial(port);
            rounds[i] = 0;
        }
        if (pause_us > 0)
            usleep(pause_us);
    }
    return 0;
}

int main(int argc, char **argv) {
    signal(SIGTERM, on_term);
    if (argc == 3 && strcmp(argv[1], "server") == 0) {
        signal(SIGTERM, SIG_DFL);
        return serve(argv[2]);
    }
    if (argc == 5 && strcmp(argv[1], "client") == 0 && atoi(argv[3]) <= MAX_CONNECTIONS)
        return load(argv[2], atoi(argv[3]), (unsigned)atoi(argv[4]));
    return fprintf(stderr, "tcp_load: see the head of its source\n"), 2;
}
