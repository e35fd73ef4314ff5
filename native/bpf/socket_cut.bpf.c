/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Offsets of connections at one instant, read from the kernel's own socket state: no event is needed, none
 * can spoil them. Two iterators print struct cut_record:
 *
 *   cut_files        the sockets behind the descriptors of one process (link parameter: pid)
 *   cut_connections  every TCP socket with a name on the host, also those no descriptor shows: in flight in a
 *   cut_unix_ends    unix socket, registered with io_uring, closed but still sending
 */
#include "connection.bpf.h"

static __always_inline int carries_data(unsigned char state) {
    return state != TCP_LISTEN && state != TCP_SYN_SENT && state != TCP_CLOSE;
}

static __always_inline void read_tcp(const struct tcp_sock *tcp, const struct connection *c,
                                     struct cut_record *out) {
    out->process = c->owner;
    out->local = c->local;
    out->remote = c->remote;
    if (c->flags & CONNECTION_SENT_FINAL)
        out->sent = c->sent_final;
    else
        out->sent = sent_offset(tcp, c);
    /* After CLOSE a disconnect may have scrambled the sequence numbers; what we recorded has not changed. */
    if (((const struct sock *)tcp)->__sk_common.skc_state == TCP_CLOSE) {
        out->received = c->received;
        return;
    }
    out->received = received_offset(tcp, c);
    uint64_t acknowledged = offset_of_sequence(tcp, c, tcp->snd_una);
    uint32_t queued = tcp->rcv_nxt - tcp->copied_seq;

    if (out->sent > acknowledged) /* else the FIN is acknowledged as well */
        out->unacknowledged = out->sent - acknowledged;
    if (queued && fin_received(tcp))
        queued--;
    out->queued = queued;
}

static __always_inline void read_unix(struct sock *sk, const struct unix_end *end, struct cut_record *out) {
    uint64_t peer_sent = unix_peer_sent(sk);

    out->flags = RECOVERY_FLAG_UNIX;
    out->process = end->owner;
    out->local = end->local;
    out->remote = end->remote;
    out->sent = end->sent;
    out->received = end->received;
    if (sk->sk_type != SOCK_STREAM)
        return;
    out->queued = unix_queued(sk, 0);
    if (peer_sent > end->received + unix_queued(sk, peer_sent))
        out->cut_flags = CUT_UNSEEN; /* spliced out, see unix_taken_unseen */
}

/* Returns 1 if there is something to print. */
static __always_inline int read_socket(struct sock *sk, struct cut_record *out) {
    const struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);

    if (tcp) {
        struct connection *c = bpf_sk_storage_get(&connections, sk, 0, 0);
        unsigned char state = sk->__sk_common.skc_state;

        if (c && c->flags & CONNECTION_NAMED) {
            read_tcp(tcp, c, out);
            return 1;
        }
        out->cut_flags = CUT_UNNAMED;
        return carries_data(state);
    }
    if (sk->__sk_common.skc_family != AF_UNIX ||
        (sk->sk_type != SOCK_STREAM && sk->sk_type != SOCK_SEQPACKET))
        return 0;
    struct unix_end *end = bpf_sk_storage_get(&unix_ends, sk, 0, 0);

    if (end && unix_named(end)) { /* else nobody has counted anything */
        read_unix(sk, end, out);
        return 1;
    }
    struct unix_sock *unix = bpf_skc_to_unix_sock(sk);
    struct sock *peer = unix ? unix->peer : 0;

    if (!peer)
        return 0;
    out->flags = RECOVERY_FLAG_UNIX;
    out->local = bpf_get_socket_cookie(sk);
    out->remote = bpf_get_socket_cookie(peer);
    return 1;
}

SEC("iter/task_file")
int cut_files(struct bpf_iter__task_file *ctx) {
    struct cut_record record = {};
    struct file *file = ctx->file;
    struct socket *socket;
    struct sock *sk;

    if (!file)
        return 0;
    socket = bpf_sock_from_file(file);
    if (!socket)
        return 0;
    sk = socket->sk;
    if (sk && read_socket(sk, &record))
        bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
    return 0;
}

SEC("iter/bpf_sk_storage_map")
int cut_connections(struct bpf_iter__bpf_sk_storage_map *ctx) {
    struct cut_record record = {};
    struct connection *c = ctx->value;
    struct sock *sk = ctx->sk;
    const struct tcp_sock *tcp;

    if (!c || !sk || !c->owner || !(c->flags & CONNECTION_NAMED))
        return 0;
    tcp = bpf_skc_to_tcp_sock(sk);
    if (!tcp)
        return 0;
    read_tcp(tcp, c, &record);
    bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
    return 0;
}

SEC("iter/bpf_sk_storage_map")
int cut_unix_ends(struct bpf_iter__bpf_sk_storage_map *ctx) {
    struct cut_record record = {};
    struct unix_end *end = ctx->value;
    struct sock *sk = ctx->sk;

    if (!end || !sk || !end->owner)
        return 0;
    read_unix(sk, end, &record);
    bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
    return 0;
}

char LICENSE[] SEC("license") = "GPL";
