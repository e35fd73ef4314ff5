/* SPDX-License-Identifier: Apache-2.0 */
/* The loop: disk first, then connections. */
#include "internal.h"

#include <poll.h>
#include <stdlib.h>

/* Dials what is due; the time until the next is, at most `limit_ms` (-1: none). */
static int dial_due(struct rl_node *node, int limit_ms) {
    const int64_t now = now_ms();

    for (size_t i = 0; i < node->out_count; i++) {
        struct out_channel *out = node->outs[i];
        if (!out->connected)
            continue;
        if (out->state == OUT_WAITING && now >= out->retry_at_ms)
            dial(node, out);
        if (out->state == OUT_WAITING) {
            const int64_t left = out->retry_at_ms > now ? out->retry_at_ms - now : 1;
            if (limit_ms < 0 || left < limit_ms)
                limit_ms = (int)left;
        }
    }
    return limit_ms;
}

static void watch(struct pollfd *entry, const struct link *link, bool reads) {
    *entry = (struct pollfd){.fd = link->fd, .events = reads ? POLLIN : 0};
    if (link->out.size > 0)
        entry->events |= POLLOUT;
    if (entry->events == 0)
        entry->fd = -1; /* a hang-up of a full queue's connection would wake for ever */
}

static void serve_ready(struct rl_node *node, const struct pollfd *entries, size_t outs, size_t ins,
                        size_t strangers) {
    const struct pollfd *entry = entries + 1;

    for (size_t i = 0; i < outs; i++, entry++)
        if (entry->revents != 0)
            serve_out(node, node->outs[i], entry->revents);
    for (size_t i = 0; i < ins; i++, entry++)
        if (entry->revents != 0)
            serve_in(node, node->ins[i], entry->revents);
    for (size_t i = 0; i < strangers; i++, entry++)
        if (entry->revents != 0)
            serve_stranger(node, node->strangers[i], entry->revents);
    if (entries[0].revents != 0)
        accept_all(node);
    forget_strangers(node);
}

/* Disk first, then connections: waits up to `limit_ms` for one that is ready. */
int serve(struct rl_node *node, int limit_ms) {
    const size_t outs = node->out_count, ins = node->in_count, strangers = node->stranger_count;
    struct pollfd *entries = calloc(1 + outs + ins + strangers, sizeof(*entries)), *entry = entries;

    if (entries == NULL)
        abort();
    if (log_flush(&node->log) != RL_OK) {
        free(entries);
        return disk_failed(node);
    }
    limit_ms = dial_due(node, limit_ms);
    *entry++ = (struct pollfd){.fd = node->listener, .events = POLLIN};
    for (size_t i = 0; i < outs; i++) {
        pump(node, node->outs[i]);
        watch(entry++, &node->outs[i]->link, true);
    }
    for (size_t i = 0; i < ins; i++) {
        arrive_all(node, node->ins[i]);
        watch(entry++, &node->ins[i]->link, !is_full(node->ins[i]));
    }
    for (size_t i = 0; i < strangers; i++)
        watch(entry++, &node->strangers[i]->link, true);
    if (strangers > 0 && (limit_ms < 0 || limit_ms > HELLO_LIMIT_MS))
        limit_ms = HELLO_LIMIT_MS;
    if (poll(entries, entry - entries, limit_ms) > 0)
        serve_ready(node, entries, outs, ins, strangers);
    free(entries);
    return node->status;
}
