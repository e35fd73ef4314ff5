/* SPDX-License-Identifier: Apache-2.0 */
/* The receiving ends: what has arrived and is not delivered yet. */
#include "internal.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

void tell_checkpointed(struct in_channel *in) {
    in->checkpointed = in->delivered;
    if (in->link.fd < 0)
        return;
    link_begin(&in->link, FRAME_CHECKPOINTED, sizeof(uint64_t));
    bytes_u64(&in->link.out, in->checkpointed);
}

/* False: nothing that may come here. */
static bool arrive(struct rl_node *node, struct in_channel *in, uint8_t type, const uint8_t *body,
                   size_t size) {
    struct arrived message, *slot;

    if (type != FRAME_MESSAGE || size < MESSAGE_FIELDS_BYTES)
        return false;
    memcpy(&message.sequence, body, 8);
    memcpy(&message.sum, body + 8, 4);
    message.size = (uint32_t)(size - MESSAGE_FIELDS_BYTES);
    body += MESSAGE_FIELDS_BYTES;
    if (message.sequence != in->delivered + waiting(in) || crc32_of(body, message.size) != message.sum)
        return false;
    message.arrival = node->arrivals++;
    message.bytes = malloc(message.size + 1);
    if (message.bytes == NULL)
        abort();
    memcpy(message.bytes, body, message.size);
    message.bytes[message.size] = 0;
    slot = array_add(&in->queue, &in->count, &in->room, sizeof(*slot));
    *slot = message;
    in->queued_bytes += message.size;
    return true;
}

/* Frames that are whole and fit into the queue. */
void arrive_all(struct rl_node *node, struct in_channel *in) {
    const uint8_t *body;
    size_t size;
    uint8_t type;
    int found = 0;

    while (in->link.fd >= 0 && !is_full(in) && (found = link_frame(&in->link, &type, &body, &size)) == 1)
        if (!arrive(node, in, type, body, size))
            found = -1, link_close(&in->link);
    if (found < 0)
        link_close(&in->link);
}

void serve_in(struct rl_node *node, struct in_channel *in, short events) {
    if (events & (POLLIN | POLLHUP | POLLERR)) {
        if (!link_read(&in->link)) {
            link_close(&in->link);
            return;
        }
        arrive_all(node, in);
    }
    if (in->link.fd >= 0 && !link_write(&in->link))
        link_close(&in->link);
}

/* Takes the head off. */
struct arrived take_head(struct in_channel *in) {
    const struct arrived message = in->queue[in->first++];

    if (in->first > 1024 && 2 * in->first > in->count) {
        memmove(in->queue, in->queue + in->first, waiting(in) * sizeof(*in->queue));
        in->count = waiting(in);
        in->first = 0;
    }
    in->delivered++;
    in->queued_bytes -= message.size;
    return message;
}
