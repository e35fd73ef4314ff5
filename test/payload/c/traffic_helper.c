// SPDX-License-Identifier: Apache-2.0
/*
 * TCP traffic whose every byte is known: byte o of stream s is pattern(s, o) (test/payload/pattern.ts is the
 * same).
 *
 *   traffic FAMILY CONNECTIONS BYTES LARGEST_WRITE RECEIVE_BUFFER MODE
 *
 * FAMILY 4 or 6. Each connection carries stream 2i from client to server and 2i+1 back, BYTES each, in writes
 * of random sizes up to LARGEST_WRITE; both ends check what they receive. RECEIVE_BUFFER 0: the kernel's
 * default. MODE: plain | urgent (the client's byte at BYTES / 2 is sent MSG_OOB) | reuse (one connection
 * after the other from the same client port) | wrap (the client's sequence numbers pass 2^32 within its first
 * MiB).
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PIECE 65536
#define CHECK(x)                                                                                             \
    do {                                                                                                     \
        if (!(x)) {                                                                                          \
            perror(#x);                                                                                      \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

static size_t bytes_each, largest_write;
static int receive_buffer;
static const char *mode;

static uint8_t pattern(uint32_t stream, uint64_t offset) {
    uint32_t v = ((uint32_t)(offset >> 2) ^ stream * 0x9e3779b1u) * 0x85ebca6bu;
    v ^= v >> 13;
    v *= 0xc2b2ae35u;
    v ^= v >> 16;
    return v >> 8 * (offset & 3);
}

struct half {
    int fd;
    uint32_t stream;
    int urgent;
};

static void send_all(int fd, const uint8_t *bytes, size_t count, int flags) {
    while (count > 0) {
        const ssize_t done = send(fd, bytes, count, flags | MSG_NOSIGNAL);
        CHECK(done > 0);
        bytes += done;
        count -= done;
    }
}

static void *send_stream(void *argument) {
    const struct half *half = argument;
    uint8_t *buffer = malloc(largest_write);
    unsigned seed = half->stream;
    const size_t urgent_at = half->urgent ? bytes_each / 2 : SIZE_MAX;

    for (size_t at = 0; at < bytes_each;) {
        size_t count = 1 + rand_r(&seed) % largest_write;
        if (count > bytes_each - at)
            count = bytes_each - at;
        if (at < urgent_at && at + count > urgent_at)
            count = urgent_at - at;
        if (at == urgent_at)
            count = 1;
        for (size_t i = 0; i < count; i++)
            buffer[i] = pattern(half->stream, at + i);
        send_all(half->fd, buffer, count, at == urgent_at ? MSG_OOB : 0);
        at += count;
    }
    shutdown(half->fd, SHUT_WR);
    free(buffer);
    return NULL;
}

static void *receive_stream(void *argument) {
    const struct half *half = argument;
    uint8_t *buffer = malloc(PIECE);
    size_t at = 0;
    ssize_t got;

    while ((got = recv(half->fd, buffer, PIECE, 0)) > 0) {
        for (ssize_t i = 0; i < got; i++, at++) {
            if (half->urgent && at == bytes_each / 2)
                at++; /* taken out of line: it is not among these bytes */
            CHECK(buffer[i] == pattern(half->stream, at));
        }
    }
    CHECK(got == 0 && at == bytes_each);
    free(buffer);
    return NULL;
}

static socklen_t address(int family, uint16_t port, struct sockaddr_storage *out) {
    memset(out, 0, sizeof(*out));
    if (family == AF_INET6) {
        struct sockaddr_in6 *a = (void *)out;
        *a = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = in6addr_loopback};
        return sizeof(*a);
    }
    struct sockaddr_in *a = (void *)out;
    *a = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return sizeof(*a);
}

static int new_socket(int family) {
    const int fd = socket(family, SOCK_STREAM, 0), one = 1;
    CHECK(fd >= 0);
    CHECK(!setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
    if (receive_buffer)
        CHECK(!setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer)));
    return fd;
}

static uint32_t write_sequence(int fd) {
    const int on = TCP_REPAIR_ON, off = TCP_REPAIR_OFF_NO_WP, queue = TCP_SEND_QUEUE;
    uint32_t sequence;
    socklen_t size = sizeof(sequence);

    CHECK(!setsockopt(fd, SOL_TCP, TCP_REPAIR, &on, sizeof(on)));
    CHECK(!setsockopt(fd, SOL_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)));
    CHECK(!getsockopt(fd, SOL_TCP, TCP_QUEUE_SEQ, &sequence, &size));
    CHECK(!setsockopt(fd, SOL_TCP, TCP_REPAIR, &off, sizeof(off)));
    return sequence;
}

static void reset(int fd) {
    const struct linger now = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(fd);
}

/* own_port: 0 = any. */
static void connect_pair(int family, int listener, uint16_t port, int ends[2], uint16_t own_port) {
    for (;;) {
        struct sockaddr_storage to, own;
        const socklen_t size = address(family, port, &to);
        const socklen_t own_size = address(family, own_port, &own);
        ends[0] = new_socket(family);
        if (own_port)
            CHECK(!bind(ends[0], (void *)&own, own_size));
        CHECK(!connect(ends[0], (void *)&to, size));
        ends[1] = accept(listener, NULL, NULL);
        CHECK(ends[1] >= 0);
        if (strcmp(mode, "wrap") != 0 || -write_sequence(ends[0]) < 1u << 20)
            return;
        reset(ends[0]);
        reset(ends[1]);
    }
}

int main(int count, char **arguments) {
    CHECK(count == 7);
    const int family = atoi(arguments[1]) == 6 ? AF_INET6 : AF_INET, connections = atoi(arguments[2]);
    struct sockaddr_storage bound;
    socklen_t size = address(family, 0, &bound);
    /* Below those that the kernel gives: nobody else has it between two connections. */
    const uint16_t own_port = strcmp(arguments[6], "reuse") == 0 ? htons(10000 + getpid() % 5000) : 0;
    pthread_t threads[4 * connections];
    struct half halves[4 * connections];

    bytes_each = strtoull(arguments[3], NULL, 10);
    largest_write = strtoull(arguments[4], NULL, 10);
    receive_buffer = atoi(arguments[5]);
    mode = arguments[6];
    const int listener = new_socket(family);
    CHECK(!bind(listener, (void *)&bound, size) && !listen(listener, 64));
    CHECK(!getsockname(listener, (void *)&bound, &size));
    const uint16_t port = ((struct sockaddr_in *)&bound)->sin_port;
    const int urgent = strcmp(mode, "urgent") == 0, one_by_one = strcmp(mode, "reuse") == 0;
    for (int i = 0; i < connections; i++) {
        int ends[2];
        connect_pair(family, listener, port, ends, own_port);
        struct half *half = &halves[4 * i];
        half[0] = (struct half){ends[0], 2 * i, urgent};
        half[1] = (struct half){ends[1], 2 * i, urgent};
        half[2] = (struct half){ends[1], 2 * i + 1, 0};
        half[3] = (struct half){ends[0], 2 * i + 1, 0};
        for (int k = 0; k < 4; k++)
            CHECK(!pthread_create(&threads[4 * i + k], NULL, k % 2 ? receive_stream : send_stream, &half[k]));
        for (int k = 0; one_by_one && k < 4; k++)
            pthread_join(threads[4 * i + k], NULL);
        if (one_by_one) {
            reset(ends[0]);
            reset(ends[1]);
        }
    }
    for (int i = 0; !one_by_one && i < 4 * connections; i++)
        pthread_join(threads[i], NULL);
    puts("done");
    return 0;
}
