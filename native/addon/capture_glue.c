/* SPDX-License-Identifier: Apache-2.0 */
/* native/loader/capture.h for JavaScript. */
#include "glue.h"

#include <errno.h>
#include <limits.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PATH_BYTES 4096
#define VARIANT_BYTES 256
#define MAX_CAPABILITIES 64
#define MAX_PARTS 64

static struct source *new_source(napi_env env) {
    struct source *source = calloc(1, sizeof(*source));
    if (source == NULL)
        glue_throw(env, -ENOMEM, "out of memory");
    else
        source->open = true;
    return source;
}

/* Maps the ring and hands the source to JavaScript; on failure frees it and throws. */
static napi_value finish_source(napi_env env, struct source *source, uint64_t ring_bytes) {
    const int error = ring_map_open(&source->map, source->ring_fd, ring_bytes);
    if (error != 0) {
        glue_close_source(source);
        free(source);
        return glue_throw(env, error, "the kernel ring cannot be mapped");
    }
    ring_reader_init(&source->reader, &source->map);
    return glue_wrap_source(env, source);
}

/* open(pinDir, ringBytes, cgroupLevel, variant) -> handle; variant "": the best that runs here */
static napi_value open_capture(napi_env env, napi_callback_info info) {
    char pin_dir[PATH_BYTES], variant[VARIANT_BYTES], error[CAPTURE_ERROR_BYTES] = "";
    struct capture_options options = {.pin_dir = pin_dir, .variant = variant};
    uint64_t ring_bytes, level;
    uint32_t actual_bytes = 0;
    int created = 0;
    napi_value arguments[4];

    if (!glue_arguments(env, info, 4, arguments) ||
        !glue_string(env, arguments[0], pin_dir, sizeof(pin_dir)) ||
        !glue_u64(env, arguments[1], &ring_bytes) || !glue_u64(env, arguments[2], &level) ||
        !glue_string(env, arguments[3], variant, sizeof(variant)))
        return NULL;
    if (ring_bytes > UINT32_MAX || level > UINT32_MAX)
        return glue_throw(env, -EINVAL, "ring size or cgroup level is out of range");
    options.ring_bytes = (uint32_t)ring_bytes;
    options.cgroup_level = (uint32_t)level;
    struct source *source = new_source(env);
    if (source == NULL)
        return NULL;
    int status = capture_open(&options, &source->capture, &created, error);
    if (status == 0)
        status = capture_ring(source->capture, &source->ring_fd, &actual_bytes);
    if (status != 0) {
        glue_close_source(source);
        free(source);
        return glue_throw(env, status, error);
    }
    source->created = created != 0;
    return finish_source(env, source, actual_bytes);
}

/* openHelped(socket) -> handle whose capture an attach helper holds, at the other end of the socket */
static napi_value open_helped(napi_env env, napi_callback_info info) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct attach_hello hello = {0};
    uint64_t socket;
    napi_value arguments[1];

    if (!glue_arguments(env, info, 1, arguments) || !glue_u64(env, arguments[0], &socket))
        return NULL;
    if (socket > INT_MAX)
        return glue_throw(env, -EINVAL, "the descriptor is out of range");
    struct source *source = new_source(env);
    if (source == NULL)
        return NULL;
    source->lock_fd = -1;
    if ((source->remote = calloc(1, sizeof(*source->remote))) == NULL) {
        free(source);
        return glue_throw(env, -ENOMEM, "out of memory");
    }
    const int status =
        remote_open(source->remote, (int)socket, &hello, &source->ring_fd, &source->lock_fd, error);
    if (status != 0) {
        glue_close_source(source);
        free(source);
        return glue_throw(env, status, error);
    }
    source->owns_fd = true;
    source->created = hello.created != 0;
    return finish_source(env, source, hello.ring_bytes);
}

/* attach(pinnedRingPath, ringBytes) -> handle that only reads: needs no rights but those on the pin. */
static napi_value attach_ring(napi_env env, napi_callback_info info) {
    char path[PATH_BYTES];
    uint64_t ring_bytes;
    union bpf_attr attributes;
    napi_value arguments[2];

    if (!glue_arguments(env, info, 2, arguments) || !glue_string(env, arguments[0], path, sizeof(path)) ||
        !glue_u64(env, arguments[1], &ring_bytes))
        return NULL;
    struct source *source = new_source(env);
    if (source == NULL)
        return NULL;
    memset(&attributes, 0, sizeof(attributes));
    attributes.pathname = (uint64_t)(uintptr_t)path;
    source->ring_fd = (int)syscall(SYS_bpf, BPF_OBJ_GET, &attributes, sizeof(attributes));
    source->owns_fd = source->ring_fd >= 0;
    if (!source->owns_fd) {
        const int error = -errno;
        free(source);
        return glue_throw(env, error, "the pinned ring cannot be opened");
    }
    return finish_source(env, source, ring_bytes);
}

static napi_value close_capture(napi_env env, napi_callback_info info) {
    napi_value arguments[1];
    struct source *source;

    if (glue_arguments(env, info, 1, arguments) && (source = glue_source(env, arguments[0])) != NULL)
        glue_close_source(source);
    return NULL;
}

static napi_value check_variant(napi_env env, napi_callback_info info) {
    char variant[VARIANT_BYTES], error[CAPTURE_ERROR_BYTES] = "";
    napi_value arguments[1];

    if (!glue_arguments(env, info, 1, arguments) || !glue_string(env, arguments[0], variant, sizeof(variant)))
        return NULL;
    const int status = capture_check_variant(variant, error);
    return status == 0 ? NULL : glue_throw(env, status, error);
}

static napi_value unpin(napi_env env, napi_callback_info info) {
    char pin_dir[PATH_BYTES], error[CAPTURE_ERROR_BYTES] = "";
    napi_value arguments[1];

    if (!glue_arguments(env, info, 1, arguments) || !glue_string(env, arguments[0], pin_dir, sizeof(pin_dir)))
        return NULL;
    const int status = capture_unpin(pin_dir, error);
    return status == 0 ? NULL : glue_throw(env, status, error);
}

/* The source of argument 0 if it has programs behind it, and the cgroup id of argument 1. */
static struct source *capture_and_cgroup(napi_env env, napi_value *arguments, uint64_t *cgroup) {
    struct source *source = glue_source(env, arguments[0]);

    if (source == NULL || !glue_u64(env, arguments[1], cgroup))
        return NULL;
    if (source_captures(source))
        return source;
    glue_throw(env, -ENOTSUP, "this handle only reads a ring");
    return NULL;
}

/* select(handle, cgroupId, on, incarnation) */
static napi_value select_cgroup(napi_env env, napi_callback_info info) {
    char error[CAPTURE_ERROR_BYTES] = "";
    uint64_t cgroup, incarnation;
    bool on;
    napi_value arguments[4];
    struct source *source;

    if (!glue_arguments(env, info, 4, arguments) ||
        (source = capture_and_cgroup(env, arguments, &cgroup)) == NULL ||
        !glue_u64(env, arguments[3], &incarnation))
        return NULL;
    if (incarnation > UINT32_MAX)
        return glue_throw(env, -EINVAL, "the incarnation is out of range");
    if (napi_get_value_bool(env, arguments[2], &on) != napi_ok) {
        napi_throw_type_error(env, NULL, "expected true or false");
        return NULL;
    }
    const int status = source_select(source, cgroup, on, (uint32_t)incarnation, error);
    return status == 0 ? NULL : glue_throw(env, status, error);
}

/* selectAttached(handle, cgroupId, incarnation, parent) */
static napi_value select_attached(napi_env env, napi_callback_info info) {
    char error[CAPTURE_ERROR_BYTES] = "";
    uint64_t cgroup, incarnation, parent;
    napi_value arguments[4];
    struct source *source;

    if (!glue_arguments(env, info, 4, arguments) ||
        (source = capture_and_cgroup(env, arguments, &cgroup)) == NULL ||
        !glue_u64(env, arguments[2], &incarnation) || !glue_u64(env, arguments[3], &parent))
        return NULL;
    if (incarnation > UINT32_MAX)
        return glue_throw(env, -EINVAL, "the incarnation is out of range");
    const int status = source_attach(source, cgroup, (uint32_t)incarnation, parent, error);
    return status == 0 ? NULL : glue_throw(env, status, error);
}

static void set_kinds(napi_env env, napi_value object, const char *name, const uint64_t *kinds) {
    napi_value array;

    napi_create_array_with_length(env, CAPTURE_KINDS, &array);
    for (uint32_t kind = 0; kind < CAPTURE_KINDS; kind++)
        napi_set_element(env, array, kind, glue_number(env, (double)kinds[kind]));
    napi_set_named_property(env, object, name, array);
}

/* counters(handle) -> { committed: number[16], lost: number[16], recursionMisses } */
static napi_value counters(napi_env env, napi_callback_info info) {
    static const struct capture_counters zero;
    char error[CAPTURE_ERROR_BYTES] = "";
    uint64_t lost[CAPTURE_KINDS] = {0}, ignored;
    napi_value arguments[2], object;
    struct source *source;

    if (!glue_arguments(env, info, 1, arguments))
        return NULL;
    arguments[1] = glue_number(env, 0);
    if ((source = capture_and_cgroup(env, arguments, &ignored)) == NULL)
        return NULL;
    struct capture_counters *values = malloc(sizeof(*values));
    if (values == NULL)
        return glue_throw(env, -ENOMEM, "out of memory");
    *values = zero;
    const int status = source_counters(source, values, error);
    if (status != 0) {
        free(values);
        return glue_throw(env, status, error);
    }
    for (uint32_t cpu = 0; cpu < values->cpus && cpu < CAPTURE_MAX_CPUS; cpu++)
        for (int kind = 0; kind < CAPTURE_KINDS; kind++)
            lost[kind] += values->lost[cpu][kind];
    napi_create_object(env, &object);
    set_kinds(env, object, "committed", values->committed);
    set_kinds(env, object, "lost", lost);
    glue_set_number(env, object, "recursionMisses", (double)values->recursion_misses);
    free(values);
    return object;
}

static napi_value cut_entry(napi_env env, const struct capture_cut_entry *entry) {
    napi_value object;

    napi_create_object(env, &object);
    glue_set_number(env, object, "flags", entry->flags);
    glue_set_number(env, object, "live", entry->live);
    glue_set_number(env, object, "told", entry->told);
    glue_set_number(env, object, "local", (double)entry->local);
    glue_set_number(env, object, "remote", (double)entry->remote);
    glue_set_number(env, object, "sent", (double)entry->sent);
    glue_set_number(env, object, "received", (double)entry->received);
    glue_set_number(env, object, "seen", (double)entry->seen);
    glue_set_number(env, object, "unacknowledged", (double)entry->unacknowledged);
    glue_set_number(env, object, "queued", (double)entry->queued);
    return object;
}

/* cut(handle, cgroupId) -> { complete, pending, entries } */
static napi_value cut(napi_env env, napi_callback_info info) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct capture_cut_entry *entries = NULL;
    size_t count = 0;
    int complete = 0, pending = 0;
    uint64_t cgroup;
    napi_value arguments[2], object, array;
    struct source *source;

    if (!glue_arguments(env, info, 2, arguments) ||
        (source = capture_and_cgroup(env, arguments, &cgroup)) == NULL)
        return NULL;
    const int status = source_cut(source, cgroup, &entries, &count, &complete, &pending, error);
    if (status != 0)
        return glue_throw(env, status, error);
    napi_create_object(env, &object);
    napi_create_array_with_length(env, count, &array);
    for (size_t i = 0; i < count; i++)
        napi_set_element(env, array, (uint32_t)i, cut_entry(env, &entries[i]));
    free(entries);
    napi_set_named_property(env, object, "entries", array);
    glue_set_number(env, object, "complete", complete);
    glue_set_number(env, object, "pending", pending);
    return object;
}

/* An array of integers as cgroup ids. NULL after throwing; free() it. */
static uint64_t *read_cgroups(napi_env env, napi_value array, uint32_t *count) {
    napi_value value;

    if (napi_get_array_length(env, array, count) != napi_ok) {
        napi_throw_type_error(env, NULL, "expected an array of cgroup ids");
        return NULL;
    }
    uint64_t *cgroups = calloc((size_t)*count + 1, sizeof(*cgroups));
    if (cgroups == NULL)
        glue_throw(env, -ENOMEM, "out of memory");
    for (uint32_t i = 0; cgroups != NULL && i < *count; i++) {
        if (napi_get_element(env, array, i, &value) == napi_ok && glue_u64(env, value, &cgroups[i]))
            continue;
        free(cgroups);
        return NULL;
    }
    return cgroups;
}

/* The source of argument 0 if it has programs behind it; throws and returns NULL. */
static struct source *capturing(napi_env env, napi_value argument) {
    struct source *source = glue_source(env, argument);

    if (source == NULL || source_captures(source))
        return source;
    glue_throw(env, -ENOTSUP, "this handle only reads a ring");
    return NULL;
}

/* flush(handle, cgroupIds) -> pending */
static napi_value flush(napi_env env, napi_callback_info info) {
    char error[CAPTURE_ERROR_BYTES] = "";
    int pending = 0;
    uint32_t count;
    uint64_t *cgroups;
    napi_value arguments[2];
    struct source *source;

    if (!glue_arguments(env, info, 2, arguments) || (source = capturing(env, arguments[0])) == NULL ||
        (cgroups = read_cgroups(env, arguments[1], &count)) == NULL)
        return NULL;
    const int status = source_flush(source, cgroups, count, &pending, error);
    free(cgroups);
    return status == 0 ? glue_number(env, pending) : glue_throw(env, status, error);
}

static napi_value verdict_object(napi_env env, const struct capture_verdict *verdict) {
    napi_value object;

    napi_create_object(env, &object);
    glue_set_number(env, object, "cgroupId", (double)verdict->cgroup_id);
    glue_set_number(env, object, "incarnation", verdict->incarnation);
    glue_set_number(env, object, "bits", verdict->bits);
    glue_set_number(env, object, "other", (double)verdict->other);
    glue_set_number(env, object, "local", (double)verdict->local);
    glue_set_number(env, object, "remote", (double)verdict->remote);
    return object;
}

/* verdicts(handle) -> [{ cgroupId, incarnation, bits, other, local, remote }] */
static napi_value verdicts(napi_env env, napi_callback_info info) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct capture_verdict *found = NULL;
    size_t count = 0;
    napi_value arguments[1], array;
    struct source *source;

    if (!glue_arguments(env, info, 1, arguments) || (source = capturing(env, arguments[0])) == NULL)
        return NULL;
    const int status = source_verdicts(source, &found, &count, error);
    if (status != 0)
        return glue_throw(env, status, error);
    napi_create_array_with_length(env, count, &array);
    for (size_t i = 0; i < count; i++)
        napi_set_element(env, array, (uint32_t)i, verdict_object(env, &found[i]));
    free(found);
    return array;
}

/* One field of a cut entry; throws and returns false where it is no integer. */
static bool entry_field(napi_env env, napi_value entry, const char *name, uint64_t *out) {
    napi_value value;
    return napi_get_named_property(env, entry, name, &value) == napi_ok && glue_u64(env, value, out);
}

static bool read_entry(napi_env env, napi_value object, struct capture_cut_entry *entry) {
    uint64_t flags, live, told;

    if (!entry_field(env, object, "flags", &flags) || !entry_field(env, object, "live", &live) ||
        !entry_field(env, object, "told", &told) || !entry_field(env, object, "local", &entry->local) ||
        !entry_field(env, object, "remote", &entry->remote) ||
        !entry_field(env, object, "sent", &entry->sent) ||
        !entry_field(env, object, "received", &entry->received) ||
        !entry_field(env, object, "seen", &entry->seen) ||
        !entry_field(env, object, "unacknowledged", &entry->unacknowledged))
        return false;
    entry->flags = (uint8_t)flags;
    entry->live = live != 0;
    entry->told = (uint8_t)told;
    return true;
}

/* What `cut` returned, back again. NULL after throwing; free() it. */
static struct capture_cut_entry *read_entries(napi_env env, napi_value array, uint32_t *count) {
    napi_value object;

    if (napi_get_array_length(env, array, count) != napi_ok) {
        napi_throw_type_error(env, NULL, "expected an array of cut entries");
        return NULL;
    }
    struct capture_cut_entry *entries = calloc((size_t)*count + 1, sizeof(*entries));
    if (entries == NULL)
        glue_throw(env, -ENOMEM, "out of memory");
    for (uint32_t i = 0; entries != NULL && i < *count; i++) {
        if (napi_get_element(env, array, i, &object) == napi_ok && read_entry(env, object, &entries[i]))
            continue;
        free(entries);
        return NULL;
    }
    return entries;
}

/* expectRestore(handle, entries) */
static napi_value expect_restore(napi_env env, napi_callback_info info) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct capture_cut_entry *entries;
    uint32_t count;
    napi_value arguments[2];
    struct source *source;

    if (!glue_arguments(env, info, 2, arguments) || (source = capturing(env, arguments[0])) == NULL)
        return NULL;
    if ((entries = read_entries(env, arguments[1], &count)) == NULL)
        return NULL;
    const int status = source_expect_restore(source, entries, count, error);
    free(entries);
    return status == 0 ? NULL : glue_throw(env, status, error);
}

static void set_text(napi_env env, napi_value object, const char *name, const char *value) {
    napi_value text;

    napi_create_string_utf8(env, value, NAPI_AUTO_LENGTH, &text);
    napi_set_named_property(env, object, name, text);
}

/* probe() -> [{ name, supported, reason }] */
static napi_value probe(napi_env env, napi_callback_info info) {
    struct capture_capability *found = calloc(MAX_CAPABILITIES, sizeof(*found));
    napi_value array, object;

    (void)info;
    if (found == NULL)
        return glue_throw(env, -ENOMEM, "out of memory");
    const int count = capture_probe(found, MAX_CAPABILITIES);
    napi_create_array(env, &array);
    for (int i = 0; i < count && i < MAX_CAPABILITIES; i++) {
        napi_create_object(env, &object);
        set_text(env, object, "name", found[i].name);
        glue_set_number(env, object, "supported", found[i].supported);
        set_text(env, object, "reason", found[i].reason);
        napi_set_element(env, array, (uint32_t)i, object);
    }
    free(found);
    return array;
}

/* parts(handle | undefined) -> [{ part, variant, inUse, usable, reason }]; of a helper's capture: none is in
 * use that could be seen from here */
static napi_value parts(napi_env env, napi_callback_info info) {
    napi_value arguments[1], array, object;
    napi_valuetype type;
    struct source *source = NULL;

    if (!glue_arguments(env, info, 1, arguments))
        return NULL;
    if (napi_typeof(env, arguments[0], &type) == napi_ok && type != napi_undefined &&
        (source = glue_source(env, arguments[0])) == NULL)
        return NULL;
    struct capture_part *found = calloc(MAX_PARTS, sizeof(*found));
    if (found == NULL)
        return glue_throw(env, -ENOMEM, "out of memory");
    const int count = source_parts(source, found, MAX_PARTS);
    napi_create_array(env, &array);
    for (int i = 0; i < count && i < MAX_PARTS; i++) {
        napi_create_object(env, &object);
        set_text(env, object, "part", found[i].part);
        set_text(env, object, "variant", found[i].variant);
        glue_set_number(env, object, "inUse", found[i].in_use);
        glue_set_number(env, object, "usable", found[i].usable);
        set_text(env, object, "reason", found[i].reason);
        napi_set_element(env, array, (uint32_t)i, object);
    }
    free(found);
    return array;
}

void capture_glue_init(napi_env env, napi_value exports) {
    glue_define(env, exports, "open", open_capture);
    glue_define(env, exports, "openHelped", open_helped);
    glue_define(env, exports, "attach", attach_ring);
    glue_define(env, exports, "close", close_capture);
    glue_define(env, exports, "checkVariant", check_variant);
    glue_define(env, exports, "unpin", unpin);
    glue_define(env, exports, "select", select_cgroup);
    glue_define(env, exports, "selectAttached", select_attached);
    glue_define(env, exports, "counters", counters);
    glue_define(env, exports, "cut", cut);
    glue_define(env, exports, "flush", flush);
    glue_define(env, exports, "verdicts", verdicts);
    glue_define(env, exports, "expectRestore", expect_restore);
    glue_define(env, exports, "probe", probe);
    glue_define(env, exports, "parts", parts);
}
