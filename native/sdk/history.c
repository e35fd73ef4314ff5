/* SPDX-License-Identifier: Apache-2.0 */
/* What the log says at the start: what the process has done, and will do again. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

static int take_begin(struct rl_node *node, struct fields *fields) {
    char app[RL_MAX_NAME_BYTES + 1], process[RL_MAX_NAME_BYTES + 1];

    take_name(fields, app);
    take_name(fields, process);
    if (!fields->ok)
        return RL_CORRUPT;
    if (strcmp(app, node->app) == 0 && strcmp(process, node->process) == 0)
        return RL_OK;
    return fail(node, RL_CONTRADICTION, "%s holds the log of process %s of %s", node->folder, process, app);
}

static int take_channel(struct rl_node *node, struct fields *fields) {
    char peer[RL_MAX_NAME_BYTES + 1];
    const uint32_t number = take_u32(fields);
    uint8_t role;

    take_bytes(fields, &role, 1);
    take_name(fields, peer);
    if (!fields->ok || number != node->channel_count)
        return RL_CORRUPT;
    number_channel(node, role == 0, peer);
    return RL_OK;
}

static struct step *add_step(struct rl_node *node, uint8_t kind) {
    struct step *step = array_add(&node->steps, &node->step_count, &node->step_room, sizeof(*step));

    step->kind = kind;
    return step;
}

static int take_message(struct rl_node *node, struct fields *fields, const struct record *record) {
    const bool sends = record->kind == RECORD_SEND;
    struct step step = {.kind = record->kind, .channel = take_u32(fields), .sequence = take_u64(fields)};

    if (!sends)
        take_u64(fields); /* its order follows from those before */
    step.sum = take_u32(fields);
    if (!fields->ok || step.channel >= node->channel_count || node->channels[step.channel].sends != sends)
        return RL_CORRUPT;
    if (sends) {
        struct out_channel *out = node->outs[node->channels[step.channel].at];
        struct sent *sent = array_add(&out->messages, &out->count, &out->room, sizeof(*sent));
        *sent = (struct sent){record->end, (uint32_t)fields->left, step.sum};
    }
    *add_step(node, step.kind) = step;
    return RL_OK;
}

static int take_checkpoint(struct rl_node *node, struct fields *fields) {
    struct checkpoint *checkpoint;
    uint32_t count;

    checkpoint =
        array_add(&node->checkpoints, &node->checkpoint_count, &node->checkpoint_room, sizeof(*checkpoint));
    checkpoint->index = take_u32(fields);
    take_u64(fields); /* the state's size: its checksum says enough */
    take_bytes(fields, checkpoint->sha256, sizeof(checkpoint->sha256));
    checkpoint->delivered = take_u64(fields);
    count = take_u32(fields);
    if (!fields->ok || count > node->channel_count || fields->left != count * 12u)
        return RL_CORRUPT;
    checkpoint->channels = node->channel_count;
    checkpoint->offsets = calloc(node->channel_count + 1, sizeof(uint64_t));
    if (checkpoint->offsets == NULL)
        abort();
    while (count-- > 0) {
        const uint32_t channel = take_u32(fields);
        if (channel >= node->channel_count)
            return RL_CORRUPT;
        checkpoint->offsets[channel] = take_u64(fields);
    }
    add_step(node, RECORD_CHECKPOINT)->sequence = checkpoint->index;
    checkpoint->step = node->step_count;
    return RL_OK;
}

static int take_value(struct rl_node *node, struct fields *fields) {
    struct step *step = add_step(node, RECORD_VALUE);

    step->size = fields->left;
    step->value = malloc(step->size + 1);
    if (step->value == NULL)
        abort();
    take_bytes(fields, step->value, step->size);
    return RL_OK;
}

int take_record(void *context, const struct record *record) {
    struct rl_node *node = context;
    struct fields fields = {record->fields, record->size, true};

    if (!node->began && record->kind != RECORD_BEGIN)
        return RL_CORRUPT;
    node->began = true;
    switch (record->kind) {
    case RECORD_BEGIN:
        return take_begin(node, &fields);
    case RECORD_JOIN:
        node->incarnation = take_u32(&fields);
        return fields.ok ? RL_OK : RL_CORRUPT;
    case RECORD_CHANNEL:
        return take_channel(node, &fields);
    case RECORD_SEND:
    case RECORD_DELIVER:
        return take_message(node, &fields, record);
    case RECORD_CHECKPOINT:
        return take_checkpoint(node, &fields);
    case RECORD_VALUE:
        return take_value(node, &fields);
    default:
        return RL_OK;
    }
}
