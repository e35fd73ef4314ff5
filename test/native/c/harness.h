/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capture tests with real system calls. A program holds named cases; `program CASE` runs one, `program
 * --list` names them. Exit code 0 passed, 1 failed, 77 skipped; the last line says why.
 *
 * The test process itself is never recorded. It starts *actors*: children in a cgroup of their own that play
 * one end of a conversation, say what they did in shared memory, and wait to be released. Orders go over
 * pipes and shared memory, which raise no event.
 */
#ifndef RECOVERY_TEST_HARNESS_H
#define RECOVERY_TEST_HARNESS_H

#define _GNU_SOURCE
#include "loader/capture.h"
#include "include/recovery_ring.h"
#include "ring/ring_map.h"
#include "ring/ring_read.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_ACTORS 8
#define SKIPPED 77
#define MAX_TOLD 8
#define HANG_NS 90000000000ull /* what takes longer hangs, on however slow a machine */

struct test_case {
    const char *name;
    void (*run)(void);
};

/* What an actor tells the test; shared memory. */
struct told {
    _Atomic int stage; /* steps the actor has reached */
    _Atomic int go;    /* steps the test allows */
    uint64_t sent, received;
    uint64_t value[MAX_TOLD];
    int failed; /* a check in the actor failed; it has printed why */
};

struct actor {
    char cgroup[512];
    uint64_t id;
    pid_t pid;
    struct told *told;
};

struct recorded {
    struct recovery_record *items;
    size_t count, room;
};

static struct {
    char root[256], pins[256]; /* cgroup directory and pin directory of this run */
    _Atomic int *said;         /* the highest number that an actor told the others; shared memory */
    struct capture *capture;
    struct ring_map map;
    struct ring_reader reader;
    struct recorded records;
    struct actor actors[MAX_ACTORS];
    int actor_count;
    pid_t owner;
} test;

/* ---- ending ---- */

static inline void write_file(const char *path, const char *text) {
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (write(fd, text, strlen(text)) < 0 && errno != ENOENT)
            fprintf(stderr, "%s: %s\n", path, strerror(errno));
        close(fd);
    }
}

static inline void remove_cgroup(const char *path) {
    for (int i = 0; i < 200 && rmdir(path) != 0 && errno == EBUSY; i++)
        usleep(5000);
}

static inline void clean_up(void) {
    char path[600];

    if (getpid() != test.owner)
        return;
    for (int i = 0; i < test.actor_count; i++) {
        snprintf(path, sizeof(path), "%s/cgroup.freeze", test.actors[i].cgroup);
        write_file(path, "0");
        snprintf(path, sizeof(path), "%s/cgroup.kill", test.actors[i].cgroup);
        write_file(path, "1");
        if (test.actors[i].pid > 0) {
            kill(test.actors[i].pid, SIGKILL); /* it may not have come into its cgroup yet, or have left it */
            waitpid(test.actors[i].pid, NULL, 0);
        }
        snprintf(path, sizeof(path), "%s/nested", test.actors[i].cgroup);
        remove_cgroup(path);
        remove_cgroup(test.actors[i].cgroup);
    }
    ring_map_close(&test.map);
    capture_close(test.capture);
    if (test.pins[0] != '\0')
        capture_unpin(test.pins, NULL);
    if (test.root[0] != '\0')
        remove_cgroup(test.root);
}

__attribute__((noreturn, format(printf, 2, 3))) static inline void finish_test(int code, const char *format,
                                                                               ...) {
    va_list arguments;

    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    fflush(stdout);
    clean_up();
    _exit(code);
}

#define SKIP(...) finish_test(SKIPPED, "skipped: " __VA_ARGS__)
#define FAIL(format, ...) finish_test(1, "%s:%d: " format, __FILE__, __LINE__ __VA_OPT__(, ) __VA_ARGS__)
#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            FAIL("%s (errno: %s)", #condition, strerror(errno));                                             \
    } while (0)
#define EQUAL(actual, expected)                                                                              \
    do {                                                                                                     \
        const long long actual_ = (long long)(actual), expected_ = (long long)(expected);                    \
        if (actual_ != expected_)                                                                            \
            FAIL("%s is %lld, expected %s = %lld", #actual, actual_, #expected, expected_);                  \
    } while (0)

/* ---- set-up ---- */

static inline void find_cgroup2(char *path, size_t bytes) {
    char line[1024], mount[200];
    FILE *file = fopen("/proc/self/mountinfo", "r");

    path[0] = '\0';
    CHECK(file != NULL);
    while (path[0] == '\0' && fgets(line, sizeof(line), file) != NULL)
        if (strstr(line, " - cgroup2 ") != NULL && sscanf(line, "%*s %*s %*s %*s %199s", mount) == 1)
            snprintf(path, bytes, "%s", mount);
    fclose(file);
    if (path[0] == '\0')
        SKIP("no cgroup2 hierarchy is mounted");
}

static inline uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void *shared_memory(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

/* RECOVERY_LINE_CAPTURE forces a variant on every test; a test may ask for more by `extra`. */
static inline const char *forced_variant(const char *extra) {
    static char variant[256];
    const char *forced = getenv("RECOVERY_LINE_CAPTURE");

    snprintf(variant, sizeof(variant), "%s,%s", forced == NULL ? "" : forced, extra == NULL ? "" : extra);
    return variant;
}

static inline void open_capture_as(uint32_t ring_bytes, const char *extra) {
    char error[CAPTURE_ERROR_BYTES] = "";
    const struct capture_options options = {
        .pin_dir = test.pins, .ring_bytes = ring_bytes, .cgroup_level = 2, .variant = forced_variant(extra)};
    const int status = capture_open(&options, &test.capture, NULL, error);
    int fd;
    uint32_t bytes;

    if (status == -EPERM || status == -ENOTSUP)
        SKIP("%s", error);
    if (status != 0)
        FAIL("capture_open: %d %s", status, error);
    capture_ring(test.capture, &fd, &bytes);
    EQUAL(ring_map_open(&test.map, fd, bytes), 0);
    ring_reader_init(&test.reader, &test.map);
}

static inline void open_capture(uint32_t ring_bytes) {
    open_capture_as(ring_bytes, NULL);
}

static inline void set_up_as(uint32_t ring_bytes, const char *extra) {
    char mount[200];

    test.owner = getpid();
    signal(SIGPIPE, SIG_IGN);
    find_cgroup2(mount, sizeof(mount));
    snprintf(test.pins, sizeof(test.pins), "/sys/fs/bpf/recovery-line-test-%d", getpid());
    test.said = shared_memory(sizeof(*test.said));
    open_capture_as(ring_bytes, extra);
    snprintf(test.root, sizeof(test.root), "%s/recovery-line-test-%d", mount, getpid());
    CHECK(mkdir(test.root, 0755) == 0);
}

static inline void set_up_with(uint32_t ring_bytes) {
    set_up_as(ring_bytes, NULL);
}

static inline void set_up(void) {
    set_up_with(4 << 20);
}

/* ---- actors ---- */

static inline void select_actor(struct actor *actor, int on) {
    char error[CAPTURE_ERROR_BYTES] = "";
    const int status = capture_select(test.capture, actor->id, on, 1, error);
    if (status != 0)
        FAIL("capture_select: %d %s", status, error);
}

/* A cgroup with nobody in it yet, recorded or not. */
static inline struct actor *new_actor(int selected) {
    struct actor *actor = &test.actors[test.actor_count];
    char root[sizeof(test.root)]; /* a copy: gcc sees an overlap in `test` otherwise */
    struct stat status;

    CHECK(test.actor_count < MAX_ACTORS);
    memcpy(root, test.root, sizeof(root));
    snprintf(actor->cgroup, sizeof(actor->cgroup), "%.255s/p%d", root, test.actor_count);
    CHECK(mkdir(actor->cgroup, 0755) == 0);
    test.actor_count++;
    CHECK(stat(actor->cgroup, &status) == 0);
    actor->id = status.st_ino;
    actor->told = shared_memory(sizeof(*actor->told));
    if (selected)
        select_actor(actor, 1);
    return actor;
}

static inline void enter_cgroup(const char *cgroup) {
    char path[700];
    snprintf(path, sizeof(path), "%.600s/cgroup.procs", cgroup);
    write_file(path, "0");
}

/* The actor has reached a step and waits until the test lets it go on. */
static inline void step(struct told *told) {
    const int reached = atomic_fetch_add(&told->stage, 1) + 1;
    while (atomic_load(&told->go) < reached)
        usleep(200);
}

/* One actor waits until another has said so. */
static inline void say(int number) {
    atomic_store(test.said, number);
}

static inline void hear(int number) {
    for (const uint64_t begun = now_ns(); atomic_load(test.said) < number; usleep(200))
        CHECK(now_ns() - begun < HANG_NS);
}

typedef void actor_function(int fd, struct told *told);

/* Starts the actor; fd goes to its function and is closed here. */
static inline void start(struct actor *actor, actor_function *function, int fd) {
    actor->pid = fork();
    CHECK(actor->pid >= 0);
    if (actor->pid == 0) {
        enter_cgroup(actor->cgroup);
        function(fd, actor->told);
        step(actor->told);
        _exit(0);
    }
    if (fd >= 0)
        close(fd);
}

static inline void drain(void);
static inline void flush_moved(bool now);

/* Waits until the actor has reached its next step, keeping the ring empty. */
static inline void reached(struct actor *actor, int stage) {
    const uint64_t begun = now_ns();

    for (int i = 0; atomic_load(&actor->told->stage) < stage; i++) {
        int status;
        drain();
        if (now_ns() - begun > HANG_NS ||
            (i % 50 == 49 && waitpid(actor->pid, &status, WNOHANG) == actor->pid)) {
            if (atomic_load(&actor->told->stage) >= stage)
                break;
            actor->pid = 0;
            FAIL("actor %s ended or hangs before step %d", actor->cgroup, stage);
        }
        usleep(200);
    }
    flush_moved(true);
    drain();
}

static inline void release(struct actor *actor, int stage) {
    atomic_store(&actor->told->go, stage);
}

static inline void ended(struct actor *actor) {
    int status = 0;
    CHECK(waitpid(actor->pid, &status, 0) == actor->pid);
    actor->pid = 0;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        FAIL("actor %s ended with status %#x", actor->cgroup, status);
    drain();
}

static inline void freeze(struct actor *actor, int on) {
    char path[600], text[256] = "";

    snprintf(path, sizeof(path), "%s/cgroup.freeze", actor->cgroup);
    write_file(path, on ? "1" : "0");
    snprintf(path, sizeof(path), "%s/cgroup.events", actor->cgroup);
    for (const uint64_t begun = now_ns(); now_ns() - begun < HANG_NS;) {
        const int fd = open(path, O_RDONLY);
        const ssize_t got = read(fd, text, sizeof(text) - 1);
        close(fd);
        text[got > 0 ? got : 0] = '\0';
        if (strstr(text, on ? "frozen 1" : "frozen 0") != NULL)
            return;
        usleep(500);
    }
    FAIL("%s does not freeze", actor->cgroup);
}

/* ---- records ---- */

static inline void keep_record(const struct recovery_record *record) {
    struct recorded *all = &test.records;
    if (all->count == all->room) {
        all->room = all->room == 0 ? 4096 : all->room * 2;
        all->items = realloc(all->items, all->room * sizeof(*all->items));
        CHECK(all->items != NULL);
    }
    all->items[all->count++] = *record;
}

/* RECOVERY_LINE_CAPTURE has progress=exit: positions are read now and then, AF_UNIX is not followed. */
static inline bool sampled(void) {
    const char *forced = getenv("RECOVERY_LINE_CAPTURE");
    return forced != NULL && strstr(forced, "progress=exit") != NULL;
}

/* For cases that take what only hooks at the end of each call tell. */
static inline void needs_each_call(void) {
    if (sampled())
        SKIP("progress=exit follows neither AF_UNIX nor single calls");
}

static inline void flush_moved(bool now) {
    static uint64_t last;
    int pending;

    if (!sampled() || test.capture == NULL || (!now && now_ns() - last < 20000000u))
        return;
    last = now_ns();
    EQUAL(capture_flush(test.capture, NULL, 0, &pending, NULL), 0);
}

static inline void drain(void) {
    flush_moved(false);
    static uint8_t slots[1024 * RECOVERY_SLOT_BYTES];
    struct ring_batch batch;

    do {
        EQUAL(ring_drain(&test.reader, slots, sizeof(slots), &batch), 0);
        EQUAL(batch.foreign, 0);
        for (size_t i = 0; i < batch.records; i++)
            keep_record((const void *)(slots + i * RECOVERY_SLOT_BYTES + 8));
        EQUAL(ring_commit(&test.reader, batch.position), 0);
    } while (batch.records > 0);
}

/* A range of data, looks included. */
static inline bool is_range_of(const struct recovery_record *record, const struct actor *actor, int kind) {
    return record->process == actor->id && record->kind == kind &&
           (record->flags & (RECOVERY_FLAG_OPEN | RECOVERY_FLAG_END)) == 0;
}

static inline size_t count_records(const struct actor *actor, int kind) {
    size_t count = 0;
    for (size_t i = 0; i < test.records.count; i++)
        count += is_range_of(&test.records.items[i], actor, kind);
    return count;
}

/* Why the kernel can't follow the actor, as bits. */
static inline uint32_t verdicts_of(const struct actor *actor) {
    struct capture_verdict *all;
    uint32_t bits = 0;
    size_t count;

    EQUAL(capture_verdicts(test.capture, &all, &count, NULL), 0);
    for (size_t i = 0; i < count; i++)
        if (all[i].cgroup_id == actor->id)
            bits = all[i].bits;
    free(all);
    return bits;
}

static inline bool has_verdict(const struct actor *actor, uint32_t reason) {
    return verdicts_of(actor) >> reason & 1;
}

/* Records of openings and endings: of the one flag, sent or received. */
static inline size_t count_units(const struct actor *actor, int kind, uint8_t flag) {
    size_t count = 0;
    for (size_t i = 0; i < test.records.count; i++)
        count += test.records.items[i].process == actor->id && test.records.items[i].kind == kind &&
                 (test.records.items[i].flags & flag) != 0;
    return count;
}

static inline int by_begin(const void *left, const void *right) {
    const struct recovery_record *a = left, *b = right;
    return a->begin < b->begin ? -1 : a->begin > b->begin;
}

/* Asserts that the ranges of one kind on one connection tile [from, to). Returns how many there are. */
static inline size_t tiles(const struct actor *actor, int kind, uint64_t local, uint64_t remote,
                           uint64_t from, uint64_t to) {
    struct recovery_record *mine = calloc(test.records.count + 1, sizeof(*mine));
    size_t count = 0;
    uint64_t end = from;

    for (size_t i = 0; i < test.records.count; i++) {
        const struct recovery_record *record = &test.records.items[i];
        if (is_range_of(record, actor, kind) && record->local == local && record->remote == remote)
            mine[count++] = *record;
    }
    qsort(mine, count, sizeof(*mine), by_begin);
    for (size_t i = 0; i < count; i++) {
        if (mine[i].begin != end)
            FAIL("kind %d of %s: range %zu begins at %llu, expected %llu", kind, actor->cgroup, i,
                 (unsigned long long)mine[i].begin, (unsigned long long)end);
        if (mine[i].length == 0)
            FAIL("an empty range at %llu", (unsigned long long)end);
        end += mine[i].length;
    }
    free(mine);
    if (end != to)
        FAIL("kind %d of %s: ranges end at %llu, expected %llu", kind, actor->cgroup, (unsigned long long)end,
             (unsigned long long)to);
    return count;
}

/* Under LeakSanitizer: everything the code under test allocated is freed by now. */
extern int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

static inline void nothing_leaked(void) {
    if (__lsan_do_recoverable_leak_check != NULL)
        EQUAL(__lsan_do_recoverable_leak_check(), 0);
}

/* ---- cuts ---- */

struct cut {
    struct capture_cut_entry *entries;
    size_t count;
    int complete;
};

static inline struct capture_cut_entry *entry_of(struct cut *cut, uint8_t flags, uint64_t local,
                                                 uint64_t remote) {
    for (size_t i = 0; i < cut->count; i++)
        if (cut->entries[i].flags == flags && cut->entries[i].local == local &&
            cut->entries[i].remote == remote)
            return &cut->entries[i];
    cut->entries = realloc(cut->entries, (cut->count + 1) * sizeof(*cut->entries));
    CHECK(cut->entries != NULL);
    cut->entries[cut->count] = (struct capture_cut_entry){.flags = flags, .local = local, .remote = remote};
    return &cut->entries[cut->count++];
}

static inline void raise_to(uint64_t *offset, uint64_t end) {
    if (end > *offset)
        *offset = end;
}

/* What the records alone say of every connection that the actor ever had. */
static inline struct cut recorded_cut(const struct actor *actor) {
    struct cut cut = {.complete = 1};

    for (size_t i = 0; i < test.records.count; i++) {
        const struct recovery_record *record = &test.records.items[i];
        const uint8_t flags = record->flags & RECOVERY_FLAG_UNIX;
        const bool sends = record->kind == RECOVERY_SEND;
        if (record->process != actor->id || record->kind == RECOVERY_VERDICT ||
            record->kind == RECOVERY_PAGE_FAULT || record->kind == RECOVERY_PEER)
            continue;
        struct capture_cut_entry *entry = entry_of(&cut, flags, record->local, record->remote);
        if (record->flags & RECOVERY_FLAG_OPEN)
            entry->told |= sends ? CAPTURE_OPEN_SENT : CAPTURE_OPEN_RECEIVED;
        else if (record->flags & RECOVERY_FLAG_END)
            entry->told |= sends ? CAPTURE_END_SENT : CAPTURE_END_RECEIVED;
        else
            raise_to(record->kind == RECOVERY_PEEK ? &entry->seen : (sends ? &entry->sent : &entry->received),
                     record->begin + record->length);
    }
    for (size_t i = 0; i < cut.count; i++)
        raise_to(&cut.entries[i].seen, cut.entries[i].received);
    return cut;
}

/*
 * Where every connection stands that the actor ever had: what exists as the kernel says, what has ended as
 * the records say. Of what exists both must say the same: reading a cut brings the records up to it.
 */
static inline struct cut take_cut(const struct actor *actor) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct cut kernel = {0};
    int pending = 1, status = 0;

    while (status == 0 && pending) {
        free(kernel.entries);
        kernel.entries = NULL;
        status = capture_cut(test.capture, actor->id, &kernel.entries, &kernel.count, &kernel.complete,
                             &pending, error);
        drain();
    }
    if (status != 0)
        FAIL("capture_cut: %d %s", status, error);
    struct cut cut = recorded_cut(actor);
    for (size_t i = 0; i < kernel.count; i++) {
        const struct capture_cut_entry now = kernel.entries[i];
        struct capture_cut_entry *entry = entry_of(&cut, now.flags, now.local, now.remote);
        if (entry->sent != now.sent || entry->received != now.received || entry->seen != now.seen)
            FAIL("records say %llu sent, %llu received, %llu seen; the kernel %llu, %llu, %llu",
                 (unsigned long long)entry->sent, (unsigned long long)entry->received,
                 (unsigned long long)entry->seen, (unsigned long long)now.sent,
                 (unsigned long long)now.received, (unsigned long long)now.seen);
        *entry = now;
    }
    cut.complete = kernel.complete;
    free(kernel.entries);
    return cut;
}

static inline struct cut frozen_cut(struct actor *actor) {
    freeze(actor, 1);
    const struct cut cut = take_cut(actor);
    freeze(actor, 0);
    return cut;
}

/* The entry of the only connection. */
static inline struct capture_cut_entry only(struct cut cut) {
    EQUAL(cut.count, 1);
    EQUAL(cut.complete, 1);
    const struct capture_cut_entry entry = cut.entries[0];
    free(cut.entries);
    return entry;
}

static inline void same_offsets(struct capture_cut_entry a, struct capture_cut_entry b) {
    EQUAL(a.local, b.local);
    EQUAL(a.remote, b.remote);
    EQUAL(a.sent, b.sent);
    EQUAL(a.received, b.received);
}

/* ---- sockets ---- */

static inline struct sockaddr_in loopback(uint16_t port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* Sockets are made by the test for its actors; where only those are followed that their cgroup has made, in
 * there. */
static inline int make_socket(int family) {
    char here[600];

    if (sampled() && test.actor_count > 0)
        enter_cgroup(test.actors[test.actor_count - 1].cgroup);
    const int fd = socket(family, SOCK_STREAM, 0);
    snprintf(here, sizeof(here), "%s/..", test.root);
    if (sampled() && test.actor_count > 0)
        enter_cgroup(here);
    return fd;
}

static inline int listen_tcp(uint16_t *port) {
    struct sockaddr_in address = loopback(0);
    socklen_t length = sizeof(address);
    const int fd = make_socket(AF_INET);

    CHECK(fd >= 0);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(listen(fd, 64) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static inline int connect_tcp(uint16_t port) {
    const struct sockaddr_in address = loopback(port);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);

    CHECK(fd >= 0);
    CHECK(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
    return fd;
}

static inline int accept_one(int listener) {
    const int fd = accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    close(listener);
    return fd;
}

static inline void send_all(int fd, const void *bytes, size_t count, struct told *told) {
    for (size_t done = 0; done < count;) {
        const ssize_t sent = send(fd, (const char *)bytes + done, count - done, MSG_NOSIGNAL);
        CHECK(sent > 0);
        done += (size_t)sent;
        told->sent += (uint64_t)sent;
    }
}

static inline void receive_all(int fd, void *bytes, size_t count, struct told *told) {
    for (size_t done = 0; done < count;) {
        const ssize_t got = recv(fd, (char *)bytes + done, count - done, 0);
        CHECK(got > 0);
        done += (size_t)got;
        told->received += (uint64_t)got;
    }
}

/* Until the end of file. */
static inline void receive_rest(int fd, struct told *told) {
    static char bytes[65536];
    ssize_t got;

    while ((got = recv(fd, bytes, sizeof(bytes), 0)) > 0)
        told->received += (uint64_t)got;
    CHECK(got == 0);
}

/* The peer's reset has come. */
static inline void wait_for_reset(int fd) {
    struct pollfd gone = {.fd = fd};
    CHECK(poll(&gone, 1, (int)(HANG_NS / 1000000)) == 1 && (gone.revents & POLLERR) != 0);
}

/* ---- a conversation of two ---- */

static uint16_t pair_port;
static actor_function *client_part, *server_part;

static inline void play_client(int fd, struct told *told) {
    (void)fd;
    client_part(connect_tcp(pair_port), told);
}

static inline void play_server(int fd, struct told *told) {
    server_part(accept_one(fd), told);
}

struct pair {
    struct actor *client, *server;
    struct capture_cut_entry client_cut, server_cut;
};

/* One has opened, the other has accepted, and both have ended, once each. */
static inline void opened_and_ended(const struct pair *pair) {
    EQUAL(count_units(pair->client, RECOVERY_SEND, RECOVERY_FLAG_OPEN), 1);
    EQUAL(count_units(pair->client, RECOVERY_RECEIVE, RECOVERY_FLAG_OPEN), 0);
    EQUAL(count_units(pair->server, RECOVERY_RECEIVE, RECOVERY_FLAG_OPEN), 1);
    EQUAL(count_units(pair->server, RECOVERY_SEND, RECOVERY_FLAG_OPEN), 0);
    EQUAL(count_units(pair->client, RECOVERY_SEND, RECOVERY_FLAG_END), 1);
    EQUAL(count_units(pair->server, RECOVERY_SEND, RECOVERY_FLAG_END), 1);
}

/* Both ends play their part to the end; then ranges, names and cuts (alive, and after exit) must agree with
 * what the actors counted themselves. */
static inline struct pair run_pair(actor_function *client, actor_function *server) {
    struct pair pair = {.client = new_actor(1), .server = new_actor(1)};
    const int listener = listen_tcp(&pair_port);

    client_part = client;
    server_part = server;
    start(pair.server, play_server, listener);
    start(pair.client, play_client, -1);
    reached(pair.client, 1);
    reached(pair.server, 1);
    pair.client_cut = only(frozen_cut(pair.client));
    pair.server_cut = only(frozen_cut(pair.server));
    EQUAL(pair.client_cut.local, pair.server_cut.remote);
    EQUAL(pair.client_cut.remote, pair.server_cut.local);
    EQUAL(pair.client_cut.sent, pair.client->told->sent);
    EQUAL(pair.client_cut.received, pair.client->told->received);
    EQUAL(pair.server_cut.sent, pair.server->told->sent);
    EQUAL(pair.server_cut.received, pair.server->told->received);
    const uint64_t local = pair.client_cut.local, remote = pair.client_cut.remote;
    tiles(pair.client, RECOVERY_SEND, local, remote, 0, pair.client_cut.sent);
    tiles(pair.client, RECOVERY_RECEIVE, local, remote, 0, pair.client_cut.received);
    tiles(pair.server, RECOVERY_SEND, remote, local, 0, pair.server_cut.sent);
    tiles(pair.server, RECOVERY_RECEIVE, remote, local, 0, pair.server_cut.received);
    EQUAL(verdicts_of(pair.client), 0);
    EQUAL(verdicts_of(pair.server), 0);
    release(pair.client, 1);
    ended(pair.client);
    same_offsets(only(take_cut(pair.client)), pair.client_cut);
    release(pair.server, 1);
    ended(pair.server);
    same_offsets(only(take_cut(pair.server)), pair.server_cut);
    opened_and_ended(&pair);
    return pair;
}

/* ---- main ---- */

static inline int run_cases(const struct test_case *cases, size_t count, int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < count; i++) {
        if (argc > 1 && strcmp(argv[1], "--list") == 0) {
            printf("%s\n", cases[i].name);
        } else if (argc > 1 && strcmp(argv[1], cases[i].name) == 0) {
            cases[i].run();
            finish_test(0, "passed");
        }
    }
    if (argc > 1 && strcmp(argv[1], "--list") == 0)
        return 0;
    printf("usage: %s --list | CASE\n", argv[0]);
    return 2;
}

#endif
