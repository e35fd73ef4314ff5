/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * From a 32-bit TCP sequence number to a 64-bit offset. Compiled by BPF and by the C tests.
 *
 * `low` is exact: sequence - initial sequence - 1, modulo 2^32. `near` is only roughly right (it may count a
 * SYN or a FIN) but is 64 bits wide. The answer is the number closest to `near` whose low 32 bits are `low`.
 */
#ifndef RECOVERY_EPOCH_H
#define RECOVERY_EPOCH_H

static inline __attribute__((always_inline)) uint64_t recovery_offset(uint64_t near, uint32_t low) {
    int64_t distance = (int32_t)(low - (uint32_t)near);

    if (distance < 0 && near < (uint64_t)-distance)
        return 0; /* a sequence number before the first byte of data */
    return near + (uint64_t)distance;
}

#endif
