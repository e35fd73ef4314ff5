/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * AF_UNIX stream (bytes) and seqpacket (whole messages: a truncating reader would spoil a byte count). The
 * kernel has no positions here, so both ends of a pair are counted, whoever holds them, from the moment that
 * a recorded process uses one of them. What holds besides: sent = received + what is in the receiver's queue.
 */
#ifndef RECOVERY_UNIX_BPF_H
#define RECOVERY_UNIX_BPF_H

#include "emit.bpf.h"
#include "whose.bpf.h"
#include "../loader/told.h"

enum unix_flag {
    UNIX_HELD = 1,           /* `owner` has a descriptor, but nobody has used it yet */
    UNIX_SPILLED = 2,        /* `closed` has an entry of it */
    UNIX_SHARED_RECEIVE = 4, /* two threads were seen to receive */
    UNIX_PAIRED = 8,         /* `unix_pairs` has an entry of it */
    UNIX_PEER_TOLD = 16,     /* the other end was told to be a stranger's */
    UNIX_PEER_GAVE = 32,     /* and to have sent something */
    UNIX_PEER_TOOK = 64,     /* and that something was sent to it */
};

struct unix_end {
    uint64_t owner;
    uint64_t local, remote;            /* cookies */
    uint64_t sent, received;           /* counted */
    uint64_t looked;                   /* how far it has looked; counts where it is above received */
    uint64_t sent_mark, received_mark; /* told */
    uint64_t seen_mark;
    uint64_t doubted; /* when bytes were first missing, boot-time ns; 0: never. See unix_taken_unseen */
    uint32_t incarnation;
    uint32_t flags;
    uint32_t told;     /* enum capture_told */
    uint32_t receiver; /* the last thread */
    uint64_t peer;     /* UNIX_PEER_TOLD: when the stranger began, boot-time ns */
    uint32_t peer_tgid;
    uint32_t reserved;
};

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct unix_end);
} unix_ends __weak SEC(".maps");

static __always_inline int is_unix_pair(const struct sock *sk) {
    return sk->__sk_common.skc_family == AF_UNIX &&
           (sk->sk_type == SOCK_STREAM || sk->sk_type == SOCK_SEQPACKET);
}

static __always_inline int unix_named(const struct unix_end *end) {
    return end->local != 0 && end->remote != 0;
}

static __always_inline struct sock *unix_peer(struct sock *sk) {
    struct unix_sock *unix = bpf_skc_to_unix_sock(sk);

    return unix ? unix->peer : 0;
}

union name_start {
    char text[12];
    uint32_t words[3];
};

/*
 * While CRIU dumps a process it runs code of its own inside, which speaks over a seqpacket pair whose other
 * end is named \0/crtools-pr-…: that is no message of the process, and no image holds it.
 */
static __always_inline int is_checkpointer(struct sock *sk) {
    static const union name_start prefix = {"\0/crtools-pr"};
    struct sock *peer = unix_peer(sk);
    struct unix_sock *other = peer ? bpf_skc_to_unix_sock(peer) : 0;
    struct unix_address *address = other ? other->addr : 0;
    union name_start name = {};

    if (!address || sk->sk_type != SOCK_SEQPACKET)
        return 0;
    if (bpf_core_read(&name, sizeof(name), &address->name[0].sun_path))
        return 0;
    return !((name.words[0] ^ prefix.words[0]) | (name.words[1] ^ prefix.words[1]) |
             (name.words[2] ^ prefix.words[2]));
}

static __always_inline struct unix_end *unix_other_end(struct sock *sk) {
    struct sock *peer = unix_peer(sk);

    return peer ? bpf_sk_storage_get(&unix_ends, peer, 0, 0) : 0;
}

/* Bytes that the other end of a stream handed over, as far as they are counted yet; 0 if nobody counts. */
static __always_inline uint64_t unix_peer_sent(struct sock *sk) {
    struct unix_end *other = unix_other_end(sk);

    return other ? *(volatile uint64_t *)&other->sent : 0;
}

/* Bytes in the receive queue of a stream; `unknown` where the kernel does not keep their number. */
static __always_inline uint64_t unix_queued(struct sock *sk, uint64_t unknown) {
    struct unix_sock *unix = bpf_skc_to_unix_sock(sk);

    if (!unix || !bpf_core_field_exists(unix->inq_len))
        return unknown;
    return (uint32_t) * (volatile int *)&unix->inq_len;
}

/* A byte out of band is somewhere in the queue, taken, passed over or still to come: its reader may know all
 * of it. */
static __always_inline int unix_out_of_band(struct sock *sk) {
    struct unix_sock *unix = bpf_skc_to_unix_sock(sk);

    return unix && bpf_core_field_exists(unix->oob_skb) && unix->oob_skb != 0;
}

/* Two that make it at the same moment: the helper gives nothing to the second of them. Nor does it where the
 * kernel can't allocate right now. */
static __always_inline struct unix_end *unix_storage(struct sock *sk) {
    struct unix_end *end = bpf_sk_storage_get(&unix_ends, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

    if (!end)
        end = bpf_sk_storage_get(&unix_ends, sk, 0, 0);
    return end ? end : bpf_sk_storage_get(&unix_ends, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
}

/* The very address of its listener, and not one of its own. */
static __always_inline int unix_shares_address(const struct unix_sock *unix) {
    return BPF_CORE_READ(unix, addr, refcnt.refs.counter) > 1;
}

/* Who connected: the accepted socket bears its listener's address. A socketpair has none. Where both are
 * bound (a client with SO_PASSCRED is, too) the one that shares its address accepted, as long as the listener
 * lives. */
static __always_inline uint32_t unix_open_bit(struct sock *sk) {
    struct unix_sock *unix = bpf_skc_to_unix_sock(sk);
    struct sock *peer = unix ? unix->peer : 0;
    struct unix_sock *other = peer ? bpf_skc_to_unix_sock(peer) : 0;
    int accepted, connected;

    if (!other)
        return 0;
    accepted = unix->addr != 0;
    connected = other->addr != 0;
    if (accepted && connected) {
        accepted = unix_shares_address(unix);
        connected = unix_shares_address(other);
    }
    if (accepted == connected)
        return 0;
    return accepted ? CAPTURE_OPEN_RECEIVED : CAPTURE_OPEN_SENT;
}

/* ---- who listens ---- */

/*
 * Nobody has accepted it yet: it is the listener's as long as nobody uses it. If it is closed untouched, its
 * connector is told so, and only the listener can have done it.
 */
static __always_inline void unix_lend_to_listener(struct sock *sk, struct unix_end *other) {
    struct process_state *state;
    struct task_struct *task;
    uint64_t listening;

    if (other->owner || unix_open_bit(sk) != CAPTURE_OPEN_SENT)
        return;
    task = peer_task(sk);
    listening = task ? process_cgroup(cgroup_of(task)) : 0;
    state = listening ? bpf_map_lookup_elem(&processes, &listening) : 0;
    if (!state || __sync_val_compare_and_swap(&other->owner, 0, listening))
        return;
    other->flags |= UNIX_HELD;
    other->incarnation = state->incarnation;
}

/* Whoever finds an end without its names, as another is about to write them, writes the same. */
static __always_inline struct unix_end *unix_end(struct sock *sk, uint64_t create) {
    struct unix_end *end = bpf_sk_storage_get(&unix_ends, sk, 0, 0);
    struct unix_end *other;
    struct sock *peer;

    if (end ? unix_named(end) : !create)
        return end;
    peer = unix_peer(sk);
    if (!peer)
        return 0;
    end = unix_storage(sk);
    other = unix_storage(peer);
    if (!end)
        return 0;
    end->local = bpf_get_socket_cookie(sk);
    end->remote = bpf_get_socket_cookie(peer);
    /* From now on the other end counts too, whoever holds it: a process selected later finds true offsets. */
    if (other) {
        other->local = end->remote;
        other->remote = end->local;
        unix_lend_to_listener(sk, other);
    }
    return end;
}

/* ---- pairs between two recorded processes ---- */

static __always_inline struct unix_pair_key unix_pair_key(const struct unix_end *end) {
    return end->local < end->remote ? (struct unix_pair_key){.low = end->local, .high = end->remote}
                                    : (struct unix_pair_key){.low = end->remote, .high = end->local};
}

/* Whoever makes more pairs than have room is told apart, and alone. */
static __always_inline void unix_pair_up(struct sock *sk, struct unix_end *end, struct process_state *state) {
    struct unix_end *other = unix_other_end(sk);
    struct unix_pair pair = {.payer = end->owner};
    struct unix_pair_end mine, theirs;
    struct unix_pair_key key;

    if (end->flags & UNIX_PAIRED || !other || !other->owner || other->owner == end->owner)
        return;
    key = unix_pair_key(end);
    mine = (struct unix_pair_end){.process = end->owner, .incarnation = end->incarnation};
    theirs = (struct unix_pair_end){.process = other->owner, .incarnation = other->incarnation};
    pair.low = end->local < end->remote ? mine : theirs;
    pair.high = end->local < end->remote ? theirs : mine;
    pair.walk = this_walk();
    end->flags |= UNIX_PAIRED;
    other->flags |= UNIX_PAIRED;
    if (bpf_map_lookup_elem(&unix_pairs, &key))
        return;
    if (state->paired >= MAX_PAIRED || bpf_map_update_elem(&unix_pairs, &key, &pair, BPF_NOEXIST)) {
        verdict(state, end->owner, RECOVERY_VERDICT_OVERFLOW, 0);
        return;
    }
    __sync_fetch_and_add(&state->paired, 1);
}

static __always_inline void unix_unpair(const struct unix_pair_key *key, uint64_t payer) {
    struct process_state *state = bpf_map_lookup_elem(&processes, &payer);

    if (bpf_map_delete_elem(&unix_pairs, key) == 0 && state && state->paired)
        __sync_fetch_and_add(&state->paired, -1);
}

/* It knows that the other end is over; where that one is closed, nobody else will learn anything. */
static __always_inline void unix_pair_ended(const struct sock *sk, const struct unix_end *end) {
    struct unix_pair_key key = unix_pair_key(end);
    struct unix_pair *pair;

    if (!(end->flags & UNIX_PAIRED))
        return;
    pair = bpf_map_lookup_elem(&unix_pairs, &key);
    if (!pair)
        return;
    if (end->local == key.low)
        pair->low.end_told = 1;
    else
        pair->high.end_told = 1;
    if (sk->sk_shutdown & RCV_SHUTDOWN && sk->sk_shutdown & SEND_SHUTDOWN)
        unix_unpair(&key, pair->payer);
}

static __always_inline void unix_pair_found(const struct unix_end *end) {
    struct unix_pair_key key = unix_pair_key(end);
    struct unix_pair *pair = end->flags & UNIX_PAIRED ? bpf_map_lookup_elem(&unix_pairs, &key) : 0;

    if (pair)
        pair->walk = this_walk();
}

/* ---- telling ---- */

static __always_inline struct range unix_range(const struct unix_end *end, uint8_t kind, uint8_t flags) {
    return (struct range){
        .kind = kind, .flags = RECOVERY_FLAG_UNIX | flags, .local = end->local, .remote = end->remote};
}

static __always_inline struct holder unix_holder(const struct unix_end *end) {
    return (struct holder){.process = end->owner, .incarnation = end->incarnation};
}

static __always_inline int unix_tell_open(struct unix_end *end, uint32_t bit) {
    struct range range =
        unix_range(end, bit == CAPTURE_OPEN_SENT ? RECOVERY_SEND : RECOVERY_RECEIVE, RECOVERY_FLAG_OPEN);
    struct holder holder = unix_holder(end);

    return bit ? tell(&end->told, bit, &holder, &range) : 0;
}

static __always_inline int unix_tell_sent(struct unix_end *end) {
    struct range range = unix_range(end, RECOVERY_SEND, 0);
    struct holder holder = unix_holder(end);

    return advance(&end->sent_mark, *(volatile uint64_t *)&end->sent, &holder, &range);
}

static __always_inline int unix_tell_received(struct unix_end *end) {
    struct range range = unix_range(end, RECOVERY_RECEIVE, 0);
    struct holder holder = unix_holder(end);

    return advance(&end->received_mark, *(volatile uint64_t *)&end->received, &holder, &range);
}

static __always_inline int unix_tell_seen(struct unix_end *end) {
    struct range range = unix_range(end, RECOVERY_PEEK, 0);
    struct holder holder = unix_holder(end);

    return advance_seen(&end->seen_mark, end->received_mark, end->looked, &holder, &range);
}

static __always_inline int unix_tell_end(struct unix_end *end, uint32_t bit) {
    struct range range =
        unix_range(end, bit == CAPTURE_END_SENT ? RECOVERY_SEND : RECOVERY_RECEIVE, RECOVERY_FLAG_END);
    struct holder holder = unix_holder(end);

    return tell(&end->told, bit, &holder, &range);
}

/* The other end was lent, and never used: so that it is known whose it was. */
static __always_inline int unix_tell_lent(struct sock *sk) {
    struct unix_end *other = unix_other_end(sk);

    if (!other || !(other->flags & UNIX_HELD) || unix_open_bit(sk) != CAPTURE_OPEN_SENT)
        return 0;
    return unix_tell_open(other, CAPTURE_OPEN_RECEIVED);
}

static __always_inline int unix_tell_end_received(struct sock *sk, struct unix_end *end) {
    int left = unix_tell_lent(sk) | unix_tell_end(end, CAPTURE_END_RECEIVED);

    if (!left)
        unix_pair_ended(sk, end);
    return left;
}

static __always_inline struct closed_key unix_key(const struct unix_end *end) {
    return (struct closed_key){.process = end->owner,
                               .local = end->local,
                               .remote = end->remote,
                               .flags = RECOVERY_FLAG_UNIX,
                               .incarnation = end->incarnation};
}

/* Nothing is called when an AF_UNIX socket is closed, so what finds no room is kept as long as it is not
 * told. */
static __always_inline void unix_keep(struct unix_end *end) {
    struct closed_key key = unix_key(end);
    struct closed_value rest = {.sent_mark = end->sent_mark,
                                .sent = end->sent,
                                .received_mark = end->received_mark,
                                .received = end->received,
                                .seen_mark = end->seen_mark,
                                .seen = end->looked};

    end->flags |= UNIX_SPILLED;
    spill(&key, &rest);
}

static __always_inline void unix_kept(struct unix_end *end) {
    struct closed_key key = unix_key(end);

    end->flags &= ~UNIX_SPILLED;
    unspill(&key);
}

/* After every attempt to tell all there is. */
CHECKED_ONCE int unix_settle(struct unix_end *end, int left) {
    if (!end)
        return 0;
    if (left)
        unix_keep(end);
    else if (end->flags & UNIX_SPILLED)
        unix_kept(end);
    return 0;
}

/* Everything that no record tells yet of an end that has an owner. */
static __always_inline int unix_catch_up(struct sock *sk, struct unix_end *end) {
    int left = unix_tell_open(end, unix_open_bit(sk));

    left |= unix_tell_sent(end);
    left |= unix_tell_received(end);
    left |= unix_tell_seen(end);
    unix_settle(end, left);
    if (sk->sk_shutdown & SEND_SHUTDOWN && !(sk->sk_shutdown & RCV_SHUTDOWN))
        left |= unix_tell_end(end, CAPTURE_END_SENT);
    if (sk->sk_shutdown & RCV_SHUTDOWN)
        left |= unix_tell_end_received(sk, end);
    return left;
}

#endif
