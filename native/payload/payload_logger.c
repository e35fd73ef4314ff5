// SPDX-License-Identifier: Apache-2.0
/*
 * recovery-line-payload: keeps what the processes of one application send over TCP, by channel and offset.
 *
 *   recovery-line-payload log --pin-dir DIR --cgroup DIR --dir DIR
 *                         [--ring-mib N] [--segment-mib N] [--limit-mib N] [--when-full hold|lose]
 *   recovery-line-payload punch FILE     takes "position length" lines: gives those bytes back to the disk
 *
 * `log` attaches one BPF program to the cgroup (it goes when this process goes), gives up its rights, and
 * copies from the program's ring into segments. It says "ready" and answers, a line each:
 *
 *   flush  →  flushed SEGMENT POSITION BYTES LOST FAILED HELD     all that was sent before is durable
 *
 * End of stdin, SIGTERM or SIGINT end it after a last flush.
 */
#include "segment.h"
#include "../include/recovery_ring.h"
#include "../bpf/shared.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "payload_egress.skel.h"
#pragma GCC diagnostic pop

#define MIB (1024 * 1024ull)
#define POLL_MS 5   /* between two looks into the ring; it wakes us when a quarter full */
#define WRITE_MS 20 /* from a byte's arrival to its write; syncing follows at once */
#define PRIORITY -10
#define LINE_BYTES 256

struct options {
    const char *pin_dir, *cgroup, *directory;
    uint64_t ring_mib, segment_mib, limit_mib;
    uint32_t hold;
};

struct logger {
    struct options options;
    struct payload_egress_bpf *program;
    struct ring_buffer *ring;
    struct segments *segments;
    uint64_t lost_bytes; /* told to the segments already */
    uint64_t bytes;
    bool dirty;       /* added to the segments and not written */
    int64_t since_ms; /* when that began */
    char line[LINE_BYTES];
    size_t line_used;
};

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("recovery-line-payload: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

/* ---- the program in the kernel ---- */

/* The capture's map, if it is the capture that this was built for. */
static int capture_connections(const char *pin_dir) {
    struct capture_config config;
    const uint32_t zero = 0;
    char path[512];

    snprintf(path, sizeof(path), "%s/config", pin_dir);
    const int fd = bpf_obj_get(path);
    if (fd < 0)
        fail("no capture is pinned in %s: %s", pin_dir, strerror(errno));
    if (bpf_map_lookup_elem(fd, &zero, &config) || config.magic != CAPTURE_MAGIC ||
        config.map_version != CAPTURE_MAP_VERSION)
        fail("%s was pinned by another version", pin_dir);
    close(fd);
    snprintf(path, sizeof(path), "%s/connections", pin_dir);
    const int map = bpf_obj_get(path);
    if (map < 0)
        fail("%s cannot be opened: %s", path, strerror(errno));
    return map;
}

/* The verifier gives up with EAGAIN when a signal is pending, and libbpf tries five times only. */
static int load_undisturbed(struct payload_egress_bpf *program) {
    sigset_t all, before;

    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    const int status = payload_egress_bpf__load(program);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return status;
}

static void load(struct logger *l) {
    struct payload_egress_bpf *program = payload_egress_bpf__open();
    struct bpf_map *map;

    if (!program)
        fail("the payload program cannot be opened: %s", strerror(errno));
    bpf_object__for_each_map(map, program->obj) bpf_map__set_autocreate(map, false);
    bpf_map__set_autocreate(program->maps.connections, true);
    bpf_map__set_autocreate(program->maps.payload_ring, true);
    bpf_map__set_autocreate(program->maps.payload_counts, true);
    bpf_map__set_autocreate(program->maps.rodata, true);
    const int connections = capture_connections(l->options.pin_dir);
    const uint32_t ring_bytes = l->options.ring_mib * MIB;
    program->rodata->payload_ring_bytes = ring_bytes;
    program->rodata->hold_when_full = l->options.hold;
    int status = bpf_map__reuse_fd(program->maps.connections, connections);
    close(connections);
    if (!status)
        status = bpf_map__set_max_entries(program->maps.payload_ring, ring_bytes);
    if (!status)
        status = load_undisturbed(program);
    if (status)
        fail("the kernel refused the payload program: %s", strerror(-status));
    l->program = program;
}

/* The link lives as long as this process. */
static void attach(const struct logger *l) {
    const int program = bpf_program__fd(l->program->progs.payload_egress);
    const int cgroup = open(l->options.cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (cgroup < 0 || bpf_link_create(program, cgroup, BPF_CGROUP_INET_EGRESS, NULL) < 0)
        fail("the payload program cannot be attached to %s: %s", l->options.cgroup, strerror(errno));
    close(cgroup);
}

static struct payload_counters count_all(const struct logger *l) {
    const int cpus = libbpf_num_possible_cpus();
    struct payload_counters counters[cpus > 0 ? cpus : 1];
    const uint32_t zero = 0;
    struct payload_counters all = {0};

    if (bpf_map_lookup_elem(bpf_map__fd(l->program->maps.payload_counts), &zero, counters))
        return all;
    for (int i = 0; i < cpus; i++) {
        all.lost_bytes += counters[i].lost_bytes;
        all.held_packets += counters[i].held_packets;
    }
    return all;
}

/* ---- from the ring into segments ---- */

/* The ring's content is the kernel's word; still, nothing outside the slot is read whatever it says. */
static int take_chunk(void *context, void *data, size_t size) {
    struct logger *l = context;
    struct payload_chunk chunk;

    if (size < sizeof(chunk))
        return 0;
    memcpy(&chunk, data, sizeof(chunk));
    if (chunk.length == 0 || chunk.length > size - sizeof(chunk) || chunk.length > PAYLOAD_CHUNK_BYTES ||
        chunk.urgent > chunk.length)
        return 0;
    segments_add(l->segments, &chunk, (const uint8_t *)data + sizeof(chunk));
    l->bytes += chunk.length;
    if (!l->dirty) {
        l->dirty = true;
        l->since_ms = now_ms();
    }
    return 0;
}

static void drain(struct logger *l) {
    ring_buffer__consume(l->ring);
    const uint64_t lost = count_all(l).lost_bytes;
    if (lost > l->lost_bytes) {
        segments_lost(l->segments, lost - l->lost_bytes);
        l->lost_bytes = lost;
        l->dirty = true;
    }
}

static void write_when_due(struct logger *l) {
    if (!l->dirty || now_ms() - l->since_ms < WRITE_MS)
        return;
    segments_write(l->segments);
    l->dirty = false;
}

static void flush(struct logger *l) {
    struct segments_place place;
    uint64_t written, failed;

    drain(l);
    const int failure = segments_sync(l->segments, &place);
    l->dirty = false;
    segments_figures(l->segments, &written, &failed);
    if (failure)
        fprintf(stderr, "recovery-line-payload: %s: %s\n", l->options.directory, strerror(failure));
    printf("flushed %u %llu %llu %llu %llu %llu\n", place.segment, (unsigned long long)place.position,
           (unsigned long long)written, (unsigned long long)l->lost_bytes, (unsigned long long)failed,
           (unsigned long long)count_all(l).held_packets);
}

/* ---- conversation ---- */

static void answer(struct logger *l, const char *line) {
    if (strcmp(line, "flush") == 0) {
        flush(l);
    } else {
        puts("error unknown command");
    }
    fflush(stdout);
}

/* False at the end of stdin. */
static bool listen_to(struct logger *l) {
    const ssize_t got = read(STDIN_FILENO, l->line + l->line_used, LINE_BYTES - 1 - l->line_used);
    char *end;

    if (got <= 0)
        return got < 0 && errno == EINTR;
    l->line_used += got;
    l->line[l->line_used] = 0;
    while ((end = strchr(l->line, '\n'))) {
        *end = 0;
        answer(l, l->line);
        l->line_used -= end + 1 - l->line;
        memmove(l->line, end + 1, l->line_used + 1);
    }
    if (l->line_used == LINE_BYTES - 1)
        l->line_used = 0;
    return true;
}

/* What is attached stays so; from here on this is a reader of mapped memory and a writer of files. */
static void give_up_rights(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (syscall(SYS_capset, &header, none))
        fail("rights cannot be given up: %s", strerror(errno));
}

static int signals(void) {
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

static void serve(struct logger *l) {
    struct pollfd fds[] = {
        {.fd = STDIN_FILENO, .events = POLLIN},
        {.fd = signals(), .events = POLLIN},
        {.fd = ring_buffer__epoll_fd(l->ring), .events = POLLIN},
    };

    puts("ready");
    fflush(stdout);
    for (bool going = true; going;) {
        poll(fds, 3, POLL_MS);
        drain(l);
        write_when_due(l);
        if (fds[0].revents)
            going = listen_to(l);
        if (fds[1].revents)
            going = false;
    }
    drain(l);
}

static int run_log(const struct options *options) {
    struct logger l = {.options = *options};
    const struct segments_options segments = {.directory = options->directory,
                                              .segment_bytes = options->segment_mib * MIB,
                                              .limit_bytes = options->limit_mib * MIB};

    umask(077);
    load(&l);
    attach(&l);
    l.ring = ring_buffer__new(bpf_map__fd(l.program->maps.payload_ring), take_chunk, &l, NULL);
    if (!l.ring)
        fail("the payload ring cannot be mapped: %s", strerror(errno));
    l.segments = segments_open(&segments);
    if (!l.segments)
        fail("%s cannot be used: %s", options->directory, strerror(errno));
    setpriority(PRIO_PROCESS, 0, PRIORITY); /* a full ring holds the application: this comes first */
    give_up_rights();
    serve(&l);
    const int failure = segments_close(l.segments);
    if (failure)
        fail("%s: %s", options->directory, strerror(failure));
    ring_buffer__free(l.ring);
    payload_egress_bpf__destroy(l.program);
    return 0;
}

static int run_punch(const char *path) {
    unsigned long long position, length;
    const int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        fail("%s: %s", path, strerror(errno));
    while (scanf("%llu %llu", &position, &length) == 2)
        if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, position, length))
            fail("%s: %s", path, strerror(errno));
    if (fdatasync(fd))
        fail("%s: %s", path, strerror(errno));
    return 0;
}

static uint64_t number(const char *name, const char *text, uint64_t least, uint64_t most) {
    char *end;
    const unsigned long long value = strtoull(text, &end, 10);

    if (*text < '0' || *text > '9' || *end || value < least || value > most)
        fail("%s %s: a number from %llu to %llu", name, text, (unsigned long long)least,
             (unsigned long long)most);
    return value;
}

static struct options parse(int count, char **arguments) {
    struct options options = {.ring_mib = 32, .segment_mib = 64, .limit_mib = 1024, .hold = 1};

    for (int i = 2; i < count; i += 2) {
        const char *name = arguments[i], *value = arguments[i + 1];
        if (!value)
            fail("%s needs a value", name);
        if (strcmp(name, "--pin-dir") == 0)
            options.pin_dir = value;
        else if (strcmp(name, "--cgroup") == 0)
            options.cgroup = value;
        else if (strcmp(name, "--dir") == 0)
            options.directory = value;
        else if (strcmp(name, "--ring-mib") == 0)
            options.ring_mib = number(name, value, 1, 1024);
        else if (strcmp(name, "--segment-mib") == 0)
            options.segment_mib = number(name, value, 1, 4096);
        else if (strcmp(name, "--limit-mib") == 0)
            options.limit_mib = number(name, value, 1, 1ull << 40);
        else if (strcmp(name, "--when-full") == 0 && (!strcmp(value, "hold") || !strcmp(value, "lose")))
            options.hold = strcmp(value, "hold") == 0;
        else
            fail("no option %s %s", name, value);
    }
    if (!options.pin_dir || !options.cgroup || !options.directory)
        fail("--pin-dir, --cgroup and --dir are needed");
    if (options.ring_mib & (options.ring_mib - 1))
        fail("--ring-mib is a power of two");
    return options;
}

int main(int count, char **arguments) {
    if (count >= 2 && strcmp(arguments[1], "log") == 0) {
        const struct options options = parse(count, arguments);
        return run_log(&options);
    }
    if (count == 3 && strcmp(arguments[1], "punch") == 0)
        return run_punch(arguments[2]);
    fail("usage: recovery-line-payload log --pin-dir DIR --cgroup DIR --dir DIR … | punch FILE");
}
