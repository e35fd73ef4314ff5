/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The home entity: one directory entry a page, requests of a page served one at a time.
 *
 *   request ──▶ busy? queue ──▶ copies to call in? ask and await them all ──▶ finish: copy or grant, next
 * request
 */
#define _GNU_SOURCE
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static uint8_t bit(unsigned rank) {
    return (uint8_t)(1u << rank);
}

static uint8_t *master_of(struct dsm *dsm, uint32_t page) {
    return dsm->masters + (size_t)(page - dsm->first_home_page) * DSM_PAGE_BYTES;
}

static void refuse(struct dsm *dsm, unsigned from, const struct message *message) {
    dsm_fail(dsm, DSM_PROTOCOL,
             "process p%u sent message type %u about page or lock %u, which it may not now", from,
             message->type, message->page);
}

/* ---- pages */

static struct message about(const struct home_page *page, uint32_t number, enum message_type type) {
    return (struct message){.type = (uint8_t)type,
                            .from_home = 1,
                            .page = number,
                            .version = page->version,
                            .writer = page->writer,
                            .interval = page->interval};
}

static void start(struct dsm *dsm, uint32_t number, unsigned rank, bool write);

static void next_request(struct dsm *dsm, uint32_t number) {
    struct home_page *page = &dsm->directory[number - dsm->first_home_page];

    page->busy = 0;
    if (page->queue_length == 0)
        return;
    const unsigned rank = page->queue[0];
    const bool write = page->queue_write & bit(rank);
    memmove(page->queue, page->queue + 1, --page->queue_length);
    page->queued &= (uint8_t)~bit(rank);
    page->queue_write &= (uint8_t)~bit(rank);
    start(dsm, number, rank, write);
}

/* All copies that had to go are gone: the master is the newest version. */
static void finish(struct dsm *dsm, uint32_t number) {
    struct home_page *page = &dsm->directory[number - dsm->first_home_page];
    const unsigned rank = page->request_rank;
    struct message message = about(page, number, DATA);

    if (page->request_write && (page->sharers & bit(rank))) {
        message.type = GRANT;
        dsm_send(dsm, message, rank, NULL);
    } else {
        message.flags = page->request_write ? MESSAGE_WRITE : 0;
        dsm->counters.copies_sent++;
        dsm_send(dsm, message, rank, master_of(dsm, number));
    }
    if (page->request_write) {
        page->owner = (uint8_t)rank;
        page->sharers = 0;
        page->version++;
    } else {
        page->sharers |= bit(rank);
    }
    next_request(dsm, number);
}

static void start(struct dsm *dsm, uint32_t number, unsigned rank, bool write) {
    struct home_page *page = &dsm->directory[number - dsm->first_home_page];
    const bool owned = page->owner != NOBODY;

    page->busy = 1;
    page->request_rank = (uint8_t)rank;
    page->request_write = write;
    page->awaiting = owned ? bit(page->owner) : write ? page->sharers & (uint8_t)~bit(rank) : 0;
    for (unsigned other = 0; other < dsm->config.size; other++)
        if (page->awaiting & bit(other))
            dsm_send(dsm, about(page, number, write ? INVALIDATE : DOWNGRADE), other, NULL);
    if (page->awaiting == 0)
        finish(dsm, number);
}

static void request(struct dsm *dsm, unsigned from, const struct message *message) {
    struct home_page *page = &dsm->directory[message->page - dsm->first_home_page];
    const bool write = message->type == WRITE_REQUEST;

    if (page->owner == from || (page->queued & bit(from)) || (page->busy && page->request_rank == from) ||
        (!write && (page->sharers & bit(from)) && !(page->awaiting & bit(from)))) {
        refuse(dsm, from, message);
    } else if (page->busy) {
        page->queue[page->queue_length++] = (uint8_t)from;
        page->queued |= bit(from);
        page->queue_write |= write ? bit(from) : 0;
    } else {
        start(dsm, message->page, from, write);
    }
}

static void copy_gone(struct dsm *dsm, unsigned from, const struct message *message) {
    struct home_page *page = &dsm->directory[message->page - dsm->first_home_page];

    if (!(page->awaiting & bit(from)) || page->owner != NOBODY) {
        refuse(dsm, from, message);
        return;
    }
    page->sharers &= (uint8_t)~bit(from);
    page->awaiting &= (uint8_t)~bit(from);
    if (page->awaiting == 0)
        finish(dsm, message->page);
}

static void written_back(struct dsm *dsm, unsigned from, const struct message *message, const uint8_t *data) {
    struct home_page *page = &dsm->directory[message->page - dsm->first_home_page];
    const bool dropped = message->flags & MESSAGE_WRITE;

    if (!(page->awaiting & bit(from)) || page->owner != from || dropped != page->request_write ||
        message->version != page->version || message->writer != process_entity(from)) {
        refuse(dsm, from, message);
        return;
    }
    dsm->counters.copies_received++;
    memcpy(master_of(dsm, message->page), data, DSM_PAGE_BYTES);
    page->writer = (uint8_t)message->writer;
    page->interval = message->interval;
    page->owner = NOBODY;
    page->sharers = dropped ? 0 : bit(from);
    page->awaiting = 0;
    finish(dsm, message->page);
}

static void page_message(struct dsm *dsm, unsigned from, const struct message *message, const uint8_t *data) {
    if (message->page < dsm->first_home_page || message->page - dsm->first_home_page >= dsm->home_pages)
        refuse(dsm, from, message);
    else if (message->type == WRITEBACK)
        written_back(dsm, from, message, data);
    else if (message->type == ACKNOWLEDGE)
        copy_gone(dsm, from, message);
    else
        request(dsm, from, message);
}

/* ---- locks and the barrier */

static void grant_lock(struct dsm *dsm, uint32_t id, unsigned rank) {
    dsm->locks[id].holder = (uint8_t)rank;
    dsm_send(dsm, (struct message){.type = LOCK_GRANT, .from_home = 1, .page = id}, rank, NULL);
}

static void lock_message(struct dsm *dsm, unsigned from, const struct message *message) {
    struct home_lock *lock = message->page < DSM_MAX_LOCKS ? &dsm->locks[message->page] : NULL;
    const bool acquire = message->type == LOCK_ACQUIRE;
    const bool known = lock != NULL && message->page % dsm->config.size == dsm->config.rank;

    if (!known ||
        (acquire ? lock->holder == from || memchr(lock->queue, (int)from, lock->queue_length) != NULL
                 : lock->holder != from)) {
        refuse(dsm, from, message);
    } else if (acquire && lock->holder != NOBODY) {
        lock->queue[lock->queue_length++] = (uint8_t)from;
    } else if (acquire) {
        grant_lock(dsm, message->page, from);
    } else if (lock->queue_length > 0) {
        const unsigned next = lock->queue[0];
        memmove(lock->queue, lock->queue + 1, --lock->queue_length);
        grant_lock(dsm, message->page, next);
    } else {
        lock->holder = NOBODY;
    }
}

static void barrier_message(struct dsm *dsm, unsigned from, const struct message *message) {
    const uint8_t all = (uint8_t)((1u << dsm->config.size) - 1);

    if (dsm->config.rank != 0 || (dsm->arrived & bit(from)) || message->page != dsm->barriers_done) {
        refuse(dsm, from, message);
        return;
    }
    dsm->arrived |= bit(from);
    if (dsm->arrived != all)
        return;
    dsm->arrived = 0;
    dsm->barriers_done++;
    for (unsigned rank = 0; rank < dsm->config.size; rank++)
        dsm_send(dsm, (struct message){.type = BARRIER_RELEASE, .from_home = 1, .page = message->page}, rank,
                 NULL);
}

void dsm_home_message(struct dsm *dsm, unsigned from, const struct message *message, const uint8_t *data) {
    if (message->type == LOCK_ACQUIRE || message->type == LOCK_RELEASE)
        lock_message(dsm, from, message);
    else if (message->type == BARRIER_ARRIVE)
        barrier_message(dsm, from, message);
    else
        page_message(dsm, from, message, data);
}

/* ---- life cycle */

int dsm_home_open(struct dsm *dsm) {
    const size_t pages = dsm->config.pages;
    uint32_t first = 0;

    while (dsm_home_of(dsm, first) < dsm->config.rank)
        first++;
    dsm->first_home_page = first;
    while (first + dsm->home_pages < pages && dsm_home_of(dsm, first + dsm->home_pages) == dsm->config.rank)
        dsm->home_pages++;
    dsm->directory = calloc(dsm->home_pages, sizeof(*dsm->directory));
    dsm->masters = mmap(NULL, (size_t)dsm->home_pages * DSM_PAGE_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (dsm->directory == NULL || dsm->masters == MAP_FAILED)
        return dsm_fail(dsm, DSM_SYSTEM, "home of %u pages: %s", dsm->home_pages, strerror(errno));
    for (uint32_t page = 0; page < dsm->home_pages; page++)
        dsm->directory[page].owner = NOBODY;
    for (unsigned id = 0; id < DSM_MAX_LOCKS; id++)
        dsm->locks[id].holder = NOBODY;
    return DSM_OK;
}

void dsm_home_close(struct dsm *dsm) {
    if (dsm->masters != NULL && dsm->masters != MAP_FAILED)
        munmap(dsm->masters, (size_t)dsm->home_pages * DSM_PAGE_BYTES);
    free(dsm->directory);
}
