/* SPDX-License-Identifier: Apache-2.0 */
/* The channels of a process, and their numbers in its log. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#define QUEUE_MESSAGES 4096u
#define QUEUE_BYTES (8u << 20)

struct out_channel *out_to(struct rl_node *node, const char *peer) {
    struct out_channel *out;

    for (size_t i = 0; i < node->out_count; i++)
        if (strcmp(node->outs[i]->peer, peer) == 0)
            return node->outs[i];
    out = calloc(1, sizeof(*out));
    if (out == NULL)
        abort();
    out->peer = text("%s", peer);
    out->folder = text("%s/%s/sdk/%s", node->home, node->app, peer);
    out->number = -1;
    out->link.fd = -1;
    out->retry_ms = RETRY_MIN_MS;
    *(struct out_channel **)array_add(&node->outs, &node->out_count, &node->out_room, sizeof(out)) = out;
    return out;
}

struct in_channel *in_from(struct rl_node *node, const char *peer) {
    struct in_channel *in;

    for (size_t i = 0; i < node->in_count; i++)
        if (strcmp(node->ins[i]->peer, peer) == 0)
            return node->ins[i];
    in = calloc(1, sizeof(*in));
    if (in == NULL)
        abort();
    in->peer = text("%s", peer);
    in->number = -1;
    in->link.fd = -1;
    *(struct in_channel **)array_add(&node->ins, &node->in_count, &node->in_room, sizeof(in)) = in;
    return in;
}

size_t waiting(const struct in_channel *in) {
    return in->count - in->first;
}

bool is_full(const struct in_channel *in) {
    return waiting(in) >= QUEUE_MESSAGES || in->queued_bytes >= QUEUE_BYTES;
}

/* The channel gets the next number of the log. */
int64_t number_channel(struct rl_node *node, bool sends, const char *peer) {
    const int64_t number = (int64_t)node->channel_count;
    struct channel_end *end =
        array_add(&node->channels, &node->channel_count, &node->channel_room, sizeof(*end));

    end->sends = sends;
    if (sends) {
        out_to(node, peer)->number = number;
        for (end->at = 0; node->outs[end->at]->number != number; end->at++)
            ;
    } else {
        in_from(node, peer)->number = number;
        for (end->at = 0; node->ins[end->at]->number != number; end->at++)
            ;
    }
    return number;
}

void log_channel(struct rl_node *node, bool sends, const char *peer) {
    const uint8_t role = sends ? 0 : 1;
    const int64_t number = number_channel(node, sends, peer);

    log_start(&node->log, RECORD_CHANNEL);
    bytes_u32(&node->log.pending, (uint32_t)number);
    bytes_add(&node->log.pending, &role, 1);
    bytes_name(&node->log.pending, peer);
    log_finish(&node->log);
}
