/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoint images of one entity, little endian:
 *
 *   0  "RDSMIMG2"  u32 entity  u32 checkpoint  u64 state bytes  u64 pages       struct image_head
 *   state: struct image_process and the registered state, or struct image_home
 *   for each page with content: struct image_page and its 4096 bytes
 *
 * state: enum page_state, 3 = invalid but retained; for a home: owner rank or 255.
 * The image is synced under a temporary name, renamed, and only then described by its manifest, made the same
 * way.
 */
#define _GNU_SOURCE
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct image {
    FILE *file;
    struct sha256 sum;
    uint64_t bytes;
    bool failed;
};

static void put(struct image *image, const void *data, size_t bytes) {
    if (fwrite(data, 1, bytes, image->file) != bytes)
        image->failed = true;
    sha256_add(&image->sum, data, bytes);
    image->bytes += bytes;
}

static uint8_t process_page_state(const struct page *page) {
    return page->state == INVALID && page->retained ? IMAGE_RETAINED : page->state;
}

static uint64_t put_process(struct dsm *dsm, struct image *image) {
    struct image_process process = {.channels = dsm->process.channels,
                                    .barriers = dsm->barriers,
                                    .registered_bytes = (uint32_t)dsm->state_bytes};
    struct image_head head = {.magic = IMAGE_MAGIC,
                              .entity = process_entity(dsm->config.rank),
                              .checkpoint = dsm->process.checkpoint,
                              .state_bytes = sizeof(process) + dsm->state_bytes};

    memcpy(process.held, dsm->held, sizeof(process.held));

    for (uint32_t number = 0; number < dsm->config.pages; number++)
        head.pages += process_page_state(&dsm->pages[number]) != INVALID;
    put(image, &head, sizeof(head));
    put(image, &process, sizeof(process));
    put(image, dsm->state, dsm->state_bytes);
    for (uint32_t number = 0; number < dsm->config.pages; number++) {
        const struct page *page = &dsm->pages[number];
        const struct image_page line = {.page = number,
                                        .state = process_page_state(page),
                                        .writer = page->writer,
                                        .interval = page->interval,
                                        .version = page->version};
        if (line.state == INVALID)
            continue;
        put(image, &line, sizeof(line));
        put(image, dsm->frames + (size_t)number * DSM_PAGE_BYTES, DSM_PAGE_BYTES);
    }
    return head.pages;
}

static uint64_t put_home(struct dsm *dsm, struct image *image) {
    struct image_home home = {
        .channels = dsm->home.channels, .arrived = dsm->arrived, .barriers = dsm->barriers_done};
    struct image_head head = {.magic = IMAGE_MAGIC,
                              .entity = home_entity(dsm->config.rank),
                              .checkpoint = dsm->home.checkpoint,
                              .state_bytes = sizeof(home)};

    memcpy(home.locks, dsm->locks, sizeof(home.locks));

    for (uint32_t number = 0; number < dsm->home_pages; number++)
        head.pages += dsm->directory[number].version != 0;
    put(image, &head, sizeof(head));
    put(image, &home, sizeof(home));
    for (uint32_t number = 0; number < dsm->home_pages; number++) {
        const struct home_page *page = &dsm->directory[number];
        const struct image_page line = {.page = dsm->first_home_page + number,
                                        .state = page->owner,
                                        .writer = page->writer,
                                        .interval = page->interval,
                                        .version = page->version};
        if (page->version == 0)
            continue;
        put(image, &line, sizeof(line));
        put(image, dsm->masters + (size_t)number * DSM_PAGE_BYTES, DSM_PAGE_BYTES);
    }
    return head.pages;
}

/* Opens <name>.new in the image directory; its final path comes back in `path`. */
static FILE *begin_file(struct dsm *dsm, const char *name, char *path, char *fresh) {
    snprintf(path, PATH_MAX, "%s/%s", dsm->config.image_dir, name);
    snprintf(fresh, PATH_MAX, "%s/%s.new", dsm->config.image_dir, name);
    const int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (file == NULL)
        dsm_fail(dsm, DSM_SYSTEM, "%s: %s", fresh, strerror(errno));
    return file;
}

static int end_file(struct dsm *dsm, FILE *file, const char *path, const char *fresh) {
    const bool good = fflush(file) == 0 && fsync(fileno(file)) == 0;

    if (fclose(file) != 0 || !good || rename(fresh, path) != 0) {
        dsm_fail(dsm, DSM_SYSTEM, "%s: %s", path, strerror(errno));
        unlink(fresh);
    }
    return dsm->status;
}

static int sync_directory(struct dsm *dsm) {
    const int fd = open(dsm->config.image_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) != 0)
        dsm_fail(dsm, DSM_SYSTEM, "%s: %s", dsm->config.image_dir, strerror(errno));
    if (fd >= 0)
        close(fd);
    return dsm->status;
}

static int write_manifest(struct dsm *dsm, const struct entity *entity, unsigned number, const char *stem,
                          struct image *image, uint64_t pages) {
    char name[64], path[PATH_MAX], fresh[PATH_MAX], cut[4096], hex[65];

    snprintf(name, sizeof(name), "%s.json", stem);
    FILE *file = begin_file(dsm, name, path, fresh);
    if (file == NULL)
        return dsm->status;
    dsm_cut_json(entity, number, cut, sizeof(cut));
    sha256_end(&image->sum, hex);
    fprintf(file,
            "{\"format\":1,\"process\":\"%c%u\",\"checkpoint\":%u,\"file\":\"%s.image\",\"bytes\":%llu,"
            "\"sha256\":\"%s\","
            "\"pages\":%llu,\"cut\":%s}\n",
            number % 2 == 0 ? 'p' : 'h', number / 2, entity->checkpoint, stem,
            (unsigned long long)image->bytes, hex, (unsigned long long)pages, cut);
    return end_file(dsm, file, path, fresh);
}

static int save(struct dsm *dsm, struct entity *entity, unsigned number) {
    struct image image = {0};
    char stem[32], name[64], path[PATH_MAX], fresh[PATH_MAX];

    if (dsm->config.image_dir == NULL)
        return dsm_fail(dsm, DSM_USAGE, "a checkpoint needs an image directory");
    if (dsm->status != DSM_OK)
        return dsm->status;
    if (entity->checkpoint + 2 >= MAX_INTERVAL)
        return dsm_fail(dsm, DSM_USAGE, "more than %u checkpoints", MAX_INTERVAL - 2);
    entity->checkpoint++;
    snprintf(stem, sizeof(stem), "%c%u-%u", number % 2 == 0 ? 'p' : 'h', number / 2, entity->checkpoint);
    snprintf(name, sizeof(name), "%s.image", stem);
    if ((image.file = begin_file(dsm, name, path, fresh)) == NULL)
        return dsm->status;
    sha256_begin(&image.sum);
    const uint64_t pages = number % 2 == 0 ? put_process(dsm, &image) : put_home(dsm, &image);
    if (image.failed)
        dsm_fail(dsm, DSM_SYSTEM, "%s: %s", fresh, strerror(errno));
    if (end_file(dsm, image.file, path, fresh) != DSM_OK ||
        write_manifest(dsm, entity, number, stem, &image, pages) != DSM_OK || sync_directory(dsm) != DSM_OK)
        return dsm->status;
    dsm_trace_checkpoint(dsm, entity, number, stem);
    return dsm->status == DSM_OK ? (int)entity->checkpoint : dsm->status;
}

int dsm_checkpoint(struct dsm *dsm) {
    pthread_mutex_lock(&dsm->lock);
    const int result = save(dsm, &dsm->process, process_entity(dsm->config.rank));
    dsm_protect_written(dsm);
    pthread_mutex_unlock(&dsm->lock);
    return result;
}

int dsm_checkpoint_home(struct dsm *dsm) {
    pthread_mutex_lock(&dsm->lock);
    const int result = save(dsm, &dsm->home, home_entity(dsm->config.rank));
    pthread_mutex_unlock(&dsm->lock);
    return result;
}
