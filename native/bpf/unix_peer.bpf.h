/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Who is at the other end of an AF_UNIX pair of a recorded process: the kernel links both, so no names are
 * looked up. A stranger is told as it uses its end, or is seen to hold it (unix_stranger_has), or, of one
 * that has connected to a recorded process, while it lives as its connection is used first
 * (unix_stranger_connected). Once more when data passes, either way: who only listens to all, or only asks
 * whether they are there, carries nothing between them. Without room in the ring the next look tells it.
 */
#ifndef RECOVERY_UNIX_PEER_BPF_H
#define RECOVERY_UNIX_PEER_BPF_H

#include "unix.bpf.h"
#include "peer.bpf.h"

/* What is known of the other end: UNIX_PEER_TOLD, and whether data has passed. */
static __always_inline uint32_t unix_peer_bits(const struct unix_end *end, const struct unix_end *other) {
    uint64_t given = *(volatile uint64_t *)&end->received | end->looked | *(volatile uint64_t *)&other->sent;

    return UNIX_PEER_TOLD | (given ? UNIX_PEER_GAVE : 0) |
           (*(volatile uint64_t *)&end->sent ? UNIX_PEER_TOOK : 0);
}

/* Returns 1 where the ring had no room. */
CHECKED_ONCE int unix_tell_peer(struct unix_end *end, uint32_t bits, uint32_t flags, uint64_t began,
                                uint32_t tgid) {
    if (!end)
        return 0;

    struct range range = {.kind = RECOVERY_PEER,
                          .flags = RECOVERY_FLAG_UNIX | flags |
                                   (bits & UNIX_PEER_GAVE ? RECOVERY_FLAG_SOURCE : 0) |
                                   (bits & UNIX_PEER_TOOK ? RECOVERY_FLAG_SINK : 0),
                          .local = end->local,
                          .remote = end->remote,
                          .begin = began,
                          .length = tgid};
    uint32_t before = __sync_fetch_and_or(&end->flags, bits);

    if ((before & bits) == bits)
        return 0;
    if (put_record(&ring, ring_bytes, cpu_counters(), end->owner, end->incarnation, &range))
        return 0;
    __sync_fetch_and_and(&end->flags, ~bits | before);
    return 1;
}

static __always_inline uint32_t unix_opened(struct sock *sk) {
    return unix_open_bit(sk) == CAPTURE_OPEN_SENT ? RECOVERY_FLAG_OPEN : 0;
}

/* Recorded here, of somebody who is not recorded, and something of that is not told yet. */
static __always_inline int unix_peer_untold(const struct unix_end *end, const struct unix_end *other) {
    uint32_t bits;

    if (!end || !other || !end->owner || other->owner || !unix_named(end))
        return 0;
    bits = unix_peer_bits(end, other);
    return (end->flags & bits) != bits;
}

static __always_inline int unix_stranger(struct sock *sk, struct unix_end *end, const struct unix_end *other,
                                         const struct task_struct *task) {
    uint64_t began = task_began(task);
    uint32_t tgid = BPF_CORE_READ(task, tgid);

    if (!(end->flags & UNIX_PEER_TOLD)) {
        end->peer = began;
        end->peer_tgid = tgid;
    }
    return unix_tell_peer(end, unix_peer_bits(end, other), unix_opened(sk), began, tgid);
}

/* `task`, which is not recorded, has `sk`. */
static __noinline int unix_stranger_has(struct sock *sk, const struct task_struct *task) {
    struct unix_end *other = bpf_sk_storage_get(&unix_ends, sk, 0, 0);
    struct sock *peer = other ? unix_peer(sk) : 0;
    struct unix_end *end = peer ? bpf_sk_storage_get(&unix_ends, peer, 0, 0) : 0;

    if (!unix_peer_untold(end, other) || may_be_inside((uint64_t)cgroup_of(task), end->owner))
        return 0;
    return unix_stranger(peer, end, other, task);
}

static __always_inline int unix_stranger_connected(struct sock *sk) {
    struct unix_end *end = sk ? bpf_sk_storage_get(&unix_ends, sk, 0, 0) : 0;
    struct sock *peer = end ? unix_peer(sk) : 0;
    struct unix_end *other = peer ? bpf_sk_storage_get(&unix_ends, peer, 0, 0) : 0;
    struct task_struct *task;

    if (!unix_peer_untold(end, other) || unix_open_bit(sk) != CAPTURE_OPEN_RECEIVED)
        return 0;
    task = peer_task(sk);
    if (!task || may_be_inside((uint64_t)made_in(peer), end->owner) ||
        may_be_inside((uint64_t)cgroup_of(task), end->owner))
        return 0;
    return unix_stranger(sk, end, other, task);
}

/* Data has passed since the stranger was told of. */
static __always_inline int unix_stranger_carries(struct sock *sk, struct unix_end *end) {
    struct unix_end *other = unix_other_end(sk);

    if (!(end->flags & UNIX_PEER_TOLD) || !end->peer_tgid || !unix_peer_untold(end, other))
        return 0;
    return unix_tell_peer(end, unix_peer_bits(end, other), unix_opened(sk), end->peer, end->peer_tgid);
}

/* Both ends are recorded, in two applications: each is outside for the other. */
CHECKED_ONCE int unix_foreign(uint32_t opened, struct unix_end *end, const struct unix_end *other) {
    uint64_t owner = end ? end->owner : 0, owner2 = other ? other->owner : 0;
    struct process_state *ours, *theirs;

    if (!end || !owner || !owner2 || owner == owner2 || end->flags & UNIX_PEER_TOLD || !unix_named(end))
        return 0;
    ours = bpf_map_lookup_elem(&processes, &owner);
    theirs = bpf_map_lookup_elem(&processes, &owner2);
    if (!ours || !theirs || ours->parent == theirs->parent)
        return 0;
    return unix_tell_peer(end, UNIX_PEER_TOLD, opened, owner2, 0);
}

/* A recorded process uses its end. */
static __noinline __attribute__((unused)) int unix_peer_used(struct sock *sk) {
    struct unix_end *end = sk ? bpf_sk_storage_get(&unix_ends, sk, 0, 0) : 0;
    struct sock *peer = end ? unix_peer(sk) : 0;
    struct unix_end *other = peer ? bpf_sk_storage_get(&unix_ends, peer, 0, 0) : 0;

    if (!other)
        return 0;
    if (end->flags & UNIX_PEER_TOLD)
        return unix_stranger_carries(sk, end);
    if (!other->owner)
        return unix_stranger_connected(sk);
    return unix_foreign(unix_opened(sk), end, other) | unix_foreign(unix_opened(peer), other, end);
}

#endif
