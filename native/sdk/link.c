/* SPDX-License-Identifier: Apache-2.0 */
/* Connections: non-blocking unix sockets and the frames on them. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_BYTES 65536u
#define MAX_FRAME_BYTES (1u + MESSAGE_FIELDS_BYTES + RL_MAX_MESSAGE_BYTES)
#define BACKLOG 64

int link_frame(struct link *link, uint8_t *type, const uint8_t **body, size_t *size) {
    const uint8_t *from = link->in.data + link->taken;
    const size_t there = link->in.size - link->taken;
    uint32_t length;

    if (there < FRAME_HEADER_BYTES)
        return 0;
    memcpy(&length, from, 4);
    if (length < 1 || length > MAX_FRAME_BYTES)
        return -1;
    if (there < 4 + (size_t)length)
        return 0;
    *type = from[4];
    *body = from + FRAME_HEADER_BYTES;
    *size = length - 1;
    link->taken += 4 + (size_t)length;
    return 1;
}

void link_begin(struct link *link, enum frame_type type, size_t body) {
    const uint8_t kind = type;

    bytes_u32(&link->out, (uint32_t)(body + 1));
    bytes_add(&link->out, &kind, 1);
}

void link_frame_of(struct link *link, enum frame_type type, const struct bytes *body) {
    link_begin(link, type, body->size);
    bytes_add(&link->out, body->data, body->size);
}

bool link_read(struct link *link) {
    static uint8_t buffer[READ_BYTES];

    if (link->taken > 0) {
        bytes_drop(&link->in, link->taken);
        link->taken = 0;
    }
    for (;;) {
        const ssize_t got = recv(link->fd, buffer, sizeof(buffer), 0);
        if (got > 0) {
            bytes_add(&link->in, buffer, got);
            return true; /* poll tells whether there is more: a queue may be full by then */
        }
        if (got < 0 && errno == EINTR)
            continue;
        return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    }
}

bool link_write(struct link *link) {
    size_t done = 0;

    while (done < link->out.size) {
        const ssize_t wrote = send(link->fd, link->out.data + done, link->out.size - done, MSG_NOSIGNAL);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (wrote < 0)
            return false;
        done += wrote;
    }
    if (done > 0)
        bytes_drop(&link->out, done);
    return true;
}

void link_close(struct link *link) {
    if (link->fd >= 0)
        close(link->fd);
    free(link->in.data);
    free(link->out.data);
    *link = (struct link){.fd = -1};
}

/* An address holds 107 bytes: a longer path is reached through a descriptor of its folder. */
static int at_address(const char *folder, int (*call)(int, const struct sockaddr *, socklen_t)) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int directory = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd, kept;

    if (directory < 0)
        return -1;
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/socket", directory);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && call(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        kept = errno;
        close(fd);
        errno = kept;
        fd = -1;
    }
    close(directory);
    return fd;
}

int link_listen(const char *folder) {
    char path[4096 + 16];
    int fd;

    snprintf(path, sizeof(path), "%s/socket", folder);
    if (unlink(path) != 0 && errno != ENOENT)
        return -1;
    fd = at_address(folder, bind);
    if (fd >= 0 && listen(fd, BACKLOG) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

int link_dial(const char *folder) {
    return at_address(folder, connect);
}
