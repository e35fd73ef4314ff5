/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Who is at the other end of an AF_UNIX pair of a recorded process: the kernel links both, so no names are
 * looked up. A stranger is told as it uses its end, or is seen to hold it (unix_stranger_has), or, of one
 * that has connected to a recorded process, while it lives as its connection is used first
 * (unix_stranger_connected). Once more when it says something: who only listens to all carries nothing
 * between them. Without room in the ring the next look tells it.
 */
#ifndef RECOVERY_UNIX_PEER_BPF_H
#define RECOVERY_UNIX_PEER_BPF_H

#include "unix.bpf.h"
#include "peer.bpf.h"

/* Recorded here, of somebody who is not recorded, and `bit` of that is not told yet. */
static __always_inline int unix_peer_untold(const struct unix_end *end, const struct unix_end *other,
                                            uint32_t bit) {
    return end && other && end->owner && !other->owner && !(end->flags & bit) && unix_named(end);
}

static __always_inline int unix_tell_stranger(struct sock *sk, struct unix_end *end,
                                              const struct task_struct *task, uint32_t bit) {
    uint32_t connected = unix_open_bit(sk) == CAPTURE_OPEN_SENT;
    struct range range = {.kind = RECOVERY_PEER,
                          .flags = RECOVERY_FLAG_UNIX | (connected ? RECOVERY_FLAG_OPEN : 0) |
                                   (bit == UNIX_PEER_SPOKE ? RECOVERY_FLAG_SOURCE : 0),
                          .local = end->local,
                          .remote = end->remote,
                          .begin = task_began(task),
                          .length = BPF_CORE_READ(task, tgid)};

    if (__sync_fetch_and_or(&end->flags, UNIX_PEER_TOLD | bit) & bit)
        return 0;
    if (put_record(&ring, ring_bytes, cpu_counters(), end->owner, end->incarnation, &range))
        return 0;
    __sync_fetch_and_and(&end->flags, ~bit);
    return 1;
}

/* `task`, which is not recorded, has `sk`. `bit`: UNIX_PEER_TOLD, or UNIX_PEER_SPOKE as it sends. */
static __noinline int unix_stranger_has(struct sock *sk, const struct task_struct *task, uint32_t bit) {
    struct unix_end *other = bpf_sk_storage_get(&unix_ends, sk, 0, 0);
    struct sock *peer = other ? unix_peer(sk) : 0;
    struct unix_end *end = peer ? bpf_sk_storage_get(&unix_ends, peer, 0, 0) : 0;

    if (!unix_peer_untold(end, other, bit) || may_be_inside(cgroup_of(task), end->owner))
        return 0;
    return unix_tell_stranger(peer, end, task, bit);
}

static __always_inline int unix_stranger_connected(struct sock *sk) {
    struct unix_end *end = sk ? bpf_sk_storage_get(&unix_ends, sk, 0, 0) : 0;
    struct sock *peer = end ? unix_peer(sk) : 0;
    struct unix_end *other = peer ? bpf_sk_storage_get(&unix_ends, peer, 0, 0) : 0;
    struct task_struct *task;

    if (!unix_peer_untold(end, other, UNIX_PEER_TOLD) || unix_open_bit(sk) != CAPTURE_OPEN_RECEIVED)
        return 0;
    task = peer_task(sk);
    if (!task || may_be_inside(made_in(peer), end->owner) || may_be_inside(cgroup_of(task), end->owner))
        return 0;
    return unix_tell_stranger(sk, end, task,
                              *(volatile uint64_t *)&end->received ? UNIX_PEER_SPOKE : UNIX_PEER_TOLD);
}

#endif
