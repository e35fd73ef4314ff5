/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Message-passing programs whose processes come back alone after a crash; docs/sdk.md has the whole story.
 * The log and the wire are those of the Node.js module `recovery-line/sdk`: processes in C and in JavaScript
 * may talk to each other.
 *
 * The contract with the program: what it does follows from its state and the messages it receives, in the
 * order in which it receives them. Everything else (time, chance, files) goes through rl_record. It starts
 * with
 *
 *     struct rl_node *node;
 *     if (rl_join(&node, "ring", "a", "/var/lib/recovery-line") != RL_OK) ...
 *     state = rl_restored(node, &bytes);      NULL: the initial state
 *     rl_connect(node, "b");
 *
 * and then calls rl_receive, rl_send and now and then rl_mark_checkpoint. After a crash it is started again
 * and does the same: until rl_replaying turns 0 the library gives it the messages of the log in the logged
 * order, and keeps back what had been sent already.
 *
 * Pessimistic message logging: before a message goes out, it and everything the process did before it are on
 * stable storage. rl_send only appends; the disk is waited for, once for many sends, in rl_receive, rl_poll,
 * rl_stable, rl_mark_checkpoint and rl_close.
 *
 * Threads: one thread uses a node. Connections are served inside the calls, so a program that computes for
 * long calls rl_poll(node, 0) now and then, or its peers wait. Signals: SIGPIPE is not raised.
 *
 * Errors: RL_OK or a negative enum rl_status; rl_error says what happened. The first failure is final, every
 * later call returns it (rl_close works): the process should end and be started again.
 */
#ifndef RECOVERY_SDK_H
#define RECOVERY_SDK_H

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

#define RL_MAX_MESSAGE_BYTES (16u << 20)
#define RL_MAX_NAME_BYTES 64

enum rl_status {
    RL_OK = 0,
    RL_USAGE = -1,         /* an argument is out of range, or the call is not allowed now */
    RL_SYSTEM = -2,        /* the operating system refused something; for the log: nothing since is safe */
    RL_LOCKED = -3,        /* the process runs already */
    RL_CORRUPT = -4,       /* the log is damaged before bytes that were synced */
    RL_CONTRADICTION = -5, /* the program differs from its log, or a peer knows more than the log */
    RL_TIMED_OUT = -6,     /* rl_released: not yet. Not final. */
    RL_VERSION = -7        /* a peer speaks another version of the protocol */
};

struct rl_node;

struct rl_message {
    const char *from;     /* name of the sender */
    uint64_t sequence;    /* on the channel from that sender, from 0 */
    const uint8_t *bytes; /* with a 0 behind them; valid until the next rl_receive or rl_close */
    size_t size;
};

/* Becomes process `process` of `app`, with its log in <home>/<app>/sdk/<process>/, and listens on the socket
 * there. On failure *node is still set where memory allowed, for rl_error and rl_close. Names: letters,
 * digits, . _ -, at most 64. */
int rl_join(struct rl_node **node, const char *app, const char *process, const char *home);

/* State of the checkpoint that the process goes on from, or NULL: it starts from its initial state. Valid
 * until rl_close.
 */
const void *rl_restored(const struct rl_node *node, size_t *size);

/* 1 while the program does again what the log says it did; what it prints meanwhile, it has printed before.
 */
int rl_replaying(const struct rl_node *node);

/* 1 at the first start, one more at each. */
uint32_t rl_incarnation(const struct rl_node *node);

/* Opens the channel to a peer of the same home. It need not be there yet. */
int rl_connect(struct rl_node *node, const char *peer);

/* One whole message to a connected peer. The bytes are copied. It arrives exactly once, whoever crashes, once
 * the log holds it (see above). RL_CONTRADICTION where a replay sends something else than the log says. */
int rl_send(struct rl_node *node, const char *peer, const void *bytes, size_t size);

/* Waits for the next message from anybody; in a replay the one that the log names. */
int rl_receive(struct rl_node *node, struct rl_message *message);

/* `value` holds what a nondeterministic act gave; it is logged. In a replay it is overwritten by what the log
 * holds. */
int rl_record(struct rl_node *node, void *value, size_t size);

/* Stores the state; a restart goes on from it. Durable on return. `index` may be NULL. The two newest are
 * kept. */
int rl_mark_checkpoint(struct rl_node *node, const void *state, size_t size, uint32_t *index);

/* Everything done so far is on stable storage on return: call it before output that can't be taken back. */
int rl_stable(struct rl_node *node);

/* Serves connections for up to `limit_ms` (0: what is ready now; -1: until something happens). */
int rl_poll(struct rl_node *node, int limit_ms);

/* Waits until the checkpoints of all peers cover all that was sent to them: nobody needs this process for a
 * replay any more. RL_TIMED_OUT after `limit_ms` (-1: never). */
int rl_released(struct rl_node *node, int limit_ms);

/* What the last failure was; never NULL. Valid until rl_close. */
const char *rl_error(const struct rl_node *node);

/* Flushes, closes, frees. NULL is allowed. Returns what flushing returned. */
int rl_close(struct rl_node *node);

#pragma GCC visibility pop

#endif
