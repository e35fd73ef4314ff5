/* SPDX-License-Identifier: Apache-2.0 */
/* One honest process of the DSM against a peer that lies: in the handshake, in headers, in the order of
 * messages. Whatever comes, the honest one ends with a status and a sentence. Prints how the runs ended. Run
 * under ASan and UBSan. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../../native/dsm/internal.h"

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                  \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

#define PAGES 4u
#define TIMEOUT_MS 150u

struct hello {
    char magic[8];
    uint32_t version, rank, size, reserved;
    uint64_t pages;
    uint8_t token[DSM_TOKEN_BYTES];
};

static uint16_t ports[2];
static unsigned seed;
static const uint8_t token[DSM_TOKEN_BYTES] = "sixteen bytes!!";

static int dial(void) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(ports[0]), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    return fd;
}

static struct hello good_hello(void) {
    struct hello hello = {.magic = "RDSMHELO", .version = 1, .rank = 1, .size = 2, .pages = PAGES};
    memcpy(hello.token, token, sizeof(token));
    return hello;
}

/* Strangers before the peer: each spoils one thing. */
static void strangers(unsigned *state) {
    for (int i = 0; i < 6; i++) {
        struct hello hello = good_hello();
        const int fd = dial();
        uint8_t *bytes = (uint8_t *)&hello;
        if (i < 5) /* any single wrong byte but that of `reserved` */
            bytes[i == 4 ? 32 + (unsigned)rand_r(state) % 16 : (unsigned)(i == 3 ? 24 : 4 + 4 * i)] ^=
                (uint8_t)(1 + rand_r(state) % 255);
        const size_t length = i == 5 ? (size_t)(rand_r(state) % 47) : sizeof(hello);
        CHECK(send(fd, &hello, length, MSG_NOSIGNAL) == (ssize_t)length);
        close(fd);
    }
}

/* A message of the right shape about things that exist, with a sequence number that is mostly right. */
static struct message plausible(unsigned *state, uint64_t *sequences) {
    static const uint8_t types[] = {
        DATA,           GRANT,           INVALIDATE,   WRITEBACK,     LOCK_ACQUIRE, LOCK_GRANT,  LOCK_RELEASE,
        BARRIER_ARRIVE, BARRIER_RELEASE, READ_REQUEST, WRITE_REQUEST, DOWNGRADE,    ACKNOWLEDGE, BYE};
    const uint8_t type = types[(unsigned)rand_r(state) % sizeof(types)];
    const bool from_home =
        type <= INVALIDATE || type == LOCK_GRANT || type == BARRIER_RELEASE || type == DOWNGRADE;
    const bool to_home = !from_home && type != BYE;
    const bool logged = type <= BARRIER_RELEASE;
    struct message message = {.magic = MESSAGE_MAGIC,
                              .type = type,
                              .flags = (uint8_t)(rand_r(state) % 2),
                              .from_home = from_home,
                              .to_home = to_home,
                              .page = (uint32_t)rand_r(state) % (PAGES + 1),
                              .length = type == DATA || type == WRITEBACK ? DSM_PAGE_BYTES : 0,
                              .version = (uint64_t)rand_r(state) % 3,
                              .writer = 2};
    if (logged && rand_r(state) % 20 != 0)
        message.sequence = sequences[2 * from_home + to_home]++;
    return message;
}

static void spoil(struct message *message, unsigned *state) {
    uint8_t *bytes = (uint8_t *)message;
    if (rand_r(state) % 4 == 0)
        bytes[(unsigned)rand_r(state) % sizeof(*message)] ^= (uint8_t)(1 << rand_r(state) % 8);
}

static void *hostile(void *argument) {
    unsigned state = (unsigned)(uintptr_t)argument;
    struct hello hello = good_hello();
    uint64_t sequences[4] = {0};
    uint8_t data[DSM_PAGE_BYTES];

    if (rand_r(&state) % 8 == 0)
        strangers(&state);
    const int fd = dial();
    CHECK(send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) == sizeof(hello));
    CHECK(recv(fd, &hello, sizeof(hello), MSG_WAITALL) == sizeof(hello) &&
          memcmp(hello.token, token, sizeof(token)) == 0);
    const int messages = rand_r(&state) % 12;
    const bool noise = rand_r(&state) % 8 == 0, honest_shape = rand_r(&state) % 2;
    for (int i = 0; i < messages; i++) {
        struct message message = plausible(&state, sequences);
        if (!honest_shape)
            spoil(&message, &state);
        for (size_t at = 0; at < sizeof(data); at++)
            data[at] = (uint8_t)rand_r(&state);
        if (noise)
            memcpy(&message, data, sizeof(message));
        if (send(fd, &message, sizeof(message), MSG_NOSIGNAL) < 0 ||
            (message.length == DSM_PAGE_BYTES && send(fd, data, sizeof(data), MSG_NOSIGNAL) < 0))
            break;
        if (rand_r(&state) % 3 == 0)
            usleep(200);
    }
    if (rand_r(&state) % 2) /* or silence until the timeout */
        while (recv(fd, data, sizeof(data), 0) > 0)
            ;
    close(fd);
    return NULL;
}

static sigjmp_buf escape;
static void gave_up(const char *error) {
    CHECK(error[0] != 0);
    siglongjmp(escape, 1);
}

/* What an honest program does; it may end anywhere. */
static void use(struct dsm *dsm, unsigned dice) {
    volatile uint32_t *memory = dsm_memory(dsm);

    if (sigsetjmp(escape, 1) != 0)
        return;
    if (dice % 4 == 0 && dsm_barrier(dsm) != DSM_OK)
        return;
    if (dice % 4 == 1 && (dsm_lock(dsm, 1) != DSM_OK || dsm_unlock(dsm, 1) != DSM_OK))
        return;
    for (unsigned page = 0; page < PAGES; page++)
        if (dice % 2)
            memory[page * 1024] = dice;
        else
            (void)memory[page * 1024];
    dsm_lock(dsm, 0);
}

static void run(unsigned dice, int listener, unsigned *ends) {
    const struct dsm_config config = {.rank = 0,
                                      .size = 2,
                                      .listener = listener,
                                      .ports = ports,
                                      .token = "sixteen bytes!!",
                                      .pages = PAGES,
                                      .timeout_ms = TIMEOUT_MS,
                                      .gave_up = gave_up};
    struct dsm *dsm;
    char why[256];
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, hostile, (void *)(uintptr_t)dice) == 0);
    CHECK(dsm_open(&dsm, &config, why) == DSM_OK);
    use(dsm, dice);
    char text[256];
    dsm_barrier(dsm);
    snprintf(text, sizeof(text), "%s", dsm_error(dsm));
    const int status = dsm_close(dsm);
    CHECK(status == DSM_PROTOCOL || status == DSM_PEER_LOST || status == DSM_TIMEOUT);
    CHECK(strlen(text) > 10);
    ends[-status]++;
    pthread_join(thread, NULL);
}

static void refuse(struct dsm_config config, const char *about) {
    struct dsm *dsm;
    char why[256] = "";

    CHECK(dsm_open(&dsm, &config, why) == DSM_USAGE && dsm == NULL);
    CHECK(strstr(why, about) != NULL);
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    unsigned ends[8] = {0};

    seed = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1;
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(listener, 16) == 0 &&
          getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    ports[0] = ntohs(address.sin_port);
    const struct dsm_config good = {.size = 2, .pages = 2, .ports = ports, .listener = listener};
    struct dsm_config bad = good;
    bad.size = 9, refuse(bad, "9 processes"), bad = good;
    bad.rank = 2, refuse(bad, "rank 2"), bad = good;
    bad.pages = DSM_MAX_PAGES + 1, refuse(bad, "pages"), bad = good;
    bad.trace_path = bad.collector = "x", refuse(bad, "both"), bad = good;
    bad.application = "a\"b", refuse(bad, "name");
    const unsigned runs = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 100;
    for (unsigned i = 0; i < runs; i++)
        run(seed + i, listener, ends);
    printf("{\"protocol\":%u,\"lost\":%u,\"timeout\":%u}\n", ends[-DSM_PROTOCOL], ends[-DSM_PEER_LOST],
           ends[-DSM_TIMEOUT]);
    return 0;
}
