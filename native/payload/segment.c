// SPDX-License-Identifier: Apache-2.0
#include "segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#define OUT_BYTES (1 << 20)
#define JOIN_SLOTS 256   /* channels whose chunks are joined at one time; a power of two */
#define JOIN_BYTES 65536 /* largest joined record */
#define JOIN_LARGEST                                                                                         \
    8192 /* a chunk above this is written as it is: copying it once more would gain nothing */

#define RETRY_SECONDS 1

/* Bytes of one channel that follow each other and wait for more of their kind. */
struct join {
    struct payload_chunk head;
    uint8_t *bytes; /* JOIN_BYTES once used */
};

struct segments {
    int directory;
    uint64_t segment_bytes, limit_bytes;
    struct payload_segment_header header;
    int fd; /* -1: the next record opens a new segment */
    uint64_t position, written_to;
    time_t retry_at; /* after a failure of the disk: no new segment before this */
    uint32_t last;   /* number of the newest segment */
    uint8_t *out;
    size_t out_used;
    uint64_t out_payload; /* bytes of payload in `out` */
    struct join joins[JOIN_SLOTS];
    uint64_t written, failed;

    /* The syncing thread. All below is guarded by `lock`. */
    pthread_t syncer;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    bool stopping;
    int sync_fd; /* a duplicate: syncing and sealing may overlap */
    struct segments_place asked, durable;
    int sync_errno;
};

/* ---- the syncing thread ---- */

static bool behind(struct segments_place a, struct segments_place b) {
    return a.segment != b.segment ? a.segment < b.segment : a.position < b.position;
}

static void *sync_loop(void *argument) {
    struct segments *s = argument;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->stopping && !behind(s->durable, s->asked))
            pthread_cond_wait(&s->work, &s->lock);
        if (!behind(s->durable, s->asked))
            break;
        const struct segments_place target = s->asked;
        const int fd = s->sync_fd;
        s->sync_fd = -1;
        pthread_mutex_unlock(&s->lock);
        const int failure = fdatasync(fd) ? errno : 0;
        close(fd);
        pthread_mutex_lock(&s->lock);
        if (failure && !s->sync_errno)
            s->sync_errno = failure;
        s->durable = target;
        pthread_cond_broadcast(&s->done);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* What was asked for in an older segment is synced here: the thread only ever holds the newest file. */
static void ask_sync(struct segments *s) {
    const struct segments_place place = {s->last, s->written_to};

    pthread_mutex_lock(&s->lock);
    if (behind(s->asked, place)) {
        if (s->sync_fd >= 0 && s->asked.segment != place.segment) {
            if (fdatasync(s->sync_fd) && !s->sync_errno)
                s->sync_errno = errno;
            close(s->sync_fd);
            s->sync_fd = -1;
        }
        if (s->sync_fd < 0)
            s->sync_fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 3);
        if (s->sync_fd >= 0) {
            s->asked = place;
            pthread_cond_signal(&s->work);
        } else if (!s->sync_errno) {
            s->sync_errno = errno;
        }
    }
    pthread_mutex_unlock(&s->lock);
}

/* ---- files ---- */

static void file_name(char *name, uint32_t segment) {
    snprintf(name, 32, "%06u.payload", segment);
}

/* Number of a segment's file, 0 = another file. */
static uint32_t segment_number(const char *name) {
    char expected[32];
    const unsigned long number = strtoul(name, NULL, 10);

    if (number == 0 || number > UINT32_MAX)
        return 0;
    file_name(expected, number);
    return strcmp(name, expected) == 0 ? number : 0;
}

struct usage {
    uint64_t bytes;
    uint32_t oldest, newest;
};

/* While the file system writes a file out it may tell less for a moment; the newest, which is being synced, has no holes yet. */
static struct usage disk_usage(const struct segments *s) {
    struct usage usage = {0};
    const int copy = openat(s->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;
    struct stat stat;
    uint64_t bytes;

    while (directory && (entry = readdir(directory))) {
        const uint32_t number = segment_number(entry->d_name);
        if (!number || fstatat(s->directory, entry->d_name, &stat, AT_SYMLINK_NOFOLLOW))
            continue;
        bytes = stat.st_blocks * 512;
        usage.bytes += number == s->last && bytes < (uint64_t)stat.st_size ? (uint64_t)stat.st_size : bytes;
        if (!usage.oldest || number < usage.oldest)
            usage.oldest = number;
        if (number > usage.newest)
            usage.newest = number;
    }
    if (directory)
        closedir(directory);
    return usage;
}

/* Room for one more segment below the limit, by removing the oldest ones. */
static void make_room(struct segments *s) {
    char name[32];

    for (;;) {
        const struct usage usage = disk_usage(s);
        if (usage.oldest == usage.newest || usage.bytes + s->segment_bytes <= s->limit_bytes)
            return; /* the newest stays: its number must not be used again */
        file_name(name, usage.oldest);
        if (unlinkat(s->directory, name, 0))
            return;
    }
}

static bool write_all(int fd, const void *bytes, size_t count) {
    while (count > 0) {
        const ssize_t done = write(fd, bytes, count);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        bytes = (const uint8_t *)bytes + done;
        count -= done;
    }
    return true;
}

static time_t seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static void note_failure(struct segments *s, int failure) {
    pthread_mutex_lock(&s->lock);
    if (!s->sync_errno)
        s->sync_errno = failure ? failure : EIO;
    pthread_mutex_unlock(&s->lock);
}

static void seal(struct segments *s) {
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

/* Also makes the new file's name durable. */
static bool open_segment(struct segments *s) {
    char name[32];

    make_room(s);
    file_name(name, s->last + 1);
    const int fd =
        openat(s->directory, name, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        if (errno == EEXIST)
            s->last++; /* somebody else's: never written over, tried behind it next time */
        note_failure(s, errno);
        return false;
    }
    s->last++;
    memset(&s->header, 0, sizeof(s->header));
    memcpy(s->header.magic, PAYLOAD_MAGIC, 8);
    s->header.version = 1;
    s->header.segment = s->last;
    if (getrandom(&s->header.key, sizeof(s->header.key), 0) != sizeof(s->header.key) ||
        (s->header.checksum =
             crc32(0, (const uint8_t *)&s->header, offsetof(struct payload_segment_header, checksum)),
         !write_all(fd, &s->header, sizeof(s->header))) ||
        fsync(s->directory)) {
        note_failure(s, errno);
        unlinkat(s->directory, name, 0);
        close(fd);
        s->retry_at = seconds() + RETRY_SECONDS;
        return false;
    }
    s->fd = fd;
    s->position = s->written_to = sizeof(s->header);
    return true;
}

/* ---- records ---- */

static void write_out(struct segments *s) {
    if (s->out_used == 0)
        return;
    if (write_all(s->fd, s->out, s->out_used)) {
        s->written += s->out_payload;
        s->written_to = s->position;
    } else { /* what reached the file ends in a torn record: nothing may follow it */
        note_failure(s, errno);
        s->failed += s->out_payload;
        ask_sync(s); /* what came before */
        seal(s);
        s->retry_at = seconds() + RETRY_SECONDS;
    }
    s->out_used = 0;
    s->out_payload = 0;
}

static bool ready_for(struct segments *s, size_t bytes) {
    if (s->out_used + bytes > OUT_BYTES)
        write_out(s);
    if (s->fd >= 0 && s->position + bytes > s->segment_bytes && s->position > sizeof(s->header)) {
        write_out(s);
        if (s->fd >= 0)
            ask_sync(s);
        seal(s);
    }
    return s->fd >= 0 || (seconds() >= s->retry_at && open_segment(s));
}

static void put_record(struct segments *s, const struct payload_chunk *chunk, const uint8_t *bytes,
                       uint32_t kind) {
    const size_t padded = (chunk->length + 7) & ~(size_t)7;

    if (!ready_for(s, sizeof(struct payload_record) + padded)) {
        s->failed += chunk->length;
        return;
    }
    struct payload_record r = {
        .magic = PAYLOAD_RECORD_MAGIC,
        .position = s->position,
        .sender = chunk->sender,
        .receiver = chunk->receiver,
        .offset = chunk->offset,
        .length = chunk->length,
        .payload_checksum = crc32(0, bytes, chunk->length),
        .urgent = chunk->urgent,
        .kind = kind,
    };
    r.checksum = crc32(crc32(0, (const uint8_t *)&s->header.key, 8), (const uint8_t *)&r.position, 40);
    uint8_t *to = s->out + s->out_used;
    memcpy(to, &r, sizeof(r));
    if (chunk->length)
        memcpy(to + sizeof(r), bytes, chunk->length);
    memset(to + sizeof(r) + chunk->length, 0, padded - chunk->length);
    s->out_used += sizeof(r) + padded;
    s->out_payload += chunk->length;
    s->position += sizeof(r) + padded;
}

static struct join *join_of(struct segments *s, const struct payload_chunk *chunk) {
    const uint32_t hash = chunk->sender * 0x9e3779b1u ^ chunk->receiver * 0x85ebca6bu;
    return &s->joins[(hash ^ hash >> 16) & (JOIN_SLOTS - 1)];
}

static void end_join(struct segments *s, struct join *join) {
    if (join->head.length)
        put_record(s, &join->head, join->bytes, PAYLOAD_DATA);
    join->head.length = 0;
}

static bool follows(const struct join *join, const struct payload_chunk *chunk) {
    const struct payload_chunk *head = &join->head;

    return head->length && head->sender == chunk->sender && head->receiver == chunk->receiver &&
           head->offset + head->length == chunk->offset && head->length + chunk->length <= JOIN_BYTES;
}

void segments_add(struct segments *s, const struct payload_chunk *chunk, const uint8_t *bytes) {
    struct join *join = join_of(s, chunk);

    if (!follows(join, chunk) || chunk->urgent)
        end_join(s, join);
    if (chunk->urgent || chunk->length > JOIN_LARGEST ||
        (!join->bytes && !(join->bytes = malloc(JOIN_BYTES)))) {
        end_join(s, join); /* order within a channel stays */
        put_record(s, chunk, bytes, PAYLOAD_DATA);
        return;
    }
    memcpy(join->bytes + join->head.length, bytes, chunk->length);
    if (join->head.length)
        join->head.length += chunk->length;
    else
        join->head = *chunk;
}

void segments_lost(struct segments *s, uint64_t bytes) {
    const struct payload_chunk loss = {.offset = bytes};
    put_record(s, &loss, NULL, PAYLOAD_LOSS);
}

void segments_write(struct segments *s) {
    for (int i = 0; i < JOIN_SLOTS; i++)
        end_join(s, &s->joins[i]);
    write_out(s);
    if (s->fd >= 0)
        ask_sync(s);
}

int segments_sync(struct segments *s, struct segments_place *place) {
    segments_write(s);
    pthread_mutex_lock(&s->lock);
    while (behind(s->durable, s->asked))
        pthread_cond_wait(&s->done, &s->lock);
    const int failure = s->sync_errno;
    s->sync_errno = 0;
    *place = s->durable;
    pthread_mutex_unlock(&s->lock);
    return failure;
}

void segments_figures(const struct segments *s, uint64_t *written, uint64_t *failed) {
    *written = s->written;
    *failed = s->failed;
}

struct segments *segments_open(const struct segments_options *options) {
    struct segments *s = calloc(1, sizeof(*s));
    uint8_t *out = malloc(OUT_BYTES);

    if (!s || !out)
        goto failed;
    s->out = out;
    s->fd = s->sync_fd = -1;
    s->segment_bytes = options->segment_bytes;
    s->limit_bytes = options->limit_bytes;
    s->directory = open(options->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (s->directory < 0)
        goto failed;
    s->last = disk_usage(s).newest;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->done, NULL);
    if (pthread_create(&s->syncer, NULL, sync_loop, s) == 0)
        return s;
failed:
    free(out);
    free(s);
    return NULL;
}

int segments_close(struct segments *s) {
    struct segments_place place;
    const int failure = segments_sync(s, &place);

    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->syncer, NULL);
    seal(s);
    if (s->sync_fd >= 0)
        close(s->sync_fd);
    for (int i = 0; i < JOIN_SLOTS; i++)
        free(s->joins[i].bytes);
    close(s->directory);
    free(s->out);
    free(s);
    return failure;
}
