/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the images of a recovery line to running entities (recovery_dsm.h, "Restart").
 *
 * Every process reads all images of the line and so comes to the same answer without a message:
 *
 *   newest version of a page = the greatest among the masters and all frames, valid or retained
 *   its owner                = who holds it MODIFIED; else nobody, and the home's master gets its content
 *   all other copies         = dropped and retained
 *
 * Why this is the memory at the line: retention keeps each version somewhere until a newer one passed through
 * the home, and in a line without orphans nobody knows of a version that no image holds. A frame that is
 * MODIFIED in an image can't be older than anything: a newer version would have come through its write-back,
 * sent after that checkpoint and received before another.
 */
#define _GNU_SOURCE
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MANIFEST_BYTES 16384

/* One entity's image; initial state: base NULL, everything zero. */
struct loaded {
    uint8_t *base;
    size_t bytes;
    struct image_head head;
    union {
        struct channels channels; /* both begin with them */
        struct image_process process;
        struct image_home home;
    };
};

struct newest {
    uint64_t version;
    const uint8_t *data;
    uint8_t holder; /* rank that has it MODIFIED, or NOBODY */
    uint8_t writer;
    uint32_t interval;
};

struct line {
    struct dsm *dsm;
    struct loaded entities[ENTITIES];
    struct newest *pages;
};

/* ---- files */

static char letter(unsigned entity) {
    return entity % 2 == 0 ? 'p' : 'h';
}

static int refuse(struct dsm *dsm, unsigned entity, const char *what) {
    return dsm_fail(dsm, DSM_USAGE, "image %c%u-%u in %s: %s", letter(entity), entity / 2,
                    dsm->config.restore[entity], dsm->config.image_dir, what);
}

static bool map_file(struct loaded *image, const char *path) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat status;
    bool good = fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0;

    if (good) {
        void *base = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        good = base != MAP_FAILED;
        image->base = good ? base : NULL;
        image->bytes = (size_t)status.st_size;
    }
    if (fd >= 0)
        close(fd);
    return good;
}

/* The manifest is our own text (image.c): the sum stands behind its name. */
static bool sum_is(const struct loaded *image, const char *path) {
    char text[MANIFEST_BYTES], hex[65], wanted[96];
    struct sha256 sum;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    const ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (fd >= 0)
        close(fd);
    if (length <= 0)
        return false;
    text[length] = 0;
    sha256_begin(&sum);
    sha256_add(&sum, image->base, image->bytes);
    sha256_end(&sum, hex);
    snprintf(wanted, sizeof(wanted), "\"sha256\":\"%s\"", hex);
    return strstr(text, wanted) != NULL;
}

static bool head_fits(const struct loaded *image, unsigned entity, uint32_t checkpoint) {
    const struct image_head *head = &image->head;
    const uint64_t least = entity % 2 == 0 ? sizeof(struct image_process) + image->process.registered_bytes
                                           : sizeof(struct image_home);

    return memcmp(head->magic, IMAGE_MAGIC, sizeof(head->magic)) == 0 && head->entity == entity &&
           head->checkpoint == checkpoint && head->state_bytes == least && head->pages <= DSM_MAX_PAGES &&
           image->bytes == sizeof(*head) + least + head->pages * (sizeof(struct image_page) + DSM_PAGE_BYTES);
}

static int load(struct line *line, unsigned entity) {
    struct dsm *dsm = line->dsm;
    struct loaded *image = &line->entities[entity];
    const uint32_t checkpoint = dsm->config.restore[entity];
    const size_t fixed = entity % 2 == 0 ? sizeof(struct image_process) : sizeof(struct image_home);
    char path[PATH_MAX];

    if (checkpoint == 0)
        return DSM_OK;
    if (checkpoint >= MAX_INTERVAL - 2)
        return refuse(dsm, entity, "there is no such index");
    snprintf(path, sizeof(path), "%s/%c%u-%u.image", dsm->config.image_dir, letter(entity), entity / 2,
             checkpoint);
    if (!map_file(image, path))
        return refuse(dsm, entity, "it is not there or can't be read");
    memcpy(strrchr(path, '.'), ".json", sizeof(".json"));
    if (!sum_is(image, path))
        return refuse(dsm, entity, "it is not what its manifest says");
    if (image->bytes < sizeof(image->head) + fixed)
        return refuse(dsm, entity, "it is too short");
    memcpy(&image->head, image->base, sizeof(image->head));
    memcpy(&image->channels, image->base + sizeof(image->head), fixed);
    return head_fits(image, entity, checkpoint) ? DSM_OK : refuse(dsm, entity, "it breaks the format");
}

/* Page `index` of an image; its data comes back. */
static const uint8_t *page_at(const struct loaded *image, uint64_t index, struct image_page *page) {
    const uint8_t *at = image->base + sizeof(image->head) + image->head.state_bytes +
                        index * (sizeof(*page) + DSM_PAGE_BYTES);

    memcpy(page, at, sizeof(*page));
    return at + sizeof(*page);
}

/* ---- is it a line */

/* Received at most what was sent, on every channel: without this nothing below is true. */
static int check_channels(const struct line *line) {
    const unsigned entities = 2 * line->dsm->config.size;

    for (unsigned to = 0; to < entities; to++)
        for (unsigned from = 0; from < entities; from++) {
            const uint64_t received = line->entities[to].channels.received[from];
            const uint64_t sent = line->entities[from].channels.sent[to];
            if (received > sent)
                return dsm_fail(
                    line->dsm, DSM_USAGE,
                    "this is no recovery line: %c%u received %llu messages of %c%u, which sent %llu",
                    letter(to), to / 2, (unsigned long long)received, letter(from), from / 2,
                    (unsigned long long)sent);
        }
    return DSM_OK;
}

static int check_barriers(const struct line *line) {
    const struct image_home *home = &line->entities[home_entity(0)].home;

    for (unsigned rank = 0; rank < line->dsm->config.size; rank++)
        if (line->entities[process_entity(rank)].process.barriers != home->barriers || home->arrived != 0)
            return dsm_fail(
                line->dsm, DSM_USAGE,
                "this is no recovery line: p%u has passed %u barriers and h0 %u, %d have arrived at the next",
                rank, line->entities[process_entity(rank)].process.barriers, home->barriers,
                __builtin_popcount(home->arrived));
    return DSM_OK;
}

/* ---- the newest version of every page */

static int add_master(struct line *line, unsigned rank, const struct image_page *page, const uint8_t *data) {
    /* While somebody owns the page, the master is the version before. */
    const uint64_t version = page->version - (page->state != NOBODY);
    struct newest *newest = &line->pages[page->page];

    if (dsm_home_of(line->dsm, page->page) != rank || page->version == 0)
        return refuse(line->dsm, home_entity(rank), "it holds a page of another home");
    if (version > 0)
        *newest = (struct newest){version, data, NOBODY, page->writer, page->interval};
    return DSM_OK;
}

static int add_frame(struct line *line, unsigned rank, const struct image_page *page, const uint8_t *data) {
    struct newest *newest = &line->pages[page->page];
    const bool modified = page->state == MODIFIED;

    if (page->version > newest->version || (modified && page->version == newest->version)) {
        if (newest->holder != NOBODY ||
            (modified && page->version == newest->version && newest->version != 0))
            return dsm_fail(line->dsm, DSM_USAGE,
                            "this is no recovery line: version %llu of page %u is not the only one",
                            (unsigned long long)page->version, page->page);
        *newest = (struct newest){page->version, data, modified ? (uint8_t)rank : NOBODY, page->writer,
                                  page->interval};
    } else if (modified)
        return dsm_fail(line->dsm, DSM_USAGE,
                        "this is no recovery line: p%u writes version %llu of page %u, but %llu is known",
                        rank, (unsigned long long)page->version, page->page,
                        (unsigned long long)newest->version);
    return DSM_OK;
}

static int add_pages(struct line *line, unsigned entity) {
    const struct loaded *image = &line->entities[entity];
    struct image_page page;

    for (uint64_t index = 0; line->dsm->status == DSM_OK && index < image->head.pages; index++) {
        const uint8_t *data = page_at(image, index, &page);
        if (page.page >= line->dsm->config.pages || page.version >= MAX_VERSION || page.writer >= ENTITIES ||
            page.interval >= MAX_INTERVAL)
            return refuse(line->dsm, entity, "it holds a page that can't be");
        if (entity % 2 == 1)
            add_master(line, entity / 2, &page, data);
        else
            add_frame(line, entity / 2, &page, data);
    }
    return line->dsm->status;
}

static int find_newest(struct line *line) {
    const unsigned entities = 2 * line->dsm->config.size;

    line->pages = calloc(line->dsm->config.pages, sizeof(*line->pages));
    if (line->pages == NULL)
        return dsm_fail(line->dsm, DSM_SYSTEM, "out of memory");
    for (size_t page = 0; page < line->dsm->config.pages; page++)
        line->pages[page].holder = NOBODY;
    for (unsigned entity = 1; entity < entities; entity += 2) /* masters before frames */
        add_pages(line, entity);
    for (unsigned entity = 0; entity < entities; entity += 2)
        add_pages(line, entity);
    return line->dsm->status;
}

/* ---- our two entities */

/* What was in transit to it counts as taken: its effect is in the images. */
static void take_in_transit(struct line *line, unsigned entity, struct entity *into) {
    struct dsm *dsm = line->dsm;

    into->checkpoint = dsm->config.restore[entity];
    into->channels = line->entities[entity].channels;
    dsm_trace_rollback(dsm, entity, into->checkpoint);
    for (unsigned from = 0; from < 2 * dsm->config.size; from++) {
        const uint64_t sent = line->entities[from].channels.sent[entity];
        if (into->channels.received[from] == sent)
            continue;
        dsm_trace_in_transit(dsm, entity, from, into->channels.received[from], sent);
        into->channels.received[from] = sent;
    }
}

static void restore_frames(struct line *line, const struct loaded *image) {
    struct dsm *dsm = line->dsm;
    struct image_page from;

    for (uint64_t index = 0; index < image->head.pages; index++) {
        const uint8_t *data = page_at(image, index, &from);
        const bool modified = from.state == MODIFIED;
        memcpy(dsm->frames + (size_t)from.page * DSM_PAGE_BYTES, data, DSM_PAGE_BYTES);
        dsm->pages[from.page] = (struct page){.state = modified ? MODIFIED : INVALID,
                                              .writer = from.writer,
                                              .retained = !modified,
                                              .interval = from.interval,
                                              .version = from.version};
        if (modified)
            dsm_set_access(dsm, from.page, ACCESS_READ);
    }
}

static int restore_process(struct line *line) {
    struct dsm *dsm = line->dsm;
    const unsigned entity = process_entity(dsm->config.rank);
    const struct loaded *image = &line->entities[entity];

    take_in_transit(line, entity, &dsm->process);
    if (image->base == NULL)
        return dsm->status;
    dsm->barriers = image->process.barriers;
    memcpy(dsm->held, image->process.held, sizeof(dsm->held));
    restore_frames(line, image);
    dsm->restored_bytes = image->process.registered_bytes;
    if ((dsm->restored = malloc(dsm->restored_bytes + 1)) == NULL)
        return dsm_fail(dsm, DSM_SYSTEM, "out of memory");
    memcpy(dsm->restored, image->base + sizeof(image->head) + sizeof(image->process), dsm->restored_bytes);
    return dsm->status;
}

static void restore_page(struct line *line, uint32_t number) {
    struct dsm *dsm = line->dsm;
    struct home_page *page = &dsm->directory[number - dsm->first_home_page];
    const struct newest *newest = &line->pages[number];

    page->owner = newest->holder;
    page->version = newest->version;
    if (newest->holder != NOBODY || newest->version == 0)
        return; /* the owner will write it back before anybody sees the master */
    page->writer = newest->writer;
    page->interval = newest->interval;
    memcpy(dsm->masters + (size_t)(number - dsm->first_home_page) * DSM_PAGE_BYTES, newest->data,
           DSM_PAGE_BYTES);
}

/* The image's own masters first: where a page has an owner now, the home retains what it had. */
static void restore_masters(struct line *line, const struct loaded *image) {
    struct dsm *dsm = line->dsm;
    struct image_page from;

    for (uint64_t index = 0; index < image->head.pages; index++) {
        const uint8_t *data = page_at(image, index, &from);
        struct home_page *page = &dsm->directory[from.page - dsm->first_home_page];
        memcpy(dsm->masters + (size_t)(from.page - dsm->first_home_page) * DSM_PAGE_BYTES, data,
               DSM_PAGE_BYTES);
        page->writer = from.writer;
        page->interval = from.interval;
    }
}

static int restore_home(struct line *line) {
    struct dsm *dsm = line->dsm;
    const unsigned entity = home_entity(dsm->config.rank);

    take_in_transit(line, entity, &dsm->home);
    restore_masters(line, &line->entities[entity]);
    for (uint32_t number = 0; number < dsm->home_pages; number++)
        restore_page(line, dsm->first_home_page + number);
    for (unsigned id = dsm->config.rank; id < DSM_MAX_LOCKS; id += dsm->config.size)
        for (unsigned rank = 0; rank < dsm->config.size; rank++)
            if (line->entities[process_entity(rank)].process.held[id])
                dsm->locks[id].holder = (uint8_t)rank;
    if (dsm->config.rank == 0)
        dsm->barriers_done = line->entities[entity].home.barriers;
    return dsm->status;
}

int dsm_restore(struct dsm *dsm) {
    if (dsm->config.restore == NULL)
        return DSM_OK;
    struct line *line = calloc(1, sizeof(*line));
    if (line == NULL)
        return dsm_fail(dsm, DSM_SYSTEM, "out of memory");
    line->dsm = dsm;
    for (unsigned entity = 0; dsm->status == DSM_OK && entity < 2 * dsm->config.size; entity++)
        load(line, entity);
    if (dsm->status == DSM_OK && check_channels(line) == DSM_OK && check_barriers(line) == DSM_OK &&
        find_newest(line) == DSM_OK && restore_process(line) == DSM_OK)
        restore_home(line);
    for (unsigned entity = 0; entity < ENTITIES; entity++)
        if (line->entities[entity].base != NULL)
            munmap(line->entities[entity].base, line->entities[entity].bytes);
    free(line->pages);
    free(line);
    return dsm->status;
}
