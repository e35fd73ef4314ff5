/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "userfault.h"
#include "bpf_call.h"
#include "internal.h"
#include "undisturbed.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "userfault_events.skel.h"
#pragma GCC diagnostic pop

struct userfault {
    int link, counts; /* descriptors; the link keeps the hook loaded and attached */
};

/* Moves a descriptor out of the skeleton, whose destructor would close it. */
static int take(int *fd) {
    const int taken = *fd > 0 ? *fd : -1;
    *fd = 0;
    return taken;
}

/* The outer map gets the capture's own map as its only element. */
static int lend(int outer, int map) {
    const uint32_t slot = USERFAULT_SLOT, fd = (uint32_t)map;

    return bpf_map_put(outer, &slot, &fd, BPF_ANY);
}

static int lend_maps(struct userfault_events *skeleton, const struct capture *capture) {
    const int *maps = capture->objects.maps;
    int status = lend(skeleton->maps.rings.map_fd, maps[MAP_RING]);

    if (status == 0)
        status = lend(skeleton->maps.statistics.map_fd, maps[MAP_COUNTERS]);
    if (status == 0) /* last: from here on somebody may be selected */
        status = lend(skeleton->maps.selections.map_fd, maps[MAP_PROCESSES]);
    return status;
}

static int load_into(struct userfault_events *skeleton, const struct capture *capture,
                     struct userfault *out) {
    if (capture != NULL) {
        skeleton->rodata->ring_bytes = capture->config.ring_bytes;
        skeleton->rodata->cgroup_level = capture->config.cgroup_level;
    }
    int status = userfault_events__load(skeleton);
    if (status == 0 && capture != NULL)
        status = lend_maps(skeleton, capture);
    if (status != 0)
        return status;
    out->link = skel_raw_tracepoint_open(NULL, skeleton->progs.userfault_call_ended.prog_fd);
    if (out->link < 0)
        return -errno;
    out->counts = take(&skeleton->maps.userfaults.map_fd);
    return 0;
}

static int load(const struct capture *capture, struct userfault *out) {
    struct userfault_events *skeleton = userfault_events__open();

    if (skeleton == NULL)
        return -ENOMEM;
    const int status = load_into(skeleton, capture, out);
    userfault_events__destroy(skeleton);
    return status;
}

int userfault_open(struct capture *capture, struct userfault **out, char *error) {
#if !defined(__x86_64__)
    (void)capture, *out = NULL;
    return capture_fail(error, -ENOTSUP, "userfaultfd can be watched on x86-64 only");
#else
    int status = probe_rights(error);

    *out = NULL;
    if (status != 0)
        return status;
    if ((*out = malloc(sizeof(**out))) == NULL)
        status = -ENOMEM;
    else {
        **out = (struct userfault){-1, -1};
        LOAD_UNDISTURBED(status, status = load(capture, *out));
    }
    if (status == 0)
        return 0;
    userfault_close(*out);
    *out = NULL;
    if (status != -EPERM && status != -EACCES && status != -ENOMEM)
        return capture_fail(error, -ENOTSUP, "this kernel refused the hook on system calls: %s",
                            strerror(-status));
    return capture_fail(error, status, "the hook on system calls cannot be loaded: %s", strerror(-status));
#endif
}

void userfault_close(struct userfault *userfault) {
    if (userfault == NULL)
        return;
    if (userfault->link >= 0)
        close(userfault->link);
    if (userfault->counts >= 0)
        close(userfault->counts);
    free(userfault);
}

int userfault_counts(struct userfault *userfault, struct userfault_counts *out, char *error) {
    const int cpus = possible_cpus();
    const uint32_t zero = 0;
    struct userfault_counts *values = cpus > 0 ? calloc((size_t)cpus, sizeof(*values)) : NULL;

    memset(out, 0, sizeof(*out));
    if (values == NULL)
        return capture_fail(error, cpus < 0 ? cpus : -ENOMEM, "the number of CPUs is unknown");
    const int status = bpf_map_get(userfault->counts, &zero, values);
    for (int cpu = 0; status == 0 && cpu < cpus; cpu++)
        for (int i = 0; i < USERFAULT_OPERATIONS; i++) {
            out->calls[i] += values[cpu].calls[i];
            out->bytes[i] += values[cpu].bytes[i];
        }
    free(values);
    return status == 0 ? 0 : capture_fail(error, status, "the counts cannot be read: %s", strerror(-status));
}

double userfault_time_system_call(uint32_t count) {
    struct timespec begin, end;

    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (uint32_t i = 0; i < count; i++)
        syscall(SYS_getppid);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return ((double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec)) / count;
}
