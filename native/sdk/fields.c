/* SPDX-License-Identifier: Apache-2.0 */
/* Fields of a record or a frame. */
#include "internal.h"

#include <string.h>

void take_bytes(struct fields *fields, void *into, size_t size) {
    fields->ok = fields->ok && fields->left >= size;
    if (!fields->ok) {
        memset(into, 0, size);
        return;
    }
    memcpy(into, fields->at, size);
    fields->at += size;
    fields->left -= size;
}

uint16_t take_u16(struct fields *fields) {
    uint16_t value;
    take_bytes(fields, &value, sizeof(value));
    return value;
}

uint32_t take_u32(struct fields *fields) {
    uint32_t value;
    take_bytes(fields, &value, sizeof(value));
    return value;
}

uint64_t take_u64(struct fields *fields) {
    uint64_t value;
    take_bytes(fields, &value, sizeof(value));
    return value;
}

void take_name(struct fields *fields, char *name) {
    const uint16_t length = take_u16(fields);

    fields->ok = fields->ok && length <= RL_MAX_NAME_BYTES;
    if (fields->ok)
        take_bytes(fields, name, length);
    name[fields->ok ? length : 0] = 0;
}

void bytes_name(struct bytes *bytes, const char *name) {
    const uint16_t length = (uint16_t)strlen(name);

    bytes_add(bytes, &length, sizeof(length));
    bytes_add(bytes, name, length);
}
