/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What we remember of a socket, and how its offsets are read. Both kinds of storage die with the socket.
 */
#ifndef RECOVERY_CONNECTION_BPF_H
#define RECOVERY_CONNECTION_BPF_H

#include "maps.bpf.h"
#include "epoch.h"

enum connection_flag {
    CONNECTION_NAMED = 1,   /* local and remote are valid */
    CONNECTION_CROSSED = 2, /* simultaneous open: local was read when the SYNs crossed */
    CONNECTION_SENT_FINAL =
        4, /* sent_final is valid: nothing can be sent any more, and `closed` holds an entry */
    CONNECTION_RESTORED = 8,   /* made by TCP_REPAIR: sends in repair mode refill queues, they are no sends */
    CONNECTION_FAST_OPEN = 16, /* data went out with the SYN, before any tracepoint saw it */
};

/* One send call, from its first piece to its end. `selection` tells it from a call that ended while the
 * process was not recorded, whose end nobody noted. */
struct sending {
    uint64_t by; /* 0: none. In a connection the task that sends, in a task the socket that it sends on */
    uint64_t selection;
    uint64_t left;    /* bytes still to come when the current part began */
    uint64_t emitted; /* bytes in parts already recorded */
    uint32_t begin;   /* sequence number at which the current part began */
};

/*
 * TCP. Written at state changes (socket lock or bottom half), `received` under the socket lock.
 * `sending` is for the one thread that sends, which is nearly always: claimed under the socket lock by
 * whoever finds it free, given back by that thread alone. Once two threads met here (`crowded`) it is claimed
 * no more, and each keeps its calls with itself.
 */
struct connection {
    uint64_t owner;    /* cgroup id of the process that uses it; 0 = none yet */
    uint64_t received; /* all bytes before this offset are in some receive record */
    uint64_t sent_final;
    uint64_t sent_base;     /* offset at which bytes_acked began to count: 0, or more after a restore */
    uint64_t received_base; /* the same for bytes_received */
    uint32_t local, remote; /* initial sequence numbers */
    uint32_t flags;
    uint32_t crowded;
    struct sending sending;
};

/* AF_UNIX stream (bytes) and seqpacket (whole messages: a truncating reader would spoil a byte count). */
struct unix_end {
    uint64_t owner;
    uint64_t local, remote; /* cookies */
    uint64_t sent, received;
    uint32_t sender, receiver; /* last thread; two of them make the assignment of ranges a guess */
    uint32_t shared_send, shared_receive;
    uint64_t doubted; /* when bytes were first missing, boot-time ns; 0: never. See unix_taken_unseen */
};

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct connection);
} connections __weak SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct unix_end);
} unix_ends __weak SEC(".maps");

extern void *bpf_rdonly_cast(const void *object, uint32_t type) __ksym;

/* `sk` is known to be a full TCP socket. No call, unlike bpf_skc_to_tcp_sock: the verifier makes it a move.
 */
static __always_inline const struct tcp_sock *as_tcp(const struct sock *sk) {
    return bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct tcp_sock));
}

static __always_inline int fin_received(const struct tcp_sock *tcp) {
    return (((const struct sock *)tcp)->__sk_common.skc_flags >>
            bpf_core_enum_value(enum sock_flags, SOCK_DONE)) &
           1;
}

/* Reading the end of file advances copied_seq over the FIN: that is no data. */
static __always_inline uint64_t received_offset(const struct tcp_sock *tcp, const struct connection *c) {
    uint32_t taken = tcp->copied_seq, next = tcp->rcv_nxt;
    uint64_t near = c->received_base + tcp->bytes_received - (uint32_t)(next - taken);

    if (taken == next && fin_received(tcp))
        taken--;
    return recovery_offset(near, taken - c->remote - 1);
}

/* `seq` may be acknowledged by now, or lie ahead: a signed distance. */
static __always_inline uint64_t offset_of_sequence(const struct tcp_sock *tcp, const struct connection *c,
                                                   uint32_t seq) {
    return recovery_offset(c->sent_base + tcp->bytes_acked + (int64_t)(int32_t)(seq - tcp->snd_una),
                           seq - c->local - 1);
}

static __always_inline int unix_named(const struct unix_end *end) {
    return end->local != 0 && end->remote != 0;
}

static __always_inline struct unix_end *unix_other_end(struct sock *sk) {
    struct unix_sock *unix = bpf_skc_to_unix_sock(sk);
    struct sock *peer = unix ? unix->peer : 0;

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

/* Only before a FIN is queued. */
static __always_inline uint64_t sent_offset(const struct tcp_sock *tcp, const struct connection *c) {
    return offset_of_sequence(tcp, c, tcp->write_seq);
}

#endif
