/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* How far the connections of holding processes may send (output_hold.bpf.c). */
#ifndef RECOVERY_OUTPUT_BPF_H
#define RECOVERY_OUTPUT_BPF_H

#include "tcp.bpf.h"

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, MAX_OUTPUTS);
    __type(key, struct end_key);
    __type(value, struct output_mark);
} outputs __weak SEC(".maps");

static __always_inline struct end_key output_key(const struct connection *c) {
    return (struct end_key){.local = c->local, .remote = c->remote};
}

#endif
