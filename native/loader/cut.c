/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cut vectors. One connection may be seen three times; the first of these wins:
 *   1. behind a descriptor of a process of the cgroup   (cut_files)
 *   2. in socket storage, owned by the process           (cut_connections, cut_unix_ends)
 *   3. in the map of closed connections
 */
#define _GNU_SOURCE
#include "bpf_call.h"
#include "internal.h"

#include <stdlib.h>

#define READ_RECORDS 512
#define BATCH_ENTRIES 1024u
#define MAX_BATCH_ENTRIES (1u << 18)

struct found {
    struct capture_cut_entry entry;
    int source; /* 1, 2, 3 as above */
};

struct found_list {
    struct found *items;
    size_t count, room;
    bool partial; /* a connection without a name, or with an offset nobody knows, was seen */
};

static int add(struct found_list *list, const struct capture_cut_entry *entry, int source) {
    if (list->count == list->room) {
        const size_t room = list->room == 0 ? 256 : list->room * 2;
        struct found *items = realloc(list->items, room * sizeof(*items));
        if (items == NULL)
            return -ENOMEM;
        list->items = items;
        list->room = room;
    }
    list->items[list->count++] = (struct found){.entry = *entry, .source = source};
    return 0;
}

/* ---- iterators ---- */

static int add_record(struct found_list *list, const struct cut_record *record, uint64_t process,
                      int source) {
    if ((record->cut_flags & CUT_UNNAMED) != 0) {
        list->partial = true;
        return 0;
    }
    /* A descriptor may be shared with another unit of recovery: the connection belongs to whoever used it
     * first. */
    if (record->process != process && (source == 2 || record->process != 0))
        return 0;
    list->partial |= (record->cut_flags & CUT_UNSEEN) != 0;
    const struct capture_cut_entry entry = {.flags = (uint8_t)record->flags,
                                            .live = source == 1,
                                            .local = record->local,
                                            .remote = record->remote,
                                            .sent = record->sent,
                                            .received = record->received,
                                            .unacknowledged = record->unacknowledged,
                                            .queued = record->queued};
    return add(list, &entry, source);
}

/* Whole records at a time: the kernel never splits one bpf_seq_write over two reads of this size, but a short
 * read may still end inside a record, so the rest is carried over. */
static int read_records(int fd, struct found_list *list, uint64_t process, int source) {
    struct cut_record records[READ_RECORDS];
    size_t held = 0;

    for (;;) {
        const ssize_t got = read(fd, (char *)records + held, sizeof(records) - held);
        if (got < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            return held == 0 ? 0 : -EIO;
        held += (size_t)got;
        const size_t whole = held / sizeof(records[0]);
        for (size_t i = 0; i < whole; i++) {
            const int status = add_record(list, &records[i], process, source);
            if (status != 0)
                return status;
        }
        held -= whole * sizeof(records[0]);
        memmove(records, records + whole, held);
    }
}

static int run_iterator(int program, const union bpf_iter_link_info *info, struct found_list *list,
                        uint64_t process, int source) {
    const int fd = bpf_iterate(program, info);
    if (fd < 0)
        return fd;
    const int status = read_records(fd, list, process, source);
    close(fd);
    return status;
}

static int read_files(struct capture *capture, uint64_t process, struct found_list *list) {
    const int directory = cgroup_open(process);
    int *pids = NULL;
    size_t count = 0;

    if (directory < 0)
        return 0; /* removed: all of its processes have ended */
    int status = cgroup_pids(directory, &pids, &count);
    close(directory);
    for (size_t i = 0; status == 0 && i < count; i++) {
        union bpf_iter_link_info info = {.task = {.pid = (uint32_t)pids[i]}};
        if (pids[i] == 0)
            status = -EXDEV; /* a process of another pid namespace */
        else
            status = run_iterator(capture->objects.programs[PROGRAM_CUT_FILES], &info, list, process, 1);
        if (status == -ESRCH)
            status = 0; /* ended */
    }
    free(pids);
    return status;
}

static int read_storage(struct capture *capture, enum capture_program program, enum capture_map map,
                        uint64_t process, struct found_list *list) {
    union bpf_iter_link_info info = {.map = {.map_fd = (uint32_t)capture->objects.maps[map]}};
    return run_iterator(capture->objects.programs[program], &info, list, process, 2);
}

/* ---- closed connections ---- */

struct batch {
    uint32_t entries;
    struct closed_key *keys;
    struct closed_value *values;
};

static int batch_room(struct batch *batch, uint32_t entries) {
    free(batch->keys);
    free(batch->values);
    batch->entries = entries;
    batch->keys = calloc(entries, sizeof(*batch->keys));
    batch->values = calloc(entries, sizeof(*batch->values));
    return batch->keys == NULL || batch->values == NULL ? -ENOMEM : 0;
}

static int add_closed(struct found_list *list, const struct batch *batch, uint32_t count, uint64_t process) {
    int status = 0;

    for (uint32_t i = 0; status == 0 && i < count; i++) {
        const struct capture_cut_entry entry = {.flags = (uint8_t)batch->keys[i].flags,
                                                .gone = 1,
                                                .local = batch->keys[i].local,
                                                .remote = batch->keys[i].remote,
                                                .sent = batch->values[i].sent,
                                                .received = batch->values[i].received};
        if (batch->keys[i].process == process)
            status = add(list, &entry, 3);
    }
    return status;
}

/* Bucket by bucket, each under its lock: entries that others add or remove meanwhile do not hide ours. */
static int read_closed(struct capture *capture, uint64_t process, struct found_list *list) {
    struct batch batch = {0};
    uint32_t position = 0;
    bool started = false;
    int status = batch_room(&batch, BATCH_ENTRIES), result = 0;

    while (status == 0 && result != -ENOENT) {
        uint32_t next = 0, count = batch.entries;
        union bpf_attr attr = {.batch = {.in_batch = started ? bpf_pointer(&position) : 0,
                                         .out_batch = bpf_pointer(&next),
                                         .keys = bpf_pointer(batch.keys),
                                         .values = bpf_pointer(batch.values),
                                         .count = count,
                                         .map_fd = (uint32_t)capture->objects.maps[MAP_CLOSED]}};
        result = bpf_call(BPF_MAP_LOOKUP_BATCH, &attr);
        if (result == -ENOSPC &&
            batch.entries < MAX_BATCH_ENTRIES) { /* one bucket is larger than the batch */
            status = batch_room(&batch, batch.entries * 2);
            continue;
        }
        if (result != 0 && result != -ENOENT) {
            status = result;
            break;
        }
        status = add_closed(list, &batch, attr.batch.count, process);
        position = next;
        started = true;
    }
    free(batch.keys);
    free(batch.values);
    return status;
}

/* ---- putting them together ---- */

static int compare_u64(uint64_t a, uint64_t b) {
    return a < b ? -1 : a > b;
}

static int compare(const void *left, const void *right) {
    const struct found *a = left, *b = right;
    int order = compare_u64(a->entry.flags, b->entry.flags);

    if (order == 0)
        order = compare_u64(a->entry.local, b->entry.local);
    if (order == 0)
        order = compare_u64(a->entry.remote, b->entry.remote);
    return order != 0 ? order : a->source - b->source;
}

static bool same_connection(const struct capture_cut_entry *a, const struct capture_cut_entry *b) {
    return a->flags == b->flags && a->local == b->local && a->remote == b->remote;
}

/* The caller's array: sorted, the best source of each connection. */
static int finish(struct found_list *list, struct capture_cut_entry **entries, size_t *count) {
    struct capture_cut_entry *out = calloc(list->count + 1, sizeof(*out));
    size_t kept = 0;

    if (out == NULL)
        return -ENOMEM;
    if (list->count > 0)
        qsort(list->items, list->count, sizeof(*list->items), compare);
    for (size_t i = 0; i < list->count; i++)
        if (kept == 0 || !same_connection(&out[kept - 1], &list->items[i].entry))
            out[kept++] = list->items[i].entry;
    *entries = out;
    *count = kept;
    return 0;
}

int cut_closed(struct capture *capture, uint64_t cgroup_id, struct capture_cut_entry **entries, size_t *count,
               char *error) {
    struct found_list list = {0};
    int status = read_closed(capture, cgroup_id, &list);

    if (status == 0)
        status = finish(&list, entries, count);
    free(list.items);
    return status == 0
               ? 0
               : capture_fail(error, status, "closed connections cannot be read: %s", strerror(-status));
}

int capture_cut(struct capture *capture, uint64_t cgroup_id, struct capture_cut_entry **entries,
                size_t *count, int *complete, char *error) {
    struct found_list list = {0};
    struct process_state state;
    int status = bpf_map_get(capture->objects.maps[MAP_PROCESSES], &cgroup_id, &state);

    if (status != 0)
        return capture_fail(error, status == -ENOENT ? -ESRCH : status, "the process is not recorded");
    status = read_files(capture, cgroup_id, &list);
    if (status == 0)
        status = read_storage(capture, PROGRAM_CUT_CONNECTIONS, MAP_CONNECTIONS, cgroup_id, &list);
    if (status == 0)
        status = read_storage(capture, PROGRAM_CUT_UNIX_ENDS, MAP_UNIX_ENDS, cgroup_id, &list);
    if (status == 0)
        status = read_closed(capture, cgroup_id, &list);
    if (status == 0)
        status = bpf_map_get(capture->objects.maps[MAP_PROCESSES], &cgroup_id, &state);
    if (status == 0)
        status = finish(&list, entries, count);
    *complete = !list.partial && state.incomplete == 0;
    free(list.items);
    return status == 0 ? 0 : capture_fail(error, status, "the cut cannot be read: %s", strerror(-status));
}

int capture_forget_closed(struct capture *capture, uint64_t cgroup_id,
                          const struct capture_cut_entry *entries, size_t count, char *error) {
    for (size_t i = 0; i < count; i++) {
        const struct closed_key key = {.process = cgroup_id,
                                       .local = entries[i].local,
                                       .remote = entries[i].remote,
                                       .flags = entries[i].flags & RECOVERY_FLAG_UNIX};
        const int status = entries[i].live ? 0 : bpf_map_remove(capture->objects.maps[MAP_CLOSED], &key);
        if (status != 0 && status != -ENOENT)
            return capture_fail(error, status, "a closed connection cannot be forgotten: %s",
                                strerror(-status));
    }
    return 0;
}

int capture_expect_restore(struct capture *capture, const struct capture_cut_entry *entries, size_t count,
                           char *error) {
    for (size_t i = 0; i < count; i++) {
        const struct capture_cut_entry *entry = &entries[i];
        const uint64_t first = entry->sent - entry->unacknowledged;
        const struct restored_key key = {.write_seq = (uint32_t)(entry->local + 1 + first),
                                         .rcv_nxt = (uint32_t)(entry->remote + 1 + entry->received)};
        const struct restored_value value = {.local = (uint32_t)entry->local,
                                             .remote = (uint32_t)entry->remote,
                                             .sent = first,
                                             .received = entry->received};
        const int status = (entry->flags & RECOVERY_FLAG_UNIX) != 0
                               ? 0
                               : bpf_map_put(capture->objects.maps[MAP_RESTORED], &key, &value, BPF_ANY);
        if (status != 0)
            return capture_fail(error, status, "a restored connection cannot be announced: %s",
                                strerror(-status));
    }
    return 0;
}
