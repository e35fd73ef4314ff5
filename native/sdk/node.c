/* SPDX-License-Identifier: Apache-2.0 */
/* The calls of recovery_sdk.h: what a process does now, or does again. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DELIVERIES_UNSERVED 64u  /* while messages wait, connections and disk are served only so often */
#define PENDING_BYTES (4u << 20) /* of the log, before rl_send waits for the disk */
#define KEPT_CHECKPOINTS 2u
#define RAW_STATE 0

const void *rl_restored(const struct rl_node *node, size_t *size) {
    *size = node->restored ? node->state_size : 0;
    return node->restored ? node->state + 1 : NULL;
}

int rl_replaying(const struct rl_node *node) {
    return node->step_at < node->step_count;
}

uint32_t rl_incarnation(const struct rl_node *node) {
    return node->incarnation;
}

const char *rl_error(const struct rl_node *node) {
    if (node == NULL)
        return "out of memory";
    return node->error[0] != 0 ? node->error : "nothing failed";
}

static const char *kind_name(uint8_t kind) {
    switch (kind) {
    case RECORD_SEND:
        return "send";
    case RECORD_DELIVER:
        return "delivery";
    case RECORD_CHECKPOINT:
        return "checkpoint";
    default:
        return "value";
    }
}

/* The next logged step, which must be of this kind. */
static struct step *replayed(struct rl_node *node, uint8_t kind) {
    struct step *step = &node->steps[node->step_at];

    if (step->kind == kind)
        return step;
    fail(node, RL_CONTRADICTION, "replay: the program does a %s where the log has a %s (%zu steps remain)",
         kind_name(kind), kind_name(step->kind), node->step_count - node->step_at);
    return NULL;
}

int rl_connect(struct rl_node *node, const char *peer) {
    struct out_channel *out;

    if (node->status != RL_OK)
        return node->status;
    if (!is_name(peer))
        return fail(node, RL_USAGE, "a peer has a name of letters, digits, . _ -");
    out = out_to(node, peer);
    if (out->connected)
        return fail(node, RL_USAGE, "%s is connected already", peer);
    out->connected = true;
    return RL_OK;
}

static int repeat_send(struct rl_node *node, struct out_channel *out, uint32_t sum) {
    const struct step *step = replayed(node, RECORD_SEND);

    if (step == NULL)
        return node->status;
    if (step->channel != out->number || step->sequence != out->sent || step->sum != sum)
        return fail(node, RL_CONTRADICTION, "replay: message %llu to %s is not the one in the log",
                    (unsigned long long)out->sent, out->peer);
    node->step_at++;
    out->sent++;
    return RL_OK;
}

int rl_send(struct rl_node *node, const char *peer, const void *bytes, size_t size) {
    struct out_channel *out;
    struct sent *sent;
    uint32_t sum;

    if (node->status != RL_OK)
        return node->status;
    if (!is_name(peer) || size > RL_MAX_MESSAGE_BYTES || (bytes == NULL && size > 0))
        return fail(node, RL_USAGE, "rl_send: no peer's name, or more than %u bytes", RL_MAX_MESSAGE_BYTES);
    out = out_to(node, peer);
    if (!out->connected)
        return fail(node, RL_USAGE, "rl_connect to %s comes before rl_send", peer);
    sum = crc32_of(bytes, size);
    if (rl_replaying(node))
        return repeat_send(node, out, sum);
    if (out->number < 0)
        log_channel(node, true, peer);
    log_start(&node->log, RECORD_SEND);
    bytes_u32(&node->log.pending, (uint32_t)out->number);
    bytes_u64(&node->log.pending, out->sent);
    bytes_u32(&node->log.pending, sum);
    bytes_add(&node->log.pending, bytes, size);
    sent = array_add(&out->messages, &out->count, &out->room, sizeof(*sent));
    *sent = (struct sent){log_finish(&node->log), (uint32_t)size, sum};
    out->sent++;
    return node->log.pending.size > PENDING_BYTES ? serve(node, 0) : RL_OK;
}

/* The channel whose head arrived first. */
static struct in_channel *first_arrived(struct rl_node *node) {
    struct in_channel *first = NULL;

    for (size_t i = 0; i < node->in_count; i++) {
        struct in_channel *in = node->ins[i];
        if (waiting(in) > 0 &&
            (first == NULL || in->queue[in->first].arrival < first->queue[first->first].arrival))
            first = in;
    }
    return first;
}

/* The channel of the next logged delivery if its message is here; NULL: not yet, or failed. */
static struct in_channel *repeat_delivery(struct rl_node *node) {
    const struct step *step = replayed(node, RECORD_DELIVER);
    struct in_channel *in;

    if (step == NULL)
        return NULL;
    in = node->ins[node->channels[step->channel].at];
    if (waiting(in) == 0)
        return NULL;
    if (in->queue[in->first].sequence != step->sequence || in->queue[in->first].sum != step->sum) {
        fail(node, RL_CONTRADICTION, "%s sends another message %llu than the one received before", in->peer,
             (unsigned long long)step->sequence);
        return NULL;
    }
    node->step_at++;
    return in;
}

static void log_delivery(struct rl_node *node, struct in_channel *in) {
    if (in->number < 0)
        log_channel(node, false, in->peer);
    log_start(&node->log, RECORD_DELIVER);
    bytes_u32(&node->log.pending, (uint32_t)in->number);
    bytes_u64(&node->log.pending, in->queue[in->first].sequence);
    bytes_u64(&node->log.pending, node->delivered);
    bytes_u32(&node->log.pending, in->queue[in->first].sum);
    log_finish(&node->log);
}

static struct in_channel *next_channel(struct rl_node *node) {
    struct in_channel *in;

    if (rl_replaying(node))
        return repeat_delivery(node);
    in = first_arrived(node);
    if (in != NULL)
        log_delivery(node, in);
    return in;
}

int rl_receive(struct rl_node *node, struct rl_message *message) {
    struct in_channel *in;

    if (node->status == RL_OK && node->delivered % DELIVERIES_UNSERVED == 0)
        serve(node, 0);
    while (node->status == RL_OK && (in = next_channel(node)) == NULL && node->status == RL_OK)
        serve(node, -1);
    if (node->status != RL_OK)
        return node->status;
    free(node->current.bytes);
    node->current = take_head(in);
    node->delivered++;
    *message = (struct rl_message){in->peer, node->current.sequence, node->current.bytes, node->current.size};
    return RL_OK;
}

int rl_record(struct rl_node *node, void *value, size_t size) {
    if (node->status != RL_OK)
        return node->status;
    if (size > RL_MAX_MESSAGE_BYTES)
        return fail(node, RL_USAGE, "rl_record: more than %u bytes", RL_MAX_MESSAGE_BYTES);
    if (rl_replaying(node)) {
        const struct step *step = replayed(node, RECORD_VALUE);
        if (step == NULL)
            return node->status;
        if (step->size != size)
            return fail(node, RL_CONTRADICTION, "replay: a value of %zu bytes where the log has one of %zu",
                        size, step->size);
        memcpy(value, step->value, size);
        node->step_at++;
        return RL_OK;
    }
    log_start(&node->log, RECORD_VALUE);
    bytes_add(&node->log.pending, value, size);
    log_finish(&node->log);
    return RL_OK;
}

/* The cut: every channel of the log where it stands now. */
static void log_checkpoint(struct rl_node *node, const struct bytes *state) {
    uint8_t sum[32];

    sum_of(state->data, state->size, sum);
    log_start(&node->log, RECORD_CHECKPOINT);
    bytes_u32(&node->log.pending, node->checkpoint);
    bytes_u64(&node->log.pending, state->size);
    bytes_add(&node->log.pending, sum, sizeof(sum));
    bytes_u64(&node->log.pending, node->delivered);
    bytes_u32(&node->log.pending, (uint32_t)node->channel_count);
    for (size_t number = 0; number < node->channel_count; number++) {
        const struct channel_end end = node->channels[number];
        bytes_u32(&node->log.pending, (uint32_t)number);
        bytes_u64(&node->log.pending, end.sends ? node->outs[end.at]->sent : node->ins[end.at]->delivered);
    }
    log_finish(&node->log);
}

static void remove_old(struct rl_node *node) {
    char *path;

    if (node->checkpoint <= KEPT_CHECKPOINTS)
        return;
    path = text("%s/checkpoint-%u", node->folder, node->checkpoint - KEPT_CHECKPOINTS);
    unlink(path);
    free(path);
}

static int take_state(struct rl_node *node, const void *state, size_t size) {
    const uint8_t raw = RAW_STATE;
    struct bytes whole = {0};
    int status;

    bytes_add(&whole, &raw, 1);
    bytes_add(&whole, state, size);
    node->checkpoint++;
    status = store_state(node, node->checkpoint, &whole);
    if (status == RL_OK)
        log_checkpoint(node, &whole);
    free(whole.data);
    if (status == RL_OK)
        status = log_flush(&node->log);
    return status == RL_OK ? RL_OK : disk_failed(node);
}

int rl_mark_checkpoint(struct rl_node *node, const void *state, size_t size, uint32_t *index) {
    if (node->status != RL_OK)
        return node->status;
    if (rl_replaying(node)) {
        const struct step *step = replayed(node, RECORD_CHECKPOINT);
        if (step == NULL)
            return node->status;
        if (index != NULL)
            *index = (uint32_t)step->sequence;
        node->step_at++;
        return RL_OK;
    }
    if (take_state(node, state, size) != RL_OK)
        return node->status;
    for (size_t i = 0; i < node->in_count; i++)
        tell_checkpointed(node->ins[i]);
    remove_old(node);
    if (index != NULL)
        *index = node->checkpoint;
    return serve(node, 0);
}

int rl_stable(struct rl_node *node) {
    if (node->status == RL_OK && log_flush(&node->log) != RL_OK)
        disk_failed(node);
    return node->status;
}

int rl_poll(struct rl_node *node, int limit_ms) {
    return node->status == RL_OK ? serve(node, limit_ms) : node->status;
}

static bool all_released(const struct rl_node *node) {
    for (size_t i = 0; i < node->out_count; i++)
        if (node->outs[i]->released < node->outs[i]->sent)
            return false;
    return true;
}

int rl_released(struct rl_node *node, int limit_ms) {
    const int64_t until = now_ms() + limit_ms;

    while (node->status == RL_OK && !all_released(node)) {
        const int64_t left = limit_ms < 0 ? -1 : until - now_ms();
        if (limit_ms >= 0 && left <= 0)
            return RL_TIMED_OUT;
        serve(node, (int)left);
    }
    return node->status;
}
