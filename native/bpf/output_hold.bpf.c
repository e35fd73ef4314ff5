/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Output commit: what a process that was started so sends to somebody outside waits in its own send queue.
 *
 *   output_held    egress hook of its cgroup (no other has it): data beyond `released` of the connection's
 *                  entry in `outputs` does not go; TCP keeps it and tries again
 *   push_outputs   after marks were raised: each socket that waits tries at once, whether it has a descriptor
 *                  or is closed already; else it would be TCP's timer that does, which backs off
 *
 * It fails closed. Without an entry, a name or anybody who raises marks nothing goes; only what is known to be
 * inside (both ends recorded, of one application) does. Handshakes, acknowledgements and resets pass; a FIN
 * waits with the data before it. The hook is run with the socket's lock, and the kernel leaves no run out.
 */
#include "output.bpf.h"
#include "segment.bpf.h"
#include "whose.bpf.h"

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __type(key, uint64_t);
    __type(value, uint32_t);
} holders SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 1024);
    __type(key, struct unheld_key);
    __type(value, uint32_t);
} unheld SEC(".maps");

/* How often something was held: whoever looks for what waits need not look while that stands still. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, uint32_t);
    __type(value, uint64_t);
} held SEC(".maps");

static __always_inline void count_held(void) {
    uint32_t zero = 0;
    uint64_t *count = bpf_map_lookup_elem(&held, &zero);

    if (count)
        __sync_fetch_and_add(count, 1);
}

static __always_inline void note_unheld(struct unheld_key *key) {
    const uint32_t one = 1;

    if (bpf_map_lookup_elem(&holders, &key->process) && !bpf_map_lookup_elem(&unheld, key))
        bpf_map_update_elem(&unheld, key, &one, BPF_ANY);
}

/* The program is only tried here, in a cgroup of any level. */
static __always_inline int passes(struct __sk_buff *skb) {
    uint64_t cgroup = bpf_skb_cgroup_id(skb);
    uint32_t *flags = bpf_map_lookup_elem(&holders, &cgroup);

    return flags && *flags & HOLDER_PASSES;
}

/* Both ends are recorded, of one application. The other end's note serves, too: our own goes when we close. */
static __noinline int is_inside(uint32_t local, uint32_t remote, uint64_t sock) {
    struct end_key key = {.local = local, .remote = remote}, mirror = end_mirrored(&key);
    struct end_note *note = bpf_map_lookup_elem(&ends, &key);
    struct process_state *state;
    uint64_t process;

    if (note && note->flags & END_KNOWN && !note->tgid && !note->peer)
        return 1;
    note = bpf_map_lookup_elem(&ends, &mirror);
    if (!note)
        return 0;
    process = note->process;
    state = bpf_map_lookup_elem(&processes, &process);
    return state && state->parent == ancestor_at(made_in((const struct sock *)sock), cgroup_level - 1);
}

static __always_inline void free_mark(const struct connection *c) {
    struct end_key key = output_key(c);
    struct output_mark *mark = bpf_map_lookup_elem(&outputs, &key);

    if (mark)
        mark->flags |= OUTPUT_FREE;
}

static __always_inline struct output_mark *new_mark(struct connection *c, const struct end_key *key,
                                                    uint64_t process) {
    struct output_mark fresh = {.process = process};
    struct end_note note = {};

    note_address(&note, (const struct sock *)c->sock);
    for (int i = 0; i < 4; i++)
        fresh.address[i] = note.address[i];
    fresh.port = note.port;
    if (bpf_map_update_elem(&outputs, key, &fresh, BPF_NOEXIST))
        return 0;
    c->output |= CONNECTION_MARKED;
    return bpf_map_lookup_elem(&outputs, key);
}

/* May data before offset `end` go? */
static __always_inline int may_go(struct connection *c, uint64_t process, uint64_t end) {
    struct end_key key = output_key(c);
    struct output_mark *mark = bpf_map_lookup_elem(&outputs, &key);
    struct unheld_key overflow = {.process = process, .kind = UNHELD_OVERFLOW};
    uint64_t released;

    if (!end)
        return SEND;
    if (!mark)
        mark = new_mark(c, &key, process);
    if (!mark) {
        note_unheld(&overflow);
        return HOLD;
    }
    if (mark->flags & OUTPUT_FREE) {
        c->output |= CONNECTION_INSIDE;
        return SEND;
    }
    released = *(volatile uint64_t *)&mark->released;
    if (end <= released)
        return SEND;
    if (mark->wanted <= released)
        mark->since = bpf_ktime_get_boot_ns();
    raise(&mark->wanted, end);
    count_held();
    return HOLD;
}

SEC("cgroup_skb/egress")
int output_held(struct __sk_buff *skb) {
    struct segment s;
    struct bpf_sock *sk = skb->sk;
    uint64_t process = bpf_skb_ancestor_cgroup_id(skb, cgroup_level);
    struct unheld_key other = {.process = process, .kind = UNHELD_DATAGRAM};
    struct tcp_now now = {};
    struct connection *c;
    struct tcp_sock *tcp;

    if (!sk)
        return SEND;
    sk = bpf_sk_fullsock(sk);
    if (!sk) /* of a handshake, or of a connection that is over */
        return SEND;
    if (sk->protocol != IPPROTO_TCP) {
        other.port = bpf_ntohs(sk->dst_port);
        note_unheld(&other);
        return SEND;
    }
    if (parse_segment(skb, &s))
        return HOLD;
    if (s.flags & TCP_RST || (skb->len <= s.data && !(s.flags & TCP_FIN)))
        return SEND;
    c = bpf_sk_storage_get(&connections, sk, 0, 0);
    if (c && c->output & CONNECTION_INSIDE)
        return SEND;
    if (passes(skb))
        return SEND;
    tcp = bpf_skc_to_tcp_sock(sk);
    if (!c || !tcp || !(c->flags & CONNECTION_NAMED)) {
        other.kind = UNHELD_NAMELESS;
        note_unheld(&other);
        return HOLD;
    }
    if (is_inside(c->local, c->remote, (uint64_t)tcp)) {
        if (c->output & CONNECTION_MARKED)
            free_mark(c);
        c->output |= CONNECTION_INSIDE;
        return SEND;
    }
    now.bytes_acked = tcp->bytes_acked;
    now.snd_una = tcp->snd_una;
    return may_go(c, process, offset_of_sequence(&now, c, s.sequence) + (skb->len - s.data));
}

/* Sockets that a holding process was given: no hook of its own cgroup sees what goes out there. */
static __always_inline void note_foreign(const struct connection *c, const struct tcp_sock *tcp) {
    struct unheld_key key = {.process = c->owner, .kind = UNHELD_SOCKET};
    struct end_note note = {};

    if (process_cgroup(made_in((const struct sock *)tcp)) == key.process)
        return;
    note_address(&note, (const struct sock *)tcp);
    for (int i = 0; i < 4; i++)
        key.address[i] = note.address[i];
    key.port = note.port;
    note_unheld(&key);
}

/* This walk has each socket's lock. Nothing of the socket is changed: setting the option sends what may go. */
SEC("iter/tcp")
int push_outputs(struct bpf_iter__tcp *ctx) {
    struct sock_common *common = ctx->sk_common;
    int without_delay = 0, one = 1, zero = 0;
    struct connection *c;
    struct tcp_sock *tcp;

    if (!common)
        return 0;
    tcp = bpf_skc_to_tcp_sock(common);
    if (!tcp)
        return 0;
    c = bpf_sk_storage_get(&connections, (struct sock *)tcp, 0, 0);
    if (!c)
        return 0;
    if (c->owner)
        note_foreign(c, tcp);
    if (!(c->output & CONNECTION_MARKED) || tcp->snd_nxt == tcp->write_seq)
        return 0;
    bpf_getsockopt(tcp, IPPROTO_TCP, 1, &without_delay, sizeof(without_delay)); /* TCP_NODELAY */
    bpf_setsockopt(tcp, IPPROTO_TCP, 1, &one, sizeof(one));
    if (!without_delay)
        bpf_setsockopt(tcp, IPPROTO_TCP, 1, &zero, sizeof(zero));
    return 0;
}

char LICENSE[] SEC("license") = "GPL";
