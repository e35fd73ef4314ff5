/* SPDX-License-Identifier: Apache-2.0 */
/* Who has dialled in and not said yet for whom. */
#include "internal.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void refuse(struct link *link, enum refusal reason, const char *why) {
    struct bytes body = {0};
    const uint16_t number = reason;

    bytes_add(&body, &number, sizeof(number));
    bytes_add(&body, why, strlen(why));
    link_frame_of(link, FRAME_REFUSED, &body);
    free(body.data);
}

/* In the words of protocol 1. A name needs no escapes in JSON. */
static void refuse_old(const struct rl_node *node, struct link *link) {
    char *json = text("{\"message\":\"%s speaks protocol %u: start this process with its version, too\"}",
                      node->process, PROTOCOL);
    const struct bytes body = {.data = (uint8_t *)json, .size = strlen(json)};

    link_frame_of(link, FRAME_REFUSED, &body);
    free(json);
}

/* The channel that a HELLO asks for; NULL: it is refused. */
static struct in_channel *channel_of(struct rl_node *node, struct link *link, const uint8_t *body,
                                     size_t size) {
    char app[RL_MAX_NAME_BYTES + 1], from[RL_MAX_NAME_BYTES + 1], to[RL_MAX_NAME_BYTES + 1], *why;
    struct fields fields = {body, size, true};
    uint32_t protocol;

    if (size > 0 && body[0] == JSON_BEGIN) {
        refuse_old(node, link);
        return NULL;
    }
    protocol = take_u32(&fields);
    take_u32(&fields); /* the incarnation: for who reads a trace of the wire */
    take_name(&fields, app);
    take_name(&fields, from);
    take_name(&fields, to);
    if (fields.ok && fields.left == 0 && protocol == PROTOCOL && is_name(from) &&
        strcmp(app, node->app) == 0 && strcmp(to, node->process) == 0)
        return in_from(node, from);
    if (!fields.ok || fields.left > 0)
        refuse(link, REFUSED_MALFORMED, "this is no HELLO");
    else if (protocol != PROTOCOL) {
        why = text("%s speaks protocol %u", node->process, PROTOCOL);
        refuse(link, REFUSED_PROTOCOL, why);
        free(why);
    } else if (!is_name(from))
        refuse(link, REFUSED_MALFORMED, "the sender's name is none");
    else {
        why = text("this is %s of %s", node->process, node->app);
        refuse(link, REFUSED_OTHER_PROCESS, why);
        free(why);
    }
    return NULL;
}

/* The stranger's connection takes the place of the channel's old one. */
static void attach(struct rl_node *node, struct in_channel *in, struct link *link) {
    link_close(&in->link);
    in->link = *link;
    *link = (struct link){.fd = -1};
    link_begin(&in->link, FRAME_WELCOME, 2 * sizeof(uint64_t));
    bytes_u64(&in->link.out, in->delivered + waiting(in));
    bytes_u64(&in->link.out, in->checkpointed);
    arrive_all(node, in);
    serve_in(node, in, 0);
}

void serve_stranger(struct rl_node *node, struct stranger *stranger, short events) {
    struct link *link = &stranger->link;
    struct in_channel *in = NULL;
    const uint8_t *body;
    size_t size;
    uint8_t type;
    int found = 0;

    if ((events & (POLLIN | POLLHUP | POLLERR)) == 0)
        return;
    if (!link_read(link) || (found = link_frame(link, &type, &body, &size)) < 0) {
        link_close(link);
        return;
    }
    if (found == 0)
        return;
    if (type == FRAME_HELLO)
        in = channel_of(node, link, body, size);
    else
        refuse(link, REFUSED_MALFORMED, "what comes first is HELLO");
    if (in != NULL) {
        attach(node, in, link);
        return;
    }
    link_write(link);
    link_close(link);
}

void accept_all(struct rl_node *node) {
    int fd;

    while ((fd = accept4(node->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct stranger *stranger = calloc(1, sizeof(*stranger));
        if (stranger == NULL)
            abort();
        stranger->link.fd = fd;
        stranger->until_ms = now_ms() + HELLO_LIMIT_MS;
        *(struct stranger **)array_add(&node->strangers, &node->stranger_count, &node->stranger_room,
                                       sizeof(stranger)) = stranger;
    }
}

/* Those who said HELLO or went, and those who are late. */
void forget_strangers(struct rl_node *node) {
    size_t kept = 0;

    for (size_t i = 0; i < node->stranger_count; i++) {
        struct stranger *stranger = node->strangers[i];
        if (stranger->link.fd >= 0 && now_ms() < stranger->until_ms) {
            node->strangers[kept++] = stranger;
            continue;
        }
        link_close(&stranger->link);
        free(stranger);
    }
    node->stranger_count = kept;
}
