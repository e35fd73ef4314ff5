/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of both entities: into memory rings that a collector reads, or as JSON Lines of interchange.md.
 *
 * JSON Lines: one write(2) a line, so that a killed process leaves whole lines of everything it did.
 * Collector: a SOCK_SEQPACKET connection. First message: who we are, with the descriptors of both rings.
 * Later ones: {"sequence": n, "event": {…}}, an event of the reliable path (a checkpoint) that stands behind
 * record n; and {"hurry": true}: a ring is half full, and the collector may sleep.
 */
#define _GNU_SOURCE
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 512
#define CONTROL_BYTES 8192

/* 0: the application thread, 1: the service thread. */
__thread int dsm_trace_thread;
static __thread uint32_t thread_id;

static const char *const words[] = {
    "",           "data",         "grant",          "invalidate",     "write-back", "lock-acquire",
    "lock-grant", "lock-release", "barrier-arrive", "barrier-release"};

static char letter(unsigned entity) {
    return entity % 2 == 0 ? 'p' : 'h';
}

static void lost_one(struct dsm *dsm) {
    dsm->counters.records_lost++;
}

/* A line that can't be written makes every later one useless evidence: the run ends with a clear error. */
static void put_line(struct dsm *dsm, const char *line, size_t length) {
    if (write(dsm->tracer.file, line, length) == (ssize_t)length)
        dsm->counters.records++;
    else
        dsm_fail(dsm, DSM_SYSTEM, "writing %s: %s", dsm->config.trace_path, strerror(errno));
}

/* Where the collector's queue is full it has been called already; where it is gone the service thread sees
 * that. */
static void hurry(const struct tracer *tracer) {
    static const char text[] = "{\"hurry\":true}";

    if (send(tracer->collector, text, sizeof(text) - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        return;
}

static void put_record(struct dsm *dsm, struct recovery_record record) {
    struct tracer *tracer = &dsm->tracer;
    struct ring_writer *ring = &tracer->rings[dsm_trace_thread];

    if (thread_id == 0)
        thread_id = (uint32_t)syscall(SYS_gettid);
    record.thread = thread_id;
    record.time_ns = dsm_now_ns(CLOCK_BOOTTIME);
    record.flags |= RECOVERY_FLAG_DSM;
    if (ring_write(ring, &record, &tracer->sequence))
        dsm->counters.records++;
    else
        lost_one(dsm);
    if (ring_wants_reader(ring))
        hurry(tracer);
}

void dsm_trace_fault(struct dsm *dsm, uint32_t page, bool write) {
    const unsigned self = process_entity(dsm->config.rank);
    char line[LINE_BYTES];

    if (dsm->tracer.rings[0].base != NULL) {
        put_record(dsm, (struct recovery_record){.kind = RECOVERY_PAGE_FAULT,
                                                 .flags = write ? RECOVERY_FLAG_WRITE : 0,
                                                 .process = self,
                                                 .local = self,
                                                 .remote = home_entity(dsm_home_of(dsm, page)),
                                                 .length = page});
    } else if (dsm->tracer.file >= 0) {
        const int length = snprintf(
            line, sizeof(line),
            "{\"type\":\"page-fault\",\"process\":\"p%u\",\"page\":%u,\"access\":\"%s\",\"time\":%llu}\n",
            dsm->config.rank, page, write ? "write" : "read", (unsigned long long)dsm_now_ns(CLOCK_BOOTTIME));
        put_line(dsm, line, (size_t)length);
    }
}

static enum recovery_kind kind_of(const struct message *message, bool source) {
    if (message->type == DATA || message->type == WRITEBACK)
        return RECOVERY_PAGE_COPY;
    if (message->type == INVALIDATE)
        return RECOVERY_PAGE_INVALIDATE;
    return source ? RECOVERY_SEND : RECOVERY_RECEIVE;
}

static struct recovery_record record_of(const struct message *message, unsigned self, unsigned other,
                                        bool source) {
    const bool ownership =
        message->type == GRANT || (message->type == DATA && message->flags & MESSAGE_WRITE);

    return (struct recovery_record){
        .kind = (uint8_t)kind_of(message, source),
        .flags = (uint8_t)((source ? RECOVERY_FLAG_SOURCE : 0) | (ownership ? RECOVERY_FLAG_WRITE : 0)),
        .cpu = message->type,
        .process = self,
        .local = self | message->version << 16,
        .remote = other | (uint64_t)message->writer << 16 | (uint64_t)message->interval << 32,
        .begin = message->sequence,
        .length = message->page};
}

/* The fields that every message has. Returns the length. */
static int line_of(char *line, const struct message *message, unsigned self, unsigned other, bool source) {
    static const char *const types[] = {[RECOVERY_SEND] = "send",
                                        [RECOVERY_RECEIVE] = "receive",
                                        [RECOVERY_PAGE_COPY] = "page-copy",
                                        [RECOVERY_PAGE_INVALIDATE] = "page-invalidate"};
    const unsigned from = source ? self : other, to = source ? other : self;

    return snprintf(
        line, LINE_BYTES,
        "{\"type\":\"%s\",\"process\":\"%c%u\",\"channel\":\"dsm:%c%u-%c%u\",\"begin\":%llu,\"end\":%llu,"
        "\"message\":\"%s\",\"time\":%llu",
        types[kind_of(message, source)], letter(self), self / 2, letter(from), from / 2, letter(to), to / 2,
        (unsigned long long)message->sequence, (unsigned long long)message->sequence + 1,
        words[message->type], (unsigned long long)dsm_now_ns(CLOCK_BOOTTIME));
}

static int page_fields(char *line, const struct message *message, bool source) {
    const char *role = source ? "source" : "destination";
    int length = message->type == GRANT
                     ? snprintf(line, LINE_BYTES, ",\"page\":%u", message->page)
                     : snprintf(line, LINE_BYTES, ",\"page\":%u,\"role\":\"%s\"", message->page, role);

    length += snprintf(line + length, LINE_BYTES, ",\"version\":%llu", (unsigned long long)message->version);
    if (message->interval != 0)
        length += snprintf(line + length, LINE_BYTES, ",\"writer\":\"%c%u\",\"interval\":%u",
                           letter(message->writer), message->writer / 2, message->interval);
    if (message->type == GRANT || (message->flags & MESSAGE_WRITE && message->type == DATA))
        length += snprintf(line + length, LINE_BYTES, ",\"owner\":true");
    return length;
}

void dsm_trace_message(struct dsm *dsm, const struct message *message, unsigned self, unsigned other,
                       bool source) {
    char line[4 * LINE_BYTES];

    if (dsm->tracer.rings[0].base != NULL) {
        put_record(dsm, record_of(message, self, other, source));
    } else if (dsm->tracer.file >= 0) {
        int length = line_of(line, message, self, other, source);
        if (message->type <= WRITEBACK)
            length += page_fields(line + length, message, source);
        else
            length += snprintf(line + length, LINE_BYTES, ",\"number\":%u", message->page);
        memcpy(line + length, "}\n", 2);
        put_line(dsm, line, (size_t)length + 2);
    }
}

/* ---- restarts */

void dsm_trace_rollback(struct dsm *dsm, unsigned self, uint32_t checkpoint) {
    char line[LINE_BYTES];

    if (dsm->tracer.file < 0)
        return;
    const int length =
        snprintf(line, sizeof(line), "{\"type\":\"rollback\",\"process\":\"%c%u\",\"checkpoint\":%u}\n",
                 letter(self), self / 2, checkpoint);
    put_line(dsm, line, (size_t)length);
}

void dsm_trace_in_transit(struct dsm *dsm, unsigned self, unsigned other, uint64_t begin, uint64_t end) {
    char line[LINE_BYTES];

    if (dsm->tracer.file < 0)
        return;
    const int length = snprintf(
        line, sizeof(line),
        "{\"type\":\"receive\",\"process\":\"%c%u\",\"channel\":\"dsm:%c%u-%c%u\",\"begin\":%llu,"
        "\"end\":%llu,\"message\":\"in-transit\",\"time\":%llu}\n",
        letter(self), self / 2, letter(other), other / 2, letter(self), self / 2, (unsigned long long)begin,
        (unsigned long long)end, (unsigned long long)dsm_now_ns(CLOCK_BOOTTIME));
    put_line(dsm, line, (size_t)length);
}

/* ---- checkpoints */

/* Appends `"dsm:a-b":n` for every channel that is not at 0. */
static size_t offsets_json(const uint64_t *offsets, unsigned number, bool sent, char *out, size_t size) {
    size_t length = 0;

    for (unsigned other = 0; other < ENTITIES; other++) {
        const unsigned from = sent ? number : other, to = sent ? other : number;
        if (offsets[other] == 0 || length >= size)
            continue;
        length +=
            (size_t)snprintf(out + length, size - length, "%s\"dsm:%c%u-%c%u\":%llu", length == 0 ? "" : ",",
                             letter(from), from / 2, letter(to), to / 2, (unsigned long long)offsets[other]);
    }
    return length;
}

size_t dsm_cut_json(const struct entity *entity, unsigned number, char *out, size_t size) {
    char sent[2048], received[2048];

    sent[offsets_json(entity->channels.sent, number, true, sent, sizeof(sent) - 1)] = 0;
    received[offsets_json(entity->channels.received, number, false, received, sizeof(received) - 1)] = 0;
    return (size_t)snprintf(out, size, "{\"sent\":{%s},\"received\":{%s}}", sent, received);
}

void dsm_trace_checkpoint(struct dsm *dsm, const struct entity *entity, unsigned number, const char *image) {
    char line[CONTROL_BYTES], cut[CONTROL_BYTES / 2];
    size_t length = 0;

    dsm_cut_json(entity, number, cut, sizeof(cut));
    if (dsm->tracer.collector >= 0)
        length = (size_t)snprintf(line, sizeof(line),
                                  "{\"sequence\":%llu,\"event\":", (unsigned long long)dsm->tracer.sequence);
    length += (size_t)snprintf(
        line + length, sizeof(line) - length,
        "{\"type\":\"checkpoint\",\"process\":\"%c%u\",\"checkpoint\":%u,\"image\":\"%s\",\"cut\":%s}",
        letter(number), number / 2, entity->checkpoint, image, cut);
    if (dsm->tracer.collector >= 0) {
        line[length++] = '}';
        if (send(dsm->tracer.collector, line, length, MSG_NOSIGNAL) < 0)
            dsm_fail(dsm, DSM_SYSTEM, "the collector is gone: %s", strerror(errno));
    } else if (dsm->tracer.file >= 0) {
        line[length++] = '\n';
        put_line(dsm, line, length);
    }
}

/* ---- life cycle */

static int send_rings(struct dsm *dsm, const int *rings) {
    char text[512], control[CMSG_SPACE(2 * sizeof(int))] = {0};
    const int length = snprintf(
        text, sizeof(text),
        "{\"version\":%d,\"application\":\"%s\",\"rank\":%u,\"entities\":[\"p%u\",\"h%u\"]}",
        RECOVERY_RING_LAYOUT_VERSION, dsm->config.application == NULL ? "dsm" : dsm->config.application,
        dsm->config.rank, dsm->config.rank, dsm->config.rank);
    struct iovec part = {.iov_base = text, .iov_len = (size_t)length};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);

    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(2 * sizeof(int));
    memcpy(CMSG_DATA(rights), rings, 2 * sizeof(int));
    if (sendmsg(dsm->tracer.collector, &message, MSG_NOSIGNAL) != length)
        return dsm_fail(dsm, DSM_SYSTEM, "the collector did not take the rings: %s", strerror(errno));
    return DSM_OK;
}

static int connect_collector(struct dsm *dsm) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(dsm->config.collector) >= sizeof(address.sun_path))
        return dsm_fail(dsm, DSM_USAGE, "the collector's socket path is too long");
    strcpy(address.sun_path, dsm->config.collector);
    dsm->tracer.collector = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (dsm->tracer.collector < 0 ||
        connect(dsm->tracer.collector, (struct sockaddr *)&address, sizeof(address)) != 0)
        return dsm_fail(dsm, DSM_SYSTEM, "no collector at %s: %s", dsm->config.collector, strerror(errno));
    return DSM_OK;
}

static int open_rings(struct dsm *dsm) {
    int rings[2] = {-1, -1};

    if (connect_collector(dsm) != DSM_OK)
        return dsm->status;
    for (int thread = 0; thread < 2 && dsm->status == DSM_OK; thread++) {
        const int error =
            ring_writer_open(&dsm->tracer.rings[thread], dsm->config.ring_bytes, &rings[thread]);
        if (error != 0)
            dsm_fail(dsm, error == -EINVAL ? DSM_USAGE : DSM_SYSTEM, "a ring of %zu bytes: %s",
                     dsm->config.ring_bytes, strerror(-error));
    }
    if (dsm->status == DSM_OK)
        send_rings(dsm, rings);
    for (int thread = 0; thread < 2; thread++)
        if (rings[thread] >= 0)
            close(rings[thread]);
    return dsm->status;
}

int dsm_trace_open(struct dsm *dsm) {
    if (dsm->config.collector != NULL)
        return open_rings(dsm);
    if (dsm->config.trace_path == NULL)
        return DSM_OK;
    /* A restart goes on where the history ended. */
    const int anew = dsm->config.restore == NULL ? O_TRUNC : 0;
    dsm->tracer.file = open(dsm->config.trace_path, O_WRONLY | O_CREAT | anew | O_APPEND | O_CLOEXEC, 0600);
    if (dsm->tracer.file < 0)
        return dsm_fail(dsm, DSM_SYSTEM, "%s: %s", dsm->config.trace_path, strerror(errno));
    return DSM_OK;
}

void dsm_trace_close(struct dsm *dsm) {
    for (int thread = 0; thread < 2; thread++)
        ring_writer_close(&dsm->tracer.rings[thread]);
    if (dsm->tracer.collector >= 0)
        close(dsm->tracer.collector);
    if (dsm->tracer.file >= 0)
        close(dsm->tracer.file);
}
