/* SPDX-License-Identifier: Apache-2.0 */
/* Where a source's calls go: to the capture in this process, or to the attach helper that holds it. */
#include "glue.h"

bool source_captures(const struct source *source) {
    return source->capture != NULL || source->remote != NULL;
}

int source_select(struct source *source, uint64_t cgroup, int on, uint32_t incarnation, char *error) {
    return source->remote != NULL ? remote_select(source->remote, cgroup, on, incarnation, error)
                                  : capture_select(source->capture, cgroup, on, incarnation, error);
}

int source_attach(struct source *source, uint64_t cgroup, uint32_t incarnation, uint64_t parent,
                  char *error) {
    return source->remote != NULL ? remote_attach(source->remote, cgroup, incarnation, parent, error)
                                  : capture_attach(source->capture, cgroup, incarnation, parent, error);
}

int source_counters(struct source *source, struct capture_counters *out, char *error) {
    return source->remote != NULL ? remote_counters(source->remote, out, error)
                                  : capture_counters(source->capture, out, error);
}

int source_cut(struct source *source, uint64_t cgroup, struct capture_cut_entry **entries, size_t *count,
               int *complete, int *pending, char *error) {
    return source->remote != NULL
               ? remote_cut(source->remote, cgroup, entries, count, complete, pending, error)
               : capture_cut(source->capture, cgroup, entries, count, complete, pending, error);
}

int source_flush(struct source *source, const uint64_t *cgroups, size_t count, int *pending, char *error) {
    return source->remote != NULL ? remote_flush(source->remote, cgroups, count, pending, error)
                                  : capture_flush(source->capture, cgroups, count, pending, error);
}

int source_verdicts(struct source *source, struct capture_verdict **out, size_t *count, char *error) {
    return source->remote != NULL ? remote_verdicts(source->remote, out, count, error)
                                  : capture_verdicts(source->capture, out, count, error);
}

int source_parts(struct source *source, struct capture_part *out, int max) {
    if (source != NULL && source->remote != NULL)
        return remote_parts(source->remote, out, max);
    return capture_parts(source == NULL ? NULL : source->capture, out, max);
}

int source_expect_restore(struct source *source, const struct capture_cut_entry *entries, size_t count,
                          char *error) {
    return source->remote != NULL ? remote_expect_restore(source->remote, entries, count, error)
                                  : capture_expect_restore(source->capture, entries, count, error);
}
