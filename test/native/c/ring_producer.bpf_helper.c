/* SPDX-License-Identifier: Apache-2.0 */
/* Fills a kernel ring at full speed with records of made-up connections: one run, one record. For tests and
 * benches. */
#include <linux/bpf.h>
#include <linux/types.h>
typedef __u8 uint8_t;
typedef __u16 uint16_t;
typedef __u32 uint32_t;
typedef __u64 uint64_t;
#include <bpf/bpf_helpers.h>
#include "../../../native/include/recovery_ring.h"

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} ring SEC(".maps");

/* Shared with ring_producer_helper.c: process, connections, serial, emitted, lost, pending, ring bytes. */
struct state {
    __u64 process, connections, serial, emitted, lost, pending, ring_bytes;
};
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct state);
} states SEC(".maps");

SEC("tc")
int produce(struct __sk_buff *unused) {
    __u32 zero = 0;
    struct state *state = bpf_map_lookup_elem(&states, &zero);
    if (!state || state->connections == 0)
        return 0;
    const __u64 serial = state->serial++;
    struct recovery_record *record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
    if (!record) {
        state->lost++;
        state->pending++;
        return 0;
    }
    const __u64 connection = (serial >> 1) % state->connections;
    record->kind = serial & 1 ? RECOVERY_RECEIVE : RECOVERY_SEND;
    record->flags = 0;
    record->cpu = 0;
    record->lost_before = (__u32)state->pending;
    record->process = state->process;
    record->local = 1000 + connection;
    record->remote = 5000000 + connection;
    record->begin = (serial >> 1) / state->connections * 100;
    record->time_ns = bpf_ktime_get_boot_ns();
    record->length = 100;
    record->thread = 1;
    state->pending = 0;
    state->emitted++;
    const __u64 held = bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA);
    bpf_ringbuf_submit(record, held * 2 > state->ring_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
    return 0;
}

char LICENSE[] SEC("license") = "Apache-2.0";
