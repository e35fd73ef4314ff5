/* SPDX-License-Identifier: Apache-2.0 */
/* The calls of recovery_sdk.h: what a process has done, does again, and does now. */
#include "internal.h"
#include "../dsm/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PROTOCOL "rl-sdk-1"
#define LOCK_TRIES 20
#define LOCK_RETRY_MS 50
#define RETRY_MIN_MS 5
#define RETRY_MAX_MS 200
#define HELLO_LIMIT_MS 10000
#define QUEUE_MESSAGES 4096u
#define QUEUE_BYTES (8u << 20)
#define OUT_BYTES (256u << 10)   /* of a connection, before it is asked whether it takes more */
#define DELIVERIES_UNSERVED 64u  /* while messages wait, connections and disk are served only so often */
#define PENDING_BYTES (4u << 20) /* of the log, before rl_send waits for the disk */
#define KEPT_CHECKPOINTS 2u
#define RAW_STATE 0
#define MAX_HELLO_BYTES 1024u

/* ---- failures */

static int fail(struct rl_node *node, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int fail(struct rl_node *node, int status, const char *format, ...) {
    va_list list;

    if (node->status != RL_OK)
        return node->status;
    va_start(list, format);
    vsnprintf(node->error, sizeof(node->error), format, list);
    va_end(list);
    node->status = status;
    return status;
}

static int disk_failed(struct rl_node *node) {
    return fail(node, RL_SYSTEM, "the log of %s can't be written: %s", node->process, strerror(errno));
}

static char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));

static char *text(const char *format, ...) {
    va_list list;
    char *result;

    va_start(list, format);
    if (vasprintf(&result, format, list) < 0)
        abort();
    va_end(list);
    return result;
}

static int64_t now_ms(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool is_name(const char *name) {
    const size_t length = name == NULL ? 0 : strlen(name);

    if (length < 1 || length > RL_MAX_NAME_BYTES || strchr("._-", name[0]) != NULL)
        return false;
    return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == length;
}

/* ---- channels */

static struct out_channel *out_to(struct rl_node *node, const char *peer) {
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

static struct in_channel *in_from(struct rl_node *node, const char *peer) {
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

static size_t waiting(const struct in_channel *in) {
    return in->count - in->first;
}

static bool is_full(const struct in_channel *in) {
    return waiting(in) >= QUEUE_MESSAGES || in->queued_bytes >= QUEUE_BYTES;
}

/* The channel gets the next number of the log. */
static int64_t number_channel(struct rl_node *node, bool sends, const char *peer) {
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

static void log_channel(struct rl_node *node, bool sends, const char *peer) {
    const uint8_t role = sends ? 0 : 1;
    const uint16_t length = (uint16_t)strlen(peer);
    const int64_t number = number_channel(node, sends, peer);

    log_start(&node->log, RECORD_CHANNEL);
    bytes_u32(&node->log.pending, (uint32_t)number);
    bytes_add(&node->log.pending, &role, 1);
    bytes_add(&node->log.pending, &length, 2);
    bytes_add(&node->log.pending, peer, length);
    log_finish(&node->log);
}

/* ---- what the log says at the start */

struct fields {
    const uint8_t *at;
    size_t left;
    bool ok;
};

static void take_bytes(struct fields *fields, void *into, size_t size) {
    fields->ok = fields->ok && fields->left >= size;
    if (!fields->ok) {
        memset(into, 0, size);
        return;
    }
    memcpy(into, fields->at, size);
    fields->at += size;
    fields->left -= size;
}

static uint32_t take_u32(struct fields *fields) {
    uint32_t value;
    take_bytes(fields, &value, sizeof(value));
    return value;
}

static uint64_t take_u64(struct fields *fields) {
    uint64_t value;
    take_bytes(fields, &value, sizeof(value));
    return value;
}

/* A length and a name behind it. */
static void take_name(struct fields *fields, char *name) {
    uint16_t length;

    take_bytes(fields, &length, sizeof(length));
    fields->ok = fields->ok && length <= RL_MAX_NAME_BYTES;
    if (fields->ok)
        take_bytes(fields, name, length);
    name[fields->ok ? length : 0] = 0;
}

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

static int take_record(void *context, const struct record *record) {
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

/* ---- states */

static void sum_of(const void *bytes, size_t size, uint8_t *into) {
    struct sha256 sum;
    char hex[65];
    unsigned byte;

    sha256_begin(&sum);
    sha256_add(&sum, bytes, size);
    sha256_end(&sum, hex);
    for (int i = 0; i < 32; i++) {
        sscanf(hex + 2 * i, "%2x", &byte);
        into[i] = (uint8_t)byte;
    }
}

static uint8_t *read_file(const char *path, size_t *size) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat stat;
    uint8_t *bytes = NULL;

    if (fd >= 0 && fstat(fd, &stat) == 0 && (bytes = malloc(stat.st_size + 1)) != NULL) {
        *size = 0;
        while (*size < (size_t)stat.st_size) {
            const ssize_t got = read(fd, bytes + *size, stat.st_size - *size);
            if (got <= 0)
                break;
            *size += got;
        }
    }
    if (fd >= 0)
        close(fd);
    return bytes;
}

/* True, with the state in the node, if the checkpoint's state is whole. */
static bool load_state(struct rl_node *node, const struct checkpoint *checkpoint) {
    char *path = text("%s/checkpoint-%u", node->folder, checkpoint->index);
    uint8_t sum[32], *bytes;
    size_t size = 0;

    bytes = read_file(path, &size);
    free(path);
    if (bytes != NULL && size > 0) {
        sum_of(bytes, size, sum);
        if (memcmp(sum, checkpoint->sha256, sizeof(sum)) == 0) {
            node->state = bytes;
            node->state_size = size - 1;
            return true;
        }
    }
    free(bytes);
    return false;
}

/* The newest checkpoint whose state is whole becomes the base; what the log has after it is replayed. */
static void restore(struct rl_node *node) {
    for (size_t at = node->checkpoint_count; at-- > 0;) {
        const struct checkpoint *base = &node->checkpoints[at];
        if (!load_state(node, base))
            continue;
        node->restored = true;
        node->delivered = base->delivered;
        node->step_at = base->step;
        for (size_t number = 0; number < base->channels; number++) {
            const struct channel_end end = node->channels[number];
            if (end.sends)
                node->outs[end.at]->sent = base->offsets[number];
            else
                node->ins[end.at]->delivered = node->ins[end.at]->checkpointed = base->offsets[number];
        }
        break;
    }
    if (node->checkpoint_count > 0)
        node->checkpoint = node->checkpoints[node->checkpoint_count - 1].index;
}

static int write_whole(const char *path, const uint8_t *bytes, size_t size) {
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t done = 0;
    int status = RL_OK;

    if (fd < 0)
        return RL_SYSTEM;
    while (done < size && status == RL_OK) {
        const ssize_t wrote = write(fd, bytes + done, size - done);
        if (wrote >= 0)
            done += wrote;
        else if (errno != EINTR)
            status = RL_SYSTEM;
    }
    if (status == RL_OK && fsync(fd) != 0)
        status = RL_SYSTEM;
    close(fd);
    return status;
}

/* Durable under its name on return. */
static int store_state(struct rl_node *node, uint32_t index, const struct bytes *state) {
    char *partial = text("%s/.partial-%u", node->folder, index);
    char *path = text("%s/checkpoint-%u", node->folder, index);
    int status = write_whole(partial, state->data, state->size);

    if (status == RL_OK && rename(partial, path) != 0)
        status = RL_SYSTEM;
    if (status == RL_OK)
        status = sync_folder(node->folder);
    free(partial);
    free(path);
    return status;
}

/* ---- serving connections: the sending ends */

static void lose_out(struct out_channel *out) {
    link_close(&out->link);
    out->state = OUT_WAITING;
    out->retry_at_ms = now_ms() + out->retry_ms;
    out->retry_ms = 2 * out->retry_ms < RETRY_MAX_MS ? 2 * out->retry_ms : RETRY_MAX_MS;
}

static void dial(struct rl_node *node, struct out_channel *out) {
    char *hello;

    out->link.fd = link_dial(out->folder);
    if (out->link.fd < 0) {
        lose_out(out);
        return;
    }
    hello = text("{\"protocol\":\"%s\",\"app\":\"%s\",\"from\":\"%s\",\"to\":\"%s\",\"incarnation\":%u}",
                 PROTOCOL, node->app, node->process, out->peer, node->incarnation);
    link_begin(&out->link, FRAME_HELLO, strlen(hello));
    bytes_add(&out->link.out, hello, strlen(hello));
    free(hello);
    out->state = OUT_HELLO;
}

/* Sends what is durable and wanted, as far as the connection takes it. */
static void pump(struct rl_node *node, struct out_channel *out) {
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

/* The number behind `"key":` in JSON text. */
static bool json_number(const char *json, const char *key, uint64_t *value) {
    const char *found = strstr(json, key);
    char *end;

    if (found == NULL)
        return false;
    *value = strtoull(found + strlen(key), &end, 10);
    return end != found + strlen(key);
}

static void welcome(struct rl_node *node, struct out_channel *out, const char *json) {
    uint64_t next = 0, checkpointed = 0;

    if (!json_number(json, "\"next\":", &next)) {
        lose_out(out);
        return;
    }
    if (next > out->count) {
        fail(node, RL_CONTRADICTION,
             "%s has received %llu messages, but the log of %s holds %zu: it has lost its end", out->peer,
             (unsigned long long)next, node->process, out->count);
        return;
    }
    if (json_number(json, "\"checkpointed\":", &checkpointed) && checkpointed > out->released)
        out->released = checkpointed;
    out->next = next;
    out->state = OUT_READY;
    out->retry_ms = RETRY_MIN_MS;
}

static void out_frame(struct rl_node *node, struct out_channel *out, uint8_t type, const uint8_t *body,
                      size_t size) {
    char *json = text("%.*s", (int)(size < MAX_HELLO_BYTES ? size : MAX_HELLO_BYTES), (const char *)body);
    uint64_t sequence;

    if (type == FRAME_WELCOME)
        welcome(node, out, json);
    else if (type == FRAME_REFUSED)
        fail(node, RL_CONTRADICTION, "%s refused the channel: %s", out->peer, json);
    else if (type == FRAME_CHECKPOINTED && size == sizeof(sequence)) {
        memcpy(&sequence, body, sizeof(sequence));
        if (sequence > out->released)
            out->released = sequence;
    } else
        lose_out(out);
    free(json);
}

static void serve_out(struct rl_node *node, struct out_channel *out, short events) {
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

/* ---- the receiving ends */

static void tell_checkpointed(struct in_channel *in) {
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
static void arrive_all(struct rl_node *node, struct in_channel *in) {
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

static void serve_in(struct rl_node *node, struct in_channel *in, short events) {
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
static struct arrived take_head(struct in_channel *in) {
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

/* ---- strangers */

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

static void serve_stranger(struct rl_node *node, struct stranger *stranger, short events) {
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

static void accept_all(struct rl_node *node) {
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
static void forget_strangers(struct rl_node *node) {
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

/* ---- the loop */

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
static int serve(struct rl_node *node, int limit_ms) {
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

/* ---- life cycle */

static int make_folders(struct rl_node *node) {
    const char *parts[] = {node->app, "sdk", node->process};
    char *path = text("%s", node->home);
    int status = mkdir(path, 0700) == 0 || errno == EEXIST ? RL_OK : RL_SYSTEM;

    for (size_t i = 0; i < 3 && status == RL_OK; i++) {
        char *longer = text("%s/%s", path, parts[i]);
        status = mkdir(longer, 0700) == 0 || errno == EEXIST ? sync_folder(path) : RL_SYSTEM;
        free(path);
        path = longer;
    }
    node->folder = path;
    return status == RL_OK ? RL_OK : fail(node, RL_SYSTEM, "%s: %s", node->folder, strerror(errno));
}

static int lock_folder(struct rl_node *node) {
    char *path = text("%s/lock", node->folder);
    const struct timespec pause = {.tv_nsec = LOCK_RETRY_MS * 1000000L};
    int left = LOCK_TRIES, status = RL_OK;

    node->lock = open(path, O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (node->lock < 0)
        status = fail(node, RL_SYSTEM, "%s: %s", path, strerror(errno));
    while (status == RL_OK && flock(node->lock, LOCK_EX | LOCK_NB) != 0) {
        if (left-- == 0)
            status = fail(node, RL_LOCKED, "process %s of %s runs already", node->process, node->app);
        nanosleep(&pause, NULL);
    }
    free(path);
    return status;
}

static int open_log(struct rl_node *node) {
    char *path = text("%s/log", node->folder), *first = text("%s/checkpoint-1", node->folder);
    int status = RL_OK;

    if (access(path, F_OK) != 0 && access(first, F_OK) == 0)
        status = fail(node, RL_CORRUPT, "%s is missing, but there are checkpoints beside it", path);
    else
        status = log_open(&node->log, path, take_record, node);
    if (status == RL_SYSTEM)
        status = fail(node, RL_SYSTEM, "%s: %s", path, strerror(errno));
    if (status == RL_CORRUPT)
        status = fail(node, RL_CORRUPT, "%s is damaged at offset %llu, before bytes that were synced", path,
                      (unsigned long long)node->log.end);
    free(path);
    free(first);
    return status;
}

static void log_name(struct rl_node *node, const char *name) {
    const uint16_t length = (uint16_t)strlen(name);

    bytes_add(&node->log.pending, &length, sizeof(length));
    bytes_add(&node->log.pending, name, length);
}

static int begin(struct rl_node *node) {
    if (!node->began) {
        log_start(&node->log, RECORD_BEGIN);
        log_name(node, node->app);
        log_name(node, node->process);
        log_finish(&node->log);
        if (sync_folder(node->folder) != RL_OK)
            return disk_failed(node);
    }
    restore(node);
    node->incarnation++;
    log_start(&node->log, RECORD_JOIN);
    bytes_u32(&node->log.pending, node->incarnation);
    log_finish(&node->log);
    node->listener = link_listen(node->folder);
    if (node->listener < 0)
        return fail(node, RL_SYSTEM, "can't listen in %s: %s", node->folder, strerror(errno));
    return RL_OK;
}

int rl_join(struct rl_node **result, const char *app, const char *process, const char *home) {
    struct rl_node *node = calloc(1, sizeof(*node));
    int status;

    *result = node;
    if (node == NULL)
        return RL_SYSTEM;
    node->lock = node->listener = node->log.fd = -1;
    if (!is_name(app) || !is_name(process) || home == NULL || home[0] != '/' || strlen(home) > 3500)
        return fail(node, RL_USAGE, "app and process are names, home is an absolute path");
    node->app = text("%s", app);
    node->process = text("%s", process);
    node->home = text("%s", home);
    status = make_folders(node);
    if (status == RL_OK)
        status = lock_folder(node);
    if (status == RL_OK)
        status = open_log(node);
    return status == RL_OK ? begin(node) : status;
}

static void free_in(struct in_channel *in) {
    for (size_t i = in->first; i < in->count; i++)
        free(in->queue[i].bytes);
    link_close(&in->link);
    free(in->queue);
    free(in->peer);
    free(in);
}

static void free_out(struct out_channel *out) {
    link_close(&out->link);
    free(out->messages);
    free(out->peer);
    free(out->folder);
    free(out);
}

static void free_history(struct rl_node *node) {
    for (size_t i = 0; i < node->step_count; i++)
        free(node->steps[i].value);
    for (size_t i = 0; i < node->checkpoint_count; i++)
        free(node->checkpoints[i].offsets);
    free(node->steps);
    free(node->checkpoints);
    free(node->channels);
}

int rl_close(struct rl_node *node) {
    int status;

    if (node == NULL)
        return RL_OK;
    if (node->status == RL_OK && node->log.fd >= 0 && log_flush(&node->log) != RL_OK)
        disk_failed(node);
    status = node->status;
    for (size_t i = 0; i < node->in_count; i++)
        free_in(node->ins[i]);
    for (size_t i = 0; i < node->out_count; i++)
        free_out(node->outs[i]);
    for (size_t i = 0; i < node->stranger_count; i++) {
        link_close(&node->strangers[i]->link);
        free(node->strangers[i]);
    }
    free(node->ins);
    free(node->outs);
    free(node->strangers);
    free_history(node);
    log_close(&node->log);
    if (node->listener >= 0)
        close(node->listener);
    if (node->lock >= 0)
        close(node->lock);
    free(node->current.bytes);
    free(node->state);
    free(node->app);
    free(node->process);
    free(node->home);
    free(node->folder);
    free(node);
    return status;
}

/* ---- the calls */

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
