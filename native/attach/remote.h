/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The collector's side of protocol.h: the calls of loader/capture.h, asked of the helper. Errors as there;
 * and -EPIPE for ever after the helper has ended, did not answer within ATTACH_PATIENCE_S, or answered
 * nonsense. Not thread safe; every call waits for its answer.
 */
#ifndef RECOVERY_ATTACH_REMOTE_H
#define RECOVERY_ATTACH_REMOTE_H

#include "protocol.h"
#include "../loader/userfault.h"

#include <stdbool.h>

#define ATTACH_PATIENCE_S 30

struct remote {
    int socket; /* -1: closed */
    bool broken;
};

/* Takes the socket over, also where it fails. The descriptors are the caller's. */
int remote_open(struct remote *remote, int socket, struct attach_hello *hello, int *ring, int *lock,
                char *error);
/* The helper ends; what it pinned goes on recording. */
void remote_close(struct remote *remote);

int remote_select(struct remote *remote, uint64_t cgroup, int on, uint32_t incarnation, char *error);
int remote_attach(struct remote *remote, uint64_t cgroup, uint32_t incarnation, uint64_t parent, char *error);
/* Sums stand at CPU 0, as if there were one. */
int remote_counters(struct remote *remote, struct capture_counters *out, char *error);
int remote_cut(struct remote *remote, uint64_t cgroup, struct capture_cut_entry **entries, size_t *count,
               int *complete, int *pending, char *error);
int remote_flush(struct remote *remote, const uint64_t *cgroups, size_t count, int *pending, char *error);
int remote_verdicts(struct remote *remote, struct capture_verdict **out, size_t *count, char *error);
/* 0 where the helper does not say. */
int remote_parts(struct remote *remote, struct capture_part *out, int max);
int remote_expect_restore(struct remote *remote, const struct capture_cut_entry *entries, size_t count,
                          char *error);
int remote_userfaults(struct remote *remote, struct userfault_counts *out, char *error);

#endif
