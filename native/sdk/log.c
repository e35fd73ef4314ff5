/* SPDX-License-Identifier: Apache-2.0 */
/* The log on disk: records are put together in memory, written and synced in groups. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char MAGIC[8] = "RLSDKLG1";
static const char STABLE_WORD[8] = "RLSTABLE";
#define STABLE_FIELDS_BYTES 16u

/* ---- bytes */

static void *grown(void *data, size_t size) {
    void *larger = realloc(data, size);

    if (larger == NULL) {
        fputs("recovery sdk: out of memory\n", stderr);
        abort();
    }
    return larger;
}

void bytes_add(struct bytes *bytes, const void *data, size_t size) {
    if (bytes->size + size > bytes->room) {
        bytes->room = 2 * bytes->room + size + 64;
        bytes->data = grown(bytes->data, bytes->room);
    }
    if (size > 0)
        memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
}

void bytes_u32(struct bytes *bytes, uint32_t value) {
    bytes_add(bytes, &value, sizeof(value));
}

void bytes_u64(struct bytes *bytes, uint64_t value) {
    bytes_add(bytes, &value, sizeof(value));
}

void bytes_drop(struct bytes *bytes, size_t size) {
    memmove(bytes->data, bytes->data + size, bytes->size - size);
    bytes->size -= size;
}

void *array_add(void *items, size_t *count, size_t *room, size_t size) {
    void **array = items;
    uint8_t *item;

    if (*count == *room) {
        *room = 2 * *room + 8;
        *array = grown(*array, *room * size);
    }
    item = (uint8_t *)*array + *count * size;
    memset(item, 0, size);
    *count += 1;
    return item;
}

uint32_t crc32_of(const void *data, size_t size) {
    static uint32_t table[256];
    const uint8_t *byte = data;
    uint32_t sum = 0xffffffffu;

    if (table[1] == 0)
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++)
                value = value & 1 ? 0xedb88320u ^ value >> 1 : value >> 1;
            table[i] = value;
        }
    while (size-- > 0)
        sum = table[(sum ^ *byte++) & 0xff] ^ sum >> 8;
    return ~sum;
}

/* ---- reading */

/* The record at `at` of the mapped file; false where none is whole. */
static bool record_at(const uint8_t *file, size_t size, size_t at, struct record *record) {
    uint32_t length, sum;

    if (size - at < RECORD_HEADER_BYTES)
        return false;
    memcpy(&length, file + at, 4);
    memcpy(&sum, file + at + 4, 4);
    if (length == 0 || length > MAX_BODY_BYTES || length > size - at - RECORD_HEADER_BYTES)
        return false;
    file += at + RECORD_HEADER_BYTES;
    if (crc32_of(file, length) != sum || file[0] > RECORD_STABLE)
        return false;
    *record = (struct record){file[0], file + 1, length - 1, at + RECORD_HEADER_BYTES + length};
    return true;
}

/* Is there, behind `from`, a whole STABLE record that says that what stands at `from` was synced? */
static bool stable_behind(const uint8_t *file, size_t size, size_t from) {
    const uint8_t *word = file + from;
    struct record record;
    uint64_t offset;

    while ((word = memmem(word, file + size - word, STABLE_WORD, sizeof(STABLE_WORD))) != NULL) {
        const size_t at = word - file;
        if (at >= from + RECORD_HEADER_BYTES + 1 &&
            record_at(file, size, at - RECORD_HEADER_BYTES - 1, &record) && record.kind == RECORD_STABLE &&
            record.size == STABLE_FIELDS_BYTES) {
            memcpy(&offset, record.fields + 8, 8);
            if (offset > from)
                return true;
        }
        word += 1;
    }
    return false;
}

static int scan(struct log *log, const uint8_t *file, size_t size, record_taker take, void *context) {
    struct record record;

    if (size >= sizeof(MAGIC) && memcmp(file, MAGIC, sizeof(MAGIC)) != 0)
        return RL_CORRUPT;
    log->end = sizeof(MAGIC);
    while (log->end <= size && record_at(file, size, log->end, &record)) {
        const int status = take(context, &record);
        if (status != RL_OK)
            return status;
        log->end = record.end;
    }
    if (log->end < size && stable_behind(file, size, log->end))
        return RL_CORRUPT;
    if (log->end == sizeof(MAGIC))
        log->end = 0; /* a file without its BEGIN has never sent anything */
    return RL_OK;
}

static int read_through(struct log *log, record_taker take, void *context) {
    struct stat stat;
    void *file;
    int status;

    log->end = 0;
    if (fstat(log->fd, &stat) != 0)
        return RL_SYSTEM;
    if (stat.st_size == 0)
        return RL_OK;
    file = mmap(NULL, stat.st_size, PROT_READ, MAP_PRIVATE, log->fd, 0);
    if (file == MAP_FAILED)
        return RL_SYSTEM;
    status = scan(log, file, stat.st_size, take, context);
    munmap(file, stat.st_size);
    if (status == RL_OK && log->end < (uint64_t)stat.st_size && ftruncate(log->fd, log->end) != 0)
        return RL_SYSTEM;
    return status;
}

int log_open(struct log *log, const char *path, record_taker take, void *context) {
    int status;

    log->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (log->fd < 0)
        return RL_SYSTEM;
    status = read_through(log, take, context);
    if (status != RL_OK)
        return status;
    if (fdatasync(log->fd) != 0)
        return RL_SYSTEM;
    log->durable = log->end;
    if (log->end == 0) {
        bytes_add(&log->pending, MAGIC, sizeof(MAGIC));
        log->end = sizeof(MAGIC);
    }
    return RL_OK;
}

int log_payload(const struct log *log, uint64_t end, size_t size, uint32_t sum, uint8_t *into) {
    size_t done = 0;

    while (done < size) {
        const ssize_t got = pread(log->fd, into + done, size - done, end - size + done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return RL_CORRUPT;
        done += got;
    }
    return crc32_of(into, size) == sum ? RL_OK : RL_CORRUPT;
}

/* ---- writing */

void log_start(struct log *log, enum record_kind kind) {
    const uint8_t header[RECORD_HEADER_BYTES + 1] = {[RECORD_HEADER_BYTES] = kind};

    log->record = log->pending.size;
    bytes_add(&log->pending, header, sizeof(header));
}

uint64_t log_finish(struct log *log) {
    uint8_t *record = log->pending.data + log->record;
    const uint32_t length = log->pending.size - log->record - RECORD_HEADER_BYTES;
    const uint32_t sum = crc32_of(record + RECORD_HEADER_BYTES, length);

    memcpy(record, &length, 4);
    memcpy(record + 4, &sum, 4);
    log->end += RECORD_HEADER_BYTES + length;
    return log->end;
}

int log_flush(struct log *log) {
    size_t done = 0;

    if (log->pending.size == 0)
        return RL_OK;
    if (log->durable > 0) {
        log_start(log, RECORD_STABLE);
        bytes_add(&log->pending, STABLE_WORD, sizeof(STABLE_WORD));
        bytes_u64(&log->pending, log->durable);
        log_finish(log);
    }
    while (done < log->pending.size) {
        const ssize_t wrote =
            pwrite(log->fd, log->pending.data + done, log->pending.size - done, log->durable + done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return RL_SYSTEM;
        done += wrote;
    }
    if (fdatasync(log->fd) != 0)
        return RL_SYSTEM;
    log->pending.size = 0;
    log->durable = log->end;
    return RL_OK;
}

void log_close(struct log *log) {
    if (log->fd >= 0)
        close(log->fd);
    log->fd = -1;
    free(log->pending.data);
    log->pending = (struct bytes){0};
}

int sync_folder(const char *path) {
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int status;

    if (fd < 0)
        return RL_SYSTEM;
    status = fsync(fd) == 0 ? RL_OK : RL_SYSTEM;
    close(fd);
    return status;
}
