/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory order of the ring readers; nothing else in native/ring orders memory.
 *
 * The other side of a kernel ring is kernel/bpf/ringbuf.c:
 *   producer position   its smp_store_release(&rb->producer_pos)  pairs with ring_load_acquire64 here
 *   slot header         its xchg(&hdr->len) at commit             pairs with ring_load_acquire32 here
 *   consumer position   its smp_load_acquire(&rb->consumer_pos)   pairs with ring_store_release64 here
 */
#ifndef RECOVERY_BARRIER_H
#define RECOVERY_BARRIER_H

#include <stdint.h>

static inline uint64_t ring_load_acquire64(const uint64_t *from) {
    return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

static inline uint32_t ring_load_acquire32(const uint32_t *from) {
    return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

static inline void ring_store_release64(uint64_t *to, uint64_t value) {
    __atomic_store_n(to, value, __ATOMIC_RELEASE);
}

#endif /* RECOVERY_BARRIER_H */
