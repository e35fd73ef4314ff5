/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output commit (bpf/output_hold.bpf.c): who holds, what waits, and how far it may go.
 *
 * The hook stays attached whatever becomes of us, and is never taken off a cgroup: it goes with the last
 * socket that the cgroup has made. Only a hook of an instance that is gone, whose marks nobody can raise any
 * more, is replaced by that of the instance that records the process now, which begins with everything held.
 */
#define _GNU_SOURCE
#include "bpf_call.h"
#include "internal.h"

#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define MAX_ATTACHED 64

static int attach(int directory, int program) {
    return BPF_DO(BPF_PROG_ATTACH, attr_.target_fd = (uint32_t)directory,
                  attr_.attach_bpf_fd = (uint32_t)program, attr_.attach_type = BPF_CGROUP_INET_EGRESS,
                  attr_.attach_flags = BPF_F_ALLOW_MULTI);
}

static int detach(int directory, int program) {
    return BPF_DO(BPF_PROG_DETACH, attr_.target_fd = (uint32_t)directory,
                  attr_.attach_bpf_fd = (uint32_t)program, attr_.attach_type = BPF_CGROUP_INET_EGRESS);
}

/* Returns the count, or a negative errno. */
static int attached(int directory, uint32_t *ids) {
    union bpf_attr attr;

    memset(&attr, 0, sizeof(attr));
    attr.query.target_fd = (uint32_t)directory;
    attr.query.attach_type = BPF_CGROUP_INET_EGRESS;
    attr.query.prog_ids = bpf_pointer(ids);
    attr.query.prog_cnt = MAX_ATTACHED;
    const int status = bpf_call(BPF_PROG_QUERY, &attr);
    return status < 0 ? status : (int)attr.query.prog_cnt;
}

static uint32_t id_of(int program) {
    struct bpf_prog_info info = {0};
    return bpf_info(program, &info, sizeof(info)) == 0 ? info.id : 0;
}

/* The hook of an instance before ours. */
static void detach_old(int directory, uint32_t id) {
    const int program = BPF_DO(BPF_PROG_GET_FD_BY_ID, attr_.prog_id = id);
    struct bpf_prog_info info = {0};

    if (program < 0)
        return;
    if (bpf_info(program, &info, sizeof(info)) == 0 &&
        strcmp(info.name, PROGRAM_NAMES[PROGRAM_OUTPUT_HELD]) == 0)
        detach(directory, program);
    close(program);
}

/* Ours first: there is no moment without one. */
int output_hook_attach(const struct objects *objects, int directory) {
    const int program = objects->programs[PROGRAM_OUTPUT_HELD];
    const uint32_t own = id_of(program);
    uint32_t ids[MAX_ATTACHED];
    const int count = attached(directory, ids);
    bool there = false;

    if (count < 0)
        return count;
    for (int i = 0; i < count; i++)
        there |= ids[i] == own;
    const int status = there ? 0 : attach(directory, program);
    for (int i = 0; status == 0 && i < count; i++)
        if (ids[i] != own)
            detach_old(directory, ids[i]);
    return status;
}

int output_hook_try(const struct objects *objects, int directory, bool on) {
    const int program = objects->programs[PROGRAM_OUTPUT_HELD], map = objects->maps[MAP_HOLDERS];
    const uint32_t passes = HOLDER_PASSES;
    struct stat status;

    if (program < 0 || fstat(directory, &status) != 0)
        return 0;
    const uint64_t id = status.st_ino;
    if (!on) {
        bpf_map_remove(map, &id);
        return detach(directory, program);
    }
    const int put = bpf_map_put(map, &id, &passes, BPF_ANY);
    return put == 0 ? attach(directory, program) : put;
}

/* Whoever's cgroup is gone: what its sockets still have waits without an entry, too. */
static void forget_gone(int map) {
    uint64_t id = 0, next;

    for (int more = bpf_map_next(map, NULL, &next); more == 0;) {
        id = next;
        more = bpf_map_next(map, &id, &next);
        const int directory = cgroup_open(id);
        if (directory == -ENOENT)
            bpf_map_remove(map, &id);
        else if (directory >= 0)
            close(directory);
    }
}

int capture_hold(struct capture *capture, uint64_t cgroup_id, char *error) {
    const int map = capture->objects.maps[MAP_HOLDERS];
    const uint32_t holds = HOLDER_HOLDS;

    if (capture->config.variant.output != OUTPUT_HOLD || capture->config.variant.life != LIFE_CGROUP)
        return capture_fail(error, -ENOTSUP,
                            "output can't be held here: that takes output=hold and life=cgroup");
    int status = bpf_map_put(map, &cgroup_id, &holds, BPF_ANY);
    if (status == -E2BIG) {
        forget_gone(map);
        status = bpf_map_put(map, &cgroup_id, &holds, BPF_ANY);
    }
    const int directory = status == 0 ? cgroup_open(cgroup_id) : status;
    if (directory >= 0) {
        status = output_hook_attach(&capture->objects, directory);
        close(directory);
    }
    if (directory < 0 || status != 0)
        return capture_fail(error, directory < 0 ? directory : status,
                            "the output of the cgroup can't be held: %s",
                            strerror(directory < 0 ? -directory : -status));
    return 0;
}

/* ---- marks ---- */

/* Room for one more of a list that grows. NULL: no memory, the next call tells. */
static void *one_more(void **list, size_t *count, size_t bytes) {
    char *more = realloc(*list, (*count + 1) * bytes);

    if (more == NULL)
        return NULL;
    *list = more;
    return more + bytes * (*count)++;
}

int capture_held(struct capture *capture, uint64_t *count, char *error) {
    const uint32_t zero = 0;
    const int status = bpf_map_get(capture->objects.maps[MAP_HELD], &zero, count);

    return status == 0
               ? 0
               : capture_fail(error, status, "the marks of output can't be read: %s", strerror(-status));
}

int capture_outputs(struct capture *capture, struct capture_output **out, size_t *count, char *error) {
    const int map = capture->objects.maps[MAP_OUTPUTS];
    struct end_key key, next;
    struct output_mark mark;
    int status = bpf_map_next(map, NULL, &next);

    *out = NULL;
    *count = 0;
    for (; status == 0; status = bpf_map_next(map, &key, &next)) {
        key = next;
        if (bpf_map_get(map, &key, &mark) != 0)
            continue;
        struct capture_output *one = one_more((void **)out, count, sizeof(*one));
        if (one == NULL)
            break;
        *one = (struct capture_output){.cgroup_id = mark.process,
                                       .local = key.local,
                                       .remote = key.remote,
                                       .released = mark.released,
                                       .wanted = mark.wanted,
                                       .since = mark.since,
                                       .port = mark.port,
                                       .free = (mark.flags & OUTPUT_FREE) != 0};
        memcpy(one->address, mark.address, sizeof(one->address));
    }
    if (status == 0 || status == -ENOENT)
        return 0;
    free(*out);
    *out = NULL;
    return capture_fail(error, status, "the marks of output can't be read: %s", strerror(-status));
}

/* What the hook has changed meanwhile is lost, and told again when the socket tries next: at once. */
static int raise_mark(int map, const struct capture_output *output) {
    const struct end_key key = {.local = (uint32_t)output->local, .remote = (uint32_t)output->remote};
    struct output_mark mark;
    int status = bpf_map_get(map, &key, &mark);

    if (status != 0)
        return status == -ENOENT ? 0 : status;
    if (output->released > mark.released)
        mark.released = output->released;
    if (output->free)
        mark.flags |= OUTPUT_FREE;
    status = bpf_map_put(map, &key, &mark, BPF_EXIST);
    return status == -ENOENT ? 0 : status;
}

int capture_release(struct capture *capture, const struct capture_output *outputs, size_t count,
                    char *error) {
    int status = 0;

    if (capture->config.variant.output != OUTPUT_HOLD)
        return capture_fail(error, -ENOTSUP, "this capture holds no output");
    for (size_t i = 0; status == 0 && i < count; i++)
        status = raise_mark(capture->objects.maps[MAP_OUTPUTS], &outputs[i]);
    if (status == 0)
        status = push_outputs(capture);
    return status == 0 ? 0 : capture_fail(error, status, "output can't be released: %s", strerror(-status));
}

int capture_take_unheld(struct capture *capture, struct capture_unheld **out, size_t *count, char *error) {
    const int map = capture->objects.maps[MAP_UNHELD];
    struct unheld_key key, next;
    uint32_t told;
    int status = bpf_map_next(map, NULL, &next);

    *out = NULL;
    *count = 0;
    for (; status == 0; status = bpf_map_next(map, &key, &next)) {
        key = next;
        if (bpf_map_get(map, &key, &told) != 0 || told != 1)
            continue;
        struct capture_unheld *one = one_more((void **)out, count, sizeof(*one));
        if (one == NULL)
            break;
        *one = (struct capture_unheld){.cgroup_id = key.process, .kind = key.kind, .port = key.port};
        memcpy(one->address, key.address, sizeof(one->address));
        told = 2;
        bpf_map_put(map, &key, &told, BPF_EXIST);
    }
    if (status == 0 || status == -ENOENT)
        return 0;
    free(*out);
    *out = NULL;
    return capture_fail(error, status, "what is not held can't be read: %s", strerror(-status));
}
