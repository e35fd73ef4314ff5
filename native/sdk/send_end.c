/* SPDX-License-Identifier: Apache-2.0 */
/* The sending ends: dial, learn what the receiver wants, send that from the log. */
#include "internal.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_MAX_MS 200
#define OUT_BYTES (256u << 10) /* of a connection, before it is asked whether it takes more */

static void lose_out(struct out_channel *out) {
    link_close(&out->link);
    out->state = OUT_WAITING;
    out->retry_at_ms = now_ms() + out->retry_ms;
    out->retry_ms = 2 * out->retry_ms < RETRY_MAX_MS ? 2 * out->retry_ms : RETRY_MAX_MS;
}

void dial(struct rl_node *node, struct out_channel *out) {
    struct bytes hello = {0};

    out->link.fd = link_dial(out->folder);
    if (out->link.fd < 0) {
        lose_out(out);
        return;
    }
    bytes_u32(&hello, PROTOCOL);
    bytes_u32(&hello, node->incarnation);
    bytes_name(&hello, node->app);
    bytes_name(&hello, node->process);
    bytes_name(&hello, out->peer);
    link_frame_of(&out->link, FRAME_HELLO, &hello);
    free(hello.data);
    out->state = OUT_HELLO;
}

/* Sends what is durable and wanted, as far as the connection takes it. */
void pump(struct rl_node *node, struct out_channel *out) {
    while (out->state == OUT_READY && out->next < out->count && out->link.out.size < OUT_BYTES &&
           out->messages[out->next].end <= node->log.durable) {
        const struct sent *message = &out->messages[out->next];
        uint8_t *payload = malloc(message->size + 1);

        if (payload == NULL)
            abort();
        if (log_payload(&node->log, message->end, message->size, message->sum, payload) != RL_OK) {
            free(payload);
            fail(node, RL_CORRUPT, "message %llu to %s differs from its checksum in the log",
                 (unsigned long long)out->next, out->peer);
            return;
        }
        link_begin(&out->link, FRAME_MESSAGE, MESSAGE_FIELDS_BYTES + message->size);
        bytes_u64(&out->link.out, out->next);
        bytes_u32(&out->link.out, message->sum);
        bytes_add(&out->link.out, payload, message->size);
        free(payload);
        out->next++;
    }
}

static void welcome(struct rl_node *node, struct out_channel *out, const uint8_t *body, size_t size) {
    struct fields fields = {body, size, true};
    const uint64_t next = take_u64(&fields), checkpointed = take_u64(&fields);

    if (!fields.ok || fields.left > 0) {
        lose_out(out);
        return;
    }
    if (next > out->count) {
        fail(node, RL_CONTRADICTION,
             "%s has received %llu messages, but the log of %s holds %zu: it has lost its end", out->peer,
             (unsigned long long)next, node->process, out->count);
        return;
    }
    if (checkpointed > out->released)
        out->released = checkpointed;
    out->next = next;
    out->state = OUT_READY;
    out->retry_ms = RETRY_MIN_MS;
}

static void refused(struct rl_node *node, const struct out_channel *out, const uint8_t *body, size_t size) {
    struct fields fields = {body, size, true};
    const uint16_t reason = take_u16(&fields);
    const bool old = size > 0 && body[0] == JSON_BEGIN;

    if (fields.left > MAX_TEXT_BYTES)
        fields.left = MAX_TEXT_BYTES;
    if (old || reason == REFUSED_PROTOCOL)
        fail(node, RL_VERSION,
             "%s speaks protocol %u and %s does not (%.*s). Start both processes with the same version of "
             "recovery-line; their logs stay as they are",
             node->process, PROTOCOL, out->peer, old ? 20 : (int)fields.left,
             old ? "it speaks protocol 1" : (const char *)fields.at);
    else
        fail(node, RL_CONTRADICTION, "%s refused the channel: %.*s", out->peer, (int)fields.left,
             (const char *)fields.at);
}

static void out_frame(struct rl_node *node, struct out_channel *out, uint8_t type, const uint8_t *body,
                      size_t size) {
    uint64_t sequence;

    if (type == FRAME_WELCOME)
        welcome(node, out, body, size);
    else if (type == FRAME_REFUSED)
        refused(node, out, body, size);
    else if (type == FRAME_CHECKPOINTED && size == sizeof(sequence)) {
        memcpy(&sequence, body, sizeof(sequence));
        if (sequence > out->released)
            out->released = sequence;
    } else
        lose_out(out);
}

void serve_out(struct rl_node *node, struct out_channel *out, short events) {
    const uint8_t *body;
    size_t size;
    uint8_t type;
    int found = 0;

    if (events & (POLLIN | POLLHUP | POLLERR)) {
        if (!link_read(&out->link)) {
            lose_out(out);
            return;
        }
        while (out->link.fd >= 0 && (found = link_frame(&out->link, &type, &body, &size)) == 1)
            out_frame(node, out, type, body, size);
    }
    if (out->link.fd >= 0 && (found < 0 || !link_write(&out->link)))
        lose_out(out);
}
