/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "remote.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define MAX_CUT_ENTRIES (1u << 20) /* the kernel keeps 2^18 closed ones; descriptors are fewer */

struct incoming {
    struct attach_answer answer;
    uint8_t body[ATTACH_BODY_BYTES];
    int fds[2]; /* -1: none came */
};

static int fail(char *error, int status, const char *text) {
    if (error != NULL)
        snprintf(error, CAPTURE_ERROR_BYTES, "%.255s", text);
    return status;
}

static int broken(struct remote *remote, char *error, const char *how) {
    char text[CAPTURE_ERROR_BYTES];

    remote->broken = true;
    snprintf(text, sizeof(text), "the attach helper %s", how);
    return fail(error, -EPIPE, text);
}

static int send_request(struct remote *remote, const struct attach_request *request,
                        const struct capture_cut_entry *entries, char *error) {
    struct iovec parts[2] = {{(void *)request, sizeof(*request)},
                             {(void *)entries, request->count * sizeof(*entries)}};
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = request->count == 0 ? 1 : 2};
    ssize_t sent;

    if (remote->broken)
        return broken(remote, error, "has ended");
    while ((sent = sendmsg(remote->socket, &message, MSG_NOSIGNAL)) < 0 && errno == EINTR)
        ;
    return sent < 0 ? broken(remote, error, "has ended") : 0;
}

/* The descriptors that came along; there is room for two, the kernel closes what is more. */
static void take_descriptors(struct msghdr *message, struct incoming *in) {
    struct cmsghdr *header = CMSG_FIRSTHDR(message);

    in->fds[0] = in->fds[1] = -1;
    if (header == NULL || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
        return;
    const size_t bytes = header->cmsg_len - CMSG_LEN(0);
    memcpy(in->fds, CMSG_DATA(header), bytes < sizeof(in->fds) ? bytes : sizeof(in->fds));
}

static int receive(struct remote *remote, struct incoming *in, char *error) {
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec parts[2] = {{&in->answer, sizeof(in->answer)}, {in->body, sizeof(in->body)}};
    struct msghdr message = {.msg_iov = parts,
                             .msg_iovlen = 2,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    ssize_t got;

    while ((got = recvmsg(remote->socket, &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
        ;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return broken(remote, error, "does not answer");
    if (got <= 0)
        return broken(remote, error, "has ended");
    take_descriptors(&message, in);
    if ((size_t)got >= sizeof(in->answer) && in->answer.magic == ATTACH_MAGIC &&
        (size_t)got == sizeof(in->answer) + in->answer.bytes && (message.msg_flags & MSG_TRUNC) == 0 &&
        in->answer.status <= 0 && (in->answer.status == 0 || in->answer.bytes < CAPTURE_ERROR_BYTES))
        return 0;
    for (int i = 0; i < 2; i++)
        if (in->fds[i] >= 0)
            close(in->fds[i]);
    return broken(remote, error, "answered nonsense");
}

/* The first packet of the answer: 0, or the status it tells. */
static int ask(struct remote *remote, const struct attach_request *request,
               const struct capture_cut_entry *entries, struct incoming *in, char *error) {
    int status = send_request(remote, request, entries, error);

    if (status == 0)
        status = receive(remote, in, error);
    if (status != 0 || in->answer.status == 0)
        return status;
    in->body[in->answer.bytes] = '\0';
    return fail(error, in->answer.status, (const char *)in->body);
}

/* For operations whose answer is a body of exactly `bytes`. */
static int ask_for(struct remote *remote, enum attach_operation operation, uint64_t cgroup, void *body,
                   size_t bytes, char *error) {
    const struct attach_request request = {
        .magic = ATTACH_MAGIC, .operation = (uint16_t)operation, .cgroup = cgroup};
    struct incoming in;
    const int status = ask(remote, &request, NULL, &in, error);

    if (status != 0)
        return status;
    if (in.answer.bytes != bytes)
        return broken(remote, error, "answered nonsense");
    if (bytes > 0)
        memcpy(body, in.body, bytes);
    return 0;
}

int remote_open(struct remote *remote, int socket, struct attach_hello *hello, int *ring, int *lock,
                char *error) {
    const struct attach_request request = {.magic = ATTACH_MAGIC, .operation = ATTACH_HELLO};
    const struct timeval patience = {.tv_sec = ATTACH_PATIENCE_S};
    struct incoming in = {.fds = {-1, -1}};

    *remote = (struct remote){.socket = socket};
    if (fcntl(socket, F_SETFD, FD_CLOEXEC) != 0 ||
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) != 0)
        return fail(error, -errno, "there is no socket to an attach helper");
    const int status = ask(remote, &request, NULL, &in, error);
    if (status != 0)
        return status;
    memcpy(hello, in.body, sizeof(*hello));
    if (in.answer.bytes == sizeof(*hello) && hello->version == ATTACH_VERSION && in.fds[0] >= 0 &&
        in.fds[1] >= 0) {
        *ring = in.fds[0];
        *lock = in.fds[1];
        return 0;
    }
    for (int i = 0; i < 2; i++)
        if (in.fds[i] >= 0)
            close(in.fds[i]);
    return broken(remote, error, "is of another version");
}

void remote_close(struct remote *remote) {
    if (remote->socket >= 0)
        close(remote->socket);
    remote->socket = -1;
    remote->broken = true;
}

int remote_select(struct remote *remote, uint64_t cgroup, int on, char *error) {
    return ask_for(remote, on ? ATTACH_SELECT : ATTACH_UNSELECT, cgroup, NULL, 0, error);
}

int remote_counters(struct remote *remote, struct capture_counters *out, char *error) {
    struct attach_counters body;
    const int status = ask_for(remote, ATTACH_COUNTERS, 0, &body, sizeof(body), error);

    if (status != 0)
        return status;
    memset(out, 0, sizeof(*out));
    out->cpus = 1;
    memcpy(out->committed, body.committed, sizeof(out->committed));
    memcpy(out->lost[0], body.lost, sizeof(out->lost[0]));
    out->recursion_misses = body.recursion_misses;
    out->naive = body.naive != 0;
    return 0;
}

int remote_take_lost(struct remote *remote, uint64_t cgroup, uint64_t *lost, char *error) {
    return ask_for(remote, ATTACH_TAKE_LOST, cgroup, lost, sizeof(*lost), error);
}

int remote_userfaults(struct remote *remote, struct userfault_counts *out, char *error) {
    return ask_for(remote, ATTACH_USERFAULTS, 0, out, sizeof(*out), error);
}

/* Adds one packet's entries to the caller's array. */
static int add_entries(const struct incoming *in, struct capture_cut_entry **entries, size_t *count) {
    const size_t part = in->answer.bytes / sizeof(**entries);

    if (in->answer.bytes % sizeof(**entries) != 0 || *count + part > MAX_CUT_ENTRIES)
        return -EPROTO;
    struct capture_cut_entry *longer = realloc(*entries, (*count + part + 1) * sizeof(*longer));
    if (longer == NULL)
        return -ENOMEM;
    memcpy(longer + *count, in->body, in->answer.bytes);
    *entries = longer;
    *count += part;
    return 0;
}

int remote_cut(struct remote *remote, uint64_t cgroup, struct capture_cut_entry **entries, size_t *count,
               int *complete, char *error) {
    const struct attach_request request = {.magic = ATTACH_MAGIC, .operation = ATTACH_CUT, .cgroup = cgroup};
    struct incoming in;
    int status = ask(remote, &request, NULL, &in, error);

    *entries = NULL;
    *count = 0;
    while (status == 0) {
        if (in.answer.status != 0 || add_entries(&in, entries, count) != 0)
            status = broken(remote, error, "answered nonsense");
        else if (!in.answer.more)
            break;
        else
            status = receive(remote, &in, error);
    }
    if (status != 0) {
        free(*entries);
        *entries = NULL;
        return status;
    }
    *complete = in.answer.complete;
    return 0;
}

/* As many requests as it takes: each entry stands for itself. */
static int send_entries(struct remote *remote, enum attach_operation operation, uint64_t cgroup,
                        const struct capture_cut_entry *entries, size_t count, char *error) {
    int status = 0;

    for (size_t sent = 0; status == 0 && sent < count;) {
        const size_t part = count - sent < ATTACH_ENTRIES ? count - sent : ATTACH_ENTRIES;
        const struct attach_request request = {.magic = ATTACH_MAGIC,
                                               .operation = (uint16_t)operation,
                                               .count = (uint16_t)part,
                                               .cgroup = cgroup};
        struct incoming in;
        status = ask(remote, &request, entries + sent, &in, error);
        sent += part;
    }
    return status;
}

int remote_forget_closed(struct remote *remote, uint64_t cgroup, const struct capture_cut_entry *entries,
                         size_t count, char *error) {
    return send_entries(remote, ATTACH_FORGET_CLOSED, cgroup, entries, count, error);
}

int remote_expect_restore(struct remote *remote, const struct capture_cut_entry *entries, size_t count,
                          char *error) {
    return send_entries(remote, ATTACH_EXPECT_RESTORE, 0, entries, count, error);
}
