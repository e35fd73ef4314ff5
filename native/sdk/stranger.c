/* SPDX-License-Identifier: Apache-2.0 */
/* Who has dialled in and not said yet for whom. */
#include "internal.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* The string behind `"key":"` in JSON text, if it is a name. */
static bool json_name(const char *json, const char *key, char *name) {
    const char *found = strstr(json, key);
    size_t length;

    if (found == NULL)
        return false;
    found += strlen(key);
    length = strcspn(found, "\"");
    if (length > RL_MAX_NAME_BYTES)
        return false;
    memcpy(name, found, length);
    name[length] = 0;
    return is_name(name);
}

static struct in_channel *channel_of(struct rl_node *node, const char *json) {
    char app[RL_MAX_NAME_BYTES + 1], from[RL_MAX_NAME_BYTES + 1], to[RL_MAX_NAME_BYTES + 1];

    if (strstr(json, "\"protocol\":\"" PROTOCOL "\"") == NULL || !json_name(json, "\"app\":\"", app) ||
        !json_name(json, "\"from\":\"", from) || !json_name(json, "\"to\":\"", to))
        return NULL;
    if (strcmp(app, node->app) != 0 || strcmp(to, node->process) != 0)
        return NULL;
    return in_from(node, from);
}

/* The stranger's connection takes the place of the channel's old one. */
static void attach(struct rl_node *node, struct in_channel *in, struct link *link) {
    char *json =
        text("{\"next\":%llu,\"checkpointed\":%llu}", (unsigned long long)(in->delivered + waiting(in)),
             (unsigned long long)in->checkpointed);

    link_close(&in->link);
    in->link = *link;
    *link = (struct link){.fd = -1};
    link_begin(&in->link, FRAME_WELCOME, strlen(json));
    bytes_add(&in->link.out, json, strlen(json));
    free(json);
    arrive_all(node, in);
    serve_in(node, in, 0);
}

static void refuse(struct rl_node *node, struct link *link) {
    char *json = text("{\"message\":\"this is %s of %s\"}", node->process, node->app);

    link_begin(link, FRAME_REFUSED, strlen(json));
    bytes_add(&link->out, json, strlen(json));
    free(json);
    link_write(link);
    link_close(link);
}

void serve_stranger(struct rl_node *node, struct stranger *stranger, short events) {
    struct link *link = &stranger->link;
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
    if (found == 1) {
        char *json = text("%.*s", (int)(size < MAX_HELLO_BYTES ? size : MAX_HELLO_BYTES), (const char *)body);
        struct in_channel *in = type == FRAME_HELLO ? channel_of(node, json) : NULL;
        free(json);
        if (in == NULL)
            refuse(node, link);
        else
            attach(node, in, link);
    }
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
