/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "internal.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_TIMEOUT_MS 60000u
#define DEFAULT_RING_BYTES ((size_t)1 << 20)

uint64_t dsm_now_ns(clockid_t clock) {
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

unsigned dsm_home_of(const struct dsm *dsm, uint32_t page) {
    return (unsigned)((uint64_t)page * dsm->config.size / dsm->config.pages);
}

static void futex_wake(uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

int dsm_fail(struct dsm *dsm, int status, const char *format, ...) {
    va_list arguments;

    if (dsm->status != DSM_OK)
        return dsm->status;
    va_start(arguments, format);
    vsnprintf(dsm->error, sizeof(dsm->error), format, arguments);
    va_end(arguments);
    dsm->status = status;
    __atomic_add_fetch(&dsm->wake, 1, __ATOMIC_RELEASE);
    futex_wake(&dsm->wake);
    return status;
}

void dsm_found(struct dsm *dsm) {
    dsm->waiting = FOR_NOTHING;
    __atomic_add_fetch(&dsm->wake, 1, __ATOMIC_RELEASE);
    futex_wake(&dsm->wake);
}

static int timed_out(struct dsm *dsm) {
    static const char *const what[] = {"nothing", "a read of page", "a write to page",
                                       "lock",    "barrier",        "the goodbye"};

    return dsm_fail(dsm, DSM_TIMEOUT, "no answer to %s %u for %u ms", what[dsm->waiting], dsm->waiting_number,
                    dsm->config.timeout_ms);
}

int dsm_wait(struct dsm *dsm) {
    const uint64_t until = dsm_now_ns(CLOCK_MONOTONIC) + dsm->config.timeout_ms * 1000000ull;

    while (dsm->status == DSM_OK && dsm->waiting != FOR_NOTHING) {
        const uint64_t now = dsm_now_ns(CLOCK_MONOTONIC);
        const uint32_t seen = __atomic_load_n(&dsm->wake, __ATOMIC_ACQUIRE);
        if (now >= until)
            return timed_out(dsm);
        const struct timespec left = {.tv_sec = (time_t)((until - now) / 1000000000ull),
                                      .tv_nsec = (long)((until - now) % 1000000000ull)};
        pthread_mutex_unlock(&dsm->lock);
        syscall(SYS_futex, &dsm->wake, FUTEX_WAIT_PRIVATE, seen, &left, NULL, 0);
        pthread_mutex_lock(&dsm->lock);
    }
    return dsm->status;
}

/* Sends one message and waits for what it asks for. Lock held. */
static int ask(struct dsm *dsm, struct message message, unsigned home, enum waiting waiting) {
    if (dsm->status != DSM_OK)
        return dsm->status;
    dsm->waiting = waiting;
    dsm->waiting_number = message.page;
    dsm_send(dsm, message, home, NULL);
    dsm_pump_self(dsm);
    return dsm_wait(dsm);
}

int dsm_barrier(struct dsm *dsm) {
    pthread_mutex_lock(&dsm->lock);
    const struct message arrive = {.type = BARRIER_ARRIVE, .to_home = 1, .page = dsm->barriers};
    const int status = ask(dsm, arrive, 0, FOR_BARRIER);
    dsm->barriers++;
    pthread_mutex_unlock(&dsm->lock);
    return status;
}

static int refuse_lock(struct dsm *dsm, unsigned id) {
    return dsm_fail(dsm, DSM_USAGE, "lock %u is not below %u, is held already, or is not held", id,
                    DSM_MAX_LOCKS);
}

int dsm_lock(struct dsm *dsm, unsigned id) {
    int status;

    pthread_mutex_lock(&dsm->lock);
    if (id >= DSM_MAX_LOCKS || dsm->held[id])
        status = refuse_lock(dsm, id);
    else if ((status = ask(dsm, (struct message){.type = LOCK_ACQUIRE, .to_home = 1, .page = id},
                           id % dsm->config.size, FOR_LOCK)) == DSM_OK)
        dsm->held[id] = 1;
    pthread_mutex_unlock(&dsm->lock);
    return status;
}

int dsm_unlock(struct dsm *dsm, unsigned id) {
    pthread_mutex_lock(&dsm->lock);
    if (id >= DSM_MAX_LOCKS || !dsm->held[id])
        refuse_lock(dsm, id);
    if (dsm->status == DSM_OK) {
        dsm->held[id] = 0;
        dsm_send(dsm, (struct message){.type = LOCK_RELEASE, .to_home = 1, .page = id}, id % dsm->config.size,
                 NULL);
        dsm_pump_self(dsm);
    }
    const int status = dsm->status;
    pthread_mutex_unlock(&dsm->lock);
    return status;
}

int dsm_register_state(struct dsm *dsm, const void *state, size_t bytes) {
    const uint8_t *from = state;
    int status = DSM_OK;

    pthread_mutex_lock(&dsm->lock);
    if (bytes > MAX_STATE_BYTES ||
        (from + bytes > dsm->memory && from < dsm->memory + dsm->config.pages * DSM_PAGE_BYTES))
        status =
            dsm_fail(dsm, DSM_USAGE, "state of %zu bytes is too long or lies in the shared memory", bytes);
    dsm->state = state;
    dsm->state_bytes = bytes;
    pthread_mutex_unlock(&dsm->lock);
    return status;
}

int dsm_restored(struct dsm *dsm, void *state, size_t bytes) {
    int status;

    pthread_mutex_lock(&dsm->lock);
    status = (int)dsm->process.checkpoint;
    if (dsm->config.restore == NULL || dsm->restored == NULL)
        status = 0;
    else if (bytes != dsm->restored_bytes)
        status = dsm_fail(dsm, DSM_USAGE, "the image holds %zu bytes of registered state, not %zu",
                          dsm->restored_bytes, bytes);
    else if (bytes > 0)
        memcpy(state, dsm->restored, bytes);
    pthread_mutex_unlock(&dsm->lock);
    return status;
}

void *dsm_memory(struct dsm *dsm) {
    return dsm->memory;
}
unsigned dsm_rank(const struct dsm *dsm) {
    return dsm->config.rank;
}
unsigned dsm_size(const struct dsm *dsm) {
    return dsm->config.size;
}
const char *dsm_error(const struct dsm *dsm) {
    return dsm->error;
}

void dsm_count(struct dsm *dsm, struct dsm_counters *counters) {
    pthread_mutex_lock(&dsm->lock);
    *counters = dsm->counters;
    pthread_mutex_unlock(&dsm->lock);
}

/* ---- life cycle */

static int check_config(struct dsm *dsm) {
    const struct dsm_config *config = &dsm->config;
    const char *name = config->application == NULL ? "" : config->application;

    if (config->size < DSM_MIN_PROCESSES || config->size > DSM_MAX_PROCESSES || config->rank >= config->size)
        return dsm_fail(dsm, DSM_USAGE, "rank %u of %u processes: there are %d to %d", config->rank,
                        config->size, DSM_MIN_PROCESSES, DSM_MAX_PROCESSES);
    if (config->pages < config->size || config->pages > DSM_MAX_PAGES)
        return dsm_fail(dsm, DSM_USAGE, "%zu pages: at least one a process and at most %u", config->pages,
                        DSM_MAX_PAGES);
    if (config->restore != NULL && config->image_dir == NULL)
        return dsm_fail(dsm, DSM_USAGE, "a restart needs the image directory");
    if (config->restore != NULL && config->collector != NULL)
        return dsm_fail(dsm, DSM_USAGE,
                        "a restart can't record to a collector, for which a runtime that starts begins anew "
                        "(rollback to 0): "
                        "record into trace files and compute --from them");
    if (config->trace_path != NULL && config->collector != NULL)
        return dsm_fail(dsm, DSM_USAGE, "records go to a file or to a collector, not to both");
    if (strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") != strlen(name) ||
        strlen(name) > 64)
        return dsm_fail(dsm, DSM_USAGE, "the application's name holds other than letters, digits, . _ -");
    return DSM_OK;
}

static int reserve_queues(struct dsm *dsm) {
    for (unsigned rank = 0; rank < dsm->config.size; rank++)
        if (!dsm_reserve_bytes(&dsm->peers[rank].in) || !dsm_reserve_bytes(&dsm->peers[rank].out))
            return dsm_fail(dsm, DSM_SYSTEM, "queues: %s", strerror(errno));
    return DSM_OK;
}

static int start_service(struct dsm *dsm) {
    sigset_t all, before;

    dsm->wake_service = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (dsm->wake_service < 0)
        return dsm_fail(dsm, DSM_SYSTEM, "eventfd: %s", strerror(errno));
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&dsm->service, NULL, dsm_service, dsm);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        return dsm_fail(dsm, DSM_SYSTEM, "service thread: %s", strerror(error));
    dsm->service_runs = true;
    return DSM_OK;
}

static void free_all(struct dsm *dsm) {
    if (dsm->service_runs) {
        pthread_mutex_lock(&dsm->lock);
        dsm->stopping = true;
        pthread_mutex_unlock(&dsm->lock);
        dsm_notify_service(dsm);
        pthread_join(dsm->service, NULL);
    }
    for (unsigned rank = 0; rank < DSM_MAX_PROCESSES; rank++) {
        if (dsm->peers[rank].fd >= 0)
            close(dsm->peers[rank].fd);
        dsm_free_bytes(&dsm->peers[rank].in);
        dsm_free_bytes(&dsm->peers[rank].out);
    }
    dsm_trace_close(dsm);
    dsm_pages_close(dsm);
    dsm_home_close(dsm);
    free(dsm->restored);
    if (dsm->wake_service >= 0)
        close(dsm->wake_service);
    pthread_mutex_destroy(&dsm->lock);
    free(dsm);
}

static struct dsm *allocate(const struct dsm_config *config) {
    struct dsm *dsm = calloc(1, sizeof(*dsm));

    if (dsm == NULL)
        return NULL;
    dsm->config = *config;
    if (config->timeout_ms == 0)
        dsm->config.timeout_ms = DEFAULT_TIMEOUT_MS;
    if (config->ring_bytes == 0)
        dsm->config.ring_bytes = DEFAULT_RING_BYTES;
    dsm->wake_service = -1;
    dsm->tracer.file = dsm->tracer.collector = -1;
    dsm->fresh_page = UINT32_MAX;
    for (unsigned rank = 0; rank < DSM_MAX_PROCESSES; rank++)
        dsm->peers[rank].fd = -1;
    pthread_mutex_init(&dsm->lock, NULL);
    return dsm;
}

int dsm_open(struct dsm **out, const struct dsm_config *config, char *why) {
    struct dsm *dsm = allocate(config);
    int status;

    *out = NULL;
    if (dsm == NULL) {
        if (why != NULL)
            strcpy(why, "out of memory");
        return DSM_SYSTEM;
    }
    if ((status = check_config(dsm)) == DSM_OK && (status = reserve_queues(dsm)) == DSM_OK &&
        (status = dsm_home_open(dsm)) == DSM_OK && (status = dsm_trace_open(dsm)) == DSM_OK &&
        (status = dsm_pages_open(dsm)) == DSM_OK && (status = dsm_restore(dsm)) == DSM_OK &&
        (status = dsm_connect(dsm)) == DSM_OK && (status = start_service(dsm)) == DSM_OK) {
        *out = dsm;
        return DSM_OK;
    }
    if (why != NULL)
        memcpy(why, dsm->error, sizeof(dsm->error));
    free_all(dsm);
    return status;
}

/* After the last barrier nobody asks for anything any more; a connection may end after its BYE. */
static void say_goodbye(struct dsm *dsm) {
    unsigned open = 0;

    for (unsigned rank = 0; rank < dsm->config.size; rank++)
        if (rank != dsm->config.rank)
            dsm_send(dsm, (struct message){.type = BYE}, rank, NULL);
    for (unsigned rank = 0; rank < dsm->config.size; rank++)
        open += rank != dsm->config.rank && !dsm->peers[rank].bye;
    if (open != 0)
        dsm->waiting = FOR_BYE;
    dsm_pump_self(dsm);
    dsm_wait(dsm);
}

int dsm_close(struct dsm *dsm) {
    if (dsm_barrier(dsm) == DSM_OK) {
        pthread_mutex_lock(&dsm->lock);
        say_goodbye(dsm);
        pthread_mutex_unlock(&dsm->lock);
    }
    const int status = dsm->status;
    free_all(dsm);
    return status;
}
