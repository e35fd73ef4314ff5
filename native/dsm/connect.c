/* SPDX-License-Identifier: Apache-2.0 */
/* The mesh: rank i connects to every lower rank and is connected to by every higher one; both say HELLO. */
#define _GNU_SOURCE
#include "internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECT_MS 10000u
/* Longest that one stranger can hold up the others. */
#define HELLO_MS 500
#define PROTOCOL_VERSION 1u

struct hello {
    char magic[8];
    uint32_t version, rank, size, reserved;
    uint64_t pages;
    uint8_t token[DSM_TOKEN_BYTES];
};
_Static_assert(sizeof(struct hello) == 48, "hello is 48 bytes");

static struct hello make_hello(const struct dsm *dsm) {
    struct hello hello = {.magic = "RDSMHELO",
                          .version = PROTOCOL_VERSION,
                          .rank = dsm->config.rank,
                          .size = dsm->config.size,
                          .pages = dsm->config.pages};
    memcpy(hello.token, dsm->config.token, DSM_TOKEN_BYTES);
    return hello;
}

/* Why a hello is not that of a peer of this run; NULL: it is. */
static const char *wrong_hello(const struct dsm *dsm, const struct hello *hello) {
    uint8_t differs = 0;

    if (memcmp(hello->magic, "RDSMHELO", 8) != 0 || hello->version != PROTOCOL_VERSION)
        return "does not speak this protocol";
    for (size_t i = 0; i < DSM_TOKEN_BYTES; i++)
        differs |= hello->token[i] ^ dsm->config.token[i];
    if (differs)
        return "does not know the token of this run";
    if (hello->size != dsm->config.size || hello->pages != dsm->config.pages ||
        hello->rank >= dsm->config.size || hello->rank == dsm->config.rank)
        return "was started with another number of processes or pages, or with our rank";
    return NULL;
}

static bool read_hello(int fd, struct hello *hello) {
    size_t have = 0;
    const uint64_t until = dsm_now_ns(CLOCK_MONOTONIC) + HELLO_MS * 1000000ull;

    while (have < sizeof(*hello)) {
        const uint64_t now = dsm_now_ns(CLOCK_MONOTONIC);
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (now >= until || poll(&wait, 1, (int)((until - now) / 1000000 + 1)) <= 0)
            return false;
        const ssize_t got = recv(fd, (uint8_t *)hello + have, sizeof(*hello) - have, MSG_DONTWAIT);
        if (got <= 0 && errno != EAGAIN)
            return false;
        have += got > 0 ? (size_t)got : 0;
    }
    return true;
}

static bool write_hello(const struct dsm *dsm, int fd) {
    const struct hello hello = make_hello(dsm);

    return send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) == sizeof(hello);
}

static void adopt(struct dsm *dsm, unsigned rank, int fd) {
    const int on = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    dsm->peers[rank].fd = fd;
}

static int connect_to(struct dsm *dsm, unsigned rank) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(dsm->config.ports[rank]),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct hello hello;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return dsm_fail(dsm, DSM_SYSTEM, "socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || !write_hello(dsm, fd)) {
        dsm_fail(dsm, DSM_PEER_LOST, "process p%u does not listen on port %u: %s", rank,
                 dsm->config.ports[rank], strerror(errno));
    } else {
        /* The other side may be busy with strangers: wait as long as for all. */
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, (int)CONNECT_MS) != 1 || !read_hello(fd, &hello))
            dsm_fail(dsm, DSM_PEER_LOST, "process p%u did not answer the handshake", rank);
        else if (wrong_hello(dsm, &hello) != NULL || hello.rank != rank)
            dsm_fail(dsm, DSM_PROTOCOL, "who answers on port %u %s", dsm->config.ports[rank],
                     wrong_hello(dsm, &hello) != NULL ? wrong_hello(dsm, &hello) : "is another rank");
    }
    if (dsm->status != DSM_OK)
        close(fd);
    else
        adopt(dsm, rank, fd);
    return dsm->status;
}

/* Takes one connection. Strangers are closed and named in the error if a peer stays missing. */
static void accept_one(struct dsm *dsm, unsigned *missing, const char **stranger) {
    struct hello hello;
    const int fd = accept4(dsm->config.listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return;
    if (!read_hello(fd, &hello))
        *stranger = "said no hello";
    else if (wrong_hello(dsm, &hello) != NULL)
        *stranger = wrong_hello(dsm, &hello);
    else if (hello.rank < dsm->config.rank || dsm->peers[hello.rank].fd >= 0)
        *stranger = "claims a rank that is taken";
    else if (write_hello(dsm, fd)) {
        adopt(dsm, hello.rank, fd);
        (*missing)--;
        return;
    }
    close(fd);
}

int dsm_connect(struct dsm *dsm) {
    unsigned missing = dsm->config.size - 1 - dsm->config.rank;
    const uint64_t until = dsm_now_ns(CLOCK_MONOTONIC) + CONNECT_MS * 1000000ull;
    const char *stranger = NULL;

    for (unsigned rank = 0; rank < dsm->config.rank; rank++)
        if (connect_to(dsm, rank) != DSM_OK)
            return dsm->status;
    while (missing > 0) {
        const uint64_t now = dsm_now_ns(CLOCK_MONOTONIC);
        struct pollfd wait = {.fd = dsm->config.listener, .events = POLLIN};
        if (now >= until)
            return dsm_fail(dsm, DSM_PEER_LOST, "%u processes did not come within %u ms%s%s", missing,
                            CONNECT_MS, stranger == NULL ? "" : "; somebody who came ",
                            stranger == NULL ? "" : stranger);
        if (poll(&wait, 1, (int)((until - now) / 1000000 + 1)) == 1)
            accept_one(dsm, &missing, &stranger);
    }
    return DSM_OK;
}
