/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* One record into a ring; the maps come as arguments, so that every object may bring its own way to them. */
#ifndef RECOVERY_RECORD_BPF_H
#define RECOVERY_RECORD_BPF_H

#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include "../include/recovery_ring.h"
#include "shared.h"

struct range {
    uint64_t local, remote, begin;
    uint32_t length;
    uint8_t kind, flags;
};

/* A wake-up costs more than the record. With flags 0 the kernel wakes the reader for the record at the
 * consumer position alone: the first one after the reader has let everything go, which it does with each
 * group commit. All others it finds by its timer, but when the ring fills. */
static __always_inline uint64_t wake_flags(void *ring, uint64_t committed, uint32_t ring_bytes) {
    if (committed & 63)
        return 0;
    return bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) > ring_bytes / 2 ? BPF_RB_FORCE_WAKEUP : 0;
}

/* `cpu` may be NULL. */
static __always_inline void count_loss(struct cpu_counters *cpu, uint32_t kind) {
    if (cpu)
        __sync_fetch_and_add(&cpu->lost[kind & (RECOVERY_KIND_COUNT - 1)], 1);
}

/*
 * Reading the clock costs as much as half of a record, and times are for pictures only. So many records of a
 * CPU in one tick (4 ms at 250 Hz) have their own time, then every so manieth; those between have that of the
 * one before. An interruption finds the old tick, or all of the new one.
 */
#define RECORDS_TIMED 16
static __always_inline uint64_t rough_time(struct cpu_counters *cpu) {
    volatile struct cpu_counters *c = cpu;
    uint64_t tick = bpf_jiffies64(), now;

    if (cpu && c->tick == tick) {
        uint64_t timed = ++c->timed;
        if (timed > RECORDS_TIMED && timed % RECORDS_TIMED)
            return c->time_ns;
    }
    now = bpf_ktime_get_boot_ns();
    if (cpu) {
        c->time_ns = now;
        if (c->tick != tick)
            c->timed = 1;
        c->tick = tick;
    }
    return now;
}

/* `cpu` may be NULL. */
static __always_inline void fill_record(struct recovery_record *r, struct cpu_counters *cpu, uint64_t process,
                                        uint32_t incarnation, const struct range *range) {
    r->kind = range->kind;
    r->flags = range->flags;
    r->cpu = bpf_get_smp_processor_id();
    r->lost_before = 0;
    r->process = process;
    r->local = range->local;
    r->remote = range->remote;
    r->begin = range->begin;
    r->time_ns = rough_time(cpu);
    r->length = range->length;
    r->thread = incarnation;
}

static __always_inline void submit_record(void *ring, uint32_t ring_bytes, struct cpu_counters *cpu,
                                          struct recovery_record *r) {
    uint64_t committed = 1;

    /* An interrupted increment may count one commit twice or not at all without the atomic. */
    if (cpu)
        committed = __sync_fetch_and_add(&cpu->committed[r->kind & (RECOVERY_KIND_COUNT - 1)], 1);
    bpf_ringbuf_submit(r, wake_flags(ring, committed, ring_bytes));
}

/* Returns 1 if committed. */
static __always_inline int put_record(void *ring, uint32_t ring_bytes, struct cpu_counters *cpu,
                                      uint64_t process, uint32_t incarnation, const struct range *range) {
    struct recovery_record *r = bpf_ringbuf_reserve(ring, sizeof(*r), 0);

    if (!r) {
        count_loss(cpu, range->kind);
        return 0;
    }
    fill_record(r, cpu, process, incarnation, range);
    submit_record(ring, ring_bytes, cpu, r);
    return 1;
}

#endif
