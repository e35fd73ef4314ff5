/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the loader share; nothing of it leaves this folder. */
#ifndef RECOVERY_LOADER_INTERNAL_H
#define RECOVERY_LOADER_INTERNAL_H

#include "capture.h"
#include "../include/recovery_ring.h"
#include "../bpf/shared.h"

#include <stdbool.h>

/* Maps and programs, in one order everywhere. */
enum capture_map {
    MAP_RING,
    MAP_PROCESSES,
    MAP_FILTER,
    MAP_LEVELS,
    MAP_COUNTERS,
    MAP_CLOSED,
    MAP_CONNECTIONS,
    MAP_UNIX_ENDS,
    MAP_RESTORED,
    MAP_REQUEST,
    MAP_UNIX_PAIRS,
    MAP_ENDS,
    MAP_DATAGRAMS,
    MAP_LAST_TAKERS,
    MAP_MAILBOXES,
    MAP_OUTPUTS,
    MAP_HOLDERS,
    MAP_UNHELD,
    MAP_HELD,
    MAP_COUNT
};
enum capture_program {
    /* attached to tracepoints, in this order: names before events */
    PROGRAM_TCP_STATE,
    PROGRAM_TCP_DESTROYED,
    PROGRAM_SOCK_SENT,
    PROGRAM_SOCK_RECEIVED,
    PROGRAM_CALL_ENDED,
    PROGRAM_TRACING, /* count of those */
    /* attached to each recorded cgroup */
    PROGRAM_SOCKET_RELEASED = PROGRAM_TRACING,
    PROGRAM_CONNECTION_MADE,
    PROGRAM_DATAGRAM_SENT4,
    PROGRAM_DATAGRAM_SENT6,
    PROGRAM_CGROUP_END,
    /* iterators */
    PROGRAM_CUT_FILES = PROGRAM_CGROUP_END,
    PROGRAM_CUT_TCP,
    PROGRAM_CUT_UNIX,
    PROGRAM_CUT_STORED_TCP,
    PROGRAM_CUT_STORED_UNIX,
    PROGRAM_FIND_PEERS,
    /* run */
    PROGRAM_PUSH_CLOSED,
    PROGRAM_CONDEMN,
    PROGRAM_TAKE_MOVED,
    PROGRAM_PUSH_PAIRS,
    PROGRAM_PUSH_ENDS,
    /* output commit: attached to cgroups that hold; an iterator */
    PROGRAM_OUTPUT_HELD,
    PROGRAM_PUSH_OUTPUTS,
    PROGRAM_COUNT
};
#define PROGRAM_BIT(program) (1u << (program))

extern const char *const MAP_NAMES[MAP_COUNT];
extern const char *const PROGRAM_NAMES[PROGRAM_COUNT];

struct objects { /* descriptors; -1 = none */
    int maps[MAP_COUNT];
    int programs[PROGRAM_COUNT];
    int links[PROGRAM_TRACING]; /* only between loading and pinning */
};

struct capture {
    struct objects objects;
    struct capture_config config;
};

/* Formats into `error` if there is one and returns `status`. */
int capture_fail(char *error, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- programs.c: the object, by libbpf ---- */

struct load_options {
    uint32_t ring_bytes, cgroup_level;
    uint32_t left_out_per_mille;
    uint32_t floor;     /* benches: the hooks do nothing (1), or nothing but look whether they have to (2) */
    const char *refuse; /* tests: this program is refused as a kernel would; NULL: none */
};
/* Loads the programs of the set and attaches those of tracepoints. On failure *refused is the program that
 * the kernel refused, or PROGRAM_COUNT. */
int programs_load(struct objects *objects, const struct load_options *options, uint32_t programs,
                  enum capture_program *refused, char *error);
void objects_clear(struct objects *objects);
void objects_close(struct objects *objects);

/* ---- parts.c: which variant of each part ---- */

/* Programs that a variant takes, as a set of PROGRAM_BITs. */
uint32_t variant_programs(struct capture_variant variant);
/* What `text` ("progress=exit,life=trace", NULL: nothing) forces, and what tests ask for. -EINVAL names what
 * is wrong. */
struct variant_request {
    struct capture_variant forced; /* VARIANT_ANY: not forced */
    struct load_options options;
    char refuse[32];
};
#define VARIANT_ANY 0xff
int variant_parse(const char *text, struct variant_request *request, char *error);
/* Loads the best variant that runs here, within what is forced. */
int variant_load(struct objects *objects, struct variant_request *request, struct capture_variant *variant,
                 char *error);

/* ---- probe.c ---- */
int probe_rights(char *error);
int probe_required(char *error); /* -ENOTSUP naming the first missing kernel feature */
/* "Operation not permitted by this kernel build" is no lack of rights. */
bool probe_has_rights(void);

/* capture.c: highest CPU number + 1 that per-CPU maps have values for, or a negative errno */
int possible_cpus(void);

/* cut.c */
uint64_t
misses_that_matter(const struct capture *capture); /* runs left out of programs whose misses are verdicts */
void closed_forget(struct capture *capture, uint64_t cgroup_id);
void ends_forget(struct capture *capture, uint64_t cgroup_id);
int iterate_once(int program, char *error); /* reads all that the iterator prints and forgets it */

/* attached.c: the hooks of recorded cgroups */
void cgroup_hooks_attach(const struct objects *objects, int directory);
void cgroup_hooks_detach(const struct objects *objects, int directory);

/* output.c */
int output_hook_attach(const struct objects *objects, int directory);
/* Tries whether it runs: in this cgroup it holds nothing. */
int output_hook_try(const struct objects *objects, int directory, bool on);

/* cut.c: every connection whose output waits, in all network namespaces of recorded processes, tries to send
 */
int push_outputs(struct capture *capture);

/* cgroup.c */
int cgroup_mount(char *path, size_t bytes); /* where cgroup2 is mounted; -ENOENT */
int cgroup_open(uint64_t id);               /* descriptor of the directory; -ENOENT */
int cgroup_depth(int directory);            /* below the root; -EXDEV: seen from a cgroup namespace */
int cgroup_pids(int directory, int **pids, size_t *count); /* of the cgroup and all below; free(*pids) */

#endif
