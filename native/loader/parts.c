/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel chooses by loading: of each part the first variant is taken whose programs this kernel loads,
 * attaches and runs. That a type exists in its BTF says nothing.
 *
 *   progress   length   sock_send_length, sock_recv_length   Linux 6.3
 *              exit     sys_exit                             TCP alone: where it stands is read now and then
 *   sockets    storage  iter/bpf_sk_storage_map              all network namespaces at once
 *              tables   iter/tcp, iter/unix                  opened in each namespace of recorded processes
 *   life       cgroup   cgroup/sock_release, sockops         no run is ever left out
 *              trace    (the tracepoints alone)
 *   datagrams  cgroup   cgroup/sendmsg4, cgroup/sendmsg6
 *              trace    (sock_send_length alone)
 *   output     hold     cgroup_skb/egress, iter/tcp          attached where run --hold-output asks for it
 *              none     (that is refused)
 */
#define _GNU_SOURCE
#include "bpf_call.h"
#include "internal.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>

#define BASE_PROGRAMS                                                                                        \
    (PROGRAM_BIT(PROGRAM_TCP_STATE) | PROGRAM_BIT(PROGRAM_TCP_DESTROYED) | PROGRAM_BIT(PROGRAM_CUT_FILES) |  \
     PROGRAM_BIT(PROGRAM_PUSH_CLOSED) | PROGRAM_BIT(PROGRAM_CONDEMN) | PROGRAM_BIT(PROGRAM_TAKE_MOVED) |     \
     PROGRAM_BIT(PROGRAM_PUSH_PAIRS) | PROGRAM_BIT(PROGRAM_FIND_PEERS) | PROGRAM_BIT(PROGRAM_PUSH_ENDS))
#define PARTS 5
#define VARIANTS 2

static const struct part {
    const char *name;
    struct {
        const char *name, *about;
        uint32_t programs;
    } variants[VARIANTS];
} parts[PARTS] = {
    {"progress",
     {{"length", "Each send and receive is recorded as its call ends.",
       PROGRAM_BIT(PROGRAM_SOCK_SENT) | PROGRAM_BIT(PROGRAM_SOCK_RECEIVED)},
      {"exit",
       "TCP is read some time after a call has moved it, AF_UNIX and looks (MSG_PEEK) are not followed; "
       "costs every "
       "system call of the machine 20 to 50 ns.",
       PROGRAM_BIT(PROGRAM_CALL_ENDED)}}},
    {"sockets",
     {{"storage", "Cuts find sockets without a descriptor by the capture's own storage.",
       PROGRAM_BIT(PROGRAM_CUT_STORED_TCP) | PROGRAM_BIT(PROGRAM_CUT_STORED_UNIX)},
      {"tables",
       "Cuts find sockets without a descriptor in the tables of each network namespace that recorded "
       "processes are in.",
       PROGRAM_BIT(PROGRAM_CUT_TCP) | PROGRAM_BIT(PROGRAM_CUT_UNIX)}}},
    {"life",
     {{"cgroup",
       "The end of a connection is told by hooks of the recorded cgroups, which are never left out.",
       PROGRAM_BIT(PROGRAM_SOCKET_RELEASED) | PROGRAM_BIT(PROGRAM_CONNECTION_MADE)},
      {"trace",
       "The end of a connection is told by tracepoints, which the kernel may leave out; of a "
       "listener made in another cgroup (socket activation) not that a connection was accepted, reset and "
       "closed unused.",
       0}}},
    {"datagrams",
     {{"cgroup", "Datagrams sent are told by hooks of the recorded cgroups, which are never left out.",
       PROGRAM_BIT(PROGRAM_DATAGRAM_SENT4) | PROGRAM_BIT(PROGRAM_DATAGRAM_SENT6)},
      {"trace", "Datagrams sent are told by a tracepoint, which the kernel may leave out.", 0}}},
    {"output",
     {{"hold", "What run --hold-output holds waits in the kernel; costs nobody else anything.",
       PROGRAM_BIT(PROGRAM_OUTPUT_HELD) | PROGRAM_BIT(PROGRAM_PUSH_OUTPUTS)},
      {"none", "Output can't be held: run --hold-output is refused.", 0}}},
};

static uint8_t *chosen(struct capture_variant *variant, int part) {
    uint8_t *const fields[PARTS] = {&variant->progress, &variant->sockets, &variant->life,
                                    &variant->datagrams, &variant->output};
    return fields[part];
}

uint32_t variant_programs(struct capture_variant variant) {
    uint32_t programs = BASE_PROGRAMS;

    for (int i = 0; i < PARTS; i++)
        programs |= parts[i].variants[*chosen(&variant, i)].programs;
    return programs;
}

/* ---- what is forced ---- */

static int parse_one(const char *word, struct variant_request *request, char *error) {
    char name[32], value[32];

    if (sscanf(word, "%31[^=]=%31s", name, value) != 2)
        return capture_fail(error, -EINVAL, "\"%.60s\" is not PART=VARIANT, such as sockets=tables", word);
    if (strcmp(name, "refuse") == 0) {
        snprintf(request->refuse, sizeof(request->refuse), "%s", value);
        request->options.refuse = request->refuse;
        return 0;
    }
    if (strcmp(name, "leave-out") == 0) {
        request->options.left_out_per_mille = (uint32_t)atoi(value);
        return 0;
    }
    if (strcmp(name, "floor") == 0) {
        request->options.floor = (uint32_t)atoi(value);
        return 0;
    }
    for (int i = 0; i < PARTS; i++) {
        for (int j = 0; strcmp(name, parts[i].name) == 0 && j < VARIANTS; j++) {
            if (strcmp(value, parts[i].variants[j].name) != 0)
                continue;
            *chosen(&request->forced, i) = (uint8_t)j;
            return 0;
        }
        if (strcmp(name, parts[i].name) == 0)
            return capture_fail(error, -EINVAL, "the part %s has no variant \"%s\": %s or %s", name, value,
                                parts[i].variants[0].name, parts[i].variants[1].name);
    }
    return capture_fail(error, -EINVAL,
                        "the capture has no part \"%s\": progress, sockets, life, datagrams, output", name);
}

int variant_parse(const char *text, struct variant_request *request, char *error) {
    char copy[256], *rest = copy;
    int status = 0;

    memset(&request->forced, VARIANT_ANY, sizeof(request->forced));
    request->options.refuse = NULL;
    request->options.left_out_per_mille = 0;
    request->options.floor = 0;
    snprintf(copy, sizeof(copy), "%s", text == NULL ? "" : text);
    for (char *word; status == 0 && (word = strsep(&rest, ",")) != NULL;)
        if (*word != '\0')
            status = parse_one(word, request, error);
    return status;
}

/* ---- running ---- */

/* One conversation over TCP, AF_UNIX and UDP, of this process with itself. */
static int converse(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 address6 = {
        .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT, .sin6_port = htons(9)};
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int datagrams = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const int datagrams6 = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const struct timeval patience = {.tv_sec = 2}; /* a hook may keep what is sent */
    socklen_t length = sizeof(address);
    char byte = 0;

    if (bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0 ||
        connect(client, (struct sockaddr *)&address, length) != 0)
        return -1;
    const int server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    const bool talked = send(client, &byte, 1, 0) == 1 && recv(server, &byte, 1, 0) == 1;
    address.sin_port = htons(9);
    sendto(datagrams, &byte, 1, MSG_DONTWAIT, (struct sockaddr *)&address, sizeof(address));
    sendto(datagrams6, &byte, 1, MSG_DONTWAIT, (struct sockaddr *)&address6, sizeof(address6));
    close(listener), close(client), close(server), close(datagrams);
    if (datagrams6 >= 0)
        close(datagrams6);
    return talked ? 0 : -1;
}

static uint64_t runs_of(int program) {
    struct bpf_prog_info info = {0};
    return program < 0 || bpf_info(program, &info, sizeof(info)) != 0 ? 0 : info.run_cnt;
}

/* The conversation from a cgroup of its own that the programs are attached to. */
static int converse_in_cgroup(const struct objects *objects) {
    char path[512], file[600];
    int status = 0;

    if (cgroup_mount(path, sizeof(path) - 64) != 0)
        return -ENOENT;
    snprintf(path + strlen(path), 64, "/recovery-line-probe-%d", getpid());
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return -errno;
    const int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cgroup_hooks_attach(objects, directory);
    output_hook_try(objects, directory, true);
    const pid_t child = fork();
    if (child == 0) {
        snprintf(file, sizeof(file), "%s/cgroup.procs", path);
        const int procs = open(file, O_WRONLY | O_CLOEXEC);
        if (procs < 0 || write(procs, "0", 1) != 1)
            _exit(1);
        _exit(converse() == 0 ? 0 : 1);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        status = -ECHILD;
    output_hook_try(objects, directory, false);
    cgroup_hooks_detach(objects, directory);
    close(directory);
    for (int i = 0; i < 100 && rmdir(path) != 0 && errno == EBUSY; i++)
        usleep(1000);
    return status;
}

static bool has_cgroup_programs(const struct objects *objects) {
    if (objects->programs[PROGRAM_OUTPUT_HELD] >= 0)
        return true;
    for (int i = PROGRAM_TRACING; i < PROGRAM_CGROUP_END; i++)
        if (objects->programs[i] >= 0)
            return true;
    return false;
}

/* The kernel counts runs only while somebody holds this descriptor; without the right to ask, being attached
 * must do. */
static int count_runs(void) {
    return BPF_DO(BPF_ENABLE_STATS, attr_.enable_stats.type = BPF_STATS_RUN_TIME);
}

static int run_hooks(const struct objects *objects, enum capture_program *idle) {
    const int stats = count_runs();
    if (stats < 0)
        return 0;
    if (has_cgroup_programs(objects) && converse_in_cgroup(objects) < 0) {
        close(stats);
        return 0; /* no cgroup can be made here; `run` will say so */
    }
    if (!has_cgroup_programs(objects))
        converse();
    close(stats);
    for (int i = 0; i < PROGRAM_COUNT; i++) {
        const bool hooked =
            i < PROGRAM_CGROUP_END || i == PROGRAM_OUTPUT_HELD; /* others are run by themselves */
        if (!hooked || objects->programs[i] < 0 || i == PROGRAM_DATAGRAM_SENT6 ||
            runs_of(objects->programs[i]) > 0)
            continue;
        *idle = i;
        return -ENODATA;
    }
    return 0;
}

static int run_iterators(const struct objects *objects, enum capture_program *idle) {
    for (int i = PROGRAM_CUT_FILES; i < PROGRAM_COUNT; i++) {
        if (i == PROGRAM_CUT_UNIX + 1)
            i = PROGRAM_PUSH_OUTPUTS;
        const int status = objects->programs[i] < 0 ? 0 : iterate_once(objects->programs[i], NULL);
        if (status == 0)
            continue;
        *idle = i;
        return status;
    }
    return 0;
}

/* Loaded, attached, run. Leaves `objects` closed unless it returns 0. */
static int try_variant(struct objects *objects, const struct load_options *options,
                       struct capture_variant variant, enum capture_program *refused, char *error) {
    int status = programs_load(objects, options, variant_programs(variant), refused, error);

    if (status != 0)
        return status;
    status = run_iterators(objects, refused);
    if (status == 0)
        status = run_hooks(objects, refused);
    if (status == 0)
        return 0;
    objects_close(objects);
    return capture_fail(error, status, "the program %s was loaded but does not run: %s",
                        PROGRAM_NAMES[*refused],
                        status == -ENODATA ? "nothing called it" : strerror(-status));
}

/* The part that a program is of; PARTS: every variant needs it. */
static int part_of(enum capture_program program) {
    for (int i = 0; i < PARTS; i++)
        for (int j = 0; j < VARIANTS; j++)
            if (program < PROGRAM_COUNT && (parts[i].variants[j].programs & PROGRAM_BIT(program)) != 0)
                return i;
    return PARTS;
}

int variant_load(struct objects *objects, struct variant_request *request, struct capture_variant *variant,
                 char *error) {
    struct capture_variant *forced = &request->forced;

    memset(variant, 0, sizeof(*variant));
    for (int i = 0; i < PARTS; i++)
        if (*chosen(forced, i) != VARIANT_ANY)
            *chosen(variant, i) = *chosen(forced, i);
    for (;;) {
        enum capture_program refused = PROGRAM_COUNT;
        const int status = try_variant(objects, &request->options, *variant, &refused, error);
        const int part = part_of(refused);

        if (status == 0)
            return 0;
        if (part == PARTS || *chosen(forced, part) != VARIANT_ANY || *chosen(variant, part) == VARIANTS - 1)
            return status;
        *chosen(variant, part) += 1;
    }
}

/* ---- for `doctor` ---- */

typedef struct capture_part part_rows[PARTS][VARIANTS];

static int try_and_leave(struct capture_variant variant, enum capture_program *refused, char *reason) {
    const struct load_options options = {.ring_bytes = 64 << 10, .cgroup_level = 1};
    struct objects objects;
    const int status = try_variant(&objects, &options, variant, refused, reason);

    if (status == 0)
        objects_close(&objects);
    return status;
}

/* What asks least of this kernel: the last variant of every part, or the one before where that is refused.
 * Tells the rows that it has tried; false: nothing runs here, and every row says why. */
static bool least_variant(struct capture_variant *least, part_rows rows) {
    char reason[CAPTURE_ERROR_BYTES] = "";
    enum capture_program refused = PROGRAM_COUNT;

    for (int i = 0; i < PARTS; i++)
        *chosen(least, i) = VARIANTS - 1;
    while (try_and_leave(*least, &refused, reason) != 0) {
        const int part = part_of(refused);
        if (part == PARTS || *chosen(least, part) == 0) {
            for (int i = 0; i < PARTS; i++)
                for (int j = 0; j < VARIANTS; j++)
                    if (rows[i][j].reason[0] == '\0')
                        snprintf(rows[i][j].reason, CAPTURE_ERROR_BYTES, "%s", reason);
            return false;
        }
        snprintf(rows[part][*chosen(least, part)].reason, CAPTURE_ERROR_BYTES, "%s", reason);
        *chosen(least, part) -= 1;
    }
    for (int i = 0; i < PARTS; i++)
        rows[i][*chosen(least, i)].usable = 1;
    return true;
}

/* Those that nothing is said of yet are tried beside what asks least of the other parts. */
static void try_rows(part_rows rows) {
    struct capture_variant least = {0};

    if (!least_variant(&least, rows))
        return;
    for (int i = 0; i < PARTS; i++)
        for (int j = 0; j < VARIANTS; j++) {
            struct capture_variant variant = least;
            enum capture_program refused = PROGRAM_COUNT;

            if (rows[i][j].usable || rows[i][j].reason[0] != '\0')
                continue;
            *chosen(&variant, i) = (uint8_t)j;
            rows[i][j].usable = try_and_leave(variant, &refused, rows[i][j].reason) == 0;
        }
}

int capture_parts(const struct capture *capture, struct capture_part *out, int max) {
    part_rows rows = {0};
    int count = 0;

    try_rows(rows);
    for (int i = 0; i < PARTS; i++)
        for (int j = 0; j < VARIANTS && count < max; j++, count++) {
            struct capture_part *row = &out[count];

            *row = rows[i][j];
            snprintf(row->part, sizeof(row->part), "%s", parts[i].name);
            snprintf(row->variant, sizeof(row->variant), "%s", parts[i].variants[j].name);
            if (row->usable)
                snprintf(row->reason, sizeof(row->reason), "%s", parts[i].variants[j].about);
            if (capture != NULL) {
                struct capture_variant used = capture->config.variant;
                row->in_use = *chosen(&used, i) == j;
            }
        }
    return count;
}
