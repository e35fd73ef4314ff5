/* SPDX-License-Identifier: Apache-2.0 */
/* The capture's programs, loaded one by one as asked for: a kernel may refuse any of them. */
#define _GNU_SOURCE
#include "bpf_call.h"
#include "internal.h"
#include "undisturbed.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "capture.skel.h"
#pragma GCC diagnostic pop

const char *const MAP_NAMES[MAP_COUNT] = {
    "ring",      "processes", "filter",  "levels",     "counters", "closed",    "connections",
    "unix_ends", "restored",  "request", "unix_pairs", "ends",     "datagrams", "last_takers",
    "mailboxes", "outputs",   "holders", "unheld",     "held"};
const char *const PROGRAM_NAMES[PROGRAM_COUNT] = {
    "tcp_state",       "tcp_destroyed",   "sock_sent",      "sock_received", "call_ended", "socket_released",
    "connection_made", "datagram_sent4",  "datagram_sent6", "cut_files",     "cut_tcp",    "cut_unix",
    "cut_stored_tcp",  "cut_stored_unix", "find_peers",     "push_closed",   "condemn",    "take_moved",
    "push_pairs",      "push_ends",       "output_held",    "push_outputs"};

void objects_clear(struct objects *objects) {
    memset(objects, 0xff, sizeof(*objects)); /* all -1 */
}

static void close_all(int *fds, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

void objects_close(struct objects *objects) {
    close_all(objects->maps, MAP_COUNT);
    close_all(objects->programs, PROGRAM_COUNT);
    close_all(objects->links, PROGRAM_TRACING);
}

/* The program that libbpf's message says was refused. libbpf has closed everything by the time that it
 * returns. */
static _Thread_local enum capture_program refused_program;

static int listen_to_libbpf(enum libbpf_print_level level, const char *format, va_list arguments) {
    char message[256], name[64];

    (void)level;
    vsnprintf(message, sizeof(message), format, arguments);
    if (strstr(message, "BPF program load failed") != NULL &&
        sscanf(message, "libbpf: prog '%63[^']'", name) == 1)
        for (int i = 0; i < PROGRAM_COUNT; i++)
            if (strcmp(name, PROGRAM_NAMES[i]) == 0)
                refused_program = i;
    return 0;
}

static struct bpf_program *program_of(const struct capture_bpf *skeleton, int program) {
    return bpf_object__find_program_by_name(skeleton->obj, PROGRAM_NAMES[program]);
}

static struct capture_bpf *open_skeleton(const struct load_options *options, uint32_t programs) {
    struct capture_bpf *skeleton = capture_bpf__open();

    if (skeleton == NULL)
        return NULL;
    skeleton->rodata->ring_bytes = options->ring_bytes;
    skeleton->rodata->cgroup_level = options->cgroup_level;
    skeleton->rodata->left_out_per_mille = options->left_out_per_mille;
    skeleton->rodata->hooks_floor = options->floor;
    skeleton->rodata->sampled = (programs & PROGRAM_BIT(PROGRAM_CALL_ENDED)) != 0;
    bpf_map__set_max_entries(skeleton->maps.ring, options->ring_bytes);
    for (int i = 0; i < PROGRAM_COUNT; i++)
        bpf_program__set_autoload(program_of(skeleton, i), (programs & PROGRAM_BIT(i)) != 0);
    return skeleton;
}

/* Duplicates: the skeleton's own go with it. */
static int take(struct objects *objects, const struct capture_bpf *skeleton, uint32_t programs) {
    for (int i = 0; i < MAP_COUNT; i++) {
        const struct bpf_map *map = bpf_object__find_map_by_name(skeleton->obj, MAP_NAMES[i]);
        objects->maps[i] = fcntl(bpf_map__fd(map), F_DUPFD_CLOEXEC, 3);
        if (objects->maps[i] < 0)
            return -errno;
    }
    for (int i = 0; i < PROGRAM_COUNT; i++) {
        if ((programs & PROGRAM_BIT(i)) == 0)
            continue;
        objects->programs[i] = fcntl(bpf_program__fd(program_of(skeleton, i)), F_DUPFD_CLOEXEC, 3);
        if (objects->programs[i] < 0)
            return -errno;
    }
    return 0;
}

static int attach(struct objects *objects) {
    for (int i = 0; i < PROGRAM_TRACING; i++) {
        if (objects->programs[i] < 0)
            continue;
        objects->links[i] =
            BPF_DO(BPF_RAW_TRACEPOINT_OPEN, attr_.raw_tracepoint.prog_fd = (uint32_t)objects->programs[i]);
        if (objects->links[i] < 0) {
            refused_program = i;
            return objects->links[i];
        }
    }
    return 0;
}

static int load(struct objects *objects, const struct load_options *options, uint32_t programs) {
    struct capture_bpf *skeleton = open_skeleton(options, programs);
    int status;

    if (skeleton == NULL)
        return -errno;
    LOAD_UNDISTURBED(status, status = capture_bpf__load(skeleton));
    if (status == 0)
        status = take(objects, skeleton, programs);
    capture_bpf__destroy(skeleton);
    return status;
}

/* As a kernel would that does not want it. */
static int refuse_for_test(const struct load_options *options, uint32_t programs) {
    for (int i = 0; i < PROGRAM_COUNT; i++) {
        if (options->refuse == NULL || strcmp(options->refuse, PROGRAM_NAMES[i]) != 0 ||
            (programs & PROGRAM_BIT(i)) == 0)
            continue;
        refused_program = i;
        return -EPERM;
    }
    return 0;
}

int programs_load(struct objects *objects, const struct load_options *options, uint32_t programs,
                  enum capture_program *refused, char *error) {
    const libbpf_print_fn_t before = libbpf_set_print(listen_to_libbpf);
    int status;

    objects_clear(objects);
    refused_program = PROGRAM_COUNT;
    status = refuse_for_test(options, programs);
    if (status == 0)
        status = load(objects, options, programs);
    libbpf_set_print(before);
    if (status == 0)
        status = attach(objects);
    *refused = refused_program;
    if (status == 0)
        return 0;
    objects_close(objects);
    return capture_fail(error, status, "this kernel refuses the program %s: %s",
                        refused_program < PROGRAM_COUNT ? PROGRAM_NAMES[refused_program] : "(none named)",
                        strerror(-status));
}
