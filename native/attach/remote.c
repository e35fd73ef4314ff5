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

#define MAX_ITEMS (1u << 20) /* of one answer: descriptors and processes are fewer */

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

/* `items`: `request->count` of them, of `size` bytes each. */
static int send_request(struct remote *remote, const struct attach_request *request, const void *items,
                        size_t size, char *error) {
    struct iovec parts[2] = {{(void *)request, sizeof(*request)}, {(void *)items, request->count * size}};
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
static int ask(struct remote *remote, const struct attach_request *request, const void *items, size_t size,
               struct incoming *in, char *error) {
    int status = send_request(remote, request, items, size, error);

    if (status == 0)
        status = receive(remote, in, error);
    if (status != 0 || in->answer.status == 0)
        return status;
    in->body[in->answer.bytes] = '\0';
    return fail(error, in->answer.status, (const char *)in->body);
}

/* For operations whose answer is a body of exactly `bytes`. */
static int ask_for(struct remote *remote, struct attach_request request, void *body, size_t bytes,
                   char *error) {
    struct incoming in;
    const int status = ask(remote, &request, NULL, 0, &in, error);

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
    const int status = ask(remote, &request, NULL, 0, &in, error);
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

static struct attach_request request_for(enum attach_operation operation) {
    return (struct attach_request){.magic = ATTACH_MAGIC, .operation = (uint16_t)operation};
}

int remote_select(struct remote *remote, uint64_t cgroup, int on, uint32_t incarnation, char *error) {
    struct attach_request request = request_for(on ? ATTACH_SELECT : ATTACH_UNSELECT);

    request.cgroup = cgroup;
    request.number = incarnation;
    return ask_for(remote, request, NULL, 0, error);
}

/* `parent` is for who records other cgroups than its own: nobody without rights does. */
int remote_attach(struct remote *remote, uint64_t cgroup, uint32_t incarnation, uint64_t parent,
                  char *error) {
    struct attach_request request = request_for(ATTACH_SELECT_ATTACHED);

    if (parent != 0) {
        snprintf(error, CAPTURE_ERROR_BYTES, "a collector without rights records its own cgroups alone");
        return -EPERM;
    }
    request.cgroup = cgroup;
    request.number = incarnation;
    return ask_for(remote, request, NULL, 0, error);
}

int remote_counters(struct remote *remote, struct capture_counters *out, char *error) {
    struct attach_counters body;
    const int status = ask_for(remote, request_for(ATTACH_COUNTERS), &body, sizeof(body), error);

    if (status != 0)
        return status;
    memset(out, 0, sizeof(*out));
    out->cpus = 1;
    memcpy(out->committed, body.committed, sizeof(out->committed));
    memcpy(out->lost[0], body.lost, sizeof(out->lost[0]));
    out->recursion_misses = body.recursion_misses;
    return 0;
}

int remote_userfaults(struct remote *remote, struct userfault_counts *out, char *error) {
    return ask_for(remote, request_for(ATTACH_USERFAULTS), out, sizeof(*out), error);
}

/* A list that comes in packets of items of `size` bytes; *items is malloc'ed. */
struct list {
    void *items;
    size_t size, count;
};

static int add_items(const struct incoming *in, struct list *list) {
    const size_t part = in->answer.bytes / list->size;

    if (in->answer.bytes % list->size != 0 || list->count + part > MAX_ITEMS)
        return -EPROTO;
    uint8_t *longer = realloc(list->items, (list->count + part + 1) * list->size);
    if (longer == NULL)
        return -ENOMEM;
    memcpy(longer + list->count * list->size, in->body, in->answer.bytes);
    list->items = longer;
    list->count += part;
    return 0;
}

/* `last`: the head of the last packet. On failure nothing is allocated. */
static int ask_list(struct remote *remote, struct attach_request request, struct list *list,
                    struct attach_answer *last, char *error) {
    struct incoming in;
    int status = ask(remote, &request, NULL, 0, &in, error);

    while (status == 0) {
        if (in.answer.status != 0 || add_items(&in, list) != 0)
            status = broken(remote, error, "answered nonsense");
        else if (!in.answer.more)
            break;
        else
            status = receive(remote, &in, error);
    }
    if (status == 0)
        *last = in.answer;
    else {
        free(list->items);
        *list = (struct list){.size = list->size};
    }
    return status;
}

int remote_cut(struct remote *remote, uint64_t cgroup, struct capture_cut_entry **entries, size_t *count,
               int *complete, int *pending, char *error) {
    struct list list = {.size = sizeof(**entries)};
    struct attach_request request = request_for(ATTACH_CUT);
    struct attach_answer last = {0};

    request.cgroup = cgroup;
    const int status = ask_list(remote, request, &list, &last, error);
    *entries = list.items;
    *count = list.count;
    *complete = last.complete;
    *pending = last.pending;
    return status;
}

int remote_verdicts(struct remote *remote, struct capture_verdict **out, size_t *count, char *error) {
    struct list list = {.size = sizeof(**out)};
    struct attach_answer last;
    const int status = ask_list(remote, request_for(ATTACH_VERDICTS), &list, &last, error);

    *out = list.items;
    *count = list.count;
    return status;
}

int remote_parts(struct remote *remote, struct capture_part *out, int max) {
    struct list list = {.size = sizeof(*out)};
    struct attach_answer last;

    if (ask_list(remote, request_for(ATTACH_PARTS), &list, &last, NULL) != 0)
        return 0;
    const size_t count = list.count < (size_t)max ? list.count : (size_t)max;
    memcpy(out, list.items, count * sizeof(*out));
    free(list.items);
    return (int)count;
}

/* As many requests as it takes: each item stands for itself. *pending: of any of them; NULL: it says none. */
static int send_items(struct remote *remote, enum attach_operation operation, const void *items, size_t size,
                      size_t count, size_t most, int *pending, char *error) {
    int status = 0;

    for (size_t sent = 0; status == 0 && sent < count;) {
        const size_t part = count - sent < most ? count - sent : most;
        struct attach_request request = request_for(operation);
        struct incoming in;

        request.count = (uint16_t)part;
        status = ask(remote, &request, (const uint8_t *)items + sent * size, size, &in, error);
        if (status == 0 && pending != NULL && in.answer.pending)
            *pending = 1;
        sent += part;
    }
    return status;
}

int remote_flush(struct remote *remote, const uint64_t *cgroups, size_t count, int *pending, char *error) {
    *pending = 0;
    return send_items(remote, ATTACH_FLUSH, cgroups, sizeof(*cgroups), count, ATTACH_CGROUPS, pending, error);
}

int remote_expect_restore(struct remote *remote, const struct capture_cut_entry *entries, size_t count,
                          char *error) {
    return send_items(remote, ATTACH_EXPECT_RESTORE, entries, sizeof(*entries), count, ATTACH_ENTRIES, NULL,
                      error);
}
