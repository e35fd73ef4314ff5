/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Maps that the objects share; `__weak` lets the linker fold them into one. */
#ifndef RECOVERY_MAPS_BPF_H
#define RECOVERY_MAPS_BPF_H

#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "../include/recovery_ring.h"
#include "shared.h"

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 16 << 20);
} ring __weak SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __type(key, uint64_t);
    __type(value, struct process_state);
} processes __weak SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, CAPTURE_FILTER_ENTRIES);
    __type(key, uint32_t);
    __type(value, struct filter_slot);
} filter __weak SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, uint32_t);
    __type(value, struct cgroup_levels);
} levels __weak SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, uint32_t);
    __type(value, struct cpu_counters);
} counters __weak SEC(".maps");

/* Not preallocated: memory is used by what closed, not by the bound. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 1 << 18);
    __type(key, struct closed_key);
    __type(value, struct closed_value);
} closed __weak SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 1 << 16);
    __type(key, struct unix_pair_key);
    __type(value, struct unix_pair);
} unix_pairs __weak SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, uint32_t);
    __type(value, struct iterator_request);
} request __weak SEC(".maps");

#endif
