// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Payload of what an application's processes send over TCP, at the egress hook of the application's cgroup.
 *
 * The packet's socket is known here, and with it the name and the 64-bit offsets that the capture gave the
 * connection (map `connections`, the capture's own): restored connections, reused addresses and wrapped
 * sequence numbers need nothing more. The hook runs once per packet before it is cut into segments, on every
 * interface and in every network namespace. A packet that is never delivered changes nothing: it comes again,
 * with the same bytes at the same offsets.
 */
#define CHECKED_ONCE static __always_inline
#include "../bpf/tcp.bpf.h"
#include "../bpf/segment.bpf.h"
#include "payload_record.h"

#define MAX_CHUNKS 64 /* of one packet: BIG TCP hands over up to 512 KiB */

const volatile uint32_t payload_ring_bytes = 32 << 20;
/* 1: what finds no room in the ring is not sent. TCP keeps the bytes and tries again with the next
 * acknowledgement or its timer: the application is slowed, and nothing leaves it unlogged. (Telling TCP of
 * local congestion besides, answer 2, is worse: it gives a connection up after 15 tries, 7 s.) */
const volatile uint32_t hold_when_full = 1;

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 32 << 20);
} payload_ring SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, uint32_t);
    __type(value, struct payload_counters);
} payload_counts SEC(".maps");

struct walk {
    struct __sk_buff *skb;
    struct payload_chunk next; /* header of the next chunk */
    uint32_t at, left;         /* in the packet */
    uint32_t urgent;           /* counted from `at` */
    uint32_t lost_chunks, lost_bytes, chunks, bytes;
};

/* Like the capture's ring: waking the reader costs more than the record, it looks every few milliseconds. */
static __always_inline uint64_t wake_payload_reader(void) {
    return bpf_ringbuf_query(&payload_ring, BPF_RB_AVAIL_DATA) > payload_ring_bytes / 4 ? BPF_RB_FORCE_WAKEUP
                                                                                        : BPF_RB_NO_WAKEUP;
}

/* A reservation has a constant size, so there is one for each power of two. */
#define PUT(size)                                                                                            \
    if (length <= (size)) {                                                                                  \
        uint8_t *slot = bpf_ringbuf_reserve(&payload_ring, sizeof(struct payload_chunk) + (size), 0);        \
        if (!slot)                                                                                           \
            return -1;                                                                                       \
        if (bpf_skb_load_bytes(w->skb, w->at, slot + sizeof(struct payload_chunk), length)) {                \
            bpf_ringbuf_discard(slot, BPF_RB_NO_WAKEUP);                                                     \
            return -1;                                                                                       \
        }                                                                                                    \
        *(struct payload_chunk *)slot = w->next;                                                             \
        bpf_ringbuf_submit(slot, wake_payload_reader());                                                     \
        return 0;                                                                                            \
    }

static __noinline int put(struct walk *w) {
    uint32_t length;

    if (!w)
        return -1;
    length = w->next.length;
    if (length < 1 || length > PAYLOAD_CHUNK_BYTES)
        return -1;
    PUT(104)
    PUT(232)
    PUT(488)
    PUT(1000)
    PUT(2024)
    PUT(4072)
    PUT(8168)
    PUT(16384)
    PUT(32768)
    return -1;
}

static long next_chunk(uint32_t index, struct walk *w) {
    uint32_t length = w->left < PAYLOAD_CHUNK_BYTES ? w->left : PAYLOAD_CHUNK_BYTES;

    if (!length)
        return 1;
    w->next.length = length;
    w->next.urgent = w->urgent <= length ? w->urgent : 0;
    if (put(w)) {
        w->lost_chunks++;
        w->lost_bytes += length;
    } else {
        w->chunks++;
        w->bytes += length;
    }
    w->urgent = w->urgent > length ? w->urgent - length : 0;
    w->next.offset += length;
    w->at += length;
    w->left -= length;
    return 0;
}

static __always_inline void count(const struct walk *w) {
    uint32_t zero = 0;
    struct payload_counters *cpu = bpf_map_lookup_elem(&payload_counts, &zero);

    if (!cpu)
        return;
    __sync_fetch_and_add(&cpu->chunks, w->chunks);
    __sync_fetch_and_add(&cpu->bytes, w->bytes);
    if (w->lost_chunks && hold_when_full)
        __sync_fetch_and_add(&cpu->held_packets, 1);
    if (w->lost_chunks && !hold_when_full) {
        __sync_fetch_and_add(&cpu->lost_chunks, w->lost_chunks);
        __sync_fetch_and_add(&cpu->lost_bytes, w->lost_bytes);
    }
}

SEC("cgroup_skb/egress")
int payload_egress(struct __sk_buff *skb) {
    struct segment s;
    struct bpf_sock *sk = skb->sk;
    struct connection *c;
    struct tcp_sock *tcp;
    struct tcp_now now = {0};

    if (!sk || parse_segment(skb, &s) || skb->len <= s.data)
        return SEND;
    sk = bpf_sk_fullsock(sk);
    if (!sk)
        return SEND;
    c = bpf_sk_storage_get(&connections, sk, 0, 0);
    if (!c || !(c->flags & CONNECTION_NAMED))
        return SEND;
    tcp = bpf_skc_to_tcp_sock(sk);
    if (!tcp)
        return SEND;
    struct walk w = {.skb = skb, .at = s.data, .left = skb->len - s.data, .urgent = s.urgent};
    w.next.sender = c->local;
    w.next.receiver = c->remote;
    now.bytes_acked = tcp->bytes_acked;
    now.snd_una = tcp->snd_una;
    w.next.offset = offset_of_sequence(&now, c, s.sequence);
    bpf_loop(MAX_CHUNKS, next_chunk, &w, 0);
    w.lost_bytes += w.left;
    w.lost_chunks += w.left > 0;
    count(&w);
    return w.lost_chunks && hold_when_full ? HOLD : SEND;
}

char LICENSE[] SEC("license") = "GPL";
