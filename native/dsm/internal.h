/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the DSM runtime share.
 *
 *   dsm.c       life cycle, API calls, waiting          connect.c  handshake of the peers
 *   pages.c     the process entity: faults, installs    service.c  sockets, queues, dispatch of messages
 *   home.c      the home entity: directory, locks       trace.c    records into rings or JSON Lines
 *   image.c     checkpoints are written                 restore.c  and read again
 *   sha256.c
 *
 * One mutex, `lock`, guards everything below; both threads act only while they hold it, so the state of both
 * entities and the order of their records always agree. Code that holds it never touches the application's
 * mapping of the shared memory (`memory`), only its alias (`frames`): no fault can happen under the lock.
 */
#ifndef RECOVERY_DSM_INTERNAL_H
#define RECOVERY_DSM_INTERNAL_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "sha256.h"
#include "../include/recovery_ring.h"
#include "../ring/ring_write.h"
#include "recovery_dsm.h"

#define ENTITIES (2 * DSM_MAX_PROCESSES)
#define NOBODY 0xffu
#define MESSAGE_MAGIC 0x4d534452u /* "RDSM" */
#define MAX_STATE_BYTES (1u << 20)
#define MAX_VERSION ((uint64_t)1 << 37)
#define MAX_INTERVAL (1u << 21)

/* A page that was just installed is not taken away again before the faulting instruction had a chance to run.
 */
#define FRESH_UNTIL_WOKEN_NS 5000000ull
#define FRESH_AFTER_WAKE_NS 20000ull

static inline unsigned process_entity(unsigned rank) {
    return 2 * rank;
}
static inline unsigned home_entity(unsigned rank) {
    return 2 * rank + 1;
}

/* The logged ones carry a sequence number on their channel; requests are re-issued after a rollback and are
 * not logged. */
enum message_type {
    DATA = RECOVERY_DSM_DATA,
    GRANT = RECOVERY_DSM_GRANT,
    INVALIDATE = RECOVERY_DSM_INVALIDATE,
    WRITEBACK = RECOVERY_DSM_WRITEBACK,
    LOCK_ACQUIRE = RECOVERY_DSM_LOCK_ACQUIRE,
    LOCK_GRANT = RECOVERY_DSM_LOCK_GRANT,
    LOCK_RELEASE = RECOVERY_DSM_LOCK_RELEASE,
    BARRIER_ARRIVE = RECOVERY_DSM_BARRIER_ARRIVE,
    BARRIER_RELEASE = RECOVERY_DSM_BARRIER_RELEASE,
    READ_REQUEST,
    WRITE_REQUEST,
    DOWNGRADE, /* home to owner: write back, keep a shared copy */
    ACKNOWLEDGE,
    BYE,
    MESSAGE_TYPES
};

enum message_flag {
    MESSAGE_WRITE = 1 /* DATA: ownership comes with it; WRITEBACK: the copy was dropped */
};

/* Little endian, as all machines that run this are; `length` bytes of page data follow. */
struct message {
    uint32_t magic;
    uint8_t type, flags, from_home, to_home;
    uint32_t page; /* page, lock or barrier number */
    uint32_t length;
    uint64_t sequence; /* on the channel from entity to entity */
    uint64_t version;
    uint32_t writer; /* entity that wrote this version last, in its checkpoint interval `interval`; 0, 0:
                        nobody did */
    uint32_t interval;
};
_Static_assert(sizeof(struct message) == 40, "message header is 40 bytes");

struct bytes {
    uint8_t *data;
    size_t from, used; /* content is [from, used) */
};

struct peer {
    int fd; /* -1: this process itself */
    bool bye;
    struct bytes in, out;
};

enum page_state { INVALID, SHARED, MODIFIED };
enum page_access { ACCESS_NONE, ACCESS_READ, ACCESS_WRITE };

/* A page as the process entity sees it. Invariants: access <= ACCESS_READ unless MODIFIED; ACCESS_NONE iff
 * INVALID. */
struct page {
    uint8_t state, access;
    uint8_t writer;    /* entity */
    uint8_t retained;  /* INVALID, but the frame still holds `version` */
    uint32_t interval; /* in which `writer` wrote */
    uint64_t version;
};

/* A page as its home sees it. Invariants: owner != NOBODY => sharers == 0 (ranks, bit set); awaiting != 0 =>
 * busy. */
struct home_page {
    uint8_t owner, sharers, awaiting, busy;
    uint8_t request_rank, request_write;
    uint8_t queued, queue_write; /* ranks that wait, and which of them want to write */
    uint8_t queue[DSM_MAX_PROCESSES], queue_length;
    uint8_t writer;
    uint32_t interval;
    uint64_t version;
};

struct home_lock {
    uint8_t holder, queue[DSM_MAX_PROCESSES], queue_length;
};

/* Sequence numbers of one entity of this process: messages sent to, and taken from, each other entity. */
struct channels {
    uint64_t sent[ENTITIES], received[ENTITIES];
};

struct entity {
    struct channels channels;
    uint32_t checkpoint; /* newest index; the interval is one more */
};

/* ---- images: image.c writes them, restore.c reads them */

#define IMAGE_MAGIC "RDSMIMG2"
#define IMAGE_RETAINED 3 /* beside enum page_state: invalid, but the frame holds `version` */

struct image_head {
    char magic[8];
    uint32_t entity, checkpoint;
    uint64_t state_bytes, pages;
};

struct image_process {
    struct channels channels;
    uint32_t barriers, registered_bytes;
    uint8_t held[DSM_MAX_LOCKS];
};

struct image_home {
    struct channels channels;
    uint32_t arrived, barriers;
    struct home_lock locks[DSM_MAX_LOCKS];
};

struct image_page {
    uint32_t page;
    uint8_t state; /* enum page_state or IMAGE_RETAINED; of a home: owner's rank or NOBODY */
    uint8_t writer;
    uint16_t zero;
    uint32_t interval, zero_too;
    uint64_t version;
};

struct tracer {
    int file;                    /* JSON Lines, or -1 */
    int collector;               /* connection, or -1 */
    struct ring_writer rings[2]; /* of the application thread and of the service thread */
    uint64_t sequence;
};

struct dsm {
    struct dsm_config config;
    pthread_mutex_t lock;
    pthread_t service;
    bool service_runs, stopping;
    int wake_service; /* eventfd */
    uint32_t wake;    /* futex: changes whenever the application thread may find what it waits for */
    int status;       /* first failure */
    char error[256];
    struct peer peers[DSM_MAX_PROCESSES];

    struct entity process, home;
    uint8_t *memory,
        *frames; /* two mappings of one memfd: the application's, and ours that is always writable */
    struct page *pages;
    enum waiting { FOR_NOTHING, FOR_READ, FOR_WRITE, FOR_LOCK, FOR_BARRIER, FOR_BYE } waiting;
    uint32_t waiting_number; /* the page or lock that the application thread waits for */
    uint32_t fresh_page;
    uint64_t fresh_until_ns;
    uint8_t held[DSM_MAX_LOCKS];

    uint8_t *masters; /* frames of the home's pages */
    uint32_t first_home_page, home_pages;
    struct home_page *directory;
    struct home_lock locks[DSM_MAX_LOCKS];
    uint8_t arrived;        /* ranks at the barrier; only at h0 */
    uint32_t barriers;      /* this process has been at */
    uint32_t barriers_done; /* only at h0 */

    const void *state;
    size_t state_bytes;
    uint8_t *restored; /* registered state of the image we began from, or NULL */
    size_t restored_bytes;
    struct tracer tracer;
    struct dsm_counters counters;
    struct sigaction previous;
};

/* dsm.c */
int dsm_fail(struct dsm *dsm, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));
uint64_t dsm_now_ns(clockid_t clock);
unsigned dsm_home_of(const struct dsm *dsm, uint32_t page);
/* Under the lock, which it lets go meanwhile: waits until dsm->waiting is FOR_NOTHING, or a failure or
 * timeout. */
int dsm_wait(struct dsm *dsm);
/* The service found what the application thread waits for. */
void dsm_found(struct dsm *dsm);

/* connect.c: all peers connected, or a status and dsm->error */
int dsm_connect(struct dsm *dsm);

/* restore.c: both entities as their images, and the directory as all images together say it is; nothing
 * without config.restore */
int dsm_restore(struct dsm *dsm);

/* service.c */
void *dsm_service(void *dsm);
/* Queues a message from an entity of this process; `page` may be NULL. Sequence number and record are made
 * here. */
void dsm_send(struct dsm *dsm, struct message message, unsigned to_rank, const uint8_t *page);
/* Takes what this process sent to itself, and hands the operating system what is queued for the others. */
void dsm_pump_self(struct dsm *dsm);
void dsm_notify_service(struct dsm *dsm);
bool dsm_reserve_bytes(struct bytes *bytes);
void dsm_free_bytes(struct bytes *bytes);

/* pages.c: called with the lock held */
int dsm_pages_open(struct dsm *dsm);
void dsm_pages_close(struct dsm *dsm);
void dsm_process_message(struct dsm *dsm, unsigned from, const struct message *message, const uint8_t *page);
void dsm_protect_written(struct dsm *dsm);
void dsm_set_access(struct dsm *dsm, uint32_t page, enum page_access access);

/* home.c */
int dsm_home_open(struct dsm *dsm);
void dsm_home_close(struct dsm *dsm);
void dsm_home_message(struct dsm *dsm, unsigned from, const struct message *message, const uint8_t *page);

/* trace.c */
int dsm_trace_open(struct dsm *dsm);
void dsm_trace_close(struct dsm *dsm);
void dsm_trace_fault(struct dsm *dsm, uint32_t page, bool write);
void dsm_trace_message(struct dsm *dsm, const struct message *message, unsigned self, unsigned other,
                       bool source);
/* Messages [begin, end) that were in transit at the line reach their receiver `self` with its restart. */
void dsm_trace_in_transit(struct dsm *dsm, unsigned self, unsigned other, uint64_t begin, uint64_t end);
void dsm_trace_rollback(struct dsm *dsm, unsigned self, uint32_t checkpoint);
void dsm_trace_checkpoint(struct dsm *dsm, const struct entity *entity, unsigned number, const char *image);
/* The cut vector as JSON into `out`; returns its length. */
size_t dsm_cut_json(const struct entity *entity, unsigned number, char *out, size_t size);
extern __thread int dsm_trace_thread;

#endif /* RECOVERY_DSM_INTERNAL_H */
