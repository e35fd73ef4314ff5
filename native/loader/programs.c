/* SPDX-License-Identifier: Apache-2.0 */
/* The two light skeletons behind one face. They link only libc: the loader itself is a BPF program. */
#include "internal.h"
#include "undisturbed.h"

#include <errno.h>
#include <unistd.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "capture_exact.skel.h"
#include "capture_naive.skel.h"
#pragma GCC diagnostic pop

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
    close_all(objects->links, PROGRAM_ATTACHED);
}

/* Moves a descriptor out of the skeleton, whose destructor would close it. */
static int take(int *fd) {
    const int taken = *fd > 0 ? *fd : -1;
    *fd = 0;
    return taken;
}

#define TAKE_COMMON(objects, skeleton)                                                                       \
    do {                                                                                                     \
        (objects)->maps[MAP_RING] = take(&(skeleton)->maps.ring.map_fd);                                     \
        (objects)->maps[MAP_PROCESSES] = take(&(skeleton)->maps.processes.map_fd);                           \
        (objects)->maps[MAP_FILTER] = take(&(skeleton)->maps.filter.map_fd);                                 \
        (objects)->maps[MAP_COUNTERS] = take(&(skeleton)->maps.counters.map_fd);                             \
        (objects)->maps[MAP_CLOSED] = take(&(skeleton)->maps.closed.map_fd);                                 \
        (objects)->maps[MAP_CONNECTIONS] = take(&(skeleton)->maps.connections.map_fd);                       \
        (objects)->maps[MAP_UNIX_ENDS] = take(&(skeleton)->maps.unix_ends.map_fd);                           \
        (objects)->maps[MAP_RESTORED] = take(&(skeleton)->maps.restored.map_fd);                             \
        (objects)->programs[PROGRAM_TCP_STATE] = take(&(skeleton)->progs.tcp_state.prog_fd);                 \
        (objects)->programs[PROGRAM_TCP_DESTROYED] = take(&(skeleton)->progs.tcp_destroyed.prog_fd);         \
        (objects)->programs[PROGRAM_SOCK_SENT] = take(&(skeleton)->progs.sock_sent.prog_fd);                 \
        (objects)->programs[PROGRAM_SOCK_RECEIVED] = take(&(skeleton)->progs.sock_received.prog_fd);         \
        (objects)->programs[PROGRAM_TCP_RECEIVING] = take(&(skeleton)->progs.tcp_receiving.prog_fd);         \
        (objects)->programs[PROGRAM_TAKE_LOST] = take(&(skeleton)->progs.take_lost.prog_fd);                 \
        (objects)->programs[PROGRAM_CUT_FILES] = take(&(skeleton)->progs.cut_files.prog_fd);                 \
        (objects)->programs[PROGRAM_CUT_CONNECTIONS] = take(&(skeleton)->progs.cut_connections.prog_fd);     \
        (objects)->programs[PROGRAM_CUT_UNIX_ENDS] = take(&(skeleton)->progs.cut_unix_ends.prog_fd);         \
    } while (0)

/* Defines int load_VARIANT(objects, ring_bytes, cgroup_level). */
#define DEFINE_LOAD(variant, take_rest)                                                                      \
    static int load_##variant(struct objects *objects, uint32_t ring_bytes, uint32_t cgroup_level) {         \
        struct capture_##variant *skeleton = capture_##variant##__open();                                    \
        int status;                                                                                          \
        if (skeleton == NULL)                                                                                \
            return -ENOMEM;                                                                                  \
        skeleton->maps.ring.max_entries = ring_bytes;                                                        \
        skeleton->rodata->ring_bytes = ring_bytes;                                                           \
        skeleton->rodata->cgroup_level = cgroup_level;                                                       \
        status = capture_##variant##__load(skeleton);                                                        \
        if (status == 0) {                                                                                   \
            TAKE_COMMON(objects, skeleton);                                                                  \
            take_rest;                                                                                       \
        }                                                                                                    \
        capture_##variant##__destroy(skeleton);                                                              \
        return status;                                                                                       \
    }

DEFINE_LOAD(exact, objects->programs[PROGRAM_TCP_SENDING] = take(&skeleton->progs.tcp_sending.prog_fd))
DEFINE_LOAD(naive, (void)0)

static int attach(struct objects *objects) {
    for (int i = 0; i < PROGRAM_ATTACHED; i++) {
        if (objects->programs[i] < 0)
            continue;
        const int link = skel_raw_tracepoint_open(NULL, objects->programs[i]);
        if (link < 0)
            return -errno;
        objects->links[i] = link;
    }
    return 0;
}

int programs_load(struct objects *objects, uint32_t ring_bytes, uint32_t cgroup_level, bool naive,
                  char *error) {
    objects_clear(objects);
    int status = 0;
    LOAD_UNDISTURBED(status, status = naive ? load_naive(objects, ring_bytes, cgroup_level)
                                            : load_exact(objects, ring_bytes, cgroup_level));
    if (status != 0)
        return capture_fail(error, status, "the kernel refused the capture programs (%s variant): %s",
                            naive ? "naive" : "exact", strerror(-status));
    status = attach(objects);
    if (status != 0) {
        objects_close(objects);
        return capture_fail(error, status, "the capture programs cannot be attached: %s", strerror(-status));
    }
    return 0;
}
