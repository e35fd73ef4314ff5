/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the loader share; nothing of it leaves this folder. */
#ifndef RECOVERY_LOADER_INTERNAL_H
#define RECOVERY_LOADER_INTERNAL_H

#include "capture.h"
#include "../include/recovery_ring.h"
#include "../bpf/shared.h"

#include <stdbool.h>

/* Maps and programs that are pinned, in one order everywhere. */
enum capture_map {
    MAP_RING,
    MAP_PROCESSES,
    MAP_FILTER,
    MAP_COUNTERS,
    MAP_CLOSED,
    MAP_CONNECTIONS,
    MAP_UNIX_ENDS,
    MAP_RESTORED,
    MAP_COUNT
};
enum capture_program {
    /* attached in this order: names before events, the end of a send before its beginning */
    PROGRAM_TCP_STATE,
    PROGRAM_TCP_DESTROYED,
    PROGRAM_SOCK_SENT,
    PROGRAM_SOCK_RECEIVED,
    PROGRAM_TCP_RECEIVING,
    PROGRAM_TCP_SENDING, /* absent in the naive variant */
    PROGRAM_ATTACHED,    /* the ones from here on are run, not attached */
    PROGRAM_TAKE_LOST = PROGRAM_ATTACHED,
    PROGRAM_CUT_FILES,
    PROGRAM_CUT_CONNECTIONS,
    PROGRAM_CUT_UNIX_ENDS,
    PROGRAM_COUNT
};

struct objects { /* descriptors; -1 = none */
    int maps[MAP_COUNT];
    int programs[PROGRAM_COUNT];
    int links[PROGRAM_ATTACHED]; /* only between loading and pinning */
};

struct capture {
    struct objects objects;
    struct capture_config config;
};

/* Formats into `error` if there is one and returns `status`. */
int capture_fail(char *error, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* programs.c: loads and attaches one of the two light skeletons. */
int programs_load(struct objects *objects, uint32_t ring_bytes, uint32_t cgroup_level, bool naive,
                  char *error);
void objects_clear(struct objects *objects);
void objects_close(struct objects *objects);

/* probe.c */
int probe_rights(char *error);
bool probe_exact(void);
int probe_required(char *error); /* -ENOTSUP naming the first missing kernel feature */

/* capture.c: highest CPU number + 1 that per-CPU maps have values for, or a negative errno */
int possible_cpus(void);

/* cut.c: the closed connections of a process. */
int cut_closed(struct capture *capture, uint64_t cgroup_id, struct capture_cut_entry **entries, size_t *count,
               char *error);

/* cgroup.c */
int cgroup_mount(char *path, size_t bytes); /* where cgroup2 is mounted; -ENOENT */
int cgroup_open(uint64_t id);               /* descriptor of the directory; -ENOENT */
int cgroup_depth(int directory);            /* below the root; -EXDEV: seen from a cgroup namespace */
int cgroup_pids(int directory, int **pids, size_t *count); /* of the cgroup and all below; free(*pids) */

#endif
