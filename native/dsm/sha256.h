/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 after FIPS 180-4; used by the DSM runtime and the SDK. */
#ifndef RECOVERY_SHA256_H
#define RECOVERY_SHA256_H

#include <stddef.h>
#include <stdint.h>

struct sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[64];
};
void sha256_begin(struct sha256 *sum);
void sha256_add(struct sha256 *sum, const void *data, size_t bytes);
/* 64 hex digits and a NUL. */
void sha256_end(struct sha256 *sum, char *hex);

#endif /* RECOVERY_SHA256_H */
