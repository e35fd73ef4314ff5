/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * TCP: what the kernel's numbers say of a connection, and what we remember of one. The storage dies with the
 * socket.
 *
 * Name. The initial sequence number of each end. They can be read at any time:
 *   remote   rcv_nxt - bytes_received is one past the SYN (a FIN moves both)
 *   local    snd_una - bytes_acked is the SYN itself where we connected (bytes_acked counts it), one past it
 *            where we accepted
 * But not of a socket that TCP_REPAIR made: its numbers begin anew, and whoever restores announces its name.
 *
 * Positions. write_seq and copied_seq, widened by the 64-bit counters (epoch.h). A FIN is in both: `shutdown`
 * moves write_seq by one, the read that takes the last data moves copied_seq over it.
 */
#ifndef RECOVERY_TCP_BPF_H
#define RECOVERY_TCP_BPF_H

#include "emit.bpf.h"
#include "epoch.h"
#include "peer.bpf.h"
#include "../loader/told.h"

enum connection_flag {
    CONNECTION_NAMED = 1, /* local and remote are valid */
    CONNECTION_CONNECTOR = 2,
    CONNECTION_ACCEPTOR = 4,
    CONNECTION_SENT_FINAL = 8, /* final_sent is valid: nothing can be sent any more */
    CONNECTION_REPAIRED = 16,  /* TCP_REPAIR made it: without a name in `restored` it can't be named */
    CONNECTION_HELD = 32,      /* `owner` has a descriptor, but nobody has used it yet */
    CONNECTION_OVER = 64,      /* disconnected: the numbers are scrambled, final_* are what is left */
    CONNECTION_RELEASED = 128, /* no process has it any more: all is told, or spilled */
};

struct connection {
    uint64_t owner; /* cgroup id of the process that uses it; 0 = none yet */
    uint64_t sock;  /* the kernel's address of it, for hooks that are given less */
    uint32_t incarnation;
    uint32_t flags;
    uint32_t local, remote;            /* initial sequence numbers */
    uint64_t sent_base, received_base; /* offsets at which bytes_acked, bytes_received began to count */
    uint64_t sent, received, seen;     /* watermarks */
    uint64_t looked; /* how far it has looked (MSG_PEEK); counts where it is above received */
    uint64_t final_sent, final_received;
    uint32_t told;    /* enum capture_told */
    uint32_t carried; /* END_GAVE, END_TOOK: as far as its note in `ends` says so */
    uint32_t output;  /* enum connection_output; written by the egress hook alone */
    uint32_t reserved;
};

/* Of a connection of a process whose output is held (output_hold.bpf.c). */
enum connection_output {
    CONNECTION_INSIDE = 1, /* the other end is of the application */
    CONNECTION_MARKED = 2, /* it has an entry in `outputs` */
};

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct connection);
} connections __weak SEC(".maps");

/* A socket's numbers at one instant. */
struct tcp_now {
    uint64_t bytes_received, bytes_acked, bytes_sent, bytes_retrans;
    uint32_t write_seq, copied_seq, rcv_nxt, snd_una, snd_nxt;
    uint8_t state, fin_received, repair;
    uint8_t failed;     /* its error, until the process has taken it */
    uint8_t descriptor; /* a file stands for it: accepted, and not yet closed */
    uint8_t ulp;
    uint8_t connected; /* it has a peer, and heard of it */
};

#define TCP_NOW(now, tcp, READ)                                                                              \
    do {                                                                                                     \
        const struct sock *sk_ = (const struct sock *)(tcp);                                                 \
        (now)->bytes_received = READ((tcp), bytes_received);                                                 \
        (now)->bytes_acked = READ((tcp), bytes_acked);                                                       \
        (now)->bytes_sent = READ((tcp), bytes_sent);                                                         \
        (now)->bytes_retrans = READ((tcp), bytes_retrans);                                                   \
        (now)->write_seq = READ((tcp), write_seq);                                                           \
        (now)->copied_seq = READ((tcp), copied_seq);                                                         \
        (now)->rcv_nxt = READ((tcp), rcv_nxt);                                                               \
        (now)->snd_una = READ((tcp), snd_una);                                                               \
        (now)->snd_nxt = READ((tcp), snd_nxt);                                                               \
        (now)->state = READ(sk_, __sk_common.skc_state);                                                     \
        (now)->fin_received =                                                                                \
            (READ(sk_, __sk_common.skc_flags) >> bpf_core_enum_value(enum sock_flags, SOCK_DONE)) & 1;       \
        (now)->connected = READ(sk_, __sk_common.skc_dport) != 0 && (now)->rcv_nxt != 0;                     \
        (now)->failed = READ(sk_, sk_err);                                                                   \
        (now)->descriptor = READ(sk_, sk_socket) != 0;                                                       \
        (now)->ulp = READ((tcp), inet_conn.icsk_ulp_ops) != 0;                                               \
    } while (0)
#define READ_DIRECT(from, field) ((from)->field)
#define READ_PROBED(from, field) BPF_CORE_READ(from, field)

static __always_inline void tcp_look(const struct tcp_sock *tcp, struct tcp_now *now) {
    TCP_NOW(now, tcp, READ_DIRECT);
    now->repair = BPF_CORE_READ_BITFIELD(tcp, repair);
}

static __always_inline void tcp_look_at(uint64_t sock, struct tcp_now *now) {
    const struct tcp_sock *tcp = (const struct tcp_sock *)sock;

    TCP_NOW(now, tcp, READ_PROBED);
    now->repair = BPF_CORE_READ_BITFIELD_PROBED(tcp, repair);
}

#define FIN_SENT_STATES                                                                                      \
    (TCPF(TCP_FIN_WAIT1) | TCPF(TCP_FIN_WAIT2) | TCPF(TCP_CLOSING) | TCPF(TCP_LAST_ACK) | TCPF(TCP_TIME_WAIT))
#define OPEN_STATES (FIN_SENT_STATES | TCPF(TCP_ESTABLISHED) | TCPF(TCP_CLOSE_WAIT))

static __always_inline int in_state(const struct tcp_now *now, uint32_t states) {
    return (TCPF(now->state) & states) != 0;
}

/* ---- names ---- */

/* Of two that connect to each other at one moment both are connectors. */
static __always_inline void name_from(const struct tcp_now *now, struct connection *c, int connected) {
    uint32_t una = now->snd_una - (uint32_t)now->bytes_acked;
    uint32_t role = connected || c->flags & CONNECTION_CONNECTOR ? CONNECTION_CONNECTOR : CONNECTION_ACCEPTOR;

    c->local = role == CONNECTION_CONNECTOR ? una : una - 1;
    c->remote = now->rcv_nxt - (uint32_t)now->bytes_received - 1;
    c->sent_base = 0;
    c->received_base = 0;
    c->flags |= CONNECTION_NAMED | role;
}

/* The first data unit as its sender counts it; one more once the FIN is sent. */
static __always_inline uint32_t first_as_sent(const struct tcp_now *now) {
    return now->snd_nxt - (uint32_t)now->bytes_sent + (uint32_t)now->bytes_retrans;
}

/* A reset leaves the numbers as they are, a disconnect begins them anew. */
static __always_inline int has_numbers(const struct tcp_now *now) {
    return in_state(now, OPEN_STATES) || (now->state == TCP_CLOSE && now->connected);
}

/*
 * Nobody saw it being made: which side we are is told by the first data unit. Its numbers don't move
 * together, so without the socket's lock they are only to be trusted while nothing is under way; else the
 * next look names it.
 */
CHECKED_ONCE int name_late(const struct tcp_now *now, struct connection *c, int locked) {
    uint32_t una, first;

    if (!now || !c)
        return 0;
    una = now->snd_una - (uint32_t)now->bytes_acked;
    first = first_as_sent(now);
    if (now->repair || c->flags & CONNECTION_REPAIRED || !has_numbers(now))
        return 0;
    if (!locked && now->snd_una != now->write_seq)
        return 0;
    if (now->state == TCP_CLOSE) { /* with or without a FIN: whoever connected was seen to, as it did */
        name_from(now, c, first - una == 2);
        return 1;
    }
    if (in_state(now, FIN_SENT_STATES) && now->snd_nxt == now->write_seq)
        first--;
    name_from(now, c, una != first);
    return 1;
}

/* ---- positions ---- */

/* `seq` may be acknowledged by now, or lie ahead: a signed distance. */
static __always_inline uint64_t offset_of_sequence(const struct tcp_now *now, const struct connection *c,
                                                   uint32_t seq) {
    return recovery_offset(c->sent_base + now->bytes_acked + (int64_t)(int32_t)(seq - now->snd_una),
                           seq - c->local - 1);
}

/* write_seq stands behind a FIN. Closed, only the count of what was sent tells. */
static __always_inline int fin_counted(const struct tcp_now *now, const struct connection *c) {
    if (in_state(now, FIN_SENT_STATES))
        return 1;
    if (now->state != TCP_CLOSE)
        return 0;
    return c->flags & CONNECTION_REPAIRED ? (c->told & CAPTURE_END_SENT) != 0
                                          : first_as_sent(now) == c->local + 2;
}

static __always_inline uint64_t sent_offset(const struct tcp_now *now, const struct connection *c) {
    if (c->flags & CONNECTION_SENT_FINAL)
        return c->final_sent;
    return offset_of_sequence(now, c, now->write_seq - fin_counted(now, c));
}

static __always_inline uint64_t received_offset(const struct tcp_now *now, const struct connection *c) {
    uint32_t taken = now->copied_seq;
    uint64_t near = c->received_base + now->bytes_received - (uint32_t)(now->rcv_nxt - taken);

    if (c->flags & CONNECTION_OVER)
        return c->final_received;
    if (taken == now->rcv_nxt && now->fin_received)
        taken--;
    return recovery_offset(near, taken - c->remote - 1);
}

/* Bytes in the receive queue. */
static __always_inline uint32_t queued(const struct tcp_now *now) {
    uint32_t bytes = now->rcv_nxt - now->copied_seq;

    return bytes && now->fin_received ? bytes - 1 : bytes;
}

/* Whoever polls is told at once, so what has arrived counts. A reset leaves no number but an error, which is
 * there before the state changes; so does a disconnect of our own. */
static __always_inline int end_arrived(const struct tcp_now *now, const struct connection *c) {
    if (now->fin_received)
        return 1;
    if (c->flags & CONNECTION_OVER)
        return 0;
    return now->failed == ECONNRESET ||
           (now->state == TCP_CLOSE && (now->failed || (now->descriptor && now->connected)));
}

/* ---- telling ---- */

static __always_inline struct range tcp_range(const struct connection *c, uint8_t kind, uint8_t flags) {
    return (struct range){.kind = kind, .flags = flags, .local = c->local, .remote = c->remote};
}

static __always_inline struct holder holder_of(const struct connection *c) {
    return (struct holder){.process = c->owner, .incarnation = c->incarnation};
}

/* Data has passed up to there, 0: none. */
static __always_inline void note_data(struct connection *c, uint64_t sent, uint64_t known) {
    uint32_t what = (sent ? END_TOOK : 0) | (known ? END_GAVE : 0);

    if (!(what & ~c->carried))
        return;
    c->carried |= what;
    end_carries(c->local, c->remote, what);
}

/* The connector has opened it; the acceptor has once it has a descriptor. */
static __always_inline int tell_open(struct connection *c) {
    int sends = (c->flags & CONNECTION_CONNECTOR) != 0;
    struct range range = tcp_range(c, sends ? RECOVERY_SEND : RECOVERY_RECEIVE, RECOVERY_FLAG_OPEN);
    struct holder holder = holder_of(c);

    return tell(&c->told, sends ? CAPTURE_OPEN_SENT : CAPTURE_OPEN_RECEIVED, &holder, &range);
}

static __always_inline int tell_sent(struct connection *c, uint64_t end) {
    struct range range = tcp_range(c, RECOVERY_SEND, 0);
    struct holder holder = holder_of(c);

    return advance(&c->sent, end, &holder, &range);
}

static __always_inline int tell_received(struct connection *c, uint64_t end) {
    struct range range = tcp_range(c, RECOVERY_RECEIVE, 0);
    struct holder holder = holder_of(c);

    return advance(&c->received, end, &holder, &range);
}

static __always_inline int tell_seen(struct connection *c) {
    struct range range = tcp_range(c, RECOVERY_PEEK, 0);
    struct holder holder = holder_of(c);

    return advance_seen(&c->seen, c->received, c->looked, &holder, &range);
}

static __always_inline int tell_end_received(struct connection *c) {
    struct range range = tcp_range(c, RECOVERY_RECEIVE, RECOVERY_FLAG_END);
    struct holder holder = holder_of(c);

    return tell(&c->told, CAPTURE_END_RECEIVED, &holder, &range);
}

static __always_inline int tell_end_sent(struct connection *c, uint8_t failing) {
    struct range range = tcp_range(c, RECOVERY_SEND, RECOVERY_FLAG_END | failing);
    struct holder holder = holder_of(c);

    return tell(&c->told, CAPTURE_END_SENT, &holder, &range);
}

/* The current task is dying, and not because it is done. */
static __always_inline uint8_t failing(void) {
    struct task_struct *task = bpf_get_current_task_btf();

    return task->flags & PF_EXITING && task->exit_code ? RECOVERY_FLAG_FAILING : 0;
}

/* Everything that no record tells yet of a connection that has a name and an owner. */
static __always_inline int catch_up(struct connection *c, const struct tcp_now *now) {
    uint64_t sent = sent_offset(now, c), received = received_offset(now, c);
    int left = tell_open(c);

    note_data(c, sent, received | c->looked);
    left |= tell_sent(c, sent);
    left |= tell_received(c, received);
    left |= tell_seen(c);
    if (end_arrived(now, c))
        left |= tell_end_received(c);
    if (in_state(now, FIN_SENT_STATES))
        left |= tell_end_sent(c, 0);
    return left;
}

/* No process has it any more, and none will: what finds no room is kept for whoever flushes. */
static __always_inline void release(struct connection *c, const struct tcp_now *now, uint8_t failing) {
    struct closed_value rest = {.sent = sent_offset(now, c), .received = received_offset(now, c)};
    struct closed_key key = {.process = c->owner, .incarnation = c->incarnation};
    uint32_t open = c->flags & CONNECTION_CONNECTOR ? CAPTURE_OPEN_SENT : CAPTURE_OPEN_RECEIVED;
    uint32_t due = open | CAPTURE_END_SENT | (end_arrived(now, c) ? CAPTURE_END_RECEIVED : 0);
    int left = tell_open(c);

    note_data(c, rest.sent, rest.received | c->looked);
    end_gone(c->local, c->remote);
    left |= tell_sent(c, rest.sent);
    left |= tell_received(c, rest.received);
    left |= tell_seen(c);
    if (end_arrived(now, c))
        left |= tell_end_received(c);
    left |= tell_end_sent(c, failing);
    c->flags |= CONNECTION_RELEASED;
    if (!left)
        return;
    key.local = c->local;
    key.remote = c->remote;
    rest.sent_mark = c->sent;
    rest.received_mark = c->received;
    rest.seen_mark = c->seen;
    rest.seen = c->looked;
    rest.untold = due & ~c->told;
    rest.failing = failing;
    c->told |= due;
    spill(&key, &rest);
}

#endif
