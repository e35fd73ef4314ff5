/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Where connections stand at one instant, read from the kernel's own socket state: no event is needed, none
 * can spoil them. Whatever no record tells yet is told on the way (emit.bpf.h), then a cut_record is printed.
 *
 *   cut_files     the sockets behind the descriptors of one process (link parameter: pid, where the kernel
 * takes one, else in the request) cut_tcp       every TCP socket of the reader's network namespace
 * (SOCKETS_TABLES) cut_unix      every AF_UNIX socket of it cut_stored_tcp, cut_stored_unix   the same by our
 * own storage: all namespaces at once (SOCKETS_STORAGE)
 *
 * The latter also find what no descriptor shows: in flight in a unix socket, registered with io_uring.
 */
#include "tcp.bpf.h"
#include "unix.bpf.h"
#include "unix_peer.bpf.h"
#include "datagram.bpf.h"

static __always_inline struct process_state *recorded(uint64_t process, uint32_t incarnation) {
    struct process_state *state = process ? bpf_map_lookup_elem(&processes, &process) : 0;

    return state && state->incarnation == incarnation ? state : 0;
}

static __always_inline struct iterator_request *asked(void) {
    uint32_t zero = 0;

    return bpf_map_lookup_elem(&request, &zero);
}

static __always_inline void print(struct bpf_iter_meta *meta, struct cut_record *out) {
    bpf_seq_write(meta->seq, out, sizeof(*out));
}

/* ---- TCP ---- */

static __always_inline void read_tcp(struct connection *c, const struct tcp_now *now,
                                     struct cut_record *out) {
    out->process = c->owner;
    out->local = c->local;
    out->remote = c->remote;
    if (c->flags & CONNECTION_HELD)
        out->cut_flags |= CUT_HELD;
    struct process_state *state = recorded(c->owner, c->incarnation);

    if (state && sampled &&
        state->uses & USES_PEEK) /* it has looked somewhere: all that has arrived counts */
        raise(&c->looked, received_offset(now, c) + queued(now));
    if (state && catch_up(c, now))
        out->cut_flags |= CUT_PENDING;
    out->sent = sent_offset(now, c);
    out->received = received_offset(now, c);
    out->seen = c->looked > out->received ? c->looked : out->received;
    out->told = c->told;
    if (now->state == TCP_CLOSE)
        return;
    uint64_t acknowledged = offset_of_sequence(now, c, now->snd_una);

    if (out->sent > acknowledged) /* else the FIN is acknowledged as well */
        out->unacknowledged = out->sent - acknowledged;
    out->queued = queued(now);
}

/* Returns 1 if there is something to print. */
static __always_inline int read_stored(struct connection *c, const struct tcp_sock *tcp, int locked,
                                       struct cut_record *out) {
    struct tcp_now now = {};

    if (!c->owner || c->flags & CONNECTION_RELEASED)
        return 0;
    tcp_look(tcp, &now);
    if (now.repair || (!(c->flags & CONNECTION_NAMED) && !name_late(&now, c, locked)))
        return 0;
    if (!now.descriptor && recorded(c->owner, c->incarnation)) { /* closed, and nothing told of it */
        release(c, &now, 0);
        return 0;
    }
    out->sock = c->sock;
    read_tcp(c, &now, out);
    return 1;
}

static __always_inline int was_strange(struct connection *c, const struct tcp_now *now,
                                       struct process_state *state, uint64_t process) {
    if (state->attached || (!(c->flags & CONNECTION_NAMED) && !name_late(now, c, 0)))
        return 0;
    if (!end_was_strange(c->local, c->remote))
        return 0;
    verdict(state, process, RECOVERY_VERDICT_TAKEN_OVER, 0);
    return 1;
}

static __always_inline int unnamed(const struct sock *sk, uint64_t process, struct cut_record *out) {
    out->process = process;
    out->sock = (uint64_t)sk;
    out->cut_flags = CUT_UNNAMED;
    return 1;
}

static __always_inline int read_held(struct sock *sk, const struct tcp_sock *tcp, struct cut_record *out) {
    struct connection *c = bpf_sk_storage_get(&connections, sk, 0, 0);
    struct iterator_request *request = asked();
    struct process_state *state;
    struct tcp_now now = {};

    tcp_look(tcp, &now);
    if (now.repair || now.ulp)
        return 0;
    if (!c && has_numbers(&now))
        c = bpf_sk_storage_get(&connections, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!c) /* another makes it this very moment, or there is no memory: the cut lacks it, and says so */
        return request && has_numbers(&now) ? unnamed(sk, request->process, out) : 0;
    c->sock = (uint64_t)sk;
    state = request ? bpf_map_lookup_elem(&processes, &request->process) : 0;
    if (state && !c->owner && !was_strange(c, &now, state, request->process) &&
        __sync_val_compare_and_swap(&c->owner, 0, request->process) == 0)
        c->flags |= CONNECTION_HELD; /* accepted, and not used yet */
    if (state && c->owner == request->process)
        c->incarnation = state->incarnation;
    if (state && c->flags & CONNECTION_REPAIRED && !(c->flags & CONNECTION_NAMED))
        verdict(state, request->process, RECOVERY_VERDICT_OLD_CONNECTION, 0);
    if (!(c->flags & CONNECTION_NAMED) && !name_late(&now, c, 0))
        return has_numbers(&now) ? unnamed(sk, c->owner, out) : 0;
    if (c->owner)
        end_begins(c->owner, c->local, c->remote, c->flags & CONNECTION_CONNECTOR, c->sock);
    read_tcp(c, &now, out);
    return 1;
}

/* ---- AF_UNIX ---- */

/* sent = received + queued holds for what is counted, too. An end that stands still may be behind, never
 * ahead: a run was left out, or bytes were spliced out, or passed over as out of band. */
static __always_inline void correct(struct sock *sk, struct unix_end *end) {
    struct iterator_request *request = asked();
    uint64_t sent, received, queue;
    struct unix_end *other;
    struct sock *peer;

    if (!request || !request->frozen || end->owner != request->process || sk->sk_type != SOCK_STREAM)
        return;
    sent = unix_peer_sent(sk);
    queue = unix_queued(sk, sent);
    if (sent > queue)
        raise(&end->received, sent - queue);
    peer = unix_peer(sk);
    other = peer ? bpf_sk_storage_get(&unix_ends, peer, 0, 0) : 0;
    if (!other)
        return;
    received = *(volatile uint64_t *)&other->received;
    raise(&end->sent, received + unix_queued(peer, 0));
}

/* In a listener's queue, or closed without a use. */
static __always_inline int unix_only_lent(const struct sock *sk, const struct unix_end *end) {
    return end->flags & UNIX_HELD && !sk->sk_socket;
}

static __always_inline void read_unix(struct sock *sk, struct unix_end *end, struct cut_record *out) {
    correct(sk, end);
    out->flags = RECOVERY_FLAG_UNIX;
    out->process = end->owner;
    out->local = end->local;
    out->remote = end->remote;
    if (end->flags & UNIX_HELD)
        out->cut_flags |= CUT_HELD;
    unix_pair_found(end);
    if (recorded(end->owner, end->incarnation) &&
        (unix_catch_up(sk, end) | unix_foreign(unix_opened(sk), end, unix_other_end(sk)) |
         unix_stranger_carries(sk, end)))
        out->cut_flags |= CUT_PENDING;
    out->sent = end->sent;
    out->received = end->received;
    out->seen = end->looked > end->received ? end->looked : end->received;
    out->told = end->told;
    if (sk->sk_type == SOCK_STREAM)
        out->queued = unix_queued(sk, 0);
}

static __always_inline int unix_was_strange(struct sock *sk, const struct process_state *state) {
    struct unix_end *other = unix_other_end(sk);

    return !state->attached && other && other->flags & UNIX_PEER_TOLD;
}

/* What it has sent waits at the other end, and no recorded call has sent it: an image brought it back. Whoever
 * holds the end owns it from now on, so that the bytes are sent before they are received. */
static __always_inline int unix_brought_back(struct sock *sk) {
    struct iterator_request *request = asked();
    struct sock *peer = unix_peer(sk);

    return request && request->frozen && sk->sk_type == SOCK_STREAM && peer && unix_queued(peer, 0);
}

static __always_inline int read_unix_held(struct sock *sk, struct cut_record *out) {
    struct unix_end *end = bpf_sk_storage_get(&unix_ends, sk, 0, 0);
    struct iterator_request *request = asked();
    uint32_t open = unix_open_bit(sk);
    struct process_state *state;
    struct sock *peer;

    if (!end && is_checkpointer(sk))
        return 0;
    if ((open || unix_brought_back(sk)) && !(end && unix_named(end)))
        end = unix_end(sk, 1);
    if (end && unix_named(end)) {
        state = request ? bpf_map_lookup_elem(&processes, &request->process) : 0;
        if (state && open && !end->owner && !unix_was_strange(sk, state) &&
            __sync_val_compare_and_swap(&end->owner, 0, request->process) == 0)
            end->flags |= UNIX_HELD; /* connected or accepted, and not used yet */
        if (state && !open && !end->owner && !unix_was_strange(sk, state) && unix_brought_back(sk))
            __sync_val_compare_and_swap(&end->owner, 0, request->process);
        if (state && end->owner == request->process)
            end->incarnation = state->incarnation;
        read_unix(sk, end, out);
        return 1;
    }
    peer = unix_peer(sk); /* nobody has counted anything */
    if (!peer)
        return 0;
    out->flags = RECOVERY_FLAG_UNIX;
    out->local = bpf_get_socket_cookie(sk);
    out->remote = bpf_get_socket_cookie(peer);
    return 1;
}

/* ---- the walks ---- */

/* First: kernels refuse these, and programs are loaded in this order until one is refused. */

SEC("iter/bpf_sk_storage_map")
int cut_stored_tcp(struct bpf_iter__bpf_sk_storage_map *ctx) {
    struct cut_record record = {};
    struct connection *c = ctx->value;
    struct sock *sk = ctx->sk;
    const struct tcp_sock *tcp;

    if (!c || !sk)
        return 0;
    tcp = bpf_skc_to_tcp_sock(sk);
    if (tcp && read_stored(c, tcp, 0, &record))
        print(ctx->meta, &record);
    return 0;
}

SEC("iter/bpf_sk_storage_map")
int cut_stored_unix(struct bpf_iter__bpf_sk_storage_map *ctx) {
    struct cut_record record = {};
    struct unix_end *end = ctx->value;
    struct sock *sk = ctx->sk;

    if (!end || !sk || !end->owner || !unix_named(end) || unix_only_lent(sk, end))
        return 0;
    read_unix(sk, end, &record);
    print(ctx->meta, &record);
    return 0;
}

SEC("iter/task_file")
int cut_files(struct bpf_iter__task_file *ctx) {
    struct iterator_request *request = asked();
    struct task_struct *task = ctx->task;
    struct cut_record record = {};
    struct file *file = ctx->file;
    const struct tcp_sock *tcp;
    struct socket *socket;
    struct sock *sk;

    if (!file || !task || !request || (request->tgid && task->tgid != request->tgid))
        return 0;
    socket = bpf_sock_from_file(file);
    if (!socket)
        return 0;
    sk = socket->sk;
    if (!sk)
        return 0;
    tcp = bpf_skc_to_tcp_sock(sk);
    if (tcp) {
        if (read_held(sk, tcp, &record))
            print(ctx->meta, &record);
    } else if (is_unix_pair(sk)) {
        if (read_unix_held(sk, &record))
            print(ctx->meta, &record);
    }
    return 0;
}

SEC("iter/tcp")
int cut_tcp(struct bpf_iter__tcp *ctx) {
    struct sock_common *common = ctx->sk_common;
    struct cut_record record = {};
    struct tcp_sock *tcp;
    struct connection *c;

    if (!common)
        return 0;
    tcp = bpf_skc_to_tcp_sock(common);
    if (!tcp)
        return 0;
    c = bpf_sk_storage_get(&connections, (struct sock *)tcp, 0, 0);
    if (c && read_stored(c, tcp, 1, &record)) /* this walk locks each socket */
        print(ctx->meta, &record);
    return 0;
}

SEC("iter/unix")
int cut_unix(struct bpf_iter__unix *ctx) {
    struct cut_record record = {};
    struct sock *sk = (struct sock *)ctx->unix_sk;
    struct unix_end *end;

    if (!sk)
        return 0;
    end = bpf_sk_storage_get(&unix_ends, sk, 0, 0);
    if (!end || !end->owner || !unix_named(end) || unix_only_lent(sk, end))
        return 0;
    read_unix(sk, end, &record);
    print(ctx->meta, &record);
    return 0;
}

/* ---- closed ends that had found no room ---- */

static __always_inline int push_range(uint64_t *mark, uint64_t end, uint8_t kind,
                                      const struct closed_key *key) {
    struct range range = {.kind = kind, .flags = key->flags, .local = key->local, .remote = key->remote};
    struct holder holder = {.process = key->process, .incarnation = key->incarnation};

    return advance(mark, end, &holder, &range);
}

static __always_inline int push_unit(struct closed_value *rest, uint32_t bit, uint8_t kind, uint8_t flags,
                                     const struct closed_key *key) {
    struct range range = {
        .kind = kind, .flags = key->flags | flags, .local = key->local, .remote = key->remote, .length = 1};

    if (!(rest->untold & bit))
        return 0;
    if (!put_record(&ring, ring_bytes, cpu_counters(), key->process, key->incarnation, &range))
        return 1;
    rest->untold &= ~bit;
    return 0;
}

SEC("syscall")
int push_closed(struct push_closed_args *args) {
    struct closed_key key = args->key;
    struct closed_value *rest = bpf_map_lookup_elem(&closed, &key);
    int left;

    if (!rest)
        return 0;
    left = push_unit(rest, CAPTURE_OPEN_SENT, RECOVERY_SEND, RECOVERY_FLAG_OPEN, &key);
    left |= push_unit(rest, CAPTURE_OPEN_RECEIVED, RECOVERY_RECEIVE, RECOVERY_FLAG_OPEN, &key);
    left |= push_range(&rest->sent_mark, rest->sent, RECOVERY_SEND, &key);
    left |= push_range(&rest->received_mark, rest->received, RECOVERY_RECEIVE, &key);
    if (rest->seen > rest->received)
        left |= push_range(&rest->seen_mark, rest->seen, RECOVERY_PEEK, &key);
    left |= push_unit(rest, CAPTURE_END_RECEIVED, RECOVERY_RECEIVE, RECOVERY_FLAG_END, &key);
    left |= push_unit(rest, CAPTURE_END_SENT, RECOVERY_SEND, RECOVERY_FLAG_END | rest->failing, &key);
    args->pending = left;
    if (!left)
        unspill(&key);
    return 0;
}

/* ---- who is at the other end ---- */

/* All descriptors of the host: a stranger may be in any network namespace. Its numbers may move while they
 * are read, and which side it is does not matter: a wrong name is nobody's. */
SEC("iter/task_file")
int find_peers(struct bpf_iter__task_file *ctx) {
    struct connection *c, connector = {}, acceptor = {};
    struct task_struct *task = ctx->task;
    struct file *file = ctx->file;
    const struct tcp_sock *tcp;
    struct socket *socket;
    struct tcp_now now = {};
    struct sock *sk;

    if (!file || !task)
        return 0;
    socket = bpf_sock_from_file(file);
    sk = socket ? socket->sk : 0;
    if (!sk)
        return 0;
    if (is_unix_pair(sk)) {
        unix_stranger_has(sk, task);
        return 0;
    }
    tcp = bpf_skc_to_tcp_sock(sk);
    if (!tcp)
        return 0;
    c = bpf_sk_storage_get(&connections, sk, 0, 0);
    tcp_look(tcp, &now);
    if (c || now.repair || !has_numbers(&now))
        return 0;
    name_from(&now, &connector, 1);
    if (stranger_has(sk, task, connector.local, connector.remote, 0))
        return 0;
    name_from(&now, &acceptor, 0);
    stranger_has(sk, task, acceptor.local, acceptor.remote, 0);
    return 0;
}

/* Nobody was found. Whoever closes it later on this host is told all the same. */
static __always_inline long push_unknown(struct end_key *name, struct end_note *note,
                                         struct push_ends_args *args) {
    if (!(note->flags & END_DOUBTED) && (end_put(name, note, 1) || end_put(name, note, 0))) {
        args->pending = 1;
        return 0;
    }
    note->flags |= END_DOUBTED;
    if (note->flags & END_GONE)
        end_drop(name, note->payer);
    return 0;
}

static long push_note(struct bpf_map *map, const struct end_key *key, struct end_note *note,
                      struct push_ends_args *args) {
    struct end_key name = *key;

    if (args->forget) {
        if (note->process == args->forget || note->payer == args->forget)
            end_drop(&name, note->payer);
        return 0;
    }
    if (note->flags & END_KNOWN) {
        if (end_tell(&name, note))
            args->pending = 1;
        else if (note->flags & END_GONE)
            end_drop(&name, note->payer);
        return 0;
    }
    if (!args->sought) {
        if (note->sought >= MAX_SOUGHT && !(note->flags & (END_DOUBTED | END_GONE)))
            return push_unknown(&name, note, args); /* data has passed since */
        if (!(note->flags & END_DOUBTED) || note->flags & END_GONE)
            args->unknown++;
        return 0;
    }
    note->sought++;
    if (note->sought < MAX_SOUGHT && !(note->flags & END_GONE && note->walk < args->walk)) {
        args->unknown++;
        return 0;
    }
    return push_unknown(&name, note, args);
}

/* ---- datagrams of a process that is recorded no longer ---- */

struct forgetting {
    uint64_t process, parent;
    uint32_t neighbours;
};

static long forget_datagram(struct bpf_map *map, const struct datagram_key *key, uint32_t *value,
                            struct forgetting *whom) {
    struct datagram_key name = *key;

    if (name.process == whom->process || (!whom->neighbours && name.process == whom->parent))
        bpf_map_delete_elem(&datagrams, &name);
    return 0;
}

static long count_neighbour(struct bpf_map *map, const uint64_t *key, struct process_state *state,
                            struct forgetting *whom) {
    if (*key != whom->process && state->parent == whom->parent)
        whom->neighbours = 1;
    return 0;
}

static __always_inline void forget_datagrams(uint64_t process) {
    struct process_state *state = bpf_map_lookup_elem(&processes, &process);
    struct forgetting whom = {.process = process};

    if (state)
        whom.parent = state->parent;
    bpf_for_each_map_elem(&processes, count_neighbour, &whom, 0);
    bpf_for_each_map_elem(&datagrams, forget_datagram, &whom, 0);
}

SEC("syscall")
int push_ends(struct push_ends_args *args) {
    struct push_ends_args told = *args;

    if (told.forget)
        forget_datagrams(told.forget);
    bpf_for_each_map_elem(&ends, push_note, &told, 0);
    args->unknown = told.unknown;
    args->pending = told.pending;
    return 0;
}

/* ---- AF_UNIX pairs of which no end is left ---- */

/* Each may have known of the other's end before it closed its own: nobody saw it. */
static __always_inline int push_end(struct unix_pair_end *mine, uint64_t local, uint64_t remote) {
    struct range range = {.kind = RECOVERY_RECEIVE,
                          .flags = RECOVERY_FLAG_UNIX | RECOVERY_FLAG_END | RECOVERY_FLAG_FAILING,
                          .local = local,
                          .remote = remote,
                          .length = 1};

    if (mine->end_told || !recorded(mine->process, mine->incarnation))
        return 0;
    if (!put_record(&ring, ring_bytes, cpu_counters(), mine->process, mine->incarnation, &range))
        return 1;
    mine->end_told = 1;
    return 0;
}

static long push_pair(struct bpf_map *map, const struct unix_pair_key *key, struct unix_pair *pair,
                      struct push_pairs_args *args) {
    struct unix_pair_key names = *key;

    if (pair->walk == args->walk)
        return 0;
    args->gone++;
    if (!args->tell)
        return 0;
    if (push_end(&pair->low, names.low, names.high) | push_end(&pair->high, names.high, names.low))
        args->pending = 1;
    else
        unix_unpair(&names, pair->payer);
    return 0;
}

SEC("syscall")
int push_pairs(struct push_pairs_args *args) {
    struct push_pairs_args told = *args;

    bpf_for_each_map_elem(&unix_pairs, push_pair, &told, 0);
    args->gone = told.gone;
    args->pending = told.pending;
    return 0;
}

/* A run was left out: whoever uses what leaves no position behind can't be followed. */
static long condemn_one(struct bpf_map *map, const void *key, struct process_state *state,
                        struct condemn_args *args) {
    if (state->misses == args->misses)
        return 0;
    if (state->uses & args->uses)
        __sync_fetch_and_or(&state->verdicts, args->verdicts);
    state->misses = args->misses;
    return 0;
}

/* The processes that have moved a socket since they were asked last (PROGRESS_EXIT): clears it. Whoever asks walks next. */
SEC("syscall")
int take_moved(struct take_moved_args *args) {
    uint64_t process = args->process;
    struct process_state *state = bpf_map_lookup_elem(&processes, &process);

    if (state)
        state->walker = bpf_get_current_pid_tgid() >> 32;
    args->moved = state ? __sync_lock_test_and_set(&state->moved, 0) : 0;
    return 0;
}

SEC("syscall")
int condemn(struct condemn_args *args) {
    struct condemn_args wanted = *args;

    bpf_for_each_map_elem(&processes, condemn_one, &wanted, 0);
    return 0;
}

char LICENSE[] SEC("license") = "GPL";
