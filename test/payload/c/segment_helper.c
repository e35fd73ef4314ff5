// SPDX-License-Identifier: Apache-2.0
/*
 * The disk side of the logger alone: segments DIRECTORY SEGMENT_BYTES LIMIT_BYTES, and on stdin, a line each:
 *   add SENDER RECEIVER OFFSET LENGTH URGENT STREAM    bytes of pattern(STREAM, OFFSET …), see
 * traffic_helper.c lost BYTES sync                                               answers "synced SEGMENT
 * POSITION ERRNO"
 */
#include "../../../native/payload/segment.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t pattern(uint32_t stream, uint64_t offset) {
    uint32_t v = ((uint32_t)(offset >> 2) ^ stream * 0x9e3779b1u) * 0x85ebca6bu;
    v ^= v >> 13;
    v *= 0xc2b2ae35u;
    v ^= v >> 16;
    return v >> 8 * (offset & 3);
}

int main(int count, char **arguments) {
    static uint8_t bytes[PAYLOAD_CHUNK_BYTES];
    char line[256];

    if (count != 4)
        return 2;
    const struct segments_options options = {.directory = arguments[1],
                                             .segment_bytes = strtoull(arguments[2], NULL, 10),
                                             .limit_bytes = strtoull(arguments[3], NULL, 10)};
    struct segments *segments = segments_open(&options);
    if (!segments)
        return 1;
    while (fgets(line, sizeof(line), stdin)) {
        struct payload_chunk chunk;
        struct segments_place place;
        uint32_t stream;
        uint64_t lost;
        if (sscanf(line, "add %u %u %" SCNu64 " %u %u %u", &chunk.sender, &chunk.receiver, &chunk.offset,
                   &chunk.length, &chunk.urgent, &stream) == 6 &&
            chunk.length <= sizeof(bytes)) {
            for (uint32_t i = 0; i < chunk.length; i++)
                bytes[i] = pattern(stream, chunk.offset + i);
            segments_add(segments, &chunk, bytes);
        } else if (sscanf(line, "lost %" SCNu64, &lost) == 1) {
            segments_lost(segments, lost);
        } else if (strcmp(line, "sync\n") == 0) {
            const int failure = segments_sync(segments, &place);
            printf("synced %u %" PRIu64 " %d\n", place.segment, place.position, failure);
            fflush(stdout);
        } else {
            return 2;
        }
    }
    return segments_close(segments) ? 1 : 0;
}
