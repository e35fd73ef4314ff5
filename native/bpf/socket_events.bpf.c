/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Every byte range that a selected process hands to a socket or takes from one.
 *
 *   TCP send       tcp_sendmsg_locked  (socket lock held)  where the bytes of this call begin
 *                  sock_send_length    (call returns)      how many there are: emit
 *   TCP receive    tcp_rcv_space_adjust (socket lock held) emit what copied_seq moved by since the last time
 *   TCP life       inet_sock_set_state, tcp_destroy_sock   names, last offsets
 *   AF_UNIX        sock_send_length, sock_recv_length      count
 *   all others     sock_send_length, sock_recv_length      one RECOVERY_UNMATCHED per process and reason
 *
 * A receive is recorded under the socket lock, before the process sees the bytes: whatever it does because of
 * them has a later record. A send is recorded after the bytes left. Both errors lie on the safe side: a
 * restore point between call and record keeps the receive and undoes the send.
 *
 * RECOVERY_EXACT 0 builds the variant for kernels before 6.16, which have no tcp_sendmsg_locked tracepoint.
 */
#include "connection.bpf.h"
#include "emit.bpf.h"

const volatile uint32_t cgroup_level = 3;
const volatile uint32_t ring_bytes = 16 << 20;

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 65536);
    __type(key, struct restored_key);
    __type(value, struct restored_value);
} restored SEC(".maps");

static __always_inline int is_tcp(const struct sock *sk) {
    return sk->sk_protocol == IPPROTO_TCP && sk->sk_type == SOCK_STREAM &&
           (sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6);
}

static __always_inline int is_kernel_socket(const struct sock *sk) {
    return BPF_CORE_READ_BITFIELD(sk, sk_kern_sock);
}

/* ---- last offsets
 * ------------------------------------------------------------------------------------------ */

static __always_inline void keep_last(struct process_state *state, const struct closed_key *key,
                                      const struct closed_value *value) {
    struct closed_value *old = bpf_map_lookup_elem(&closed, key);

    if (old)
        *old = *value;
    else if (bpf_map_update_elem(&closed, key, value, BPF_ANY))
        state->incomplete = 1;
}

/* May run in a bottom half: the owner is in the storage, not in `current`. */
static __noinline int keep_closed(struct connection *c, uint64_t received) {
    struct closed_key key = {};
    struct closed_value value = {};
    struct process_state *state;

    if (!c)
        return 0;
    key.process = c->owner;
    key.local = c->local;
    key.remote = c->remote;
    value.sent = c->sent_final;
    value.received = received;
    state = bpf_map_lookup_elem(&processes, &key.process);
    if (state)
        keep_last(state, &key, &value);
    return 0;
}

/* Two units of recovery on one end of a channel: it can't say whose bytes are whose, so the second is
 * unmatched. */
static __always_inline int owned(struct connection *c, struct process_state *state, uint64_t process) {
    if (c->owner == process)
        return 1;
    if (!c->owner) {
        c->owner = process;
        if (c->flags & CONNECTION_SENT_FINAL)
            keep_closed(c, c->received);
        return 1;
    }
    unmatched(state, process, RECOVERY_UNMATCHED_OTHER_SOCKET);
    return 0;
}

/* The named connection of a socket, or a report why there is none. */
static __always_inline struct connection *named(const struct sock *sk, struct process_state *state,
                                                uint64_t process) {
    struct connection *c = bpf_sk_storage_get(&connections, (void *)sk, 0, 0);

    if (c && c->flags & CONNECTION_NAMED)
        return owned(c, state, process) ? c : 0;
    if (!is_kernel_socket(sk))
        unmatched(state, process,
                  sk->__sk_common.skc_state == TCP_SYN_SENT ? RECOVERY_UNMATCHED_OTHER_SOCKET
                                                            : RECOVERY_UNMATCHED_OLD_CONNECTION);
    return 0;
}

/* ---- TCP send
 * ---------------------------------------------------------------------------------------------- */

static __always_inline void emit_send(struct process_state *state, uint64_t process,
                                      const struct connection *c, uint64_t begin, uint64_t length,
                                      uint8_t flags) {
    struct range range = {.kind = RECOVERY_SEND, .flags = flags};

    range.local = c->local;
    range.remote = c->remote;
    range.begin = begin;
    range.length = length;
    if (length)
        emit(state, process, &range);
}

#if RECOVERY_EXACT

/* Calls of threads that shared a connection. */
struct {
    __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct sending);
} senders SEC(".maps");

static __always_inline uint64_t current_task(void) {
    return (uint64_t)bpf_get_current_task_btf();
}

/* Where the current thread keeps its call on this connection; `by` is what it writes there. Lock held. */
static __always_inline struct sending *keep_call(const struct sock *sk, struct connection *c, uint64_t *by) {
    *by = current_task();
    if (c->sending.by == *by)
        return &c->sending;
    if (!c->sending.by && !c->crowded)
        return &c->sending;
    c->crowded = 1;
    *by = (uint64_t)sk;
    return bpf_task_storage_get(&senders, bpf_get_current_task_btf(), 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

/* The call that the current thread ends, if its beginning was seen. */
static __always_inline struct sending *find_call(const struct sock *sk, struct connection *c) {
    struct sending *s;

    if (c->sending.by == current_task())
        return &c->sending;
    if (!c->crowded)
        return 0;
    s = bpf_task_storage_get(&senders, bpf_get_current_task_btf(), 0, 0);
    return s && s->by == (uint64_t)sk ? s : 0;
}

/* The lock was dropped while we waited for room and another thread wrote: what we had is a range of its own.
 */
static __always_inline void finish_part(const struct tcp_sock *tcp, const struct connection *c,
                                        struct sending *s, uint64_t done, struct process_state *state,
                                        uint64_t process) {
    s->emitted += done;
    if (c->flags & CONNECTION_NAMED && (!c->owner || c->owner == process))
        emit_send(state, process, c, offset_of_sequence(tcp, c, s->begin), done, 0);
}

/* Before each piece that a send call copies; lock held, so write_seq is where that piece goes. */
SEC("tp_btf/tcp_sendmsg_locked")
int BPF_PROG(tcp_sending, const struct sock *sk, const struct msghdr *msg) {
    uint64_t process, left, by;
    struct process_state *state = selected(&process);
    const struct tcp_sock *tcp;
    struct connection *c;
    struct sending *s;

    if (!state)
        return 0;
    tcp = as_tcp(sk);
    if (tcp->inet_conn.icsk_ulp_ops)
        return 0;
    c = bpf_sk_storage_get(&connections, (void *)sk, 0, 0);
    if (!c)
        return 0; /* no name, and no record */
    s = keep_call(sk, c, &by);
    if (!s)
        return 0;
    left = msg->msg_iter.count;
    if (s->by != by || s->selection != state->selection) {
        s->by = by;
        s->selection = state->selection;
        s->emitted = 0;
    } else if (s->left >= left) {
        uint64_t done = s->left - left;

        if (tcp->write_seq == s->begin + (uint32_t)done)
            return 0;
        if (done)
            finish_part(tcp, c, s, done, state, process);
    }
    s->left = left;
    s->begin = tcp->write_seq;
    return 0;
}

/* The place is given back last: emitting is a barrier between what is read here and whoever claims it next.
 */
static __always_inline void tcp_sent(const struct sock *sk, const struct tcp_sock *tcp, struct connection *c,
                                     int sent, struct process_state *state, uint64_t process) {
    struct sending *s = find_call(sk, c);

    if (s && s->selection == state->selection) {
        emit_send(state, process, c, offset_of_sequence(tcp, c, s->begin), sent - s->emitted, 0);
        s->by = 0;
        return;
    }
    /* The tracepoint was attached while we were inside of the call. */
    emit_send(state, process, c, sent_offset(tcp, c) - sent, sent, RECOVERY_FLAG_NAIVE);
}

static __always_inline void forget_send(const struct sock *sk) {
    struct connection *c = bpf_sk_storage_get(&connections, (void *)sk, 0, 0);
    struct sending *s = c ? find_call(sk, c) : 0;

    if (s)
        s->by = 0;
}

#else

static __always_inline void tcp_sent(const struct sock *sk, const struct tcp_sock *tcp, struct connection *c,
                                     int sent, struct process_state *state, uint64_t process) {
    uint64_t end = c->flags & CONNECTION_SENT_FINAL ? c->sent_final : sent_offset(tcp, c);

    emit_send(state, process, c, end - sent, sent, RECOVERY_FLAG_NAIVE);
}

static __always_inline void forget_send(const struct sock *sk) {}

#endif

static __always_inline void tcp_send_done(const struct sock *sk, int sent, struct process_state *state,
                                          uint64_t process) {
    const struct tcp_sock *tcp = as_tcp(sk);
    struct connection *c;

    if (tcp->inet_conn.icsk_ulp_ops) {
        if (sent > 0)
            unmatched(state, process, RECOVERY_UNMATCHED_KTLS);
        forget_send(sk);
        return;
    }
    if (sent <= 0) {
        forget_send(sk);
        return;
    }
    c = named(sk, state, process);
    if (!c || (c->flags & CONNECTION_RESTORED && BPF_CORE_READ_BITFIELD(tcp, repair))) {
        forget_send(sk);
        return;
    }
    if (c->flags & CONNECTION_FAST_OPEN)
        unmatched(state, process, RECOVERY_UNMATCHED_OTHER_SOCKET);
    tcp_sent(sk, tcp, c, sent, state, process);
}

/* ---- TCP receive
 * ------------------------------------------------------------------------------------------- */

#define MAX_RANGE_BYTES 0xffffffffull
#define MAX_RANGES 8 /* a run; the next run records what is left */

static __always_inline void emit_receive(struct process_state *state, uint64_t process, struct connection *c,
                                         uint64_t end) {
    struct range range = {.kind = RECOVERY_RECEIVE};

    range.local = c->local;
    range.remote = c->remote;
    for (int i = 0; i < MAX_RANGES && c->received < end; i++) {
        uint64_t length = end - c->received;

        if (length > MAX_RANGE_BYTES)
            length = MAX_RANGE_BYTES;
        range.begin = c->received;
        range.length = length;
        c->received += length;
        emit(state, process, &range);
    }
}

/*
 * After each piece that any kind of receive (recv, read, splice, zero-copy) takes; lock held. A peek leaves
 * copied_seq where it was. What was received before the process was selected is part of the first range.
 */
SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(tcp_receiving, struct sock *sk) {
    uint64_t process, end;
    struct process_state *state = selected(&process);
    const struct tcp_sock *tcp;
    struct connection *c;

    if (!state)
        return 0;
    tcp = as_tcp(sk);
    if (tcp->inet_conn.icsk_ulp_ops)
        return 0;
    c = named(sk, state, process);
    if (!c)
        return 0;
    end = received_offset(tcp, c);
    if (end <= c->received)
        return 0;
    emit_receive(state, process, c, end);
    if (c->flags & CONNECTION_SENT_FINAL)
        keep_closed(c, end);
    return 0;
}

/* ---- TCP names and last offsets
 * ---------------------------------------------------------------------------- */

/*
 * Names: the initial sequence number of each end, at the moment the connection is established.
 *   local    bytes_acked counts the SYN on the active side, so snd_una - bytes_acked is the SYN itself; on
 * the passive side the child began with snd_una one past it. remote   rcv_nxt - bytes_received is one past
 * the SYN on both sides (fast open may have delivered data already).
 */
static __always_inline void name_connection(const struct tcp_sock *tcp, struct connection *c, int from) {
    uint32_t una = tcp->snd_una - (uint32_t)tcp->bytes_acked;

    if (!(c->flags & CONNECTION_CROSSED))
        c->local = from == TCP_SYN_SENT ? una : una - 1;
    c->remote = tcp->rcv_nxt - (uint32_t)tcp->bytes_received - 1;
    c->flags = CONNECTION_NAMED;
    if (from == TCP_SYN_SENT && tcp->write_seq != c->local + 1)
        c->flags |= CONNECTION_FAST_OPEN;
    c->received = 0;
    c->sent_base = 0;
    c->received_base = 0;
}

/* TCP_REPAIR sets sequence numbers and goes straight to ESTABLISHED: the old names were announced by the
 * restorer. */
static __always_inline void name_restored(const struct tcp_sock *tcp, struct connection *c) {
    struct restored_key key = {.write_seq = tcp->write_seq, .rcv_nxt = tcp->rcv_nxt};
    struct restored_value *old = bpf_map_lookup_elem(&restored, &key);

    c->flags = 0;
    if (!old)
        return;
    c->local = old->local;
    c->remote = old->remote;
    c->sent_base = old->sent;
    c->received_base = old->received;
    c->received = old->received;
    c->flags = CONNECTION_NAMED | CONNECTION_RESTORED;
    bpf_map_delete_elem(&restored, &key);
}

static __always_inline void established(const struct sock *sk, const struct tcp_sock *tcp, int from) {
    struct connection *c = bpf_sk_storage_get(&connections, (void *)sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

    if (!c)
        return; /* no memory: events will report an old connection */
    if (BPF_CORE_READ_BITFIELD(tcp, repair))
        name_restored(tcp, c);
    else
        name_connection(tcp, c, from);
}

/* connect(): in process context, so the owner of a connection that never carries a byte is known too. */
static __always_inline void connecting(const struct sock *sk) {
    struct connection fresh = {};
    struct connection *c = bpf_sk_storage_get(&connections, (void *)sk, 0, 0);

    if (c)
        *c = fresh; /* a second life after disconnect */
    if (!selected(&fresh.owner))
        return;
    if (!c)
        c = bpf_sk_storage_get(&connections, (void *)sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (c)
        c->owner = fresh.owner;
}

static __always_inline void crossed(const struct sock *sk, const struct tcp_sock *tcp) {
    struct connection *c = bpf_sk_storage_get(&connections, (void *)sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

    if (!c)
        return;
    c->local = tcp->snd_una;
    c->flags = CONNECTION_CROSSED;
}

/* The last moment at which write_seq is the end of data: no FIN yet, and disconnect has not scrambled it. */
static __always_inline void no_more_sends(const struct sock *sk, const struct tcp_sock *tcp, int to) {
    struct connection *c = bpf_sk_storage_get(&connections, (void *)sk, 0, 0);
    uint64_t process;

    if (!c || !(c->flags & CONNECTION_NAMED))
        return;
    /* Only close and shutdown lead to these two: we are in the process. CLOSE may come from anywhere. */
    if (!c->owner && to != TCP_CLOSE && selected(&process))
        c->owner = process;
    if (!(c->flags & CONNECTION_SENT_FINAL)) {
        c->sent_final = sent_offset(tcp, c);
        c->flags |= CONNECTION_SENT_FINAL;
    }
    if (c->owner)
        keep_closed(c, received_offset(tcp, c));
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_state, const struct sock *sk, int from, int to) {
    const struct tcp_sock *tcp = bpf_skc_to_tcp_sock((void *)sk);

    if (!tcp)
        return 0;
    /* What a kernel listener accepts may become a program's: that of MPTCP does so when a peer speaks plain
     * TCP. */
    if (to == TCP_ESTABLISHED)
        established(sk, tcp, from);
    else if (is_kernel_socket(sk))
        return 0;
    else if (to == TCP_SYN_SENT)
        connecting(sk);
    else if (to == TCP_SYN_RECV && from == TCP_SYN_SENT)
        crossed(sk, tcp);
    else if (to == TCP_FIN_WAIT1 || to == TCP_LAST_ACK || to == TCP_CLOSE)
        no_more_sends(sk, tcp, to);
    return 0;
}

/* Every way here leads through a state above. If that was missed (recursion), say so instead of guessing. */
SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(tcp_destroyed, struct sock *sk) {
    struct connection *c = bpf_sk_storage_get(&connections, sk, 0, 0);
    struct process_state *state;
    uint64_t process;

    if (!c || !c->owner || !(c->flags & CONNECTION_NAMED) || c->flags & CONNECTION_SENT_FINAL)
        return 0;
    process = c->owner;
    state = bpf_map_lookup_elem(&processes, &process);
    if (state)
        state->incomplete = 1;
    return 0;
}

/* ---- AF_UNIX
 * ----------------------------------------------------------------------------------------------- */

/* Two that make it at the same moment: the helper gives nothing to the second of them. */
static __always_inline struct unix_end *unix_storage(struct sock *sk) {
    struct unix_end *end = bpf_sk_storage_get(&unix_ends, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

    return end ? end : bpf_sk_storage_get(&unix_ends, sk, 0, 0);
}

/* Whoever finds an end without its names, as another is about to write them, writes the same. */
static __always_inline struct unix_end *unix_end(struct sock *sk, uint64_t create) {
    struct unix_end *end = bpf_sk_storage_get(&unix_ends, sk, 0, 0);
    struct unix_sock *unix;
    struct unix_end *other;
    struct sock *peer;

    if (end ? unix_named(end) : !create)
        return end;
    unix = bpf_skc_to_unix_sock(sk);
    if (!unix)
        return 0;
    peer = unix->peer;
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
    }
    return end;
}

/*
 * While CRIU dumps a process it runs code of its own inside, which speaks over a seqpacket pair whose other
 * end is named \0/crtools-pr-…: that is no message of the process, and no image holds it.
 */
static __always_inline int is_checkpointer(struct sock *sk) {
    static const char prefix[12] = "\0/crtools-pr";
    struct unix_sock *unix = bpf_skc_to_unix_sock(sk);
    struct sock *peer = unix ? unix->peer : 0;
    struct unix_sock *other = peer ? bpf_skc_to_unix_sock(peer) : 0;
    struct unix_address *address = other ? other->addr : 0;
    char name[sizeof(prefix)] = {};

    if (!address || sk->sk_type != SOCK_SEQPACKET)
        return 0;
    if (bpf_core_read(name, sizeof(name), &address->name[0].sun_path))
        return 0;
    for (unsigned i = 0; i < sizeof(prefix); i++)
        if (name[i] != prefix[i])
            return 0;
    return 1;
}

struct unix_step {
    uint64_t begin, length;
    uint8_t flags;
};

static __always_inline void unix_count(struct unix_end *end, int receive, struct unix_step *step) {
    uint32_t thread = (uint32_t)bpf_get_current_pid_tgid();

    step->flags = RECOVERY_FLAG_UNIX;
    if (receive) {
        step->begin = __sync_fetch_and_add(&end->received, step->length);
        if (end->receiver && end->receiver != thread)
            end->shared_receive = 1;
        end->receiver = thread;
        if (end->shared_receive)
            step->flags |= RECOVERY_FLAG_NAIVE;
    } else {
        step->begin = __sync_fetch_and_add(&end->sent, step->length);
        if (end->sender && end->sender != thread)
            end->shared_send = 1;
        end->sender = thread;
        if (end->shared_send)
            step->flags |= RECOVERY_FLAG_NAIVE;
    }
}

/* Bytes, or whole messages. A 0 from a seqpacket is the end of file once the other side is shut down. */
static __always_inline uint64_t unix_length(const struct sock *sk, int result, int receive) {
    if (result < 0)
        return 0;
    if (sk->sk_type == SOCK_STREAM)
        return result;
    return receive && result == 0 && sk->sk_shutdown & RCV_SHUTDOWN ? 0 : 1;
}

static __always_inline void unix_keep(struct unix_end *end, struct process_state *state, uint64_t process) {
    struct closed_key key = {.process = process, .flags = RECOVERY_FLAG_UNIX};
    struct closed_value value = {};

    key.local = end->local;
    key.remote = end->remote;
    value.sent = end->sent;
    value.received = end->received;
    keep_last(state, &key, &value);
}

/*
 * Who else may be in the midst of a receive from this socket. A system call holds a reference to the file if
 * the table of descriptors is shared, else the table's own does for it. So where there is one reference, and
 * ours, nobody is. More of them may as well be duplicates, or threads that poll or send.
 */
enum company { COMPANY_NONE, COMPANY_PROCESSES, COMPANY_THREADS };

static __always_inline enum company unix_company(struct sock *sk) {
    int shared = bpf_get_current_task_btf()->files->count.counter > 1;
    struct socket *socket = sk->sk_socket;
    struct file *file = socket ? socket->file : 0;

    if (file && bpf_core_field_exists(file->f_ref) && file->f_ref.refcnt.counter == shared)
        return COMPANY_NONE;
    return shared ? COMPANY_THREADS : COMPANY_PROCESSES;
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
 * (MSG_WAITALL). Once two threads were seen to receive, only the cut tells (CUT_UNSEEN).
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
    if (end->shared_receive)
        return 0;
    if (company == COMPANY_PROCESSES)
        return 1;
    now = bpf_ktime_get_boot_ns();
    if (!end->doubted)
        end->doubted = now;
    return now - end->doubted > DOUBT_NS;
}

/*
 * Two units of recovery on one end, as `owned` has it for TCP. But where nobody who is recorded holds the
 * other end, no channel comes of it: whatever a service manager or a test gave them both for standard output.
 */
static __always_inline void unix_shared(struct sock *sk, struct process_state *state, uint64_t process) {
    struct unix_end *other = unix_other_end(sk);

    if (!other || other->owner)
        unmatched(state, process, RECOVERY_UNMATCHED_OTHER_SOCKET);
}

static __always_inline void unix_done(struct sock *sk, int result, int receive, struct process_state *state,
                                      uint64_t process) {
    struct unix_step step = {.length = unix_length(sk, result, receive)};
    struct range range = {.kind = receive ? RECOVERY_RECEIVE : RECOVERY_SEND};
    struct unix_end *end;

    if (!step.length)
        return;
    end = unix_end(sk, 0);
    if (!end && is_checkpointer(sk))
        return;
    end = unix_end(sk, 1);
    if (!end) {
        unmatched(state, process, RECOVERY_UNMATCHED_OTHER_SOCKET);
        return;
    }
    unix_count(end, receive, &step);
    if (!end->owner)
        end->owner = process;
    if (end->owner != process) {
        unix_shared(sk, state, process);
        return;
    }
    range.flags = step.flags;
    range.local = end->local;
    range.remote = end->remote;
    range.begin = step.begin;
    range.length = step.length;
    emit(state, process, &range);
    unix_keep(end, state, process);
    if (receive && unix_missing(sk, end) && unix_taken_unseen(sk, end))
        unmatched(state, process, RECOVERY_UNMATCHED_OTHER_SOCKET);
}

/* A process that nobody records, on a pair whose other end somebody does. */
static __always_inline void unix_unselected(struct sock *sk, int result, int receive) {
    struct unix_step step = {};
    struct unix_end *end = bpf_sk_storage_get(&unix_ends, sk, 0, 0);

    if (!end)
        return;
    step.length = unix_length(sk, result, receive);
    if (step.length)
        unix_count(end, receive, &step);
}

/* ---- every socket
 * ------------------------------------------------------------------------------------------ */

/* What is neither TCP nor an AF_UNIX stream. Netlink and AF_ALG talk to the kernel, not to a process. */
static __always_inline void other_socket(const struct sock *sk, int result, struct process_state *state,
                                         uint64_t process) {
    uint16_t family = sk->__sk_common.skc_family, protocol = sk->sk_protocol;
    uint32_t reason = RECOVERY_UNMATCHED_OTHER_SOCKET;

    if (result < 0 || family == AF_NETLINK || family == AF_ALG || is_kernel_socket(sk))
        return;
    if (family == AF_UNIX)
        reason = RECOVERY_UNMATCHED_UNIX_DGRAM;
    else if (family == AF_INET || family == AF_INET6) {
        if (protocol == IPPROTO_MPTCP)
            reason = RECOVERY_UNMATCHED_MPTCP;
        else if (protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE)
            reason = RECOVERY_UNMATCHED_UDP;
    }
    unmatched(state, process, reason);
}

static __always_inline int is_unix_pair(const struct sock *sk) {
    return sk->__sk_common.skc_family == AF_UNIX &&
           (sk->sk_type == SOCK_STREAM || sk->sk_type == SOCK_SEQPACKET);
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(sock_sent, struct sock *sk, int result, int flags) {
    uint64_t process;
    struct process_state *state;

    state = selected(&process);
    if (is_unix_pair(sk)) {
        if (state)
            unix_done(sk, result, 0, state, process);
        else
            unix_unselected(sk, result, 0);
    } else if (state) {
        if (is_tcp(sk))
            tcp_send_done(sk, result, state, process);
        else
            other_socket(sk, result, state, process);
    }
    return 0;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_received, struct sock *sk, int result, int flags) {
    uint64_t process;
    struct process_state *state;

    if (flags & MSG_PEEK)
        return 0;
    if (is_tcp(sk)) {
        if (result <= 0 || !as_tcp(sk)->inet_conn.icsk_ulp_ops)
            return 0; /* tcp_receiving has it */
        state = selected(&process);
        if (state)
            unmatched(state, process, RECOVERY_UNMATCHED_KTLS);
        return 0;
    }
    state = selected(&process);
    if (is_unix_pair(sk)) {
        if (state)
            unix_done(sk, result, 1, state, process);
        else
            unix_unselected(sk, result, 1);
    } else if (state) {
        other_socket(sk, result, state, process);
    }
    return 0;
}

/* Reads and clears in one step what user space could only do in two. */
SEC("syscall")
int take_lost(struct take_lost_args *args) {
    uint64_t process = args->process;
    struct process_state *state = bpf_map_lookup_elem(&processes, &process);

    args->lost = state ? __sync_lock_test_and_set(&state->lost, 0) : 0;
    return 0;
}

char LICENSE[] SEC("license") = "GPL";
