/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * One record into the ring, or one loss into the counters: never neither.
 *
 * A loss is counted twice: per CPU and kind for statistics, and in the process's state, from where the next
 * record of that process takes it along (lost_before). A process that never speaks again keeps its count
 * there until take_lost.
 */
#ifndef RECOVERY_EMIT_BPF_H
#define RECOVERY_EMIT_BPF_H

#include "maps.bpf.h"

extern const volatile uint32_t cgroup_level; /* depth of process cgroups below the root */
extern const volatile uint32_t ring_bytes;

/* The hot way out for everybody who is not recorded. */
static __always_inline struct process_state *selected(uint64_t *process) {
    *process = bpf_get_current_ancestor_cgroup_id(cgroup_level);
    return bpf_map_lookup_elem(&processes, process);
}

/* A wake-up costs more than the record, so the reader polls on a timer and is only woken when the ring fills.
 */
static __always_inline uint64_t wake_flags(uint64_t committed) {
    if (committed & 63)
        return BPF_RB_NO_WAKEUP;
    return bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > ring_bytes / 2 ? BPF_RB_FORCE_WAKEUP
                                                                        : BPF_RB_NO_WAKEUP;
}

struct range {
    uint64_t local, remote, begin;
    uint32_t length;
    uint8_t kind, flags;
};

/* Returns 1 if committed. */
static __always_inline int emit(struct process_state *state, uint64_t process, const struct range *range) {
    uint32_t zero = 0;
    struct cpu_counters *cpu = bpf_map_lookup_elem(&counters, &zero);
    struct recovery_record *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
    uint32_t kind = range->kind & (RECOVERY_KIND_COUNT - 1);
    uint64_t lost = 0, committed = 1;

    if (!r) {
        __sync_fetch_and_add(&state->lost, 1);
        if (cpu)
            __sync_fetch_and_add(&cpu->lost[kind], 1);
        return 0;
    }
    if (state->lost)
        lost = __sync_lock_test_and_set(&state->lost, 0);
    r->kind = range->kind;
    r->flags = range->flags;
    r->cpu = bpf_get_smp_processor_id();
    r->lost_before = lost > 0xffffffff ? 0xffffffff : lost;
    r->process = process;
    r->local = range->local;
    r->remote = range->remote;
    r->begin = range->begin;
    r->time_ns = bpf_ktime_get_boot_ns();
    r->length = range->length;
    r->thread = (uint32_t)bpf_get_current_pid_tgid();
    /* An interrupted increment may count one commit twice or not at all without the atomic. */
    if (cpu)
        committed = __sync_fetch_and_add(&cpu->committed[kind], 1);
    bpf_ringbuf_submit(r, wake_flags(committed));
    return 1;
}

/* Once per process and reason: it is a verdict on the process, not an event. */
static __always_inline void unmatched(struct process_state *state, uint64_t process, uint32_t reason) {
    struct range range = {.kind = RECOVERY_UNMATCHED, .local = reason};
    uint32_t bit = 1u << reason;

    if (state->unmatched & bit)
        return;
    if (__sync_fetch_and_or(&state->unmatched, bit) & bit)
        return;
    if (!emit(state, process, &range))
        __sync_fetch_and_and(&state->unmatched, ~bit);
}

#endif
