/* SPDX-License-Identifier: Apache-2.0 */
/* As good as another machine: far_helper LINK ADDRESS NEAR PORT. Its connections are in a network namespace that
 * no process is in and nobody has named, at ADDRESS behind LINK, whose near end gets the address NEAR; and
 * nobody holds them, as their descriptors are on their way in messages. Each is told "hello". Prints "listening",
 * then "hidden" for each; until its standard input ends. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int check(long result, const char *what) {
    if (result >= 0)
        return (int)result;
    perror(what);
    exit(1);
}

static void shell(const char *form, const char *link, const char *address) {
    char command[512];

    snprintf(command, sizeof(command), form, link, address, getppid());
    if (system(command) != 0)
        exit(1);
}

static int listens(const char *address, int port) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = check(socket(AF_INET, SOCK_STREAM, 0), "socket");

    inet_pton(AF_INET, address, &here.sin_addr);
    check(bind(fd, (struct sockaddr *)&here, sizeof(here)), "bind");
    check(listen(fd, 8), "listen");
    return fd;
}

static void hide(int fd) {
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    int pair[2];

    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &fd, sizeof(fd));
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
    check(sendmsg(pair[0], &message, 0), "sendmsg");
    close(fd);
}

int main(int count, char **words) {
    int near, listener;

    if (count != 5)
        return 2;
    near = check(open("/proc/self/ns/net", O_RDONLY), "namespace");
    check(unshare(CLONE_NEWNET), "unshare");
    shell("ip link set lo up; ip link add far0 type veth peer name %1$s netns %3$d && ip addr add %2$s/30 "
          "dev far0 && "
          "ip link set far0 up",
          words[1], words[2]);
    listener = listens(words[2], atoi(words[4]));
    check(setns(near, CLONE_NEWNET), "setns");
    shell("ip link set %1$s up && ip addr add %2$s/30 dev %1$s", words[1], words[3]);
    puts("listening");
    fflush(stdout);
    for (;;) {
        struct pollfd ready[] = {{.fd = listener, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
        int fd;

        check(poll(ready, 2, -1), "poll");
        if (ready[1].revents)
            return 0;
        fd = check(accept(listener, 0, 0), "accept");
        check(write(fd, "hello", 5), "write");
        hide(fd);
        puts("hidden");
        fflush(stdout);
    }
}
