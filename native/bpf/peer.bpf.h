/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Who is at the other end of a TCP connection of a recorded process. The pair of initial sequence numbers
 * names both directions, so whoever holds the other socket on this host is known exactly, through any network
 * namespace and address translation:
 *
 *   end_begins    a recorded end has a name: it is noted in `ends`, by its pair
 *   end_mark      somebody is seen with the mirrored pair: the note is marked and told (RECOVERY_PEER)
 *   end_carries   data has passed: told again, as who only connects carries no messages
 *   end_gone      the recorded end is closed: the note goes once it is told, or found nobody in a whole walk
 *
 * Strangers only ever mark notes, they make none; a process that has MAX_ENDS of them gets no more, and what
 * is not noted stays unknown. That nobody was seen proves nothing.
 */
#ifndef RECOVERY_PEER_BPF_H
#define RECOVERY_PEER_BPF_H

#include "emit.bpf.h"
#include "whose.bpf.h"
#include <bpf/bpf_endian.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct in6_addr___address {
    uint32_t words[4];
};
struct sock_common___address {
    uint32_t skc_daddr;
    struct in6_addr___address skc_v6_daddr;
};
struct sock___address {
    struct sock_common___address __sk_common;
};
#pragma clang attribute pop

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 1 << 18);
    __type(key, struct end_key);
    __type(value, struct end_note);
} ends __weak SEC(".maps");

static __always_inline struct end_key end_mirrored(const struct end_key *key) {
    return (struct end_key){.local = key->remote, .remote = key->local};
}

static __always_inline void end_drop(const struct end_key *key, uint64_t payer) {
    struct process_state *state = bpf_map_lookup_elem(&processes, &payer);

    if (bpf_map_delete_elem(&ends, key) == 0 && state && state->ends)
        __sync_fetch_and_add(&state->ends, -1);
}

/* The words of the address, 48 bits and 48 bits and 32, and the port: they come before who it is. */
static __always_inline void fill_address(struct recovery_record *r, const struct end_note *note) {
    const uint32_t *words = note->address;

    r->begin = words[0] | (uint64_t)(words[1] & 0xffff) << 32;
    r->time_ns = words[1] >> 16 | (uint64_t)words[2] << 16;
    r->length = words[3];
    r->lost_before = note->port;
}

static __always_inline int end_put(const struct end_key *key, const struct end_note *note, uint32_t address) {
    struct range range = {.kind = RECOVERY_PEER,
                          .flags = (note->flags & END_CONNECTOR ? RECOVERY_FLAG_OPEN : 0) |
                                   (note->flags & END_CLOSED ? RECOVERY_FLAG_END : 0) |
                                   (note->flags & END_GAVE ? RECOVERY_FLAG_SOURCE : 0) |
                                   (note->flags & END_TOOK ? RECOVERY_FLAG_SINK : 0) |
                                   (address ? RECOVERY_FLAG_WRITE : 0),
                          .local = key->local,
                          .remote = key->remote,
                          .begin = note->peer,
                          .length = note->tgid};
    struct recovery_record *r = reserve(RECOVERY_PEER);
    struct cpu_counters *cpu = cpu_counters();

    if (!r)
        return 1;
    fill_record(r, cpu, note->process, note->incarnation, &range);
    if (address)
        fill_address(r, note);
    submit_record(&ring, ring_bytes, cpu, r);
    return 0;
}

/* Returns 1 where the ring had no room: then all is told again. */
CHECKED_ONCE int end_tell(const struct end_key *key, struct end_note *note) {
    if (!key || !note || !(note->flags & END_KNOWN) || note->flags & END_TOLD)
        return 0;
    if (__sync_fetch_and_or(&note->flags, END_TOLD) & END_TOLD)
        return 0;
    if (!end_put(key, note, 1) && !end_put(key, note, 0))
        return 0;
    __sync_fetch_and_and(&note->flags, ~END_TOLD);
    return 1;
}

/* `tgid` 0: the process `peer` is recorded; else its first thread began at `peer`, boot-time ns. Returns 1 if
 * that is news. */
static __always_inline int end_mark(struct end_note *note, uint64_t peer, uint32_t tgid, uint32_t closed) {
    if (note->flags & END_KNOWN)
        return 0;
    note->peer = peer;
    note->tgid = tgid;
    return !(__sync_fetch_and_or(&note->flags, END_KNOWN | closed) & END_KNOWN);
}

/* Both ends are recorded. In one application that is what everybody expects: nothing is to be told. Else a
 * flush tells it. */
static __always_inline void ends_meet(const struct end_key *key, struct end_note *note,
                                      const struct process_state *state) {
    struct end_key mirror = end_mirrored(key);
    struct end_note *other = bpf_map_lookup_elem(&ends, &mirror);
    uint64_t theirs = other ? other->process : 0;
    struct process_state *peer = other ? bpf_map_lookup_elem(&processes, &theirs) : 0;

    if (!peer)
        return;
    if (peer->parent == state->parent) {
        __sync_fetch_and_or(&note->flags, END_KNOWN | END_TOLD);
        __sync_fetch_and_or(&other->flags, END_KNOWN | END_TOLD);
        return;
    }
    end_mark(note, theirs, 0, 0);
    end_mark(other, note->process, 0, 0);
}

static __always_inline void note_address(struct end_note *note, const struct sock *sk) {
    note->port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
    if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6) {
        BPF_CORE_READ_INTO(&note->address, (struct sock___address *)sk, __sk_common.skc_v6_daddr);
        return;
    }
    note->address[2] = bpf_htonl(0xffff);
    note->address[3] = BPF_CORE_READ((struct sock___address *)sk, __sk_common.skc_daddr);
}

/* `sock`: the kernel's address of it. */
static __noinline __attribute__((unused)) int end_begins(uint64_t process, uint32_t local, uint32_t remote,
                                                         uint32_t connector, uint64_t sock) {
    struct process_state *state = bpf_map_lookup_elem(&processes, &process);
    struct end_key key = {.local = local, .remote = remote};
    struct end_note *note = bpf_map_lookup_elem(&ends, &key);
    struct end_note fresh = {.process = process, .payer = process, .flags = connector ? END_CONNECTOR : 0};

    if (!state)
        return 0;
    if (note) { /* who accepts may be another than who listens */
        if (note->process != process || note->incarnation != state->incarnation) {
            note->process = process;
            note->incarnation = state->incarnation;
        }
        return 0;
    }
    fresh.incarnation = state->incarnation;
    note_address(&fresh, (const struct sock *)sock);
    if (state->ends >= MAX_ENDS || bpf_map_update_elem(&ends, &key, &fresh, BPF_NOEXIST))
        return 0;
    __sync_fetch_and_add(&state->ends, 1);
    note = bpf_map_lookup_elem(&ends, &key);
    if (note)
        ends_meet(&key, note, state);
    return 0;
}

/* `what`: END_GAVE, END_TOOK. Between two recorded processes it is no news. */
CHECKED_ONCE int end_carries(uint32_t local, uint32_t remote, uint32_t what) {
    struct end_key key = {.local = local, .remote = remote};
    struct end_note *note = bpf_map_lookup_elem(&ends, &key);

    if (!note || (note->flags & what) == what)
        return 0;
    __sync_fetch_and_or(&note->flags, what);
    if (!(note->flags & END_KNOWN) || note->tgid)
        __sync_fetch_and_and(&note->flags, ~(END_TOLD | END_DOUBTED));
    return 0;
}

CHECKED_ONCE int end_gone(uint32_t local, uint32_t remote) {
    struct end_key key = {.local = local, .remote = remote};
    struct end_note *note = bpf_map_lookup_elem(&ends, &key);

    if (!note)
        return 0;
    note->walk = this_walk();
    __sync_fetch_and_or(&note->flags, END_GONE);
    if (note->flags & END_TOLD)
        end_drop(&key, note->payer);
    return 0;
}

/* The end that a recorded process takes up now was told to be a stranger's. */
CHECKED_ONCE int end_was_strange(uint32_t local, uint32_t remote) {
    struct end_key key = {.local = remote, .remote = local};
    struct end_note *note = bpf_map_lookup_elem(&ends, &key);

    return note && note->flags & END_KNOWN && note->tgid;
}

/* ---- whose a socket is ---- */

/* Recorded, or a neighbour of `process`: it may be of its application, and recorded later. `address`: of the
 * cgroup. */
CHECKED_ONCE int may_be_inside(uint64_t address, uint64_t process) {
    const struct cgroup___made *cgroup = (const struct cgroup___made *)address;
    struct process_state *state = bpf_map_lookup_elem(&processes, &process);
    uint64_t its = process_cgroup(cgroup);

    if (!its)
        return 0;
    if (bpf_map_lookup_elem(&processes, &its))
        return 1;
    return !state || ancestor_at(cgroup, cgroup_level - 1) == state->parent;
}

/* A task that is not recorded holds, or closes, a socket that nobody recorded has made or used, with this
 * name. `closed`: END_CLOSED or 0. Returns 1 if that is an end of a recorded process's connection. */
static __noinline __attribute__((unused)) int stranger_has(const struct sock *sk, struct task_struct *task,
                                                           uint32_t local, uint32_t remote, uint32_t closed) {
    struct end_key key = {.local = remote, .remote = local};
    struct end_note *note = bpf_map_lookup_elem(&ends, &key);

    if (!note)
        return 0;
    if (note->flags & END_KNOWN || may_be_inside((uint64_t)made_in(sk), note->process) ||
        may_be_inside((uint64_t)cgroup_of(task), note->process))
        return 1;
    if (end_mark(note, task_began(task), BPF_CORE_READ(task, tgid), closed) && !end_tell(&key, note) &&
        note->flags & END_GONE)
        end_drop(&key, note->payer);
    return 1;
}

#endif
