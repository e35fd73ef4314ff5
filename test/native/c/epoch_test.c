/* SPDX-License-Identifier: Apache-2.0 */
/* native/bpf/epoch.h: 64-bit offsets from 32-bit sequence numbers, around every wrap. Prints "ok". */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../../native/bpf/epoch.h"

static void expect(uint64_t near, uint32_t low, uint64_t offset) {
    const uint64_t got = recovery_offset(near, low);
    if (got == offset)
        return;
    fprintf(stderr, "recovery_offset(%#llx, %#x) is %#llx, not %#llx\n", (unsigned long long)near, low,
            (unsigned long long)got, (unsigned long long)offset);
    exit(1);
}

/* Every true offset near a multiple of 2^32 or 2^31 is found from every `near` that is less than 2^31 away.
 */
static void around(uint64_t centre) {
    static const int64_t errors[] = {0,     1,       -1,         2,         -2,        1000,
                                     -1000, 1 << 30, -(1 << 30), INT32_MAX, -INT32_MAX};

    for (int64_t step = -70; step <= 70; step++) {
        const uint64_t offset = centre + (uint64_t)step;
        if (step < 0 && centre < (uint64_t)-step)
            continue;
        for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
            if (errors[i] >= 0 || offset >= (uint64_t)-errors[i])
                expect(offset + (uint64_t)errors[i], (uint32_t)offset, offset);
    }
}

int main(void) {
    for (uint64_t wraps = 0; wraps < 20; wraps++) {
        around(wraps << 32);
        around((wraps << 32) + (1ull << 31));
    }
    around(1ull << 53);
    srand(1);
    for (int i = 0; i < 1000000; i++) {
        const uint64_t offset = ((uint64_t)rand() << 31 | (uint64_t)rand()) >> rand() % 40;
        const int64_t error = (rand() % 2 ? 1 : -1) * (int64_t)rand();
        if (error >= 0 || offset >= (uint64_t)-error)
            expect(offset + (uint64_t)error, (uint32_t)offset, offset);
    }
    /* What lies before the first byte (a SYN, an acknowledgement of it) is offset 0, never 2^64 - 1. */
    expect(0, UINT32_MAX, 0);
    expect(1, (uint32_t)-5, 0);
    puts("ok");
    return 0;
}
