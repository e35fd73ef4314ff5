/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The two layouts of the payload log: what the BPF program puts into its ring, and a segment on disk
 * (logs-format.md, "Payload log"). Little endian. Needs uint*_t first.
 */
#ifndef RECOVERY_PAYLOAD_RECORD_H
#define RECOVERY_PAYLOAD_RECORD_H

/* ---- in the ring: this header, then `length` bytes; what the slot has more is not set ---- */

#define PAYLOAD_CHUNK_BYTES 32768

struct payload_chunk {
    uint32_t sender, receiver; /* initial sequence numbers: the channel tcp:<sender>-<receiver> */
    uint64_t offset;           /* of the first byte in the channel */
    uint32_t length;           /* 1 .. PAYLOAD_CHUNK_BYTES */
    uint32_t urgent; /* index + 1 in this chunk of the byte that TCP's urgent pointer names; 0 = none */
};

/* What found no room in the ring, and what was kept; one element per CPU. */
struct payload_counters {
    uint64_t chunks, bytes;
    uint64_t lost_chunks, lost_bytes; /* where what finds no room is sent all the same */
    uint64_t held_packets;            /* where it waits: not sent, to come again */
};

/* ---- on disk ---- */

#define PAYLOAD_MAGIC "RLPAYLD1"
#define PAYLOAD_SEGMENT_HEADER_BYTES 64
#define PAYLOAD_RECORD_MAGIC 0x52504c52u /* "RLPR" */

struct payload_segment_header {
    char magic[8];
    uint32_t version; /* 1 */
    uint32_t segment; /* number, also in the file's name */
    uint64_t key;     /* random: no payload can hold bytes that look like a record header of this segment */
    uint64_t reserved[4];
    uint32_t zero;
    uint32_t checksum; /* CRC-32 of the 60 bytes before */
};

enum payload_kind {
    PAYLOAD_DATA = 1,
    PAYLOAD_LOSS = 2, /* `offset` bytes found no room since the loss before; holes show by themselves */
};

/* At a multiple of 8, followed by `length` bytes and zeros up to the next multiple of 8. */
struct payload_record {
    uint32_t magic;
    uint32_t checksum; /* CRC-32 of the segment's key (8 bytes) and the 40 bytes from here on */
    uint64_t position; /* of this header in the file */
    uint32_t sender, receiver;
    uint64_t offset;
    uint32_t length;
    uint32_t payload_checksum; /* CRC-32 of the bytes that follow */
    uint32_t urgent;           /* as above, in this record */
    uint32_t kind;
};

_Static_assert(sizeof(struct payload_chunk) == 24, "layout");
_Static_assert(sizeof(struct payload_segment_header) == PAYLOAD_SEGMENT_HEADER_BYTES, "layout");
_Static_assert(sizeof(struct payload_record) == 48, "layout");

#endif
