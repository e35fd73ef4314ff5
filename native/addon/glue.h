/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the N-API files share. Glue only: no decision is taken here.
 *
 * Lifetime of a source handle:
 *   1. JavaScript holds an external with our type tag; anything else throws a TypeError.
 *   2. `close` frees the mappings, the capture and the wake-up at once; every call is synchronous, so none is
 * running. After it every call on the handle throws.
 *   3. The garbage collector closes what was forgotten.
 *   4. The wake-up outlives the handle until libuv has let go of it (wake.c).
 */
#ifndef RECOVERY_GLUE_H
#define RECOVERY_GLUE_H

#define NAPI_VERSION 8
#include <node_api.h>
#include <stdbool.h>

#include "../attach/remote.h"
#include "../loader/capture.h"
#include "../ring/ring_read.h"

struct wake;

struct source {
    bool open;
    struct capture *capture; /* NULL: only a ring was attached, or a helper holds it */
    struct remote *remote;   /* the helper that does; NULL: there is none */
    int lock_fd;             /* of the ring's reader, from the helper; closed with the source */
    int ring_fd;
    bool owns_fd;
    bool created;
    struct ring_map map;
    struct ring_reader reader;
    struct wake *wake;
};

/* Throws an Error with `errno` (positive number) and `message`; returns NULL, so that `return glue_throw(…)`
 * reads well. */
napi_value glue_throw(napi_env env, int negative_errno, const char *message);
/* Reads `count` arguments; throws and returns false where one is missing. */
bool glue_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *values);
/* The open source behind an argument; throws and returns NULL. */
struct source *glue_source(napi_env env, napi_value value);
napi_value glue_wrap_source(napi_env env, struct source *source);
void glue_close_source(struct source *source);

bool glue_u64(napi_env env, napi_value value, uint64_t *out);
bool glue_string(napi_env env, napi_value value, char *out, size_t size);
/* The memory of a typed array of `type`; throws and returns false for anything else. */
bool glue_array(napi_env env, napi_value value, napi_typedarray_type type, void **data, size_t *length);
void glue_set_number(napi_env env, napi_value object, const char *name, double value);
napi_value glue_number(napi_env env, double value);
napi_value glue_undefined(napi_env env);
void glue_define(napi_env env, napi_value exports, const char *name, napi_callback function);

/* wake.c: calls `callback` when a watched descriptor has become readable. `slot` holds the wake-up until
 * wake_stop, which clears it. 0, -EINVAL (no function, or the slot is taken), -errno. */
int wake_open(napi_env env, napi_value callback, struct wake **slot);
/* Until the descriptor is closed. 0 or -errno. */
int wake_watch(struct wake *wake, int fd);
void wake_stop(struct wake *wake);

/* backend.c: the calls of loader/capture.h, made here or asked of the helper. `source_captures` first. */
bool source_captures(const struct source *source);
int source_select(struct source *source, uint64_t cgroup, int on, uint32_t incarnation, char *error);
int source_attach(struct source *source, uint64_t cgroup, uint32_t incarnation, uint64_t parent, char *error);
int source_counters(struct source *source, struct capture_counters *out, char *error);
int source_cut(struct source *source, uint64_t cgroup, struct capture_cut_entry **entries, size_t *count,
               int *complete, int *pending, char *error);
int source_flush(struct source *source, const uint64_t *cgroups, size_t count, int *pending, char *error);
int source_verdicts(struct source *source, struct capture_verdict **out, size_t *count, char *error);
/* `source` may be NULL: of this kernel alone. */
int source_parts(struct source *source, struct capture_part *out, int max);
int source_expect_restore(struct source *source, const struct capture_cut_entry *entries, size_t count,
                          char *error);

void capture_glue_init(napi_env env, napi_value exports);
void ring_glue_init(napi_env env, napi_value exports);
void wake_glue_init(napi_env env, napi_value exports);
void memory_glue_init(napi_env env, napi_value exports);
void lock_glue_init(napi_env env, napi_value exports);
void peer_glue_init(napi_env env, napi_value exports);
void process_glue_init(napi_env env, napi_value exports);
void file_glue_init(napi_env env, napi_value exports);
void userfault_glue_init(napi_env env, napi_value exports);
void output_glue_init(napi_env env, napi_value exports);

#endif /* RECOVERY_GLUE_H */
