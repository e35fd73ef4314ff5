// SPDX-License-Identifier: Apache-2.0
/*
 * The way not taken, to compare: payload_packets DEVICE RING_MIB reads a TPACKET_V3 ring and copies every TCP
 * packet's bytes once. Prints "ready", and at the end of stdin "BYTES DROPS".
 */
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define BLOCK (1 << 20)

int main(int count, char **arguments) {
    static char copy[BLOCK];
    uint64_t bytes = 0;

    if (count != 3)
        return 2;
    const unsigned blocks = atoi(arguments[2]);
    const int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)), version = TPACKET_V3, on = 1;
    struct tpacket_req3 ring = {.tp_block_size = BLOCK,
                                .tp_block_nr = blocks,
                                .tp_frame_size = 2048,
                                .tp_frame_nr = BLOCK / 2048 * blocks,
                                .tp_retire_blk_tov = 5};
    const struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                        .sll_protocol = htons(ETH_P_ALL),
                                        .sll_ifindex = if_nametoindex(arguments[1])};
    if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) ||
        setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring)))
        return 1;
    uint8_t *map = mmap(NULL, (size_t)BLOCK * blocks, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED || bind(fd, (void *)&address, sizeof(address)))
        return 1;
    puts("ready");
    fflush(stdout);
    struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    int ending = 0; /* looks since the end of stdin; others' traffic may never pause */
    for (unsigned next = 0;; next = (next + 1) % blocks) {
        struct tpacket_block_desc *block = (void *)(map + (size_t)next * BLOCK);
        do {
            if (poll(&fds[1], 1, 0) > 0 && ending++ > 4)
                goto end;
            if (__atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)
                break;
            poll(fds, ending ? 1 : 2, ending ? 20 : -1);
        } while (1);
        uint8_t *at = (uint8_t *)block + block->hdr.bh1.offset_to_first_pkt;
        for (uint32_t i = 0; i < block->hdr.bh1.num_pkts; i++) {
            const struct tpacket3_hdr *packet = (void *)at;
            memcpy(copy, at + packet->tp_mac, packet->tp_snaplen);
            bytes += packet->tp_snaplen;
            at += packet->tp_next_offset;
        }
        __atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
    }
end:;
    struct tpacket_stats_v3 stats;
    socklen_t size = sizeof(stats);
    getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &size);
    printf("%llu %u\n", (unsigned long long)bytes, stats.tp_drops);
    return 0;
}
