/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets, queues and dispatch. Each connection is FIFO, and so is what a process sends to itself. */
#define _GNU_SOURCE
#include "internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES 65536u
/* What one peer can make us queue, in bytes: every process has one request open, so that this is never
 * reached. */
#define MAX_QUEUE_BYTES ((size_t)4 << 20)
#define RETRY_NS 50000
#define IDLE_NS 1000000000

/* Who may send a type to whom, and what follows. */
static const struct rule {
    const char *name;
    bool exists, from_home, to_home, logged, data;
} rules[MESSAGE_TYPES] = {
    [DATA] = {"data", true, true, false, true, true},
    [GRANT] = {"grant", true, true, false, true, false},
    [INVALIDATE] = {"invalidate", true, true, false, true, false},
    [WRITEBACK] = {"write-back", true, false, true, true, true},
    [LOCK_ACQUIRE] = {"lock acquire", true, false, true, true, false},
    [LOCK_GRANT] = {"lock grant", true, true, false, true, false},
    [LOCK_RELEASE] = {"lock release", true, false, true, true, false},
    [BARRIER_ARRIVE] = {"barrier arrival", true, false, true, true, false},
    [BARRIER_RELEASE] = {"barrier release", true, true, false, true, false},
    [READ_REQUEST] = {"read request", true, false, true, false, false},
    [WRITE_REQUEST] = {"write request", true, false, true, false, false},
    [DOWNGRADE] = {"downgrade", true, true, false, false, false},
    [ACKNOWLEDGE] = {"acknowledgement", true, false, true, false, false},
    [BYE] = {"goodbye", true, false, false, false, false},
};

/* ---- queues */

/* Reserved once, since a fault handler must not allocate; the system commits only what is touched. */
bool dsm_reserve_bytes(struct bytes *bytes) {
    void *data = mmap(NULL, MAX_QUEUE_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    bytes->data = data == MAP_FAILED ? NULL : data;
    return bytes->data != NULL;
}

void dsm_free_bytes(struct bytes *bytes) {
    if (bytes->data != NULL)
        munmap(bytes->data, MAX_QUEUE_BYTES);
    memset(bytes, 0, sizeof(*bytes));
}

/* Room for `more` bytes behind the content; NULL: past MAX_QUEUE_BYTES. */
static uint8_t *reserve(struct bytes *bytes, size_t more) {
    if (bytes->from == bytes->used || bytes->used + more > MAX_QUEUE_BYTES) {
        memmove(bytes->data, bytes->data + bytes->from, bytes->used - bytes->from);
        bytes->used -= bytes->from;
        bytes->from = 0;
    }
    return bytes->used + more > MAX_QUEUE_BYTES ? NULL : bytes->data + bytes->used;
}

void dsm_send(struct dsm *dsm, struct message message, unsigned to_rank, const uint8_t *page) {
    struct peer *peer = &dsm->peers[to_rank];
    struct bytes *queue = to_rank == dsm->config.rank ? &peer->in : &peer->out;
    struct entity *self = message.from_home ? &dsm->home : &dsm->process;
    const unsigned from =
        message.from_home ? home_entity(dsm->config.rank) : process_entity(dsm->config.rank);
    const unsigned to = message.to_home ? home_entity(to_rank) : process_entity(to_rank);

    message.magic = MESSAGE_MAGIC;
    message.length = page == NULL ? 0 : DSM_PAGE_BYTES;
    uint8_t *end = reserve(queue, sizeof(message) + message.length);
    if (end == NULL) {
        dsm_fail(dsm, DSM_SYSTEM, "more than %zu bytes are queued for process p%u", MAX_QUEUE_BYTES, to_rank);
        return;
    }
    if (rules[message.type].logged) {
        message.sequence = self->channels.sent[to]++;
        dsm_trace_message(dsm, &message, from, to, true);
    }
    memcpy(end, &message, sizeof(message));
    if (page != NULL)
        memcpy(end + sizeof(message), page, DSM_PAGE_BYTES);
    queue->used += sizeof(message) + message.length;
}

static void lose(struct dsm *dsm, unsigned rank, const char *what) {
    struct peer *peer = &dsm->peers[rank];

    close(peer->fd);
    peer->fd = -1;
    if (!peer->bye && !dsm->stopping)
        dsm_fail(dsm, DSM_PEER_LOST, "process p%u is gone: %s", rank, what);
}

/* True if something is left to write. */
static bool flush(struct dsm *dsm, unsigned rank) {
    struct peer *peer = &dsm->peers[rank];

    while (peer->fd >= 0 && peer->out.from < peer->out.used) {
        const ssize_t sent = send(peer->fd, peer->out.data + peer->out.from, peer->out.used - peer->out.from,
                                  MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN)
            return true;
        if (sent < 0 && errno != EINTR)
            lose(dsm, rank, strerror(errno));
        if (sent > 0)
            peer->out.from += (size_t)sent;
    }
    peer->out.from = peer->out.used = 0;
    return false;
}

/* ---- dispatch */

/* True: the page was installed for the application thread a moment ago; let its instruction run first. */
static bool too_fresh(const struct dsm *dsm, const struct message *message) {
    return (message->type == INVALIDATE || message->type == DOWNGRADE) && message->page == dsm->fresh_page &&
           dsm_now_ns(CLOCK_MONOTONIC) < dsm->fresh_until_ns;
}

static bool check(struct dsm *dsm, unsigned from, const struct message *message) {
    const struct rule *rule = &rules[message->type < MESSAGE_TYPES ? message->type : 0];

    if (message->magic == MESSAGE_MAGIC && rule->exists && message->from_home == rule->from_home &&
        message->to_home == rule->to_home && message->length == (rule->data ? DSM_PAGE_BYTES : 0) &&
        message->flags <= MESSAGE_WRITE && message->version < MAX_VERSION && message->writer < ENTITIES &&
        message->interval < MAX_INTERVAL && (rule->logged || message->sequence == 0))
        return true;
    dsm_fail(dsm, DSM_PROTOCOL, "process p%u sent a message that breaks the protocol (type %u, length %u)",
             from, message->type, message->length);
    return false;
}

static bool check_sequence(struct dsm *dsm, unsigned from, const struct message *message) {
    struct entity *self = message->to_home ? &dsm->home : &dsm->process;
    const unsigned other = message->from_home ? home_entity(from) : process_entity(from);
    const unsigned own = message->to_home ? home_entity(dsm->config.rank) : process_entity(dsm->config.rank);

    if (message->sequence != self->channels.received[other]) {
        dsm_fail(dsm, DSM_PROTOCOL, "process p%u sent %s number %llu, expected was %llu", from,
                 rules[message->type].name, (unsigned long long)message->sequence,
                 (unsigned long long)self->channels.received[other]);
        return false;
    }
    self->channels.received[other]++;
    dsm_trace_message(dsm, message, own, other, false);
    return true;
}

static void say_bye(struct dsm *dsm, unsigned from) {
    bool all = true;

    dsm->peers[from].bye = true;
    for (unsigned rank = 0; rank < dsm->config.size; rank++)
        all = all && (rank == dsm->config.rank || dsm->peers[rank].bye);
    if (all && dsm->waiting == FOR_BYE)
        dsm_found(dsm);
}

static void dispatch(struct dsm *dsm, unsigned from, const struct message *message, const uint8_t *page) {
    if (rules[message->type].logged && !check_sequence(dsm, from, message))
        return;
    if (message->type == BYE)
        say_bye(dsm, from);
    else if (message->to_home)
        dsm_home_message(dsm, from, message, page);
    else
        dsm_process_message(dsm, from, message, page);
}

/* Takes whole messages off a queue. True: it stopped at one that must wait a moment. */
static bool take(struct dsm *dsm, unsigned rank) {
    struct bytes *in = &dsm->peers[rank].in;
    uint8_t page[DSM_PAGE_BYTES]; /* dispatch may grow our own queue, and so move what we read from */
    struct message message;

    while (dsm->status == DSM_OK && in->used - in->from >= sizeof(message)) {
        memcpy(&message, in->data + in->from, sizeof(message));
        if (!check(dsm, rank, &message))
            break;
        if (in->used - in->from < sizeof(message) + message.length)
            break;
        if (too_fresh(dsm, &message))
            return true;
        memcpy(page, in->data + in->from + sizeof(message), message.length);
        in->from += sizeof(message) + message.length;
        dispatch(dsm, rank, &message, message.length == 0 ? NULL : page);
    }
    return false;
}

void dsm_notify_service(struct dsm *dsm) {
    const uint64_t one = 1;

    if (dsm->wake_service >= 0 && write(dsm->wake_service, &one, sizeof(one)) < 0)
        return; /* full: it is awake already */
}

void dsm_pump_self(struct dsm *dsm) {
    bool again = take(dsm, dsm->config.rank);

    for (unsigned rank = 0; rank < dsm->config.size; rank++)
        if (rank != dsm->config.rank)
            again = flush(dsm, rank) || again;
    if (again)
        dsm_notify_service(dsm);
}

/* Everything that has arrived; then what that made us send. True: something must wait a moment. */
static bool pump(struct dsm *dsm) {
    bool again = false;

    for (unsigned rank = 0; rank < dsm->config.size; rank++)
        again = take(dsm, rank) || again;
    again = take(dsm, dsm->config.rank) || again;
    for (unsigned rank = 0; rank < dsm->config.size; rank++)
        if (rank != dsm->config.rank)
            flush(dsm, rank);
    return again;
}

static void receive(struct dsm *dsm, unsigned rank) {
    struct peer *peer = &dsm->peers[rank];
    uint8_t *end = reserve(&peer->in, READ_BYTES);

    if (end == NULL) {
        dsm_fail(dsm, DSM_PROTOCOL, "process p%u sends more than %zu bytes that must wait", rank,
                 MAX_QUEUE_BYTES);
        return;
    }
    const ssize_t got = recv(peer->fd, end, READ_BYTES, MSG_DONTWAIT);
    if (got > 0)
        peer->in.used += (size_t)got;
    else if (got == 0)
        lose(dsm, rank, "it closed its connection");
    else if (errno != EAGAIN && errno != EINTR)
        lose(dsm, rank, strerror(errno));
}

/* A connection whose next message must wait is not read on: what one peer can make us hold is bounded. */
static bool wants_input(const struct peer *peer) {
    return peer->in.used - peer->in.from < READ_BYTES;
}

static void wait_for_traffic(struct dsm *dsm, bool again) {
    struct pollfd polled[DSM_MAX_PROCESSES + 2];
    const struct timespec retry = {.tv_nsec = RETRY_NS}, idle = {.tv_sec = IDLE_NS / 1000000000};
    uint64_t woken;

    for (unsigned rank = 0; rank < DSM_MAX_PROCESSES; rank++) {
        const struct peer *peer = &dsm->peers[rank];
        polled[rank].fd = dsm->status == DSM_OK ? peer->fd : -1;
        polled[rank].events =
            (short)((wants_input(peer) ? POLLIN : 0) | (peer->out.from < peer->out.used ? POLLOUT : 0));
        polled[rank].revents = 0;
    }
    polled[DSM_MAX_PROCESSES] = (struct pollfd){.fd = dsm->wake_service, .events = POLLIN};
    polled[DSM_MAX_PROCESSES + 1] = (struct pollfd){.fd = dsm->status == DSM_OK ? dsm->tracer.collector : -1};
    pthread_mutex_unlock(&dsm->lock);
    ppoll(polled, DSM_MAX_PROCESSES + 2, again ? &retry : &idle, NULL);
    if ((polled[DSM_MAX_PROCESSES].revents & POLLIN) && read(dsm->wake_service, &woken, sizeof(woken)) < 0 &&
        errno != EAGAIN)
        abort(); /* our own eventfd */
    pthread_mutex_lock(&dsm->lock);
    if (polled[DSM_MAX_PROCESSES + 1].revents != 0) /* going on would leave a log that misses what happened */
        dsm_fail(dsm, DSM_SYSTEM, "the collector is gone");
    for (unsigned rank = 0; rank < DSM_MAX_PROCESSES; rank++)
        if (dsm->peers[rank].fd >= 0 && (polled[rank].revents & (POLLIN | POLLERR | POLLHUP)))
            receive(dsm, rank);
}

void *dsm_service(void *argument) {
    struct dsm *dsm = argument;

    dsm_trace_thread = 1;
    pthread_mutex_lock(&dsm->lock);
    while (!dsm->stopping)
        wait_for_traffic(dsm, pump(dsm));
    pthread_mutex_unlock(&dsm->lock);
    return NULL;
}
