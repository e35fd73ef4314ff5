/* SPDX-License-Identifier: Apache-2.0 */
/* The process entity: page faults become requests, copies are installed, invalidated and written back. */
#define _GNU_SOURCE
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* For the signal handler: the one dsm of this process. */
static struct dsm *active;

static uint32_t current_interval(const struct dsm *dsm) {
    return dsm->process.checkpoint + 1;
}

void dsm_set_access(struct dsm *dsm, uint32_t page, enum page_access access) {
    static const int rights[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};

    dsm->pages[page].access = (uint8_t)access;
    if (mprotect(dsm->memory + (size_t)page * DSM_PAGE_BYTES, DSM_PAGE_BYTES, rights[access]) != 0)
        dsm_fail(dsm, DSM_SYSTEM, "mprotect of page %u: %s", page, strerror(errno));
}

/* The first write of this checkpoint interval to a page that is ours to write. */
static void begin_writing(struct dsm *dsm, uint32_t number) {
    struct page *page = &dsm->pages[number];

    page->writer = (uint8_t)process_entity(dsm->config.rank);
    page->interval = current_interval(dsm);
    dsm_set_access(dsm, number, ACCESS_WRITE);
}

/* ---- faults */

static void request(struct dsm *dsm, uint32_t page, bool write) {
    const struct message message = {.type = write ? WRITE_REQUEST : READ_REQUEST, .to_home = 1, .page = page};

    dsm->waiting = write ? FOR_WRITE : FOR_READ;
    dsm->waiting_number = page;
    if (write)
        dsm->counters.write_faults++;
    else
        dsm->counters.read_faults++;
    dsm_trace_fault(dsm, page, write);
    dsm_send(dsm, message, dsm_home_of(dsm, page), NULL);
    dsm_pump_self(dsm);
}

/* Lock held. Returns when the access may be tried again. */
static int resolve(struct dsm *dsm, uint32_t number, bool write) {
    struct page *page = &dsm->pages[number];

    if (dsm->status != DSM_OK || page->access >= (write ? ACCESS_WRITE : ACCESS_READ))
        return dsm->status; /* or the service thread was faster */
    if (page->state == MODIFIED) {
        begin_writing(dsm, number);
        return dsm->status;
    }
    request(dsm, number, write);
    const int status = dsm_wait(dsm);
    dsm->fresh_until_ns = dsm_now_ns(CLOCK_MONOTONIC) + FRESH_AFTER_WAKE_NS;
    return status;
}

static bool is_write(const struct dsm *dsm, uint32_t page, const void *context) {
#if defined(__x86_64__)
    (void)dsm, (void)page;
    return (((const ucontext_t *)context)->uc_mcontext.gregs[REG_ERR] & 2) != 0;
#else
    (void)context; /* a first fault reads; the second, on a readable page, writes */
    return dsm->pages[page].access != ACCESS_NONE;
#endif
}

/* A memory access can't return an error. */
static void give_up(const struct dsm *dsm) {
    char text[320];

    if (dsm->config.gave_up != NULL)
        dsm->config.gave_up(dsm->error);
    const int length = snprintf(text, sizeof(text), "dsm: process p%u: %s\n", dsm->config.rank, dsm->error);

    if (write(STDERR_FILENO, text, (size_t)length) < 0)
        _exit(DSM_EXIT_FAILED);
    _exit(DSM_EXIT_FAILED);
}

static void pass_on(struct dsm *dsm, int number, siginfo_t *info, void *context) {
    const struct sigaction *previous = dsm == NULL ? NULL : &dsm->previous;

    if (previous != NULL && (previous->sa_flags & SA_SIGINFO) && previous->sa_sigaction != NULL)
        previous->sa_sigaction(number, info, context);
    else if (previous != NULL && previous->sa_handler != SIG_DFL && previous->sa_handler != SIG_IGN)
        previous->sa_handler(number);
    else
        signal(SIGSEGV, SIG_DFL); /* the instruction runs again and ends the process as it would have */
}

static void on_fault(int number, siginfo_t *info, void *context) {
    struct dsm *dsm = active;
    const int saved = errno;
    const size_t offset = dsm == NULL ? 0 : (size_t)((uint8_t *)info->si_addr - dsm->memory);

    if (dsm == NULL || info->si_code <= 0 || offset >= dsm->config.pages * DSM_PAGE_BYTES) {
        pass_on(dsm, number, info, context);
        return;
    }
    const uint32_t page = (uint32_t)(offset / DSM_PAGE_BYTES);
    pthread_mutex_lock(&dsm->lock);
    const int status = resolve(dsm, page, is_write(dsm, page, context));
    pthread_mutex_unlock(&dsm->lock);
    if (status != DSM_OK)
        give_up(dsm);
    errno = saved;
}

/* ---- messages from homes */

static void refuse(struct dsm *dsm, unsigned from, const struct message *message) {
    dsm_fail(dsm, DSM_PROTOCOL,
             "home h%u sent message type %u about page or lock %u, which was not asked for", from,
             message->type, message->page);
}

static void installed(struct dsm *dsm, uint32_t page) {
    dsm->fresh_page = page;
    dsm->fresh_until_ns = dsm_now_ns(CLOCK_MONOTONIC) + FRESH_UNTIL_WOKEN_NS;
    dsm_found(dsm);
}

static void install(struct dsm *dsm, unsigned from, const struct message *message, const uint8_t *data) {
    struct page *page = &dsm->pages[message->page];
    const bool write = message->flags & MESSAGE_WRITE;

    if (dsm->waiting != (write ? FOR_WRITE : FOR_READ) || dsm->waiting_number != message->page ||
        page->state != INVALID || message->version < page->version) {
        refuse(dsm, from, message);
        return;
    }
    dsm->counters.copies_received++;
    memcpy(dsm->frames + (size_t)message->page * DSM_PAGE_BYTES, data, DSM_PAGE_BYTES);
    page->retained = 0;
    page->state = write ? MODIFIED : SHARED;
    page->version = message->version + write;
    page->writer = (uint8_t)message->writer;
    page->interval = message->interval;
    if (write)
        begin_writing(dsm, message->page);
    else
        dsm_set_access(dsm, message->page, ACCESS_READ);
    installed(dsm, message->page);
}

static void grant(struct dsm *dsm, unsigned from, const struct message *message) {
    struct page *page = &dsm->pages[message->page];

    if (dsm->waiting != FOR_WRITE || dsm->waiting_number != message->page || page->state != SHARED ||
        page->version != message->version) {
        refuse(dsm, from, message);
        return;
    }
    page->state = MODIFIED;
    page->version = message->version + 1;
    begin_writing(dsm, message->page);
    installed(dsm, message->page);
}

/* First no more writes, then the copy: what goes home is the last word. */
static void write_back(struct dsm *dsm, unsigned home, uint32_t number, bool drop) {
    struct page *page = &dsm->pages[number];
    const struct message message = {.type = WRITEBACK,
                                    .flags = drop ? MESSAGE_WRITE : 0,
                                    .to_home = 1,
                                    .page = number,
                                    .version = page->version,
                                    .writer = page->writer,
                                    .interval = page->interval};

    page->state = drop ? INVALID : SHARED;
    page->retained = drop;
    dsm_set_access(dsm, number, drop ? ACCESS_NONE : ACCESS_READ);
    dsm->counters.copies_sent++;
    dsm_send(dsm, message, home, dsm->frames + (size_t)number * DSM_PAGE_BYTES);
}

static void invalidate(struct dsm *dsm, unsigned from, const struct message *message) {
    struct page *page = &dsm->pages[message->page];

    if (page->state == INVALID || page->version != message->version) {
        refuse(dsm, from, message);
        return;
    }
    dsm->counters.invalidations++;
    if (page->state == MODIFIED) {
        write_back(dsm, from, message->page, true);
        return;
    }
    page->state = INVALID;
    page->retained = 1;
    dsm_set_access(dsm, message->page, ACCESS_NONE);
    dsm_send(dsm, (struct message){.type = ACKNOWLEDGE, .to_home = 1, .page = message->page}, from, NULL);
}

static void release(struct dsm *dsm, unsigned from, const struct message *message, enum waiting waiting) {
    if (dsm->waiting != waiting || dsm->waiting_number != message->page)
        refuse(dsm, from, message);
    else
        dsm_found(dsm);
}

void dsm_process_message(struct dsm *dsm, unsigned from, const struct message *message, const uint8_t *data) {
    const bool about_page = message->type == DATA || message->type == GRANT || message->type == INVALIDATE ||
                            message->type == DOWNGRADE;

    if (about_page && (message->page >= dsm->config.pages || dsm_home_of(dsm, message->page) != from))
        refuse(dsm, from, message);
    else if (message->type == DATA)
        install(dsm, from, message, data);
    else if (message->type == GRANT)
        grant(dsm, from, message);
    else if (message->type == INVALIDATE)
        invalidate(dsm, from, message);
    else if (message->type == LOCK_GRANT)
        release(dsm, from, message, FOR_LOCK);
    else if (message->type == BARRIER_RELEASE)
        release(dsm, from, message, FOR_BARRIER);
    else if (dsm->pages[message->page].state == MODIFIED) /* DOWNGRADE */
        write_back(dsm, from, message->page, false);
    else
        refuse(dsm, from, message);
}

/* After a checkpoint the first write to each page faults again, so that a version names the interval it was
 * written in. */
void dsm_protect_written(struct dsm *dsm) {
    for (uint32_t page = 0; page < dsm->config.pages; page++)
        if (dsm->pages[page].access == ACCESS_WRITE)
            dsm_set_access(dsm, page, ACCESS_READ);
}

/* ---- life cycle */

static int map_memory(struct dsm *dsm) {
    const size_t bytes = dsm->config.pages * DSM_PAGE_BYTES;
    const int fd = memfd_create("dsm-pages", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0) {
        if (fd >= 0)
            close(fd);
        return dsm_fail(dsm, DSM_SYSTEM, "memory of %zu bytes: %s", bytes, strerror(errno));
    }
    dsm->memory = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, fd, 0);
    dsm->frames = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (dsm->memory == MAP_FAILED || dsm->frames == MAP_FAILED)
        return dsm_fail(dsm, DSM_SYSTEM, "mapping %zu bytes: %s", bytes, strerror(errno));
    return DSM_OK;
}

int dsm_pages_open(struct dsm *dsm) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};

    if (active != NULL)
        return dsm_fail(dsm, DSM_USAGE, "this process has a dsm open already");
    dsm->pages = calloc(dsm->config.pages, sizeof(*dsm->pages));
    if (dsm->pages == NULL)
        return dsm_fail(dsm, DSM_SYSTEM, "out of memory");
    if (map_memory(dsm) != DSM_OK)
        return dsm->status;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGSEGV, &action, &dsm->previous) != 0)
        return dsm_fail(dsm, DSM_SYSTEM, "sigaction: %s", strerror(errno));
    active = dsm;
    return DSM_OK;
}

void dsm_pages_close(struct dsm *dsm) {
    const size_t bytes = dsm->config.pages * DSM_PAGE_BYTES;

    if (active == dsm) {
        sigaction(SIGSEGV, &dsm->previous, NULL);
        active = NULL;
    }
    if (dsm->memory != NULL && dsm->memory != MAP_FAILED)
        munmap(dsm->memory, bytes);
    if (dsm->frames != NULL && dsm->frames != MAP_FAILED)
        munmap(dsm->frames, bytes);
    free(dsm->pages);
}
