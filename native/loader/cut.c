/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cut vectors, and what no record tells yet. One connection may be seen twice; the first of these wins:
 *   1. behind a descriptor of a process of the cgroup   (cut_files)
 *   2. among all sockets, owned by the process           (the tables of its network namespaces, or our
 * storage) What has ended stands in records: those that found no room wait in the map of closed ends
 * (closed_push).
 */
#define _GNU_SOURCE
#include "bpf_call.h"
#include "internal.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define READ_RECORDS 512
#define BATCH_ENTRIES 1024u
#define MAX_BATCH_ENTRIES (1u << 18)

struct found {
    struct capture_cut_entry entry;
    int source; /* 1, 2 as above */
};

struct found_list {
    struct found *items;
    size_t count, room;
    uint64_t process;  /* whose connections are kept; 0: nobody's */
    uint64_t *unnamed; /* sockets behind a descriptor that only the walk that locks them can name */
    size_t unnamed_count;
    bool partial; /* a connection without a name was seen */
    bool pending; /* the ring had no room */
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

static int note_unnamed(struct found_list *list, uint64_t sock) {
    uint64_t *more = realloc(list->unnamed, (list->unnamed_count + 1) * sizeof(*more));
    if (more == NULL)
        return -ENOMEM;
    list->unnamed = more;
    more[list->unnamed_count++] = sock;
    return 0;
}

/* The walk of files could not name it. Returns whether it was so. */
static bool take_unnamed(struct found_list *list, uint64_t sock) {
    for (size_t i = 0; i < list->unnamed_count; i++) {
        if (list->unnamed[i] != sock)
            continue;
        list->unnamed[i] = list->unnamed[--list->unnamed_count];
        return true;
    }
    return false;
}

/* ---- iterators ---- */

static int add_record(struct found_list *list, const struct cut_record *record, int source) {
    list->pending |= (record->cut_flags & CUT_PENDING) != 0;
    if ((record->cut_flags & CUT_UNNAMED) != 0) {
        if (list->process == 0 || (record->process != list->process && record->process != 0))
            return 0;
        return note_unnamed(list, record->sock);
    }
    /* A descriptor may be shared with another unit of recovery: the connection belongs to whoever used it
     * first. */
    if (list->process == 0 || (record->process != list->process && (source == 2 || record->process != 0)))
        return 0;
    const struct capture_cut_entry entry = {.flags = (uint8_t)record->flags,
                                            .live = source == 1 || take_unnamed(list, record->sock),
                                            .told = (uint8_t)record->told,
                                            .local = record->local,
                                            .remote = record->remote,
                                            .sent = record->sent,
                                            .received = record->received,
                                            .seen = record->seen,
                                            .unacknowledged = record->unacknowledged,
                                            .queued = record->queued};
    return add(list, &entry, source);
}

/* Whole records at a time: the kernel never splits one bpf_seq_write over two reads of this size, but a short
 * read may still end inside a record, so the rest is carried over. */
static int read_records(int fd, struct found_list *list, int source) {
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
            const int status = add_record(list, &records[i], source);
            if (status != 0)
                return status;
        }
        held -= whole * sizeof(records[0]);
        memmove(records, records + whole, held);
    }
}

static int run_iterator(int program, const union bpf_iter_link_info *info, struct found_list *list,
                        int source) {
    const int fd = bpf_iterate(program, info);
    if (fd < 0)
        return fd;
    const int status = read_records(fd, list, source);
    close(fd);
    return status;
}

static const union bpf_iter_link_info EVERYTHING;

int iterate_once(int program, char *error) {
    struct found_list nobody = {0};
    const int status = run_iterator(program, &EVERYTHING, &nobody, 2);

    return status == 0 ? 0 : capture_fail(error, status, "an iterator does not run: %s", strerror(-status));
}

/* The number of the walk goes on; it is the map's, since another may have the same instance open. */
static uint64_t walk_number(struct capture *capture, unsigned add) {
    struct iterator_request request = {0};
    const uint32_t zero = 0;

    bpf_map_get(capture->objects.maps[MAP_REQUEST], &zero, &request);
    return request.walk + add;
}

static int ask_in_walk(struct capture *capture, uint64_t process, bool frozen, int tgid, uint64_t walk) {
    const struct iterator_request request = {
        .process = process, .frozen = frozen, .tgid = tgid, .walk = walk};
    const uint32_t zero = 0;

    return bpf_map_put(capture->objects.maps[MAP_REQUEST], &zero, &request, BPF_ANY);
}

static int ask(struct capture *capture, uint64_t process, bool frozen, int tgid) {
    return ask_in_walk(capture, process, frozen, tgid, walk_number(capture, 0));
}

/* Kernels before 6.1 walk everybody: then the program passes over the others. */
static int walk_files(struct capture *capture, uint64_t process, bool frozen, int pid,
                      struct found_list *list) {
    const union bpf_iter_link_info info = {.task = {.pid = (uint32_t)pid}};
    int status = ask(capture, process, frozen, 0);

    if (status == 0)
        status = run_iterator(capture->objects.programs[PROGRAM_CUT_FILES], &info, list, 1);
    if (status != -EINVAL)
        return status == -ESRCH ? 0 : status; /* ended */
    status = ask(capture, process, frozen, pid);
    if (status == 0)
        status = run_iterator(capture->objects.programs[PROGRAM_CUT_FILES], &EVERYTHING, list, 1);
    return status;
}

/* ---- network namespaces ---- */

struct namespaces {
    ino_t *inodes;
    int *descriptors;
    size_t count;
    bool partial; /* one could not be looked at */
};

/*
 * The namespace that a process is in, once. The attach helper of `collect --user` may not look at other
 * users' processes: for it all are taken to be in its own namespace, and sockets elsewhere that no descriptor
 * shows any more are told when the kernel lets go of them.
 */
static int note_namespace(struct namespaces *all, int pid) {
    char path[64];
    struct stat status;

    snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && (errno == EACCES || errno == EPERM))
        all->partial = true;
    if (fd < 0) /* ended, or not ours to look at */
        return errno == ENOENT || errno == ESRCH || errno == EACCES || errno == EPERM ? 0 : -errno;
    if (fstat(fd, &status) != 0) {
        close(fd);
        return 0;
    }
    for (size_t i = 0; i < all->count; i++)
        if (all->inodes[i] == status.st_ino) {
            close(fd);
            return 0;
        }
    ino_t *inodes = realloc(all->inodes, (all->count + 1) * sizeof(*inodes));
    if (inodes != NULL)
        all->inodes = inodes;
    int *descriptors = realloc(all->descriptors, (all->count + 1) * sizeof(*descriptors));
    if (descriptors != NULL)
        all->descriptors = descriptors;
    if (inodes == NULL || descriptors == NULL) {
        close(fd);
        return -ENOMEM;
    }
    all->inodes[all->count] = status.st_ino;
    all->descriptors[all->count++] = fd;
    return 0;
}

static void forget_namespaces(struct namespaces *all) {
    for (size_t i = 0; i < all->count; i++)
        close(all->descriptors[i]);
    free(all->descriptors);
    free(all->inodes);
}

static int walk_tables(struct capture *capture, struct found_list *list) {
    int status = run_iterator(capture->objects.programs[PROGRAM_CUT_TCP], &EVERYTHING, list, 2);
    if (status == 0)
        status = run_iterator(capture->objects.programs[PROGRAM_CUT_UNIX], &EVERYTHING, list, 2);
    return status;
}

static int walk_outputs(struct capture *capture, struct found_list *list) {
    return run_iterator(capture->objects.programs[PROGRAM_PUSH_OUTPUTS], &EVERYTHING, list, 2);
}

/* What is walked in each namespace. */
typedef int walk_one(struct capture *capture, struct found_list *list);

/* This thread goes there and comes back: the tables are those of whoever opens the iterator. */
static int walk_namespace(struct capture *capture, int own, int namespace, walk_one *walk,
                          struct found_list *list) {
    if (setns(namespace, CLONE_NEWNET) != 0)
        return -errno;
    const int status = walk(capture, list);
    if (setns(own, CLONE_NEWNET) != 0)
        abort(); /* nothing that this process does from here on would be where it thinks */
    return status;
}

static int walk_namespaces(struct capture *capture, struct namespaces *all, walk_one *walk,
                           struct found_list *list) {
    struct stat here;
    const int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    int status = own < 0 || fstat(own, &here) != 0 ? -errno : walk(capture, list);

    for (size_t i = 0; status == 0 && i < all->count; i++)
        if (all->inodes[i] != here.st_ino)
            status = walk_namespace(capture, own, all->descriptors[i], walk, list);
    if (own >= 0)
        close(own);
    return status;
}

static int walk_storage(struct capture *capture, enum capture_program program, enum capture_map map,
                        struct found_list *list) {
    const union bpf_iter_link_info info = {.map = {.map_fd = (uint32_t)capture->objects.maps[map]}};
    return run_iterator(capture->objects.programs[program], &info, list, 2);
}

/* Every socket that a recorded process has, whether a descriptor shows it or not. */
static int walk_sockets(struct capture *capture, struct namespaces *all, struct found_list *list) {
    if (capture->config.variant.sockets == SOCKETS_TABLES)
        return walk_namespaces(capture, all, walk_tables, list);
    int status = walk_storage(capture, PROGRAM_CUT_STORED_TCP, MAP_CONNECTIONS, list);
    if (status == 0)
        status = walk_storage(capture, PROGRAM_CUT_STORED_UNIX, MAP_UNIX_ENDS, list);
    return status;
}

static int push_pairs(struct capture *capture, bool tell, struct push_pairs_args *args) {
    *args = (struct push_pairs_args){.walk = walk_number(capture, 0), .tell = tell};
    const int status = bpf_run(capture->objects.programs[PROGRAM_PUSH_PAIRS], args, sizeof(*args));

    return status < 0 ? status : 0;
}

static int push_ends(struct capture *capture, bool sought, struct push_ends_args *args) {
    *args = (struct push_ends_args){.walk = walk_number(capture, 0), .sought = sought};
    const int status = bpf_run(capture->objects.programs[PROGRAM_PUSH_ENDS], args, sizeof(*args));

    return status < 0 ? status : 0;
}

void ends_forget(struct capture *capture, uint64_t cgroup_id) {
    struct push_ends_args args = {.forget = cgroup_id};
    bpf_run(capture->objects.programs[PROGRAM_PUSH_ENDS], &args, sizeof(args));
}

/* Who is at the other ends. All descriptors of the host are walked only while there is somebody to find. */
static int walk_peers(struct capture *capture, struct found_list *list) {
    struct found_list nobody = {0};
    struct push_ends_args args;
    int status = push_ends(capture, false, &args);

    if (status == 0 && args.unknown > 0) {
        status = run_iterator(capture->objects.programs[PROGRAM_FIND_PEERS], &EVERYTHING, &nobody, 2);
        if (status == 0)
            status = push_ends(capture, true, &args);
    }
    if (status == 0)
        list->pending |= args.pending != 0;
    return status;
}

static int note_all_namespaces(struct capture *capture, struct namespaces *all) {
    const int map = capture->objects.maps[MAP_PROCESSES];
    uint64_t id = 0, next;
    int status = 0;

    for (int more = bpf_map_next(map, NULL, &next); more == 0 && status == 0;
         more = bpf_map_next(map, &id, &next)) {
        const int directory = cgroup_open(next);
        int *pids = NULL;
        size_t count = 0;

        id = next;
        if (directory < 0)
            continue; /* removed: all of its tasks have ended */
        status = cgroup_pids(directory, &pids, &count);
        close(directory);
        for (size_t i = 0; status == 0 && i < count; i++)
            status = note_namespace(all, pids[i]);
        free(pids);
    }
    return status;
}

int push_outputs(struct capture *capture) {
    struct namespaces all = {0};
    struct found_list nobody = {0};
    int status = note_all_namespaces(capture, &all);

    if (status == 0)
        status = walk_namespaces(capture, &all, walk_outputs, &nobody);
    forget_namespaces(&all);
    return status;
}

/* AF_UNIX pairs of which no end is found any more, wherever recorded processes are: an end may be in another
 * namespace than its process was asked for, and a socket that is bound meanwhile may escape one walk. */
static int walk_pairs(struct capture *capture, struct namespaces *all, struct found_list *list) {
    struct push_pairs_args args;
    int status = push_pairs(capture, false, &args);

    if (status != 0 || args.gone == 0)
        return status;
    if (capture->config.variant.sockets == SOCKETS_TABLES)
        status = note_all_namespaces(capture, all);
    if (status == 0)
        status = walk_sockets(capture, all, list);
    if (status == 0 && !all->partial)
        status = push_pairs(capture, true, &args);
    if (status == 0)
        list->pending |= args.pending != 0;
    return status;
}

static int walk_process(struct capture *capture, uint64_t process, bool frozen, struct namespaces *all,
                        struct found_list *list) {
    const int directory = cgroup_open(process);
    int *pids = NULL;
    size_t count = 0;

    if (directory < 0)
        return ask(capture, process, frozen, 0); /* removed: all of its tasks have ended */
    int status = cgroup_pids(directory, &pids, &count);
    close(directory);
    for (size_t i = 0; status == 0 && i < count; i++) {
        status = pids[i] == 0 ? -EXDEV /* a task of another pid namespace */
                              : walk_files(capture, process, frozen, pids[i], list);
        if (status == 0)
            status = note_namespace(all, pids[i]);
    }
    free(pids);
    return status;
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

/* What is done with one entry; a negative errno ends the walk. */
typedef int closed_visit(struct capture *capture, const struct closed_key *key, bool *pending);

static int push_one(struct capture *capture, const struct closed_key *key, bool *pending) {
    struct push_closed_args args = {.key = *key};
    const int status = bpf_run(capture->objects.programs[PROGRAM_PUSH_CLOSED], &args, sizeof(args));

    *pending |= args.pending != 0;
    return status < 0 ? status : 0;
}

static int forget_one(struct capture *capture, const struct closed_key *key, bool *pending) {
    (void)pending;
    bpf_map_remove(capture->objects.maps[MAP_CLOSED], key);
    return 0;
}

static int visit_batch(struct capture *capture, const struct batch *batch, uint32_t count, uint64_t process,
                       closed_visit *visit, bool *pending) {
    int status = 0;

    for (uint32_t i = 0; status == 0 && i < count && !*pending; i++)
        if (batch->keys[i].process == process)
            status = visit(capture, &batch->keys[i], pending);
    return status;
}

/* Bucket by bucket, each under its lock: entries that others add or remove meanwhile do not hide ours. */
static int visit_closed(struct capture *capture, uint64_t process, closed_visit *visit, bool *pending) {
    struct batch batch = {0};
    uint32_t position = 0;
    bool started = false;
    int status = batch_room(&batch, BATCH_ENTRIES), result = 0;

    while (status == 0 && result != -ENOENT && !*pending) {
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
        status = visit_batch(capture, &batch, attr.batch.count, process, visit, pending);
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

/* The process has ends without room for their last records. */
static bool has_spilled(struct capture *capture, uint64_t process) {
    struct process_state state;
    return bpf_map_get(capture->objects.maps[MAP_PROCESSES], &process, &state) == 0 && state.spilled > 0;
}

static int closed_push(struct capture *capture, uint64_t process, struct found_list *list) {
    if (list->pending || !has_spilled(capture, process))
        return 0;
    return visit_closed(capture, process, push_one, &list->pending);
}

void closed_forget(struct capture *capture, uint64_t cgroup_id) {
    bool pending = false;
    if (has_spilled(capture, cgroup_id))
        visit_closed(capture, cgroup_id, forget_one, &pending);
}

uint64_t misses_that_matter(const struct capture *capture) {
    static const enum capture_program LEFT_OUT[] = {PROGRAM_SOCK_SENT, PROGRAM_SOCK_RECEIVED};
    uint64_t misses = 0;

    for (size_t i = 0; i < sizeof(LEFT_OUT) / sizeof(LEFT_OUT[0]); i++) {
        struct bpf_prog_info info = {0};
        const int program = capture->objects.programs[LEFT_OUT[i]];
        if (program >= 0 && bpf_info(program, &info, sizeof(info)) == 0)
            misses += info.recursion_misses;
    }
    return misses;
}

/* A run that was left out in the middle of a conversation over AF_UNIX, of a look, of a datagram, has left
 * nothing behind. Each process knows how many there were when it was looked at last, whoever looked. */
static int condemn_missed(struct capture *capture) {
    struct condemn_args args = {.misses = misses_that_matter(capture),
                                .uses = USES_UNIX | USES_PEEK | USES_DATAGRAMS,
                                .verdicts = 1u << RECOVERY_VERDICT_MISSED};
    const int status =
        args.misses == 0 ? 0 : bpf_run(capture->objects.programs[PROGRAM_CONDEMN], &args, sizeof(args));

    return status < 0 ? status : 0;
}

int capture_cut(struct capture *capture, uint64_t cgroup_id, struct capture_cut_entry **entries,
                size_t *count, int *complete, int *pending, char *error) {
    struct found_list list = {.process = cgroup_id};
    struct namespaces all = {0};
    struct process_state state;
    int status = bpf_map_get(capture->objects.maps[MAP_PROCESSES], &cgroup_id, &state);

    if (status != 0)
        return capture_fail(error, status == -ENOENT ? -ESRCH : status, "the process is not recorded");
    status = condemn_missed(capture);
    if (status == 0)
        status = ask_in_walk(capture, 0, false, 0, walk_number(capture, 1));
    if (status == 0)
        status = walk_process(capture, cgroup_id, true, &all, &list);
    if (status == 0)
        status = walk_sockets(capture, &all, &list);
    if (status == 0)
        status = walk_pairs(capture, &all, &list);
    if (status == 0)
        status = closed_push(capture, cgroup_id, &list);
    if (status == 0)
        status = finish(&list, entries, count);
    ask(capture, 0, false, 0);
    forget_namespaces(&all);
    free(list.items);
    *complete = !list.partial && list.unnamed_count == 0;
    free(list.unnamed);
    *pending = list.pending;
    return status == 0 ? 0 : capture_fail(error, status, "the cut cannot be read: %s", strerror(-status));
}

static bool is_selected(struct capture *capture, uint64_t cgroup_id) {
    struct process_state state;
    return bpf_map_get(capture->objects.maps[MAP_PROCESSES], &cgroup_id, &state) == 0;
}

/* Those that made a call that may have moved a socket (PROGRESS_EXIT). Returns their number; free(*ids). */
static size_t take_moved(struct capture *capture, uint64_t **ids) {
    const int map = capture->objects.maps[MAP_PROCESSES];
    uint64_t id = 0, next;
    size_t count = 0;

    *ids = NULL;
    for (int status = bpf_map_next(map, NULL, &next); status == 0; status = bpf_map_next(map, &id, &next)) {
        struct take_moved_args args = {.process = next};
        id = next;
        if (bpf_run(capture->objects.programs[PROGRAM_TAKE_MOVED], &args, sizeof(args)) < 0 || !args.moved)
            continue;
        uint64_t *more = realloc(*ids, (count + 1) * sizeof(**ids));
        if (more == NULL)
            break;
        *ids = more;
        more[count++] = id;
    }
    return count;
}

static int flush(struct capture *capture, const uint64_t *cgroup_ids, size_t count, int *pending,
                 char *error);

int capture_flush(struct capture *capture, const uint64_t *cgroup_ids, size_t count, int *pending,
                  char *error) {
    uint64_t *moved = NULL;
    int status;

    *pending = 0;
    if (count > 0)
        return flush(capture, cgroup_ids, count, pending, error);
    if (capture->config.variant.progress != PROGRESS_EXIT)
        return 0;
    count = take_moved(capture, &moved);
    status = count == 0 ? 0 : flush(capture, moved, count, pending, error);
    free(moved);
    return status;
}

static int flush(struct capture *capture, const uint64_t *cgroup_ids, size_t count, int *pending,
                 char *error) {
    struct found_list list = {0};
    struct namespaces all = {0};
    int status = condemn_missed(capture);

    if (status == 0)
        status = ask_in_walk(capture, 0, false, 0, walk_number(capture, 1));
    for (size_t i = 0; status == 0 && i < count; i++)
        if (is_selected(capture, cgroup_ids[i]))
            status = walk_process(capture, cgroup_ids[i], false, &all, &list);
    ask(capture, 0, false, 0);
    if (status == 0 && count > 0)
        status = walk_sockets(capture, &all, &list);
    if (status == 0 && count > 0)
        status = walk_pairs(capture, &all, &list);
    if (status == 0 && count > 0)
        status = walk_peers(capture, &list);
    for (size_t i = 0; status == 0 && i < count; i++)
        status = closed_push(capture, cgroup_ids[i], &list);
    forget_namespaces(&all);
    free(list.items);
    *pending = list.pending;
    return status == 0 ? 0
                       : capture_fail(error, status, "what is untold cannot be read: %s", strerror(-status));
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
                                             .first = first,
                                             .sent = entry->sent,
                                             .received = entry->received,
                                             .seen = entry->seen,
                                             .told = entry->told};
        const int status = (entry->flags & RECOVERY_FLAG_UNIX) != 0
                               ? 0
                               : bpf_map_put(capture->objects.maps[MAP_RESTORED], &key, &value, BPF_ANY);
        if (status != 0)
            return capture_fail(error, status, "a restored connection cannot be announced: %s",
                                strerror(-status));
    }
    return 0;
}
