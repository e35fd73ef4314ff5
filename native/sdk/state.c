/* SPDX-License-Identifier: Apache-2.0 */
/* States that were saved, and the newest whole one as the place to go on from. */
#include "internal.h"
#include "../dsm/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void sum_of(const void *bytes, size_t size, uint8_t *into) {
    struct sha256 sum;
    char hex[65];
    unsigned byte;

    sha256_begin(&sum);
    sha256_add(&sum, bytes, size);
    sha256_end(&sum, hex);
    for (int i = 0; i < 32; i++) {
        sscanf(hex + 2 * i, "%2x", &byte);
        into[i] = (uint8_t)byte;
    }
}

static uint8_t *read_file(const char *path, size_t *size) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat stat;
    uint8_t *bytes = NULL;

    if (fd >= 0 && fstat(fd, &stat) == 0 && (bytes = malloc(stat.st_size + 1)) != NULL) {
        *size = 0;
        while (*size < (size_t)stat.st_size) {
            const ssize_t got = read(fd, bytes + *size, stat.st_size - *size);
            if (got <= 0)
                break;
            *size += got;
        }
    }
    if (fd >= 0)
        close(fd);
    return bytes;
}

/* True, with the state in the node, if the checkpoint's state is whole. */
static bool load_state(struct rl_node *node, const struct checkpoint *checkpoint) {
    char *path = text("%s/checkpoint-%u", node->folder, checkpoint->index);
    uint8_t sum[32], *bytes;
    size_t size = 0;

    bytes = read_file(path, &size);
    free(path);
    if (bytes != NULL && size > 0) {
        sum_of(bytes, size, sum);
        if (memcmp(sum, checkpoint->sha256, sizeof(sum)) == 0) {
            node->state = bytes;
            node->state_size = size - 1;
            return true;
        }
    }
    free(bytes);
    return false;
}

/* The newest checkpoint whose state is whole becomes the base; what the log has after it is replayed. */
void restore(struct rl_node *node) {
    for (size_t at = node->checkpoint_count; at-- > 0;) {
        const struct checkpoint *base = &node->checkpoints[at];
        if (!load_state(node, base))
            continue;
        node->restored = true;
        node->delivered = base->delivered;
        node->step_at = base->step;
        for (size_t number = 0; number < base->channels; number++) {
            const struct channel_end end = node->channels[number];
            if (end.sends)
                node->outs[end.at]->sent = base->offsets[number];
            else
                node->ins[end.at]->delivered = node->ins[end.at]->checkpointed = base->offsets[number];
        }
        break;
    }
    if (node->checkpoint_count > 0)
        node->checkpoint = node->checkpoints[node->checkpoint_count - 1].index;
}

static int write_whole(const char *path, const uint8_t *bytes, size_t size) {
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t done = 0;
    int status = RL_OK;

    if (fd < 0)
        return RL_SYSTEM;
    while (done < size && status == RL_OK) {
        const ssize_t wrote = write(fd, bytes + done, size - done);
        if (wrote >= 0)
            done += wrote;
        else if (errno != EINTR)
            status = RL_SYSTEM;
    }
    if (status == RL_OK && fsync(fd) != 0)
        status = RL_SYSTEM;
    close(fd);
    return status;
}

/* Durable under its name on return. */
int store_state(struct rl_node *node, uint32_t index, const struct bytes *state) {
    char *partial = text("%s/.partial-%u", node->folder, index);
    char *path = text("%s/checkpoint-%u", node->folder, index);
    int status = write_whole(partial, state->data, state->size);

    if (status == RL_OK && rename(partial, path) != 0)
        status = RL_SYSTEM;
    if (status == RL_OK)
        status = sync_folder(node->folder);
    free(partial);
    free(path);
    return status;
}
