/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* A TCP packet at the egress hook of a cgroup, before it is cut into segments. */
#ifndef RECOVERY_SEGMENT_BPF_H
#define RECOVERY_SEGMENT_BPF_H

#include "kernel.h"
#include <bpf/bpf_helpers.h>

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define IPPROTO_HOPOPTS 0
#define TCP_FIN 0x01
#define TCP_RST 0x04
#define TCP_URG 0x20

/* What the egress hook may answer (kernel/bpf/cgroup.c). TCP keeps what is held, as if it had not tried to
 * send it, and tries again with the next acknowledgement, push or timer. */
enum { HOLD = 0, SEND = 1 };

struct segment {
    uint32_t data; /* index of the first byte of payload in the packet, which may end there */
    uint32_t sequence;
    uint32_t urgent; /* index + 1 of the urgent byte in the payload, 0 = none */
    uint32_t flags;  /* TCP_FIN, ... */
};

/* 0 if the packet holds TCP. */
static __always_inline int parse_segment(struct __sk_buff *skb, struct segment *s) {
    uint8_t ip[40], tcp[20];
    uint32_t at;

    if (skb->protocol == __builtin_bswap16(ETH_P_IP)) {
        if (bpf_skb_load_bytes(skb, 0, ip, 20) || ip[9] != IPPROTO_TCP)
            return -1;
        at = (ip[0] & 15) * 4;
    } else if (skb->protocol == __builtin_bswap16(ETH_P_IPV6)) {
        if (bpf_skb_load_bytes(skb, 0, ip, 40))
            return -1;
        at = 40;
        if (ip[6] == IPPROTO_HOPOPTS) { /* the jumbogram option of a BIG TCP packet */
            if (bpf_skb_load_bytes(skb, 40, ip, 8))
                return -1;
            at += 8 + ip[1] * 8;
            ip[6] = ip[0];
        }
        if (ip[6] != IPPROTO_TCP)
            return -1;
    } else {
        return -1;
    }
    if (bpf_skb_load_bytes(skb, at, tcp, 20))
        return -1;
    s->data = at + (tcp[12] >> 4) * 4;
    s->sequence = (uint32_t)tcp[4] << 24 | tcp[5] << 16 | tcp[6] << 8 | tcp[7];
    s->flags = tcp[13];
    s->urgent = tcp[13] & TCP_URG ? tcp[18] << 8 | tcp[19] : 0;
    return 0;
}

#endif
