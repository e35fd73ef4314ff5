/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What recorded processes hand to sockets and take from them, as they do it.
 *
 *   progress     sock_send_length, sock_recv_length      a call ends: [mark, where the kernel stands now)
 *                sys_exit                                kernels without these: it has moved, flush it
 *   life         inet_sock_set_state, tcp_destroy_sock   names, ends, last offsets
 *                sock_release, sockops                   the same without a recursion guard, for sockets that
 *                                                        the recorded cgroup made
 *   all others                                           a verdict for the process
 *
 * Every unit is told once, by whoever looks first after it moved (emit.bpf.h). A run that is left out makes
 * the next record longer.
 */
#include "tcp.bpf.h"
#include "unix.bpf.h"
#include "unix_peer.bpf.h"
#include "datagram.bpf.h"
#include "output.bpf.h"

/* Linux 6.2, no call: whoever has sock_send_length has it. The answer is only read. */
extern void *bpf_rdonly_cast(const void *object, uint32_t type) __ksym __weak;

const volatile uint32_t cgroup_level = 3;
const volatile uint32_t ring_bytes = 16 << 20;
const volatile uint32_t left_out_per_mille = 0;
const volatile uint32_t sampled = 0;
const volatile uint32_t hooks_floor = FLOOR_NONE;

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 65536);
    __type(key, struct restored_key);
    __type(value, struct restored_value);
} restored SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sock_common___local {
    uint16_t skc_num;
};
struct socket_lock___local {
    int owned;
};
struct sock___local {
    struct sock_common___local __sk_common;
    uint8_t sk_userlocks : 4;
    struct socket_lock___local sk_lock;
};
#pragma clang attribute pop

static __always_inline int is_kernel_socket(const struct sock *sk) {
    return BPF_CORE_READ_BITFIELD(sk, sk_kern_sock);
}

/* ---- whose it is ---- */

/* Two units of recovery on one end of a channel: nobody can say whose bytes are whose. Both are told. */
static __always_inline void shared_by(struct process_state *state, uint64_t process, uint64_t other,
                                      uint64_t local, uint64_t remote) {
    if (!state->other) {
        state->other_local = local;
        state->other_remote = remote;
        state->other = other;
    }
    verdict(state, process, RECOVERY_VERDICT_SHARED_SOCKET, other);
}

CHECKED_ONCE int shared(struct process_state *state, uint64_t process, uint64_t owner, uint64_t local,
                        uint64_t remote) {
    struct process_state *others = bpf_map_lookup_elem(&processes, &owner);

    if (state)
        shared_by(state, process, owner, local, remote);
    if (others)
        shared_by(others, owner, process, local, remote);
    return 0;
}

/* Who takes up a socket that another recorded process has made or accepted: that one knows the connection as
 * well. */
CHECKED_ONCE int handed_over(const struct connection *c, struct process_state *state, uint64_t process) {
    uint64_t maker = c ? process_cgroup(made_in((struct sock *)c->sock)) : process;

    if (c && maker != process && bpf_map_lookup_elem(&processes, &maker))
        shared(state, process, maker, c->local, c->remote);
    return 0;
}

/* A descriptor alone is no use: whoever uses it first owns it, also where another holds it. */
static __always_inline int owned(struct connection *c, struct process_state *state, uint64_t process) {
    uint64_t owner = c->owner;

    if (owner == process) {
        if (c->flags & CONNECTION_HELD)
            c->flags &= ~CONNECTION_HELD;
        c->incarnation = state->incarnation;
        return 1;
    }
    if (!owner || c->flags & CONNECTION_HELD) {
        if (__sync_val_compare_and_swap(&c->owner, owner, process) == owner) {
            c->flags &= ~CONNECTION_HELD;
            c->incarnation = state->incarnation;
            return 1;
        }
        owner = c->owner;
        if (owner == process)
            return 1;
    }
    shared(state, process, owner, c->local, c->remote);
    return 0;
}

static __always_inline int may_name(const struct tcp_now *now, struct connection *c) {
    return c->flags & CONNECTION_NAMED || name_late(now, c, 0);
}

static __always_inline void note_end(struct connection *c) {
    c->carried = 0;
    end_begins(c->owner, c->local, c->remote, c->flags & CONNECTION_CONNECTOR, c->sock);
}

/* The named connection that a recorded process uses, or a verdict why there is none. */
static __always_inline struct connection *used(const struct sock *sk, const struct tcp_now *now,
                                               struct process_state *state, uint64_t process) {
    struct connection *c = bpf_sk_storage_get(&connections, (void *)sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    int taken_up;

    if (!c)
        c = bpf_sk_storage_get(&connections, (void *)sk, 0, 0); /* another made it this very moment */
    if (!c)
        return 0; /* no memory: the next look makes it */
    c->sock = (uint64_t)sk;
    taken_up = !c->owner || c->flags & CONNECTION_HELD;
    if (!c->owner && !state->attached && may_name(now, c) && end_was_strange(c->local, c->remote)) {
        verdict(state, process, RECOVERY_VERDICT_TAKEN_OVER, 0);
        return 0;
    }
    if (!owned(c, state, process))
        return 0;
    if (!may_name(now, c)) {
        if (c->flags & CONNECTION_REPAIRED && !now->repair && !is_kernel_socket(sk))
            verdict(state, process, RECOVERY_VERDICT_OLD_CONNECTION, 0);
        return 0;
    }
    if (taken_up) {
        handed_over(c, state, process);
        note_end(c);
    }
    tell_open(c);
    return c;
}

/* ---- TCP: progress ---- */

static __always_inline void tcp_sent(const struct sock *sk, int result, struct process_state *state,
                                     uint64_t process) {
    const struct tcp_sock *tcp = bpf_skc_to_tcp_sock((void *)sk);
    struct tcp_now now = {};
    struct connection *c;

    if (!tcp || result <= 0)
        return;
    tcp_look(tcp, &now);
    if (now.ulp) {
        verdict(state, process, RECOVERY_VERDICT_KTLS, 0);
        return;
    }
    if (now.repair)
        return; /* refills a queue: no send, and below the mark */
    c = used(sk, &now, state, process);
    if (!c)
        return;
    tell_sent(c, sent_offset(&now, c));
    note_data(c, 1, 0);
}

/* The urgent byte is taken out of its place: everything before it counts as seen. */
static __always_inline uint64_t looked_at(const struct sock *sk, const struct tcp_sock *tcp,
                                          const struct tcp_now *now, const struct connection *c, int result,
                                          int flags) {
    uint64_t received = received_offset(now, c);

    if (flags & MSG_OOB)
        return received + (uint32_t)(tcp->urg_seq - now->copied_seq) + 1;
    return sk->sk_peek_off >= 0 ? received + (uint32_t)sk->sk_peek_off : received + (uint32_t)result;
}

static __always_inline void tcp_received(const struct sock *sk, int result, int flags,
                                         struct process_state *state, uint64_t process) {
    const struct tcp_sock *tcp = bpf_skc_to_tcp_sock((void *)sk);
    struct tcp_now now = {};
    struct connection *c;

    if (!tcp)
        return;
    tcp_look(tcp, &now);
    if (now.ulp) {
        if (result > 0)
            verdict(state, process, RECOVERY_VERDICT_KTLS, 0);
        return;
    }
    if (now.repair)
        return;
    c = used(sk, &now, state, process);
    if (!c)
        return;
    tell_received(c, received_offset(&now, c));
    note_data(c, 0, result > 0);
    if (flags & (MSG_PEEK | MSG_OOB) && result > 0) {
        uses(state, USES_PEEK);
        raise(&c->looked, looked_at(sk, tcp, &now, c, result, flags));
        tell_seen(c);
    }
    if (end_arrived(&now, c))
        tell_end_received(c);
}

/*
 * The hot way for whoever is recorded: nothing of the connection has changed since it was used last, so all
 * there is to say is how far it has moved. Returns 0 where more may have to be said. The caller knows that it
 * is TCP, so no helper has to.
 */
static __always_inline int tcp_moved(struct sock *sk, int receive, const struct filter_slot *slot,
                                     uint64_t process) {
    const struct tcp_sock *tcp = bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct tcp_sock));
    struct connection *c = bpf_sk_storage_get(&connections, sk, 0, 0);
    struct tcp_now now = {};

    if (!c || !selected_as(slot, process, c->owner, c->incarnation) ||
        (c->flags & (CONNECTION_NAMED | CONNECTION_HELD)) != CONNECTION_NAMED ||
        !(c->told & (CAPTURE_OPEN_SENT | CAPTURE_OPEN_RECEIVED)))
        return 0;
    tcp_look(tcp, &now);
    if (now.ulp || now.repair || (receive && end_arrived(&now, c)))
        return 0;
    if (left_out())
        return 1;
    struct range range = tcp_range(c, receive ? RECOVERY_RECEIVE : RECOVERY_SEND, 0);
    struct holder holder = holder_of(c);

    if (receive)
        advance_inline(&c->received, received_offset(&now, c), &holder, &range);
    else
        advance_inline(&c->sent, sent_offset(&now, c), &holder, &range);
    return 1;
}

/* ---- TCP: life ---- */

/* TCP_REPAIR sets sequence numbers and goes straight to ESTABLISHED: the restorer announced the old names.
 * What it still puts into the queues is told already. */
static __always_inline void name_restored(const struct tcp_now *now, struct connection *c) {
    struct restored_key key = {.write_seq = now->write_seq, .rcv_nxt = now->rcv_nxt};
    struct restored_value *old = bpf_map_lookup_elem(&restored, &key);

    c->flags = CONNECTION_REPAIRED;
    if (!old)
        return;
    c->local = old->local;
    c->remote = old->remote;
    c->sent_base = old->first;
    c->received_base = old->received;
    c->sent = old->sent;
    c->received = old->received;
    c->seen = c->looked = old->seen;
    c->told = old->told;
    c->flags |=
        CONNECTION_NAMED | (old->told & CAPTURE_OPEN_RECEIVED ? CONNECTION_ACCEPTOR : CONNECTION_CONNECTOR);
    bpf_map_delete_elem(&restored, &key);
}

/* Is its owner still the process that is recorded now? In softirq `current` says nothing. */
static __always_inline int still_recorded(const struct connection *c) {
    uint64_t owner = c->owner;
    struct process_state *state = owner ? bpf_map_lookup_elem(&processes, &owner) : 0;

    return state && state->incarnation == c->incarnation;
}

static __always_inline int may_tell(const struct connection *c) {
    return c->flags & CONNECTION_NAMED && !(c->flags & CONNECTION_RELEASED) && still_recorded(c);
}

/* A listener of a recorded process has it: its peer may be gone before anybody uses it. */
static __always_inline void note_accepted(const struct sock *sk, const struct tcp_now *now) {
    uint64_t process = process_cgroup(made_in(sk));
    const struct filter_slot *slot = filter_slot(process);
    struct connection named = {};

    if (!slot || !slot->ever || !bpf_map_lookup_elem(&processes, &process))
        return;
    name_from(now, &named, 0);
    end_begins(process, named.local, named.remote, 0, (uint64_t)sk);
}

/* Strangers get no storage: what is accepted is named when it is used. */
static __always_inline void established(const struct sock *sk, const struct tcp_sock *tcp, int from) {
    struct tcp_now now = {};
    struct connection *c;

    tcp_look(tcp, &now);
    now.state = TCP_ESTABLISHED;
    c = bpf_sk_storage_get(&connections, (void *)sk, 0, now.repair ? BPF_SK_STORAGE_GET_F_CREATE : 0);
    if (!c) {
        note_accepted(sk, &now);
        return;
    }
    c->sock = (uint64_t)sk;
    if (now.repair) {
        name_restored(&now, c);
        return;
    }
    if (!(c->flags & CONNECTION_NAMED))
        name_from(&now, c, from == TCP_SYN_SENT);
    if (c->owner)
        note_end(c);
    if (c->flags & CONNECTION_CONNECTOR && may_tell(c))
        tell_open(c);
}

/* connect(): in process context, so the owner of a connection that never carries a byte is known, too. */
static __always_inline void connecting(const struct sock *sk, const struct tcp_sock *tcp) {
    struct connection fresh = {.sock = (uint64_t)sk, .flags = CONNECTION_CONNECTOR};
    struct connection *c = bpf_sk_storage_get(&connections, (void *)sk, 0, 0);
    struct process_state *state = selected(&fresh.owner);
    struct tcp_now now = {};

    if (c && may_tell(c)) { /* a second life after disconnect */
        tcp_look(tcp, &now);
        release(c, &now, 0);
    }
    if (state)
        fresh.incarnation = state->incarnation;
    else
        fresh.owner = 0;
    if (c)
        *c = fresh;
    else if (state)
        bpf_sk_storage_get(&connections, (void *)sk, &fresh, BPF_SK_STORAGE_GET_F_CREATE);
}

/* Only close and shutdown lead to FIN_WAIT1 and LAST_ACK, and from an open connection to CLOSE without an
 * error: we are in the process. */
static __always_inline int by_itself(const struct tcp_now *now, int to) {
    return to != TCP_CLOSE || (!now->failed && in_state(now, TCPF(TCP_ESTABLISHED) | TCPF(TCP_CLOSE_WAIT)));
}

/* A recorded process ends a connection that nobody has seen it use; a stranger ends its own. */
static __always_inline struct connection *met_late(const struct sock *sk, const struct tcp_now *now) {
    struct connection fresh = {.sock = (uint64_t)sk};
    struct process_state *state = selected(&fresh.owner);

    if (!name_late(now, &fresh, 1))
        return 0;
    if (!state) {
        stranger_has(sk, bpf_get_current_task_btf(), fresh.local, fresh.remote, END_CLOSED);
        return 0;
    }
    if (!state->attached && end_was_strange(fresh.local, fresh.remote))
        return 0;
    fresh.incarnation = state->incarnation;
    return bpf_sk_storage_get(&connections, (void *)sk, &fresh, BPF_SK_STORAGE_GET_F_CREATE);
}

/* A process closes and disconnects with the socket in its hands, and one without a descriptor is nobody's: so
 * this was a reset whose error somebody has taken before the state changed. */
static __always_inline int was_reset(const struct sock *sk, const struct tcp_now *now) {
    return now->descriptor && !now->fin_received && !BPF_CORE_READ((struct sock___local *)sk, sk_lock.owned);
}

/* The last moment at which write_seq is the end of data: no FIN yet, and disconnect has not scrambled it. */
static __always_inline void no_more_sends(const struct sock *sk, const struct tcp_sock *tcp, int to) {
    struct connection *c = bpf_sk_storage_get(&connections, (void *)sk, 0, 0);
    struct process_state *state;
    struct tcp_now now = {};
    uint64_t process;

    tcp_look(tcp, &now); /* the state is still the one before */
    if (to == TCP_CLOSE && !now.failed && was_reset(sk, &now))
        now.failed = ECONNRESET;
    if (!c && by_itself(&now, to))
        c = met_late(sk, &now);
    if (!c || (!(c->flags & CONNECTION_NAMED) && !name_late(&now, c, 1)))
        return;
    if (!(c->flags & CONNECTION_SENT_FINAL)) {
        c->final_sent = sent_offset(&now, c);
        c->flags |= CONNECTION_SENT_FINAL;
    }
    if (c->flags & CONNECTION_RELEASED)
        return;
    if (to != TCP_CLOSE) {
        state = selected(&process);
        if (state && owned(c, state, process)) {
            tell_sent(c, c->final_sent);
            tell_end_sent(c, failing());
        }
        return;
    }
    if (!c->owner && by_itself(&now, to)) { /* its listener is closed, and nobody has accepted it */
        state = selected(&process);
        if (state) {
            c->owner = process;
            c->incarnation = state->incarnation;
            tell_end_sent(c, failing());
            c->flags |= CONNECTION_RELEASED;
        }
        return;
    }
    if (by_itself(&now, to)) { /* a reset: by a task that dies, or by its own wish */
        state = selected(&process);
        if (state && owned(c, state, process)) {
            tell_sent(c, c->final_sent);
            tell_end_sent(c, failing());
        }
    }
    if (!now.failed && !now.fin_received &&
        !(c->flags & CONNECTION_OVER)) { /* it closes or disconnects by itself */
        c->final_received = received_offset(&now, c);
        c->flags |= CONNECTION_OVER;
    } else if (may_tell(c)) {
        tell_end_received(c);
    }
}

static __always_inline void fin_arrived(const struct sock *sk) {
    struct connection *c = bpf_sk_storage_get(&connections, (void *)sk, 0, 0);

    if (c && may_tell(c))
        tell_end_received(c);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_state, const struct sock *sk, int from, int to) {
    const struct tcp_sock *tcp;

    if (to == TCP_LISTEN || left_out())
        return 0;
    tcp = bpf_skc_to_tcp_sock((void *)sk);
    if (!tcp)
        return 0;
    /* What a kernel listener accepts may become a program's: that of MPTCP does so when a peer speaks plain
     * TCP. */
    if (to == TCP_ESTABLISHED)
        established(sk, tcp, from);
    else if (is_kernel_socket(sk))
        return 0;
    else if (to == TCP_SYN_SENT)
        connecting(sk, tcp);
    else if (to == TCP_FIN_WAIT1 || to == TCP_LAST_ACK || to == TCP_CLOSE)
        no_more_sends(sk, tcp, to);
    else if (to == TCP_CLOSE_WAIT || to == TCP_CLOSING)
        fin_arrived(sk);
    return 0;
}

/* A stranger's connection that was reset: whoever closes it now is who had it. With a FIN it was closed
 * before, and told then. */
static __always_inline void reset_stranger(const struct sock *sk, const struct tcp_now *now) {
    uint32_t connected = first_as_sent(now) - (now->snd_una - (uint32_t)now->bytes_acked);
    struct connection named = {};
    uint64_t process;

    if (!has_numbers(now) || now->repair || connected > 1 || selected(&process))
        return;
    name_from(now, &named, connected);
    stranger_has(sk, bpf_get_current_task_btf(), named.local, named.remote, END_CLOSED);
}

/* Accepted by a recorded process, reset by its peer, closed without a use: its own listener's, so no
 * interruption of somebody else's close. Where it was still waiting at a listener that is closed, nobody can
 * tell, and it counts as if. */
static __always_inline struct connection *reset_unused(struct sock *sk, const struct tcp_now *now) {
    struct connection fresh = {.sock = (uint64_t)sk};
    struct process_state *state = selected(&fresh.owner);

    if (!state || process_cgroup(made_in(sk)) != fresh.owner || !name_late(now, &fresh, 1))
        return 0;
    fresh.incarnation = state->incarnation;
    return bpf_sk_storage_get(&connections, sk, &fresh, BPF_SK_STORAGE_GET_F_CREATE);
}

/* The socket goes: where nothing else told of its release, this does. */
SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(tcp_destroyed, struct sock *sk) {
    struct connection *c = bpf_sk_storage_get(&connections, sk, 0, 0);
    const struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
    struct tcp_now now = {};

    if (!tcp)
        return 0;
    tcp_look(tcp, &now);
    if (!c)
        c = reset_unused(sk, &now);
    if (!c) {
        reset_stranger(sk, &now);
        return 0;
    }
    if (c->output & CONNECTION_MARKED) {
        struct end_key key = output_key(c);
        bpf_map_delete_elem(&outputs, &key);
    }
    if (c->flags & CONNECTION_RELEASED || !still_recorded(c)) {
        if (c->flags & CONNECTION_NAMED)
            end_gone(c->local, c->remote);
    } else if (c->flags & CONNECTION_NAMED || name_late(&now, c, 1)) {
        release(c, &now, 0);
    }
    return 0;
}

/* ---- TCP: life, by hooks of the recorded cgroups: the kernel never leaves a run of these out ---- */

/* A walk holds each file as its process does, and is the last to let go of one that is closed meanwhile: where
 * calls are only sampled nothing may have told yet whose it is. */
static __always_inline struct process_state *released_for(const struct connection *c, uint64_t *process) {
    struct process_state *state;

    *process = process_cgroup(made_in((struct sock *)c->sock));
    state = bpf_map_lookup_elem(&processes, process);
    if (!state || state->walker != bpf_get_current_pid_tgid() >> 32)
        return 0;
    return state->attached || !end_was_strange(c->local, c->remote) ? state : 0;
}

/* The last descriptor of an internet socket is closed. Nothing of the connection has been shut down for it.
 */
SEC("cgroup/sock_release")
int socket_released(struct bpf_sock *sk) {
    struct connection *c;
    struct process_state *state;
    struct tcp_now now = {};
    uint64_t process;

    if (sk->protocol != IPPROTO_TCP)
        return 1;
    c = bpf_sk_storage_get(&connections, sk, 0, 0);
    if (!c || !c->sock || c->flags & CONNECTION_RELEASED)
        return 1;
    tcp_look_at(c->sock, &now);
    if (!(c->flags & CONNECTION_NAMED) && !name_late(&now, c, 1))
        return 1;
    if (!c->owner || c->flags & CONNECTION_HELD) {
        state = selected(&process);
        if (!state && sampled && !c->owner)
            state = released_for(c, &process);
        if (state) {
            c->owner = process;
            c->incarnation = state->incarnation;
        }
    }
    if (still_recorded(c))
        release(c, &now, failing());
    return 1;
}

/* So that a connection has a name and an address even if no other hook runs while it lives. */
SEC("sockops")
int connection_made(struct bpf_sock_ops *ops) {
    struct tcp_now now = {};
    const struct tcp_sock *tcp;
    struct connection *c;
    struct bpf_sock *sk;
    int op = ops->op;

    if (op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
        return 1;
    sk = ops->sk;
    if (!sk)
        return 1;
    tcp = bpf_skc_to_tcp_sock(sk);
    if (!tcp)
        return 1;
    tcp_look(tcp, &now);
    if (now.repair)
        return 1;
    c = bpf_sk_storage_get(&connections, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!c)
        return 1;
    c->sock = (uint64_t)tcp;
    if (!(c->flags & (CONNECTION_NAMED | CONNECTION_REPAIRED)))
        name_from(&now, c, op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB);
    if (c->flags & CONNECTION_NAMED)
        end_begins(c->owner ? c->owner : process_cgroup(made_in((const struct sock *)tcp)), c->local,
                   c->remote, c->flags & CONNECTION_CONNECTOR, c->sock);
    return 1;
}

/* ---- AF_UNIX ---- */

static __always_inline void unix_count(struct unix_end *end, int receive, uint64_t length) {
    uint32_t thread = (uint32_t)bpf_get_current_pid_tgid();

    if (!receive) {
        __sync_fetch_and_add(&end->sent, length);
        return;
    }
    __sync_fetch_and_add(&end->received, length);
    if (end->receiver && end->receiver != thread)
        end->flags |= UNIX_SHARED_RECEIVE;
    end->receiver = thread;
}

/* Bytes, or whole messages. A 0 from a seqpacket is the end of file once the other side is shut down. */
static __always_inline uint64_t unix_length(const struct sock *sk, int result, int receive) {
    if (result < 0) /* a packet that could not be copied is gone */
        return receive && result == -EFAULT && sk->sk_type == SOCK_SEQPACKET;
    if (sk->sk_type == SOCK_STREAM)
        return result;
    return receive && result == 0 && sk->sk_shutdown & RCV_SHUTDOWN ? 0 : 1;
}

/*
 * Who else may be in the midst of a receive from this socket. A system call holds a reference to the file if
 * the table of descriptors is shared, else the table's own does for it. So where there is one reference, and
 * ours, nobody is. More of them may as well be duplicates, or threads that poll or send.
 */
enum company { COMPANY_NONE, COMPANY_PROCESSES, COMPANY_THREADS };

static __always_inline enum company unix_company(struct sock *sk) {
    int several = bpf_get_current_task_btf()->files->count.counter > 1;
    struct socket *socket = sk->sk_socket;
    struct file *file = socket ? socket->file : 0;

    if (file && bpf_core_field_exists(file->f_ref) && file->f_ref.refcnt.counter == several)
        return COMPANY_NONE;
    return several ? COMPANY_THREADS : COMPANY_PROCESSES;
}

/* Less is counted than has left the queue. */
static __always_inline int unix_missing(struct sock *sk, const struct unix_end *end) {
    uint64_t sent = unix_peer_sent(sk);

    return sk->sk_type == SOCK_STREAM && sent > *(volatile uint64_t *)&end->received + unix_queued(sk, sent);
}

/* A barrier, too. */
static __always_inline uint64_t unix_counted(struct unix_end *end) {
    return __sync_fetch_and_add(&end->received, 0);
}

#define DOUBT_NS 1000000000ull

/*
 * Missing bytes were spliced out, which raises no tracepoint, or someone else has taken them and is about to
 * be counted. Whoever took them before `queued` is read and is counted after the last look at `received` has
 * his reference in between: if nobody has one, they were spliced out.
 *
 * Where others hold the file anyway, references tell nothing. Then a process with one thread is told at once:
 * wrong, on the safe side, if two processes of one unit read at the same time. With threads it is told after
 * a second, by when another that never was seen to receive would still have to be in the midst of it
 * (MSG_WAITALL). Once two threads were seen to receive, only the cut tells.
 */
static __always_inline int unix_taken_unseen(struct sock *sk, struct unix_end *end) {
    uint64_t sent = unix_peer_sent(sk), queued, now;
    enum company company;

    if (sent <= unix_counted(end))
        return 0;
    queued = unix_queued(sk, sent);
    if (sent <= unix_counted(end) + queued)
        return 0;
    company = unix_company(sk);
    if (sent <= unix_counted(end) + queued)
        return 0;
    if (company == COMPANY_NONE)
        return 1;
    if (end->flags & UNIX_SHARED_RECEIVE)
        return 0;
    if (company == COMPANY_PROCESSES)
        return 1;
    now = bpf_ktime_get_boot_ns();
    if (!end->doubted)
        end->doubted = now;
    return now - end->doubted > DOUBT_NS;
}

/*
 * As `owned` has it for TCP. But where nobody who is recorded holds the other end, no channel comes of it:
 * whatever a service manager or a test gave them both for standard output.
 */
static __always_inline int unix_owned(struct sock *sk, struct unix_end *end, struct process_state *state,
                                      uint64_t process) {
    uint64_t owner = end->owner;
    struct unix_end *other;

    other = unix_other_end(sk);
    if (!owner && !state->attached && other && other->flags & UNIX_PEER_TOLD) {
        verdict(state, process, RECOVERY_VERDICT_TAKEN_OVER, 0);
        return 0;
    }
    if (!owner || end->flags & UNIX_HELD) {
        __sync_val_compare_and_swap(&end->owner, owner, process);
        end->flags &= ~UNIX_HELD;
        owner = end->owner;
    }
    if (owner == process) {
        end->incarnation = state->incarnation;
        unix_pair_up(sk, end, state);
        unix_peer_used(sk);
        return 1;
    }
    if (!other || other->owner)
        shared(state, process, owner, end->local, end->remote);
    return 0;
}

static __always_inline struct unix_end *unix_used(struct sock *sk, struct process_state *state,
                                                  uint64_t process) {
    struct unix_end *end = unix_end(sk, 0);

    if (!end && is_checkpointer(sk))
        return 0;
    end = unix_end(sk, 1);
    if (!end)
        verdict(state, process, RECOVERY_VERDICT_OTHER_SOCKET, 0);
    else
        uses(state, USES_UNIX);
    return end;
}

static __always_inline void unix_sent(struct sock *sk, int result, struct process_state *state,
                                      uint64_t process) {
    uint64_t length = forget(unix_length(sk, forget(result, process), 0), process);
    struct unix_end *end;
    int left;

    if (!length && !(sk->sk_shutdown & RCV_SHUTDOWN)) {
        /* The other end may have shut down its half, and no state tells that from a shutdown of our own. */
        if (result == -EPIPE)
            verdict(state, process, RECOVERY_VERDICT_OTHER_SOCKET, 0);
        return;
    }
    end = unix_used(sk, state, process);
    if (!end)
        return;
    if (length)
        unix_count(end, 0, length);
    if (!unix_owned(sk, end, state, process))
        return;
    if (result < 0) /* EPIPE, ECONNRESET: it knows that the other end is gone */
        unix_tell_end_received(sk, end);
    left = unix_tell_open(end, unix_open_bit(sk)) | unix_tell_sent(end);
    unix_settle(end, left);
}

static __always_inline void unix_peeked(struct sock *sk, struct unix_end *end, int result,
                                        struct process_state *state) {
    uint64_t length = sk->sk_type == SOCK_STREAM ? (uint32_t)result : 1;

    uses(state, USES_PEEK);
    if (sk->sk_type == SOCK_STREAM && sk->sk_peek_off >= 0)
        length = (uint32_t)sk->sk_peek_off;
    raise(&end->looked, end->received + length);
    if (sk->sk_type == SOCK_SEQPACKET && sk->sk_peek_off >= 0) /* in bytes: any packet that is there */
        raise(&end->looked, unix_peer_sent(sk));
}

static __always_inline void unix_received(struct sock *sk, int result, int flags, struct process_state *state,
                                          uint64_t process) {
    uint64_t length = forget(unix_length(sk, forget(result, process), 1), process);
    struct unix_end *end;
    int left;

    if (!length && !(sk->sk_shutdown & RCV_SHUTDOWN))
        return;
    end = unix_used(sk, state, process);
    if (!end)
        return;
    if (flags & MSG_OOB && length)
        verdict(state, process, RECOVERY_VERDICT_UNIX_OOB, 0);
    if (length && !(flags & MSG_PEEK))
        unix_count(end, 1, length);
    if (!unix_owned(sk, end, state, process))
        return;
    if (length && flags & MSG_PEEK)
        unix_peeked(sk, end, result, state);
    else if (unix_out_of_band(sk))
        raise(&end->looked, end->received + unix_queued(sk, 0));
    left = unix_tell_open(end, unix_open_bit(sk)) | unix_tell_received(end) | unix_tell_seen(end);
    unix_settle(end, left);
    if (result <= 0 && sk->sk_shutdown & RCV_SHUTDOWN)
        unix_tell_end_received(sk, end);
    if (unix_missing(sk, end) && unix_taken_unseen(sk, end))
        verdict(state, process, RECOVERY_VERDICT_OTHER_SOCKET, 0);
}

/* A process that nobody records, on a pair whose other end somebody does. */
static __always_inline void unix_unselected(struct sock *sk, int result, int receive) {
    struct unix_end *end = bpf_sk_storage_get(&unix_ends, sk, 0, 0);
    uint64_t length;

    if (!end)
        return;
    length = unix_length(sk, result, receive);
    if (length)
        unix_count(end, receive, length);
    unix_stranger_has(sk, bpf_get_current_task_btf());
}

/* ---- every socket ---- */

/* Why a socket that is neither TCP nor an AF_UNIX stream can't be followed; 0: netlink and AF_ALG talk to the
 * kernel, not to a process. */
static __always_inline uint32_t unfollowed(uint16_t family, uint16_t protocol) {
    if (family == AF_NETLINK || family == AF_ALG)
        return 0;
    if (family == AF_UNIX)
        return RECOVERY_VERDICT_UNIX_DGRAM;
    if (family == AF_INET || family == AF_INET6) {
        if (protocol == IPPROTO_MPTCP)
            return RECOVERY_VERDICT_MPTCP;
        if (protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE)
            return RECOVERY_VERDICT_UDP;
    }
    return RECOVERY_VERDICT_OTHER_SOCKET;
}

/* Where a connected socket sends to: the words of the address. Returns the port; 0: it is not connected. */
static __always_inline uint32_t udp_peer(const struct sock *sk, struct datagram_address *address) {
    struct end_note note = {};

    note_address(&note, sk);
    for (int i = 0; i < 4; i++)
        address->words[i] = note.address[i];
    return note.port;
}

#define SOCK_BINDPORT_LOCK 8

/* Sends with an address are told by the hooks of the cgroup that made the socket, where it has any. */
static __always_inline void udp_used(struct sock *sk, struct process_state *state, uint64_t process,
                                     int receives) {
    struct sock___local *local = (struct sock___local *)sk;
    struct mailbox *box = bpf_sk_storage_get(&mailboxes, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    struct datagram_address address = {};
    uint32_t port;

    verdict(state, process, RECOVERY_VERDICT_DATAGRAM, 0);
    if (!box) {
        verdict(state, process, RECOVERY_VERDICT_UDP, 0);
        return;
    }
    if (receives) {
        port = BPF_CORE_READ(local, __sk_common.skc_num);
        mailbox_received(box, process, port, 0);
        udp_received(process, port, BPF_CORE_READ_BITFIELD_PROBED(local, sk_userlocks) & SOCK_BINDPORT_LOCK);
        return;
    }
    port = udp_peer(sk, &address);
    if (port)
        udp_sent(process, &address, port, AIMED_CHOSEN | AIMED_ANY);
    else if (!(box->flags & MAILBOX_HOOKED))
        verdict(state, process, RECOVERY_VERDICT_UDP, 0);
}

static __always_inline void other_socket(struct sock *sk, int result, struct process_state *state,
                                         uint64_t process, int receives) {
    uint32_t reason = unfollowed(sk->__sk_common.skc_family, sk->sk_protocol);

    if (result < 0 || !reason || is_kernel_socket(sk))
        return;
    if (reason == RECOVERY_VERDICT_UDP)
        udp_used(sk, state, process, receives);
    else if (reason != RECOVERY_VERDICT_UNIX_DGRAM)
        verdict(state, process, reason, 0);
    else if (receives)
        unix_dgram_received(sk, state, process);
    else
        unix_dgram_sent(sk, state, process);
}

static __always_inline int is_tcp(const struct sock *sk) {
    return sk->sk_protocol == IPPROTO_TCP && sk->sk_type == SOCK_STREAM &&
           (sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6);
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(sock_sent, struct sock *sk, int result, int flags) {
    uint64_t process;
    const struct filter_slot *slot = maybe_selected(&process);
    struct process_state *state;

    if (slot && result > 0 && is_tcp(sk) && tcp_moved(sk, 0, slot, process))
        return 0;
    state = slot ? bpf_map_lookup_elem(&processes, &process) : 0;
    if (!state) {
        if (hooks_floor == FLOOR_NONE && is_unix_pair(sk))
            unix_unselected(sk, result, 0);
        return 0;
    }
    if (left_out())
        return 0;
    result = forget(result, process);
    if (is_tcp(sk))
        tcp_sent(sk, result, state, process);
    else if (is_unix_pair(sk))
        unix_sent(sk, result, state, process);
    else
        other_socket(sk, result, state, process, 0);
    return 0;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_received, struct sock *sk, int result, int flags) {
    uint64_t process;
    const struct filter_slot *slot = maybe_selected(&process);
    struct process_state *state;

    if (slot && result > 0 && !(flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE)) && is_tcp(sk) &&
        tcp_moved(sk, 1, slot, process))
        return 0;
    state = slot ? bpf_map_lookup_elem(&processes, &process) : 0;
    if (!state) {
        if (hooks_floor == FLOOR_NONE && !(flags & MSG_PEEK) && is_unix_pair(sk))
            unix_unselected(sk, result, 1);
        return 0;
    }
    if (flags & MSG_ERRQUEUE || result == -EAGAIN || left_out())
        return 0;
    result = forget(result, process);
    flags = forget(flags, process);
    if (is_tcp(sk))
        tcp_received(sk, result, flags, state, process);
    else if (is_unix_pair(sk))
        unix_received(sk, result, flags, state, process);
    else if (!(flags & MSG_PEEK))
        other_socket(sk, result, state, process, 1);
    return 0;
}

/* A datagram that a recorded process sends with an address. `target`: the socket of this network namespace
 * that has it, for the moment; several that share a port take turns. */
static __always_inline void datagram(struct bpf_sock *sk, struct bpf_sock *target,
                                     const struct datagram_address *address, uint32_t port,
                                     struct process_state *state, uint64_t process) {
    struct mailbox *box = sk ? bpf_sk_storage_get(&mailboxes, sk, 0, BPF_SK_STORAGE_GET_F_CREATE) : 0;

    verdict(state, process, RECOVERY_VERDICT_DATAGRAM, 0);
    if (box)
        __sync_fetch_and_or(&box->flags, MAILBOX_HOOKED);
    box = target ? bpf_sk_storage_get(&mailboxes, target, 0, BPF_SK_STORAGE_GET_F_CREATE) : 0;
    if (box)
        mailbox_sent(box, process, port, 0, address);
    else
        udp_sent(process, address, port, AIMED_CHOSEN);
}

#define IS_LOOPBACK(address) (((address)&bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000))

SEC("cgroup/sendmsg4")
int datagram_sent4(struct bpf_sock_addr *ctx) {
    struct datagram_address words = {{0, 0, bpf_htonl(0xffff), ctx->user_ip4}};
    uint32_t to = ctx->user_ip4, port = ctx->user_port;
    struct bpf_sock_tuple tuple = {};
    uint64_t process;
    struct process_state *state = selected(&process);
    struct bpf_sock *target;

    if (!state)
        return 1;
    tuple.ipv4.saddr = ctx->msg_src_ip4;
    if (!tuple.ipv4.saddr) /* whoever speaks to an address of its own host bears it */
        tuple.ipv4.saddr = IS_LOOPBACK(to) ? bpf_htonl(0x7f000001) : to;
    tuple.ipv4.daddr = to;
    tuple.ipv4.sport = ctx->sk ? bpf_htons(ctx->sk->src_port) : 0;
    tuple.ipv4.dport = port;
    target = bpf_sk_lookup_udp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
    datagram(ctx->sk, target, &words, bpf_ntohs(port), state, process);
    if (target)
        bpf_sk_release(target);
    return 1;
}

SEC("cgroup/sendmsg6")
int datagram_sent6(struct bpf_sock_addr *ctx) {
    struct datagram_address words = {
        {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};
    uint32_t port = ctx->user_port;
    struct bpf_sock_tuple tuple = {};
    uint64_t process;
    struct process_state *state = selected(&process);
    struct bpf_sock *target;

    if (!state)
        return 1;
    for (int i = 0; i < 4; i++) {
        tuple.ipv6.saddr[i] = words.words[i];
        tuple.ipv6.daddr[i] = words.words[i];
    }
    tuple.ipv6.sport = ctx->sk ? bpf_htons(ctx->sk->src_port) : 0;
    tuple.ipv6.dport = port;
    target = bpf_sk_lookup_udp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
    datagram(ctx->sk, target, &words, bpf_ntohs(port), state, process);
    if (target)
        bpf_sk_release(target);
    return 1;
}

/* ---- kernels without the two tracepoints: a call of the process may have moved a socket ---- */

enum call_effect {
    CALL_NONE,
    CALL_MOVES,
    CALL_LOOKS_4,
    CALL_LOOKS_3
}; /* flags in the fourth, third argument */

static __always_inline enum call_effect effect_of(long call) {
    switch (call) {
    case 0 ... 1:     /* read, write */
    case 19 ... 20:   /* readv, writev */
    case 40:          /* sendfile */
    case 42 ... 44:   /* connect, accept, sendto */
    case 46:          /* sendmsg */
    case 48:          /* shutdown */
    case 275 ... 276: /* splice, tee */
    case 288:         /* accept4 */
    case 307:         /* sendmmsg */
    case 426:         /* io_uring_enter */
        return CALL_MOVES;
    case 45:  /* recvfrom */
    case 299: /* recvmmsg */
        return CALL_LOOKS_4;
    case 47: /* recvmsg */
        return CALL_LOOKS_3;
    }
    return CALL_NONE;
}

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct pt_regs___exit {
    unsigned long orig_ax, di, dx, r10;
};
struct inode___call {
    uint16_t i_mode;
};
struct file___call {
    struct inode___call *f_inode;
    void *private_data;
};
struct fdtable___call {
    unsigned int max_fds;
    struct file___call **fd;
};
struct files_struct___call {
    struct fdtable___call *fdt;
};
struct task_struct___call {
    struct files_struct___call *files;
};
#pragma clang attribute pop

#define S_IFMT 0170000
#define S_IFSOCK 0140000

/* The socket behind a descriptor of the current task, by its address: nothing may be written there. */
static __always_inline struct sock *socket_of(uint32_t fd) {
    struct task_struct___call *task = (struct task_struct___call *)bpf_get_current_task();
    struct fdtable___call *table = BPF_CORE_READ(task, files, fdt);
    struct file___call **files = BPF_CORE_READ(table, fd), *file = 0;
    struct socket *socket;

    if (fd >= BPF_CORE_READ(table, max_fds) || bpf_probe_read_kernel(&file, sizeof(file), files + fd) ||
        !file)
        return 0;
    if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
        return 0;
    socket = BPF_CORE_READ(file, private_data);
    return BPF_CORE_READ(socket, sk);
}

/* Made in the process's own cgroup, or one below it, so that its hooks see the connection's beginning and
 * end, however short it is. */
static __always_inline int made_here(struct sock *sk, uint64_t process) {
    return process_cgroup(made_in(sk)) == process;
}

/* Only TCP has positions that a flush can read later. */
static __always_inline void judge_unfollowed(uint32_t fd, struct process_state *state, uint64_t process) {
    struct sock *sk = socket_of(fd);
    uint16_t family, type, protocol;
    uint32_t reason;

    if (!sk)
        return;
    family = BPF_CORE_READ(sk, __sk_common.skc_family);
    type = BPF_CORE_READ(sk, sk_type);
    protocol = BPF_CORE_READ(sk, sk_protocol);
    if ((family == AF_INET || family == AF_INET6) && type == SOCK_STREAM && protocol == IPPROTO_TCP) {
        if (!made_here(sk, process))
            verdict(state, process, RECOVERY_VERDICT_OTHER_SOCKET, 0);
        return;
    }
    reason = family == AF_UNIX && type != SOCK_DGRAM ? RECOVERY_VERDICT_OTHER_SOCKET
                                                     : unfollowed(family, protocol);
    if (reason)
        verdict(state, process, reason, 0);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(call_ended, struct pt_regs___exit *regs, long result) {
    uint64_t process, flags;
    struct process_state *state = selected(&process);
    enum call_effect effect;

    if (!state || result <= 0)
        return 0;
    effect = effect_of(regs->orig_ax);
    if (effect == CALL_NONE)
        return 0;
    flags = effect == CALL_LOOKS_4 ? regs->r10 : effect == CALL_LOOKS_3 ? regs->dx : 0;
    if (flags & (MSG_PEEK | MSG_OOB))
        uses(state, USES_PEEK);
    judge_unfollowed(regs->di, state, process);
    if (!state->moved)
        state->moved = 1;
    return 0;
}

char LICENSE[] SEC("license") = "GPL";
