/* SPDX-License-Identifier: Apache-2.0 */
/*
 * talk_again PID LOCAL_PORT PORT BYTES rst|fin|hold
 *
 * A child with exactly this pid (0: any) connects from LOCAL_PORT to an echo server, sends BYTES, reads them
 * back, prints "PID BYTES" and closes; rst: without TIME_WAIT; hold: it keeps the connection until it is
 * killed. 0 BYTES: it only starts. Exit code 3: no pid can be chosen here.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct sockaddr_in address(const char *port) {
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((unsigned short)atoi(port)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* A connection from exactly this port; while the old one is in TIME_WAIT it is tried again. */
static int dial(const char *local, const char *port) {
    for (int attempt = 0; attempt < 500; attempt++) {
        const int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
        struct sockaddr_in here = address(local), there = address(port);

        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (bind(fd, (struct sockaddr *)&here, sizeof(here)) == 0 &&
            connect(fd, (struct sockaddr *)&there, sizeof(there)) == 0)
            return fd;
        close(fd);
        usleep(10000);
    }
    perror("talk_again");
    exit(1);
}

static int talk(char **argv) {
    static char buffer[4096];
    const long bytes = atol(argv[4]);
    if (bytes == 0)
        return 0;
    const int fd = dial(argv[2], argv[3]);

    for (long sent = 0, got = 0; got < bytes;) {
        const long piece = bytes - sent > 100 ? 100 : bytes - sent;
        if (piece > 0)
            sent += send(fd, buffer, (size_t)piece, MSG_NOSIGNAL);
        const ssize_t more = recv(fd, buffer, sizeof(buffer), 0);
        if (more <= 0)
            return 1;
        got += more;
    }
    printf("%d %ld\n", getpid(), bytes);
    fflush(stdout);
    if (strcmp(argv[5], "hold") == 0)
        pause();
    if (strcmp(argv[5], "rst") == 0) {
        const struct linger now = {.l_onoff = 1, .l_linger = 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    close(fd);
    return 0;
}

int main(int argc, char **argv) {
    int status = 1;

    if (argc != 6)
        return fprintf(stderr, "talk_again: see the head of its source\n"), 2;
    pid_t wanted = atoi(argv[1]);
    struct clone_args how = {
        .exit_signal = SIGCHLD, .set_tid = wanted > 0 ? (uint64_t)&wanted : 0, .set_tid_size = wanted > 0};
    const long child = syscall(SYS_clone3, &how, sizeof(how));
    if (child == 0)
        _exit(talk(argv));
    if (child < 0)
        return perror("talk_again: clone3"), 3;
    waitpid((pid_t)child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
