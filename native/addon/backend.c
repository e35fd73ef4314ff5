/* SPDX-License-Identifier: Apache-2.0 */
/* Where a source's calls go: to the capture in this process, or to the attach helper that holds it. */
#include "glue.h"

bool source_captures(const struct source *source) {
    return source->capture != NULL || source->remote != NULL;
}

int source_select(struct source *source, uint64_t cgroup, int on, char *error) {
    return source->remote != NULL ? remote_select(source->remote, cgroup, on, error)
                                  : capture_select(source->capture, cgroup, on, error);
}

int source_counters(struct source *source, struct capture_counters *out, char *error) {
    return source->remote != NULL ? remote_counters(source->remote, out, error)
                                  : capture_counters(source->capture, out, error);
}

int source_take_lost(struct source *source, uint64_t cgroup, uint64_t *lost, char *error) {
    return source->remote != NULL ? remote_take_lost(source->remote, cgroup, lost, error)
                                  : capture_take_lost(source->capture, cgroup, lost, error);
}

int source_cut(struct source *source, uint64_t cgroup, struct capture_cut_entry **entries, size_t *count,
               int *complete, char *error) {
    return source->remote != NULL ? remote_cut(source->remote, cgroup, entries, count, complete, error)
                                  : capture_cut(source->capture, cgroup, entries, count, complete, error);
}

int source_forget_closed(struct source *source, uint64_t cgroup, const struct capture_cut_entry *entries,
                         size_t count, char *error) {
    return source->remote != NULL ? remote_forget_closed(source->remote, cgroup, entries, count, error)
                                  : capture_forget_closed(source->capture, cgroup, entries, count, error);
}

int source_expect_restore(struct source *source, const struct capture_cut_entry *entries, size_t count,
                          char *error) {
    return source->remote != NULL ? remote_expect_restore(source->remote, entries, count, error)
                                  : capture_expect_restore(source->capture, entries, count, error);
}
