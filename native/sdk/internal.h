/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the SDK.
 *
 *   node.c         the calls of recovery_sdk.h
 *   join.c         a process begins and ends: folder, lock, log
 *   history.c      what the log says at the start
 *   state.c        saved states
 *   serve.c        the loop: disk first, then connections
 *   send_end.c     sending ends          receive_end.c  receiving ends
 *   stranger.c     who has dialled in and not said HELLO yet
 *   channel.c      the channels of a process, and their numbers in its log
 *   link.c         connections and the frames on them
 *   log.c          the log on disk
 *   failure.c      what is said when a process can't go on
 *
 * Layouts: docs/sdk.md. Numbers are little endian, as is every machine this compiles for.
 */
#ifndef RECOVERY_SDK_INTERNAL_H
#define RECOVERY_SDK_INTERNAL_H

#include "recovery_sdk.h"

#include <stdbool.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the log is little endian");

/* ---- bytes */

/* Grows; begins as zeros. Running out of memory ends the program: a log that can't be written would be worse.
 */
struct bytes {
    uint8_t *data;
    size_t size, room;
};
void bytes_add(struct bytes *bytes, const void *data, size_t size);
void bytes_u32(struct bytes *bytes, uint32_t value);
void bytes_u64(struct bytes *bytes, uint64_t value);
/* Forgets the first `size` bytes. */
void bytes_drop(struct bytes *bytes, size_t size);
/* One more element of `size` bytes in the array *items of *count, zeroed. */
void *array_add(void *items, size_t *count, size_t *room, size_t size);
uint32_t crc32_of(const void *data, size_t size);

/* ---- log.c */

enum record_kind {
    RECORD_BEGIN,
    RECORD_JOIN,
    RECORD_CHANNEL,
    RECORD_SEND,
    RECORD_DELIVER,
    RECORD_CHECKPOINT,
    RECORD_VALUE,
    RECORD_STABLE
};

#define RECORD_HEADER_BYTES 8u
#define SEND_FIELDS_BYTES 17u
#define MAX_BODY_BYTES (RL_MAX_MESSAGE_BYTES + 64u)

/* Invariants: the file holds a prefix of what was appended, `durable` bytes of it are synced, `end` is where
 * the next record will stand. */
struct log {
    int fd;
    uint64_t end, durable;
    struct bytes pending;
    size_t record; /* where in `pending` the record begins that is being put together */
};

/* A record of the file while it is scanned. */
struct record {
    uint8_t kind;
    const uint8_t *fields; /* behind the kind */
    size_t size;
    uint64_t end; /* file offset behind it */
};

typedef int (*record_taker)(void *context, const struct record *record);

/* Opens or makes <folder>/log, hands every whole record to `take`, cuts a torn tail off, syncs. Returns
 * RL_OK, RL_SYSTEM with errno, RL_CORRUPT with the offset in `log->end`, or what `take` returned. */
int log_open(struct log *log, const char *path, record_taker take, void *context);
/* Starts a record; fields are added to `log->pending`; `log_finish` closes it. Returns the file offset behind
 * it. */
void log_start(struct log *log, enum record_kind kind);
uint64_t log_finish(struct log *log);
/* RL_SYSTEM with errno: the log is broken. */
int log_flush(struct log *log);
/* Payload of a durable record that ends with it. RL_CORRUPT where it is not what was written. */
int log_payload(const struct log *log, uint64_t end, size_t size, uint32_t sum, uint8_t *into);
void log_close(struct log *log);
int sync_folder(const char *path);

/* ---- link.c */

enum frame_type { FRAME_HELLO = 1, FRAME_WELCOME, FRAME_MESSAGE, FRAME_CHECKPOINTED, FRAME_REFUSED };

/* Why a connection is refused. */
enum refusal { REFUSED_PROTOCOL = 1, REFUSED_OTHER_PROCESS, REFUSED_MALFORMED };

#define PROTOCOL 2u    /* src/sdk/wire.ts has the layouts */
#define JSON_BEGIN '{' /* protocol 1 began its HELLO, WELCOME and REFUSED with it */
#define MAX_TEXT_BYTES 512u
#define FRAME_HEADER_BYTES 5u
#define MESSAGE_FIELDS_BYTES 12u

struct arrived {
    uint64_t sequence, arrival;
    uint32_t sum;
    uint32_t size;
    uint8_t *bytes; /* with a 0 behind them */
};

/* One connection, non-blocking. */
struct link {
    int fd; /* -1: none */
    struct bytes in, out;
    size_t taken; /* of `in`, already read as frames */
};
/* Frame by frame: 1 and the frame, 0 where none is whole, -1 where the stream is none of ours. */
int link_frame(struct link *link, uint8_t *type, const uint8_t **body, size_t *size);
void link_begin(struct link *link, enum frame_type type, size_t body);
/* A whole frame. */
void link_frame_of(struct link *link, enum frame_type type, const struct bytes *body);
/* False: the connection is gone. */
bool link_read(struct link *link);
bool link_write(struct link *link);
void link_close(struct link *link);
/* Non-blocking; -1 with errno. `folder`: that of the process that listens. */
int link_listen(const char *folder);
int link_dial(const char *folder);

#define HELLO_LIMIT_MS 10000
#define RETRY_MIN_MS 5

/* ---- what a process has */

struct sent {
    uint64_t end;
    uint32_t size, sum;
};

enum out_state { OUT_WAITING, OUT_HELLO, OUT_READY };

/* The sending end of a channel: everything is sent from the log, from where the receiver says it wants it. */
struct out_channel {
    char *peer, *folder;
    int64_t number; /* in the log; -1: none yet */
    bool connected; /* by rl_connect */
    struct sent *messages;
    size_t count, room;
    uint64_t sent;     /* by the program so far (in a replay: again) */
    uint64_t next;     /* goes out next */
    uint64_t released; /* the receiver needs nothing below */
    enum out_state state;
    struct link link;
    int64_t retry_at_ms;
    int retry_ms;
};

struct in_channel {
    char *peer;
    int64_t number;
    uint64_t delivered, checkpointed;
    struct arrived *queue;
    size_t first, count, room; /* waiting: [first, count) */
    size_t queued_bytes;
    struct link link;
};

/* Somebody who has not said HELLO yet. */
struct stranger {
    struct link link;
    int64_t until_ms;
};

struct step {
    uint8_t kind;
    uint32_t channel, sum;
    uint64_t sequence;
    uint8_t *value;
    size_t size;
};

struct channel_end {
    bool sends;
    size_t at; /* in `outs` or `ins` */
};

struct checkpoint {
    uint32_t index;
    uint8_t sha256[32];
    uint64_t delivered;
    uint64_t *offsets; /* by channel number */
    size_t channels;
    size_t step; /* the first one after it */
};

struct rl_node {
    char *app, *process, *home, *folder;
    int lock, listener;
    uint32_t incarnation;
    struct log log;
    struct out_channel **outs;
    size_t out_count, out_room;
    struct in_channel **ins;
    size_t in_count, in_room;
    struct channel_end *channels;
    size_t channel_count, channel_room;
    struct checkpoint *checkpoints;
    size_t checkpoint_count, checkpoint_room;
    struct step *steps;
    size_t step_count, step_room, step_at;
    struct stranger **strangers;
    size_t stranger_count, stranger_room;
    uint8_t *state;
    size_t state_size;
    bool restored, began;
    uint32_t checkpoint;
    uint64_t delivered, arrivals;
    struct arrived current; /* the message that rl_receive gave out */
    int status;
    char error[512];
};

/* ---- failure.c */

/* The first failure stays; returns it. */
int fail(struct rl_node *node, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));
int disk_failed(struct rl_node *node);
/* Formatted, to be freed. */
char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));
int64_t now_ms(void);
bool is_name(const char *name);

/* ---- channel.c */

/* The channel to or from a peer, made where it is new. */
struct out_channel *out_to(struct rl_node *node, const char *peer);
struct in_channel *in_from(struct rl_node *node, const char *peer);
/* Messages that have arrived and are not delivered. */
size_t waiting(const struct in_channel *in);
bool is_full(const struct in_channel *in);
int64_t number_channel(struct rl_node *node, bool sends, const char *peer);
void log_channel(struct rl_node *node, bool sends, const char *peer);

/* ---- fields.c */

/* Bytes that are read field by field: what is short reads as 0, and `ok` is false from then on. */
struct fields {
    const uint8_t *at;
    size_t left;
    bool ok;
};
void take_bytes(struct fields *fields, void *into, size_t size);
uint16_t take_u16(struct fields *fields);
uint32_t take_u32(struct fields *fields);
uint64_t take_u64(struct fields *fields);
/* A u16 length and a name behind it; `name` has room for RL_MAX_NAME_BYTES and a 0. */
void take_name(struct fields *fields, char *name);
void bytes_name(struct bytes *bytes, const char *name);

/* ---- history.c */

int take_record(void *context, const struct record *record);

/* ---- state.c */

void sum_of(const void *bytes, size_t size, uint8_t *into);
void restore(struct rl_node *node);
int store_state(struct rl_node *node, uint32_t index, const struct bytes *state);

/* ---- send_end.c */

void dial(struct rl_node *node, struct out_channel *out);
void pump(struct rl_node *node, struct out_channel *out);
void serve_out(struct rl_node *node, struct out_channel *out, short events);

/* ---- receive_end.c */

void tell_checkpointed(struct in_channel *in);
void arrive_all(struct rl_node *node, struct in_channel *in);
void serve_in(struct rl_node *node, struct in_channel *in, short events);
struct arrived take_head(struct in_channel *in);

/* ---- stranger.c */

void serve_stranger(struct rl_node *node, struct stranger *stranger, short events);
void accept_all(struct rl_node *node);
void forget_strangers(struct rl_node *node);

/* ---- serve.c */

int serve(struct rl_node *node, int limit_ms);

#endif /* RECOVERY_SDK_INTERNAL_H */
