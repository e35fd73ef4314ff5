/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reference distributed shared memory: home-based, single writer, sequentially consistent, at page
 * granularity.
 *
 * Every process runs two entities: the application process p<rank>, and a home h<rank> that keeps master
 * copies and the directory of a block of pages, and some of the locks (h0 also the barrier). They are
 * separate units of recovery, although they share an OS process: folding the home into its host would couple
 * everyone to everyone. Between entities flow messages on channels that count whole messages; see
 * native/include/recovery_ring.h.
 *
 * A page is invalid, shared or modified (MSI) at each process. The home serialises the requests of a page: a
 * reader gets a copy of the newest version; a writer gets ownership, version + 1, after all other copies are
 * invalidated. An invalidated frame keeps its bytes (retention): they may be the only copy of that version in
 * some cut, and only a newer copy that has passed through the home ever replaces them.
 *
 * What is recorded: page faults, copies and invalidations at both ends, ownership, locks, barriers; into
 * memory rings (config.collector) or as JSON Lines of interchange.md (config.trace_path), or nowhere.
 *
 * Threads: one application thread a process (the one that called dsm_open) touches the shared memory and
 * calls these functions; a service thread belongs to the library. One dsm a process. Uses SIGSEGV: a fault
 * elsewhere goes to the handler that was there before.
 *
 * Errors: functions return 0 or a negative enum dsm_status; dsm_error() says what happened, naming the peer.
 * The first failure is final: every later call returns it. A memory access can't fail: there the process
 * prints the text to stderr and exits with DSM_EXIT_FAILED.
 */
#ifndef RECOVERY_DSM_H
#define RECOVERY_DSM_H

#include <stddef.h>
#include <stdint.h>

#define DSM_PAGE_BYTES 4096u
#define DSM_MIN_PROCESSES 2
#define DSM_MAX_PROCESSES 8
#define DSM_MAX_PAGES 32768u /* 128 MiB */
#define DSM_MAX_LOCKS 1024u
#define DSM_TOKEN_BYTES 16
#define DSM_EXIT_FAILED 70

enum dsm_status {
    DSM_OK = 0,
    DSM_USAGE = -1,     /* an argument is out of range, or the call is not allowed now */
    DSM_SYSTEM = -2,    /* the operating system refused something */
    DSM_PEER_LOST = -3, /* a peer closed its connection before dsm_close */
    DSM_PROTOCOL = -4,  /* a peer sent what it must not send */
    DSM_TIMEOUT = -5    /* no answer for config.timeout_ms */
};

struct dsm_config {
    unsigned rank, size;            /* this process, all processes: DSM_MIN_PROCESSES … DSM_MAX_PROCESSES */
    int listener;                   /* listening TCP socket of this rank; stays open, stays the caller's */
    const uint16_t *ports;          /* size ports on 127.0.0.1, host byte order, one a rank */
    uint8_t token[DSM_TOKEN_BYTES]; /* secret of this run: who does not know it is no peer */
    size_t pages;                   /* of DSM_PAGE_BYTES, 1 … DSM_MAX_PAGES, equal in all processes */
    unsigned timeout_ms;            /* longest wait for an answer; 0: 60 000 */
    const char *trace_path;         /* JSON Lines file that is made anew, or NULL */
    const char *collector;          /* unix socket that takes memory rings, or NULL; not both */
    const char *application;        /* name told to the collector; letters, digits, . _ - */
    size_t ring_bytes;              /* of each of the two rings, a power of two; 0: 1 MiB */
    const char *image_dir;          /* directory of checkpoint images, or NULL: no checkpoints */
    /* NULL: from the beginning. Else a recovery line: 2 * size checkpoint indices, equal in all processes, in
     * the order p0, h0, p1, h1, …; 0: initial state. See dsm_restored. Not with `collector`. */
    const uint32_t *restore;
    /* Called instead of printing and exiting where a memory access can't be resolved; must not return. NULL:
     * the latter. */
    void (*gave_up)(const char *error);
};

struct dsm;

/* Counted since dsm_open. */
struct dsm_counters {
    uint64_t read_faults, write_faults;
    uint64_t copies_received, copies_sent, invalidations; /* by either entity of this process */
    uint64_t records, records_lost; /* written to, without room in, the rings or the file */
};

/* Connects all processes; returns in each when all are there. On failure *dsm is NULL and `why` (of 256
 * bytes, may be NULL) tells. */
int dsm_open(struct dsm **dsm, const struct dsm_config *config, char *why);
/* The shared memory, zero at first, pages * DSM_PAGE_BYTES; at different addresses in different processes. */
void *dsm_memory(struct dsm *dsm);
unsigned dsm_rank(const struct dsm *dsm);
unsigned dsm_size(const struct dsm *dsm);

/* Returns when all processes have called it. */
int dsm_barrier(struct dsm *dsm);
/* Locks are granted in order of arrival at their home. id < DSM_MAX_LOCKS; not recursive. */
int dsm_lock(struct dsm *dsm, unsigned id);
int dsm_unlock(struct dsm *dsm, unsigned id);

/* `state` (outside the shared memory, at most 1 MiB) is saved with every checkpoint of this process. */
int dsm_register_state(struct dsm *dsm, const void *state, size_t bytes);
/* Checkpoints of the process entity and of the home entity: each independent of everybody else. Writes
 * <image_dir>/<entity>-<index>.image and its manifest .json with sizes, SHA-256 and cut vector, both synced,
 * then records the checkpoint. Returns the index (1, 2, …) or a negative status. */
int dsm_checkpoint(struct dsm *dsm);
int dsm_checkpoint_home(struct dsm *dsm);

/* Restart: start all processes again with the line in config.restore and the old image_dir, which every one
 * of them reads (size, pages and ranks as before; ports and token are new). dsm_open checks every image
 * against its manifest and the line itself: it refuses (DSM_USAGE) a damaged image, and a line in which
 * somebody received what was not sent, or whose barriers or page versions contradict each other. It rebuilds
 * the directories: the newest version of each page that any image of the line holds, valid or retained, is
 * the page; copies older than that are dropped; locks belong to those who held them. Messages in transit at
 * the line need no log: a process is never within a fault, a lock call or a barrier when it checkpoints, so
 * that what is in transit are copies, grants, invalidations and lock releases, whose effect the images hold.
 * The trace goes on with rollback lines.
 *
 * The application must find its place again: `dsm_restored`, called before anything else, copies the state
 * that was registered at the checkpoint into `state` and returns the checkpoint's index (0: this process
 * begins from its initial state, `state` is untouched; negative: `bytes` is not what was registered). */
int dsm_restored(struct dsm *dsm, void *state, size_t bytes);

void dsm_count(struct dsm *dsm, struct dsm_counters *counters);
/* Text of the first failure, "" before. Valid until dsm_close. */
const char *dsm_error(const struct dsm *dsm);
/* Waits for all others to come here, too (unless something failed), then frees everything. Returns the
 * status. */
int dsm_close(struct dsm *dsm);

#endif /* RECOVERY_DSM_H */
