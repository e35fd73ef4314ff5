/* SPDX-License-Identifier: Apache-2.0 */
/* A process begins and ends: its folder, its lock, its log. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK_TRIES 20
#define LOCK_RETRY_MS 50

static int make_folders(struct rl_node *node) {
    const char *parts[] = {node->app, "sdk", node->process};
    char *path = text("%s", node->home);
    int status = mkdir(path, 0700) == 0 || errno == EEXIST ? RL_OK : RL_SYSTEM;

    for (size_t i = 0; i < 3 && status == RL_OK; i++) {
        char *longer = text("%s/%s", path, parts[i]);
        status = mkdir(longer, 0700) == 0 || errno == EEXIST ? sync_folder(path) : RL_SYSTEM;
        free(path);
        path = longer;
    }
    node->folder = path;
    return status == RL_OK ? RL_OK : fail(node, RL_SYSTEM, "%s: %s", node->folder, strerror(errno));
}

static int lock_folder(struct rl_node *node) {
    char *path = text("%s/lock", node->folder);
    const struct timespec pause = {.tv_nsec = LOCK_RETRY_MS * 1000000L};
    int left = LOCK_TRIES, status = RL_OK;

    node->lock = open(path, O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (node->lock < 0)
        status = fail(node, RL_SYSTEM, "%s: %s", path, strerror(errno));
    while (status == RL_OK && flock(node->lock, LOCK_EX | LOCK_NB) != 0) {
        if (left-- == 0)
            status = fail(node, RL_LOCKED, "process %s of %s runs already", node->process, node->app);
        nanosleep(&pause, NULL);
    }
    free(path);
    return status;
}

static int open_log(struct rl_node *node) {
    char *path = text("%s/log", node->folder), *first = text("%s/checkpoint-1", node->folder);
    int status = RL_OK;

    if (access(path, F_OK) != 0 && access(first, F_OK) == 0)
        status = fail(node, RL_CORRUPT, "%s is missing, but there are checkpoints beside it", path);
    else
        status = log_open(&node->log, path, take_record, node);
    if (status == RL_SYSTEM)
        status = fail(node, RL_SYSTEM, "%s: %s", path, strerror(errno));
    if (status == RL_CORRUPT)
        status = fail(node, RL_CORRUPT, "%s is damaged at offset %llu, before bytes that were synced", path,
                      (unsigned long long)node->log.end);
    free(path);
    free(first);
    return status;
}

static int begin(struct rl_node *node) {
    if (!node->began) {
        log_start(&node->log, RECORD_BEGIN);
        bytes_name(&node->log.pending, node->app);
        bytes_name(&node->log.pending, node->process);
        log_finish(&node->log);
        if (sync_folder(node->folder) != RL_OK)
            return disk_failed(node);
    }
    restore(node);
    node->incarnation++;
    log_start(&node->log, RECORD_JOIN);
    bytes_u32(&node->log.pending, node->incarnation);
    log_finish(&node->log);
    node->listener = link_listen(node->folder);
    if (node->listener < 0)
        return fail(node, RL_SYSTEM, "can't listen in %s: %s", node->folder, strerror(errno));
    return RL_OK;
}

int rl_join(struct rl_node **result, const char *app, const char *process, const char *home) {
    struct rl_node *node = calloc(1, sizeof(*node));
    int status;

    *result = node;
    if (node == NULL)
        return RL_SYSTEM;
    node->lock = node->listener = node->log.fd = -1;
    if (!is_name(app) || !is_name(process) || home == NULL || home[0] != '/' || strlen(home) > 3500)
        return fail(node, RL_USAGE, "app and process are names, home is an absolute path");
    node->app = text("%s", app);
    node->process = text("%s", process);
    node->home = text("%s", home);
    status = make_folders(node);
    if (status == RL_OK)
        status = lock_folder(node);
    if (status == RL_OK)
        status = open_log(node);
    return status == RL_OK ? begin(node) : status;
}

static void free_in(struct in_channel *in) {
    for (size_t i = in->first; i < in->count; i++)
        free(in->queue[i].bytes);
    link_close(&in->link);
    free(in->queue);
    free(in->peer);
    free(in);
}

static void free_out(struct out_channel *out) {
    link_close(&out->link);
    free(out->messages);
    free(out->peer);
    free(out->folder);
    free(out);
}

static void free_history(struct rl_node *node) {
    for (size_t i = 0; i < node->step_count; i++)
        free(node->steps[i].value);
    for (size_t i = 0; i < node->checkpoint_count; i++)
        free(node->checkpoints[i].offsets);
    free(node->steps);
    free(node->checkpoints);
    free(node->channels);
}

int rl_close(struct rl_node *node) {
    int status;

    if (node == NULL)
        return RL_OK;
    if (node->status == RL_OK && node->log.fd >= 0 && log_flush(&node->log) != RL_OK)
        disk_failed(node);
    status = node->status;
    for (size_t i = 0; i < node->in_count; i++)
        free_in(node->ins[i]);
    for (size_t i = 0; i < node->out_count; i++)
        free_out(node->outs[i]);
    for (size_t i = 0; i < node->stranger_count; i++) {
        link_close(&node->strangers[i]->link);
        free(node->strangers[i]);
    }
    free(node->ins);
    free(node->outs);
    free(node->strangers);
    free_history(node);
    log_close(&node->log);
    if (node->listener >= 0)
        close(node->listener);
    if (node->lock >= 0)
        close(node->lock);
    free(node->current.bytes);
    free(node->state);
    free(node->app);
    free(node->process);
    free(node->home);
    free(node->folder);
    free(node);
    return status;
}
