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
#include "record.bpf.h"

extern const volatile uint32_t cgroup_level; /* depth of process cgroups below the root */
extern const volatile uint32_t ring_bytes;

/* The hot way out for everybody who is not recorded. */
static __always_inline struct process_state *selected(uint64_t *process) {
    uint32_t slot, *maybe;

    *process = bpf_get_current_ancestor_cgroup_id(cgroup_level);
    slot = *process & (CAPTURE_FILTER_ENTRIES - 1);
    maybe = bpf_map_lookup_elem(&filter, &slot); /* no call: arrays are looked up in place */
    if (!maybe || !*maybe)
        return 0;
    return bpf_map_lookup_elem(&processes, process);
}

/* Returns 1 if committed. */
static __always_inline int emit(struct process_state *state, uint64_t process, const struct range *range) {
    uint32_t zero = 0;
    struct cpu_counters *cpu = bpf_map_lookup_elem(&counters, &zero);

    return put_record(&ring, ring_bytes, cpu, state, process, range);
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
