/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Datagrams have no positions. What is told of them is who may have exchanged any: it counts against two
 * recorded processes of one application, all others are outside.
 *
 *   socket    that a process has sent to, where the kernel tells which it is: an AF_UNIX one that is
 *             connected, or a UDP one of this network namespace; and who has taken from it since
 *   UDP port  of all others that it has sent to, whatever the address, as addresses may be translated on the
 *             way; and who has received at one that it has chosen (a port that the kernel has given comes
 *             round again)
 *   at large  AF_UNIX, to nobody knows which socket; and who takes from one that anybody may send to
 *
 * Each is told once (RECOVERY_DATAGRAM). What finds no room is a verdict.
 */
#ifndef RECOVERY_DATAGRAM_BPF_H
#define RECOVERY_DATAGRAM_BPF_H

#include "unix.bpf.h"
#include "peer.bpf.h"

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 1 << 18);
    __type(key, struct datagram_key);
    __type(value, uint32_t);
} datagrams __weak SEC(".maps");

/* Only for the moment between a packet and the word of who has sent it. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 4096);
    __type(key, struct datagram_port);
    __type(value, struct datagram_taker);
} last_takers __weak SEC(".maps");

/* A datagram socket, whoever has it. */
struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct mailbox);
} mailboxes __weak SEC(".maps");

static __always_inline void datagram_verdict(uint64_t process, uint32_t reason) {
    struct process_state *state = bpf_map_lookup_elem(&processes, &process);

    if (state)
        verdict(state, process, reason, 0);
}

/* Returns 1 if it was told before, or is now. */
static __always_inline int datagram_tell(const struct datagram_key *key, uint64_t local, uint64_t remote,
                                         uint32_t flags) {
    const uint32_t one = 1;
    struct cpu_counters *cpu = cpu_counters();
    struct recovery_record *r;
    struct range range = {.kind = RECOVERY_DATAGRAM, .flags = flags, .local = local, .remote = remote};
    struct end_note address = {};

    if (bpf_map_lookup_elem(&datagrams, key))
        return 1;
    r = reserve(RECOVERY_DATAGRAM);
    if (!r)
        return 0;
    fill_record(r, cpu, key->process, key->incarnation, &range);
    if (flags == RECOVERY_FLAG_SOURCE) { /* UDP */
        for (int i = 0; i < 4; i++)
            address.address[i] = key->address.words[i];
        fill_address(r, &address);
    }
    submit_record(&ring, ring_bytes, cpu, r);
    return bpf_map_update_elem(&datagrams, key, &one, BPF_ANY) == 0;
}

static __always_inline struct datagram_key datagram_key(uint64_t process, const struct process_state *state) {
    return (struct datagram_key){.process = process, .incarnation = state->incarnation};
}

/* Numbers of sockets and ports stand in different keys. */
enum datagram_place { PLACE_PORT = 1 << 16, PLACE_SOCKET = 2 << 16, PLACE_AIMED = 3 << 16 };

/* Functions of their own for the verifier, which looks into them once: __weak. */

/* It has sent to the place, or taken from it: socket `id`, or, 0, UDP port `port`, or, both 0, AF_UNIX at
 * large. `flags`: RECOVERY_FLAG_SOURCE or RECOVERY_FLAG_SINK, and RECOVERY_FLAG_UNIX. */
CHECKED_ONCE int datagram_at(uint64_t process, uint64_t id, uint32_t port, uint32_t flags,
                             const struct datagram_address *address) {
    struct process_state *state = bpf_map_lookup_elem(&processes, &process);
    struct datagram_key key;

    if (!state)
        return 0;
    key = datagram_key(process, state);
    key.port = (id ? PLACE_SOCKET : PLACE_PORT) | flags;
    key.peer_port = port;
    if (address)
        key.address = *address;
    key.socket = id;
    if (datagram_tell(&key, id, port, flags))
        return 0;
    verdict(state, process, flags & RECOVERY_FLAG_UNIX ? RECOVERY_VERDICT_UNIX_DGRAM : RECOVERY_VERDICT_UDP,
            0);
    return 0;
}

/* ---- sockets ---- */

static __always_inline uint64_t mailbox_id(struct mailbox *box) {
    uint64_t fresh = (uint64_t)(bpf_get_prandom_u32() & 0xfffff) << 32 | bpf_get_prandom_u32();

    if (!box->id)
        __sync_val_compare_and_swap(&box->id, 0, fresh | 1);
    return *(volatile uint64_t *)&box->id;
}

static __always_inline void mailbox_sent(struct mailbox *box, uint64_t process, uint32_t port, uint32_t unix,
                                         const struct datagram_address *address) {
    uint64_t id = mailbox_id(box), receiver;

    __sync_fetch_and_or(&box->flags, MAILBOX_AIMED);
    receiver = *(volatile uint64_t *)&box->receiver;
    if (receiver && receiver != process)
        datagram_at(receiver, id, port, RECOVERY_FLAG_SINK | unix, 0);
    datagram_at(process, id, port, RECOVERY_FLAG_SOURCE | unix, address);
}

static __always_inline void mailbox_received(struct mailbox *box, uint64_t process, uint32_t port,
                                             uint32_t unix) {
    box->receiver = process;
    if (__sync_fetch_and_or(&box->flags, 0) & MAILBOX_AIMED)
        datagram_at(process, mailbox_id(box), port, RECOVERY_FLAG_SINK | unix, 0);
}

/* ---- UDP ---- */

/* To a socket that nobody here knows. `aimed`: AIMED_CHOSEN, AIMED_ANY. */
CHECKED_ONCE int udp_sent(uint64_t process, const struct datagram_address *address, uint32_t port,
                          uint32_t aimed) {
    struct process_state *state = bpf_map_lookup_elem(&processes, &process);
    struct datagram_key aimed_at = {.port = PLACE_AIMED, .peer_port = port};
    struct datagram_port place = {.port = port};
    struct datagram_taker *taker;
    uint32_t *known;

    if (!state || !address)
        return 0;
    place.parent = state->parent;
    aimed_at.process = state->parent;
    known = bpf_map_lookup_elem(&datagrams, &aimed_at);
    if (known) {
        __sync_fetch_and_or(known, aimed);
    } else if (bpf_map_update_elem(&datagrams, &aimed_at, &aimed, BPF_ANY)) {
        verdict(state, process, RECOVERY_VERDICT_UDP, 0);
        return 0;
    }
    taker = bpf_map_lookup_elem(&last_takers, &place);
    if (taker && taker->process != process && aimed & taker->by)
        datagram_at(taker->process, 0, port, RECOVERY_FLAG_SINK, 0);
    datagram_at(process, 0, port, RECOVERY_FLAG_SOURCE, address);
    return 0;
}

/* `chosen`: by the process, not by the kernel. */
CHECKED_ONCE int udp_received(uint64_t process, uint32_t port, uint32_t chosen) {
    struct process_state *state = bpf_map_lookup_elem(&processes, &process);
    struct datagram_taker taker = {.process = process, .by = AIMED_ANY | (chosen ? AIMED_CHOSEN : 0)}, *last;
    struct datagram_key aimed_at = {.port = PLACE_AIMED, .peer_port = port};
    struct datagram_port place = {.port = port};
    uint32_t *aimed;

    if (!state)
        return 0;
    place.parent = state->parent;
    last = bpf_map_lookup_elem(&last_takers, &place);
    if (!last || last->process != process || last->by != taker.by)
        bpf_map_update_elem(&last_takers, &place, &taker, BPF_ANY);
    aimed_at.process = state->parent;
    aimed = bpf_map_lookup_elem(&datagrams, &aimed_at);
    if (aimed && *(volatile uint32_t *)aimed & taker.by)
        datagram_at(process, 0, port, RECOVERY_FLAG_SINK, 0);
    return 0;
}

/* ---- AF_UNIX ---- */

static __always_inline void unix_dgram_sent(struct sock *sk, struct process_state *state, uint64_t process) {
    struct sock *peer = unix_peer(sk);
    struct mailbox *box;

    if (!peer) {
        datagram_at(process, 0, 0, RECOVERY_FLAG_SOURCE | RECOVERY_FLAG_UNIX, 0);
        return;
    }
    box = bpf_sk_storage_get(&mailboxes, peer, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (box)
        mailbox_sent(box, process, 0, RECOVERY_FLAG_UNIX, 0);
    else
        verdict(state, process, RECOVERY_VERDICT_UNIX_DGRAM, 0);
}

static __always_inline void unix_dgram_received(struct sock *sk, struct process_state *state,
                                                uint64_t process) {
    struct mailbox *box = bpf_sk_storage_get(&mailboxes, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

    if (!unix_peer(sk))
        datagram_at(process, 0, 0, RECOVERY_FLAG_SINK | RECOVERY_FLAG_UNIX, 0);
    if (box)
        mailbox_received(box, process, 0, RECOVERY_FLAG_UNIX);
    else
        verdict(state, process, RECOVERY_VERDICT_UNIX_DGRAM, 0);
}

#endif
