/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "serve.h"

#include "../include/recovery_ring.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KNOWN_FLAGS RECOVERY_FLAG_UNIX
#define MAX_PARTS 64

struct packet {
    struct attach_request request;
    union {
        struct capture_cut_entry entries[ATTACH_ENTRIES];
        uint64_t cgroups[ATTACH_CGROUPS];
    };
};

/* ---- answers ---- */

/* A collector that is gone, or takes nothing, is found out by the next recv. */
static void send_answer(int socket, const struct attach_answer *answer, const void *body, const int *fds,
                        size_t fd_count) {
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec parts[2] = {{(void *)answer, sizeof(*answer)}, {(void *)body, answer->bytes}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = answer->bytes == 0 ? 1 : 2};

    if (fd_count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, fd_count * sizeof(int));
    }
    while (sendmsg(socket, &message, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

static void answer_body(int socket, const void *body, size_t bytes) {
    const struct attach_answer answer = {.magic = ATTACH_MAGIC, .bytes = (uint32_t)bytes};
    send_answer(socket, &answer, body, NULL, 0);
}

static void answer_failure(int socket, int status, const char *error) {
    const struct attach_answer answer = {
        .magic = ATTACH_MAGIC, .status = status, .bytes = (uint32_t)strlen(error)};
    send_answer(socket, &answer, error, NULL, 0);
}

static void answer_status(int socket, int status, const char *error) {
    if (status == 0)
        answer_body(socket, NULL, 0);
    else
        answer_failure(socket, status, error);
}

/* ---- operations ---- */

static void hello(int socket, const struct attach_service *service) {
    struct attach_hello body = {.version = ATTACH_VERSION,
                                .created = service->created != 0,
                                .userfaults = service->userfault != NULL};
    const struct attach_answer answer = {.magic = ATTACH_MAGIC, .bytes = sizeof(body)};
    int fds[2] = {-1, service->reader_lock};

    capture_ring(service->capture, &fds[0], &body.ring_bytes);
    send_answer(socket, &answer, &body, fds, 2);
}

/* A collector can't have other services of the machine recorded: only what `run` put below its own cgroup. */
static int select_below(const struct attach_service *service, const struct attach_request *request,
                        char *error) {
    const uint64_t cgroup = request->cgroup;
    char path[PATH_MAX];
    const size_t length = strlen(service->below);
    const int status = capture_cgroup_path(cgroup, path, sizeof(path));

    if (status != 0) {
        snprintf(error, CAPTURE_ERROR_BYTES, "there is no cgroup with id %llu", (unsigned long long)cgroup);
        return status;
    }
    if (path[0] != '/' || strncmp(path + 1, service->below, length) != 0 || path[1 + length] != '/') {
        snprintf(error, CAPTURE_ERROR_BYTES, "the cgroup %.160s is not below /%.32s", path, service->below);
        return -EPERM;
    }
    return request->operation == ATTACH_SELECT_ATTACHED
               ? capture_attach(service->capture, cgroup, request->number, 0, error)
               : capture_select(service->capture, cgroup, 1, request->number, error);
}

static void counters(int socket, const struct attach_service *service) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct attach_counters body = {0};
    struct capture_counters *values = malloc(sizeof(*values));
    const int status = values == NULL ? -ENOMEM : capture_counters(service->capture, values, error);

    if (status == 0) {
        memcpy(body.committed, values->committed, sizeof(body.committed));
        for (uint32_t cpu = 0; cpu < values->cpus; cpu++)
            for (int kind = 0; kind < CAPTURE_KINDS; kind++)
                body.lost[kind] += values->lost[cpu][kind];
        body.recursion_misses = values->recursion_misses;
    }
    free(values);
    if (status == 0)
        answer_body(socket, &body, sizeof(body));
    else
        answer_failure(socket, status, error);
}

/* As many packets as it takes. `last` is the head of the last one. */
static void answer_list(int socket, const void *items, size_t size, size_t count, struct attach_answer last) {
    const size_t most = ATTACH_BODY_BYTES / size;
    size_t sent = 0;

    do {
        const size_t part = count - sent < most ? count - sent : most;
        struct attach_answer answer = last;
        answer.magic = ATTACH_MAGIC;
        answer.bytes = (uint32_t)(part * size);
        answer.more = sent + part < count;
        send_answer(socket, &answer, (const uint8_t *)items + sent * size, NULL, 0);
        sent += part;
    } while (sent < count);
}

static void cut(int socket, const struct attach_service *service, uint64_t cgroup) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct capture_cut_entry *entries = NULL;
    size_t count = 0;
    int complete = 0, pending = 0;
    const int status = capture_cut(service->capture, cgroup, &entries, &count, &complete, &pending, error);

    if (status != 0)
        return answer_failure(socket, status, error);
    const struct attach_answer last = {.complete = complete != 0, .pending = pending != 0};
    answer_list(socket, entries, sizeof(*entries), count, last);
    free(entries);
}

static void flush(int socket, const struct attach_service *service, const uint64_t *cgroups, size_t count) {
    char error[CAPTURE_ERROR_BYTES] = "";
    int pending = 0;
    const int status = capture_flush(service->capture, cgroups, count, &pending, error);

    if (status != 0)
        return answer_failure(socket, status, error);
    const struct attach_answer answer = {.magic = ATTACH_MAGIC, .pending = pending != 0};
    send_answer(socket, &answer, NULL, NULL, 0);
}

static void verdicts(int socket, const struct attach_service *service) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct capture_verdict *found = NULL;
    size_t count = 0;
    const int status = capture_verdicts(service->capture, &found, &count, error);

    if (status != 0)
        return answer_failure(socket, status, error);
    answer_list(socket, found, sizeof(*found), count, (struct attach_answer){0});
    free(found);
}

static void parts(int socket, const struct attach_service *service) {
    struct capture_part *found = calloc(MAX_PARTS, sizeof(*found));

    if (found == NULL)
        return answer_failure(socket, -ENOMEM, "out of memory");
    const int count = capture_parts(service->capture, found, MAX_PARTS);
    answer_list(socket, found, sizeof(*found), count < MAX_PARTS ? (size_t)count : MAX_PARTS,
                (struct attach_answer){0});
    free(found);
}

static void userfaults(int socket, const struct attach_service *service) {
    char error[CAPTURE_ERROR_BYTES] = "page faults are not watched";
    struct userfault_counts counts;
    const int status =
        service->userfault == NULL ? -ENOTSUP : userfault_counts(service->userfault, &counts, error);

    if (status == 0)
        answer_body(socket, &counts, sizeof(counts));
    else
        answer_failure(socket, status, error);
}

/* ---- requests ---- */

/* What capture_cut could have returned: everything else never came from us. */
static bool entry_is_possible(const struct capture_cut_entry *entry) {
    static const uint8_t zero[sizeof(entry->reserved)];
    const bool unix_socket = (entry->flags & RECOVERY_FLAG_UNIX) != 0;
    const uint64_t greatest_name = unix_socket ? UINT64_MAX : UINT32_MAX;

    return (entry->flags & ~KNOWN_FLAGS) == 0 && entry->live <= 1 && entry->told < 16 &&
           memcmp(entry->reserved, zero, sizeof(zero)) == 0 && entry->local <= greatest_name &&
           entry->remote <= greatest_name && entry->sent <= ATTACH_MAX_OFFSET &&
           entry->received <= ATTACH_MAX_OFFSET && entry->seen <= ATTACH_MAX_OFFSET &&
           entry->unacknowledged <= entry->sent && entry->queued <= ATTACH_MAX_OFFSET;
}

/* Bytes of an item that the operation takes, and how many of them at most; 0: it takes none. */
static size_t item_bytes(uint16_t operation, uint16_t *most) {
    *most = operation == ATTACH_FLUSH            ? ATTACH_CGROUPS
            : operation == ATTACH_EXPECT_RESTORE ? ATTACH_ENTRIES
                                                 : 0;
    return operation == ATTACH_FLUSH ? sizeof(uint64_t) : sizeof(struct capture_cut_entry);
}

/* NULL, or what is wrong with a packet of `bytes` bytes. */
static const char *refusal(const struct packet *packet, size_t bytes) {
    const struct attach_request *request = &packet->request;
    uint16_t most;

    if (bytes < sizeof(*request) || bytes > sizeof(*packet))
        return "the request has no length that a request can have";
    if (request->magic != ATTACH_MAGIC || request->reserved != 0)
        return "the request does not begin as requests begin";
    if (request->operation < ATTACH_HELLO || request->operation > ATTACH_SELECT_ATTACHED)
        return "there is no such operation";
    const size_t size = item_bytes(request->operation, &most);
    if (most > 0 ? request->count == 0 || request->count > most : request->count != 0)
        return "the operation does not take that many items";
    if (bytes != sizeof(*request) + request->count * size)
        return "the request is not as long as it says";
    const bool selects = request->operation == ATTACH_SELECT || request->operation == ATTACH_UNSELECT ||
                         request->operation == ATTACH_SELECT_ATTACHED;
    const bool names = selects || request->operation == ATTACH_CUT;
    if (names != (request->cgroup != 0))
        return names ? "the operation needs a cgroup" : "the operation takes no cgroup";
    if (!selects && request->number != 0)
        return "the operation takes no number";
    for (uint16_t i = 0; request->operation == ATTACH_EXPECT_RESTORE && i < request->count; i++)
        if (!entry_is_possible(&packet->entries[i]))
            return "a connection has a value that none can have";
    return NULL;
}

static void answer_request(int socket, const struct attach_service *service, const struct packet *packet) {
    const struct attach_request *request = &packet->request;
    char error[CAPTURE_ERROR_BYTES] = "";

    switch (request->operation) {
    case ATTACH_HELLO:
        return hello(socket, service);
    case ATTACH_SELECT:
    case ATTACH_SELECT_ATTACHED:
        return answer_status(socket, select_below(service, request, error), error);
    case ATTACH_UNSELECT:
        return answer_status(
            socket, capture_select(service->capture, request->cgroup, 0, request->number, error), error);
    case ATTACH_COUNTERS:
        return counters(socket, service);
    case ATTACH_CUT:
        return cut(socket, service, request->cgroup);
    case ATTACH_FLUSH:
        return flush(socket, service, packet->cgroups, request->count);
    case ATTACH_VERDICTS:
        return verdicts(socket, service);
    case ATTACH_PARTS:
        return parts(socket, service);
    case ATTACH_EXPECT_RESTORE:
        return answer_status(
            socket, capture_expect_restore(service->capture, packet->entries, request->count, error), error);
    default:
        return userfaults(socket, service);
    }
}

void attach_serve(int socket, const struct attach_service *service) {
    static struct packet packet;

    for (;;) {
        /* No room for descriptors: the kernel drops any that come along. MSG_TRUNC: the packet's own length.
         */
        const ssize_t got = recv(socket, &packet, sizeof(packet), MSG_TRUNC);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return;
        const char *why = refusal(&packet, (size_t)got);
        if (why != NULL)
            answer_failure(socket, -EPROTO, why);
        else if (service->capture == NULL)
            answer_failure(socket, service->status, service->error);
        else
            answer_request(socket, service, &packet);
    }
}
