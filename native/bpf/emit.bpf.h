/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Watermarks. For every end of a connection the kernel's own state says how far it has sent and received; a
 * mark says up to where that stands in records. A record is [mark, where the kernel stands now):
 *
 *   1. room is reserved in the ring             no room: nothing moves, whoever looks next covers it
 *   2. the mark moves by compare-and-swap       it had moved meanwhile: the room is given back, and there is
 * another try
 *   3. the record is submitted
 *
 * So each unit stands in exactly one record, whoever looks, in whatever order, however many runs were left
 * out. All return 1 where there was no room: something remains to be told.
 */
#ifndef RECOVERY_EMIT_BPF_H
#define RECOVERY_EMIT_BPF_H

#include "maps.bpf.h"
#include "record.bpf.h"

extern const volatile uint32_t cgroup_level; /* depth of process cgroups below the root */
extern const volatile uint32_t ring_bytes;
extern const volatile uint32_t
    sampled; /* PROGRESS_EXIT: positions are read now and then, looks are only known of */
extern const volatile uint32_t left_out_per_mille; /* tests: so many runs of the hooks do nothing */

/* A function that the kernel looks into once, not at every call and on every way to it. Whoever only borrows
 * from these headers defines it otherwise, so that none of them is left in his object. */
#ifndef CHECKED_ONCE
#define CHECKED_ONCE __weak __noinline
#endif

#define MAX_RANGE_BYTES 0xffffffffull

/* The value, of which the verifier knows nothing any more: it follows what comes after a branch once for each
 * outcome that later branches would turn on, and so would pass again and again through the same code. `any`:
 * a number of which it knows nothing. */
static __always_inline uint64_t forget(uint64_t value, uint64_t any) {
    asm volatile("%0 += %1\n%0 -= %1" : "+&r"(value) : "r"(any));
    return value;
}

/* Benches: what the hooks cost that do nothing, or look whether they have anything to do and then don't. */
enum { FLOOR_NONE, FLOOR_EMPTY, FLOOR_FILTER };
extern const volatile uint32_t hooks_floor;

/* Who an end of a connection belongs to. */
struct holder {
    uint64_t process;
    uint32_t incarnation;
};

/* No call: arrays are looked up in place. */
static __always_inline const struct filter_slot *filter_slot(uint64_t process) {
    uint32_t slot = process & (CAPTURE_FILTER_ENTRIES - 1);

    return bpf_map_lookup_elem(&filter, &slot);
}

/* Recorded cgroups at other levels than most: NULL where there are none. */
static __always_inline const struct cgroup_levels *other_levels(void) {
    uint32_t zero = 0;
    const struct cgroup_levels *other = bpf_map_lookup_elem(&levels, &zero);

    return other && other->count ? other : 0;
}

static __always_inline int is_selected(const struct filter_slot *slot, uint64_t process) {
    return slot && slot->ever && (slot->process == process || bpf_map_lookup_elem(&processes, &process));
}

/* The recorded cgroup above the current task, at the usual level (`process`) or at another; the former where there is none. */
CHECKED_ONCE uint64_t selected_anywhere(uint64_t process) {
    const struct cgroup_levels *other = other_levels();

    if (is_selected(filter_slot(process), process))
        return process;
    for (uint32_t at = 0; other && at < CAPTURE_LEVELS; at++) {
        uint64_t one;

        if (at >= other->count)
            break;
        one = bpf_get_current_ancestor_cgroup_id(other->level[at]);
        if (is_selected(filter_slot(one), one))
            return one;
    }
    return process;
}

/* The hot way out for everybody who is not recorded. */
static __always_inline const struct filter_slot *maybe_selected(uint64_t *process) {
    const struct filter_slot *slot;

    if (hooks_floor == FLOOR_EMPTY)
        return 0;
    *process = bpf_get_current_ancestor_cgroup_id(cgroup_level);
    if (other_levels())
        *process = selected_anywhere(*process);
    slot = filter_slot(*process);
    return slot && slot->ever && hooks_floor != FLOOR_FILTER ? slot : 0;
}

static __always_inline struct process_state *selected(uint64_t *process) {
    return maybe_selected(process) ? bpf_map_lookup_elem(&processes, process) : 0;
}

/* The process is recorded, in the incarnation that has used this end: without a look into the hash. */
static __always_inline int selected_as(const struct filter_slot *slot, uint64_t process, uint64_t owner,
                                       uint32_t incarnation) {
    const volatile struct filter_slot *now = slot;

    return owner == process && now->process == process && now->incarnation == incarnation;
}

static __always_inline int left_out(void) {
    return left_out_per_mille && bpf_get_prandom_u32() % 1000 < left_out_per_mille;
}

static __always_inline struct cpu_counters *cpu_counters(void) {
    uint32_t zero = 0;

    return bpf_map_lookup_elem(&counters, &zero);
}

static __always_inline struct recovery_record *reserve(uint32_t kind) {
    struct recovery_record *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);

    if (!r)
        count_loss(cpu_counters(), kind);
    return r;
}

#define ADVANCE_TRIES 3

/* Brings the mark to `end`; `range` holds kind, flags and names. Whoever moved it in between may have seen
 * less than we have: there is another try. Inline for the hot way alone: each place where it stands makes the
 * kernel follow all that comes after it by each of its ways out. */
static __always_inline int advance_inline(uint64_t *mark, uint64_t end, const struct holder *holder,
                                          struct range *range) {
#pragma clang loop unroll(disable)
    for (int tries = 0; tries < ADVANCE_TRIES; tries++) {
        uint64_t from = *(volatile uint64_t *)mark, length = end - from;
        struct cpu_counters *cpu;
        struct recovery_record *r;

        if (end <= from)
            return 0;
        if (length > MAX_RANGE_BYTES)
            length = MAX_RANGE_BYTES;
        r = reserve(range->kind);
        if (!r)
            return 1;
        if (__sync_val_compare_and_swap(mark, from, from + length) != from) {
            bpf_ringbuf_discard(r, BPF_RB_NO_WAKEUP);
            continue;
        }
        range->begin = from;
        range->length = length;
        cpu = cpu_counters();
        fill_record(r, cpu, holder->process, holder->incarnation, range);
        submit_record(&ring, ring_bytes, cpu, r);
        return from + length < end;
    }
    return 1;
}

CHECKED_ONCE int advance(uint64_t *mark, uint64_t end, const struct holder *holder, struct range *range) {
    return mark && holder && range ? advance_inline(mark, end, holder, range) : 0;
}

/* What was looked at and is still there; what was taken meanwhile is no look any more. */
static __always_inline int advance_seen(uint64_t *seen, uint64_t received, uint64_t looked,
                                        const struct holder *holder, struct range *range) {
    uint64_t from = *(volatile uint64_t *)seen;

    if (looked <= received || looked <= from)
        return 0;
    if (from < received)
        __sync_val_compare_and_swap(seen, from, received);
    return advance(seen, looked, holder, range);
}

CHECKED_ONCE int raise(uint64_t *value, uint64_t to) {
    for (int i = 0; value && i < 4; i++) {
        uint64_t from = *(volatile uint64_t *)value;

        if (from >= to || __sync_val_compare_and_swap(value, from, to) == from)
            return 0;
    }
    return 0;
}

/* The one unit of an opening or ending, once. */
CHECKED_ONCE int tell(uint32_t *told, uint32_t bit, const struct holder *holder, struct range *range) {
    struct cpu_counters *cpu = cpu_counters();
    struct recovery_record *r;

    if (!told || !holder || !range)
        return 0;
    if (*(volatile uint32_t *)told & bit)
        return 0;
    r = reserve(range->kind);
    if (!r)
        return 1;
    if (__sync_fetch_and_or(told, bit) & bit) {
        bpf_ringbuf_discard(r, BPF_RB_NO_WAKEUP);
        return 0;
    }
    range->begin = 0;
    range->length = 1;
    fill_record(r, cpu, holder->process, holder->incarnation, range);
    submit_record(&ring, ring_bytes, cpu, r);
    return 0;
}

/* Sticks for the incarnation; the record only wakes whoever reads. */
CHECKED_ONCE int verdict(struct process_state *state, uint64_t process, uint32_t reason, uint64_t other) {
    struct range range = {.kind = RECOVERY_VERDICT, .local = reason, .remote = other, .length = 1};
    uint32_t bit = 1u << reason;

    if (!state || state->verdicts & bit)
        return 0;
    if (__sync_fetch_and_or(&state->verdicts, bit) & bit)
        return 0;
    put_record(&ring, ring_bytes, cpu_counters(), process, state->incarnation, &range);
    return 0;
}

static __always_inline void uses(struct process_state *state, uint32_t what) {
    if (!(state->uses & what))
        __sync_fetch_and_or(&state->uses, what);
}

/* Number of the walk through all sockets that is under way, or was last. */
static __always_inline uint64_t this_walk(void) {
    uint32_t zero = 0;
    struct iterator_request *asked = bpf_map_lookup_elem(&request, &zero);

    return asked ? *(volatile uint64_t *)&asked->walk : 0;
}

/* ---- ends that are gone before there was room for their last records ---- */

CHECKED_ONCE int spill(const struct closed_key *key, const struct closed_value *value) {
    struct process_state *state = key ? bpf_map_lookup_elem(&processes, &key->process) : 0;

    if (!key || !value || !state || state->incarnation != key->incarnation)
        return 0;
    if (bpf_map_lookup_elem(&closed, key)) {
        bpf_map_update_elem(&closed, key, value, BPF_ANY);
        return 0;
    }
    if (state->spilled >= MAX_SPILLED || bpf_map_update_elem(&closed, key, value, BPF_ANY)) {
        verdict(state, key->process, RECOVERY_VERDICT_OVERFLOW, 0);
        return 0;
    }
    __sync_fetch_and_add(&state->spilled, 1);
    return 0;
}

CHECKED_ONCE int unspill(const struct closed_key *key) {
    struct process_state *state = key ? bpf_map_lookup_elem(&processes, &key->process) : 0;

    if (!key)
        return 0;
    if (bpf_map_delete_elem(&closed, key) == 0 && state)
        __sync_fetch_and_add(&state->spilled, -1);
    return 0;
}

#endif
