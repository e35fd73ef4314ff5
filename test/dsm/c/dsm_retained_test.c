/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A version that only a retained frame holds survives two failures, one right after the other.
 *
 *   p1 writes page 0 │ h0 checkpoints: p1 owns it │ p0 reads it: the copy goes home │ p1 checkpoints: shared
 *
 * In the line of these checkpoints h0's master is the version before. The restart finds the newest one in
 * p1's frame and drops that copy. p1 checkpoints again, h0 does not: in the next line p1's retained frame is
 * the only place where the version is.
 *
 *   dsm_retained_test IMAGES    an empty directory; prints what p0 and p1 read in the end
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../../native/dsm/recovery_dsm.h"

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                  \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)

#define WRITTEN 42

/* One process of one run. `other` is a socket to its peer, for an order that no barrier must give: barriers
 * are messages, too. */
struct self {
    struct dsm *dsm;
    unsigned rank;
    int other;
};
typedef void run(struct self *self, volatile unsigned char *page);

static void tell(const struct self *self) {
    CHECK(write(self->other, "!", 1) == 1);
}
static void hear(const struct self *self) {
    char byte;
    CHECK(read(self->other, &byte, 1) == 1);
}

static void first(struct self *self, volatile unsigned char *page) {
    if (self->rank == 1) {
        page[0] = WRITTEN;
        tell(self);
        hear(self);
        CHECK(dsm_checkpoint(self->dsm) == 1);
        tell(self);
    } else {
        hear(self);
        CHECK(dsm_checkpoint_home(self->dsm) == 1);
        CHECK(dsm_checkpoint(self->dsm) == 1);
        CHECK(page[0] == WRITTEN);
        tell(self);
        hear(self);
    }
}

static void second(struct self *self, volatile unsigned char *page) {
    (void)page;
    if (self->rank == 1)
        CHECK(dsm_checkpoint(self->dsm) == 2);
    tell(self);
    hear(self);
}

static void third(struct self *self, volatile unsigned char *page) {
    if (self->rank == 1)
        hear(self);
    printf("{\"rank\":%u,\"read\":%u}\n", self->rank, page[0]);
    fflush(stdout);
    if (self->rank == 0)
        tell(self);
    CHECK(dsm_close(self->dsm) == DSM_OK);
}

static void process(struct dsm_config config, int other, run *work) {
    static char state;
    struct self self = {.rank = config.rank, .other = other};
    char why[256];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (dsm_open(&self.dsm, &config, why) != DSM_OK) {
        fprintf(stderr, "p%u: %s\n", config.rank, why);
        _exit(1);
    }
    CHECK(dsm_restored(self.dsm, &state, sizeof(state)) >= 0);
    CHECK(dsm_register_state(self.dsm, &state, sizeof(state)) == DSM_OK);
    work(&self, dsm_memory(self.dsm));
    _exit(0); /* a crash, as far as the DSM is concerned, unless it was closed */
}

static int listening(uint16_t *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);

    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 4) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static void both(const char *images, const uint32_t *line, run *work) {
    uint16_t ports[2];
    int listeners[2], pair[2];

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    for (unsigned rank = 0; rank < 2; rank++)
        listeners[rank] = listening(&ports[rank]);
    for (unsigned rank = 0; rank < 2; rank++) {
        const struct dsm_config config = {.rank = rank,
                                          .size = 2,
                                          .listener = listeners[rank],
                                          .ports = ports,
                                          .token = "sixteen bytes!!",
                                          .pages = 2,
                                          .timeout_ms = 5000,
                                          .image_dir = images,
                                          .restore = line};
        if (fork() == 0)
            process(config, pair[rank], work);
    }
    for (unsigned rank = 0; rank < 2; rank++) {
        int status;
        CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        close(listeners[rank]);
        close(pair[rank]);
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    both(argv[1], NULL, first);
    both(argv[1], (const uint32_t[]){1, 1, 1, 0}, second); /* p0, h0, p1, h1 */
    both(argv[1], (const uint32_t[]){1, 1, 2, 0}, third);
    return 0;
}
