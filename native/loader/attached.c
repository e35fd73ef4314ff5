/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hooks of recorded cgroups: attached when a process is selected, gone with its cgroup. Not by links,
 * which would take a pin for each process; where a cgroup above refuses more programs the tracepoints must
 * do.
 */
#include "bpf_call.h"
#include "internal.h"

static const enum bpf_attach_type TYPES[PROGRAM_CGROUP_END - PROGRAM_TRACING] = {
    BPF_CGROUP_INET_SOCK_RELEASE, BPF_CGROUP_SOCK_OPS, BPF_CGROUP_UDP4_SENDMSG, BPF_CGROUP_UDP6_SENDMSG};

void cgroup_hooks_attach(const struct objects *objects, int directory) {
    for (int i = PROGRAM_TRACING; i < PROGRAM_CGROUP_END; i++)
        if (objects->programs[i] >= 0)
            BPF_DO(BPF_PROG_ATTACH, attr_.target_fd = (uint32_t)directory,
                   attr_.attach_bpf_fd = (uint32_t)objects->programs[i],
                   attr_.attach_type = TYPES[i - PROGRAM_TRACING], attr_.attach_flags = BPF_F_ALLOW_MULTI);
}

void cgroup_hooks_detach(const struct objects *objects, int directory) {
    for (int i = PROGRAM_TRACING; i < PROGRAM_CGROUP_END; i++)
        if (objects->programs[i] >= 0)
            BPF_DO(BPF_PROG_DETACH, attr_.target_fd = (uint32_t)directory,
                   attr_.attach_bpf_fd = (uint32_t)objects->programs[i],
                   attr_.attach_type = TYPES[i - PROGRAM_TRACING]);
}
