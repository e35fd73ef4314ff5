/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Whose a socket or a task is: cgroups, and the task that an AF_UNIX socket remembers. Everything is read by
 * probes, so that pointers may come from anywhere. */
#ifndef RECOVERY_WHOSE_BPF_H
#define RECOVERY_WHOSE_BPF_H

#include "emit.bpf.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct kernfs_node___made {
    uint64_t id;
};
struct cgroup___made {
    int level;
    struct kernfs_node___made *kn;
    struct cgroup___made *ancestors[]; /* Linux 6.1 */
};
struct cgroup___ids {
    int level;
    uint64_t ancestor_ids[];
};
struct sock_cgroup_data___made {
    struct cgroup___made *cgroup;
};
struct hlist_node___made {
    struct hlist_node___made *next, **pprev;
};
struct hlist_head___made {
    struct hlist_node___made *first;
};
struct pid___made {
    struct hlist_head___made tasks[4];
};
struct sock___made {
    struct sock_cgroup_data___made sk_cgrp_data;
    struct pid___made *sk_peer_pid;
};
struct css_set___made {
    struct cgroup___made *dfl_cgrp;
};
struct task_struct___made {
    struct css_set___made *cgroups;
    struct hlist_node___made pid_links[4];
    struct task_struct___made *group_leader;
    uint64_t start_boottime;
};
#pragma clang attribute pop

/* The cgroup that made the socket; of one that was accepted, its listener. */
static __always_inline struct cgroup___made *made_in(const struct sock *sk) {
    return BPF_CORE_READ((struct sock___made *)sk, sk_cgrp_data.cgroup);
}

/* Id of the ancestor at a level; 0: it lies above. */
static __always_inline uint64_t ancestor_at(const struct cgroup___made *cgroup, uint32_t level) {
    struct cgroup___made *ancestor = 0;
    uint64_t id = 0;

    if (!cgroup || BPF_CORE_READ(cgroup, level) < (int)level)
        return 0;
    if (bpf_core_field_exists(cgroup->ancestors)) {
        bpf_core_read(&ancestor, sizeof(ancestor), &cgroup->ancestors[level]);
        return BPF_CORE_READ(ancestor, kn, id);
    }
    bpf_core_read(&id, sizeof(id), &((struct cgroup___ids *)cgroup)->ancestor_ids[level]);
    return id;
}

/* On its own: in a loop the compiler would work out before it where each kernel keeps them, and this one has
 * but one of the fields. */
CHECKED_ONCE uint64_t ancestor_of(uint64_t cgroup, uint32_t level) {
    return ancestor_at((const struct cgroup___made *)cgroup, level);
}

/* As selected_anywhere, of a cgroup. */
CHECKED_ONCE uint64_t recorded_anywhere(uint64_t cgroup, uint64_t process) {
    const struct cgroup_levels *other = other_levels();

    if (is_selected(filter_slot(process), process))
        return process;
    for (uint32_t at = 0; other && at < CAPTURE_LEVELS; at++) {
        uint64_t one;

        if (at >= other->count)
            break;
        one = ancestor_of(cgroup, other->level[at]);
        if (one && is_selected(filter_slot(one), one))
            return one;
    }
    return process;
}

/* The recorded cgroup, or the one that would be if any were. */
static __always_inline uint64_t process_cgroup(const struct cgroup___made *cgroup) {
    uint64_t process = ancestor_at(cgroup, cgroup_level);

    return other_levels() ? recorded_anywhere((uint64_t)cgroup, process) : process;
}

static __always_inline struct cgroup___made *cgroup_of(const struct task_struct *task) {
    return BPF_CORE_READ((struct task_struct___made *)task, cgroups, dfl_cgrp);
}

/* When its first thread began: with the process id it names a program for good. */
static __always_inline uint64_t task_began(const struct task_struct *task) {
    return BPF_CORE_READ((struct task_struct___made *)task, group_leader, start_boottime);
}

#define PIDTYPE_TGID 1

/* Who made the other end of an AF_UNIX socket its peer: of a connector's the one that called listen(), of an
 * accepted one's the one that called connect(). NULL: over. */
static __always_inline struct task_struct *peer_task(const struct sock *sk) {
    struct pid___made *pid = BPF_CORE_READ((struct sock___made *)sk, sk_peer_pid);
    struct hlist_node___made *node = pid ? BPF_CORE_READ(pid, tasks[PIDTYPE_TGID].first) : 0;

    return node ? (struct task_struct *)((char *)node -
                                         bpf_core_field_offset(struct task_struct___made, pid_links) -
                                         PIDTYPE_TGID * sizeof(*node))
                : 0;
}

#endif
