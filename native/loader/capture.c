/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of a capture instance. Everything it owns is pinned in one bpffs directory:
 *
 *   ring processes filter counters closed connections unix_ends restored request …   maps
 *   prog_*   link_*                                                   programs, and what keeps them attached
 *   config                                                            pinned last: the instance is complete
 *
 * An instance without `config` is what a killed creator left: it is removed and made anew. A flock on the
 * directory keeps two creators apart.
 */
#define _GNU_SOURCE
#include "bpf_call.h"
#include "internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define BPFFS "/sys/fs/bpf"
#define MIN_RING_BYTES 4096u
#define MAX_RING_BYTES (1u << 30)

int capture_fail(char *error, int status, const char *format, ...) {
    va_list arguments;

    if (error != NULL) {
        va_start(arguments, format);
        vsnprintf(error, CAPTURE_ERROR_BYTES, format, arguments);
        va_end(arguments);
    }
    return status;
}

/* ---- the pin directory ---- */

static const char *in_dir(char *path, const char *dir, const char *prefix, const char *name) {
    snprintf(path, PATH_MAX, "%s/%s%s", dir, prefix, name);
    return path;
}

static bool is_bpffs(const char *path) {
    struct statfs status;
    return statfs(path, &status) == 0 && (uint32_t)status.f_type == BPF_FS_MAGIC;
}

/* The default place is mounted on demand; any other must be a bpffs already. */
static int ensure_bpffs(const char *pin_dir, char *error) {
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s", pin_dir);
    while (access(path, F_OK) != 0) {
        char *slash = strrchr(path, '/');
        if (slash == NULL || slash == path)
            break;
        *slash = '\0';
    }
    if (is_bpffs(path))
        return 0;
    if (strncmp(pin_dir, BPFFS "/", sizeof(BPFFS)) != 0)
        return capture_fail(error, -EINVAL, "%.180s is not on a bpf file system", pin_dir);
    if (mount("bpf", BPFFS, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") != 0)
        return capture_fail(error, -errno, "a bpf file system cannot be mounted at " BPFFS ": %s",
                            strerror(errno));
    return 0;
}

static int make_directories(const char *path) {
    char part[PATH_MAX];

    if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
        return -ENAMETOOLONG;
    for (char *at = part + 1; *at != '\0'; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST)
            return -errno;
        *at = '/';
    }
    return mkdir(part, 0700) != 0 && errno != EEXIST ? -errno : 0;
}

/* A descriptor that holds the lock of the directory, which still exists. */
static int lock_directory(const char *path) {
    struct stat opened, named;

    for (;;) {
        const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            return -errno;
        if (flock(fd, LOCK_EX) != 0) {
            const int status = -errno;
            close(fd);
            return status;
        }
        if (fstat(fd, &opened) == 0 && stat(path, &named) == 0 && opened.st_ino == named.st_ino)
            return fd;
        close(fd); /* unpinned while we waited */
        if (access(path, F_OK) != 0)
            return -ENOENT;
    }
}

/* What an instance that nobody may open any more left attached to the cgroups that it recorded. */
static void detach_cgroups(const char *dir) {
    struct objects objects;
    char path[PATH_MAX];
    uint64_t id = 0, next;
    bool first = true;

    objects_clear(&objects);
    objects.maps[MAP_PROCESSES] = bpf_pinned(in_dir(path, dir, "", MAP_NAMES[MAP_PROCESSES]));
    for (int i = PROGRAM_TRACING; i < PROGRAM_CGROUP_END; i++)
        objects.programs[i] = bpf_pinned(in_dir(path, dir, "prog_", PROGRAM_NAMES[i]));
    while (bpf_map_next(objects.maps[MAP_PROCESSES], first ? NULL : &id, &next) == 0) {
        const int directory = cgroup_open(next);
        if (directory >= 0) {
            cgroup_hooks_detach(&objects, directory);
            close(directory);
        }
        id = next;
        first = false;
    }
    objects_close(&objects);
}

/* Whatever any version pinned: all that stands in the directory, but folders. */
static int remove_all(const char *dir) {
    char path[PATH_MAX];
    DIR *all = opendir(dir);
    int status = 0;

    if (all == NULL)
        return -errno;
    for (struct dirent *entry; (entry = readdir(all)) != NULL;)
        if (entry->d_name[0] != '.' && entry->d_type != DT_DIR &&
            unlink(in_dir(path, dir, "", entry->d_name)) != 0 && errno != ENOENT && status == 0)
            status = -errno;
    closedir(all);
    return status;
}

/* Links first: nothing may be recorded into maps that are going away; config before all: an interrupted
 * removal is an incomplete instance. */
static int remove_pins(const char *dir) {
    char path[PATH_MAX];
    int status = 0;

    if (unlink(in_dir(path, dir, "", "config")) != 0 && errno != ENOENT)
        status = -errno;
    detach_cgroups(dir);
    for (int i = 0; i < PROGRAM_TRACING; i++)
        if (unlink(in_dir(path, dir, "link_", PROGRAM_NAMES[i])) != 0 && errno != ENOENT && status == 0)
            status = -errno;
    return status == 0 ? remove_all(dir) : status;
}

/* ---- create ---- */

static int pin_one(int fd, const char *dir, const char *prefix, const char *name) {
    char path[PATH_MAX];
    return fd < 0 ? 0 : bpf_pin(fd, in_dir(path, dir, prefix, name));
}

static int pin_objects(const struct objects *objects, const char *dir) {
    int status = 0;

    for (int i = 0; status == 0 && i < MAP_COUNT; i++)
        status = pin_one(objects->maps[i], dir, "", MAP_NAMES[i]);
    for (int i = 0; status == 0 && i < PROGRAM_COUNT; i++)
        status = pin_one(objects->programs[i], dir, "prog_", PROGRAM_NAMES[i]);
    for (int i = 0; status == 0 && i < PROGRAM_TRACING; i++)
        status = pin_one(objects->links[i], dir, "link_", PROGRAM_NAMES[i]);
    return status;
}

static int pin_config(const struct capture_config *config, const char *dir) {
    const uint32_t zero = 0;
    const int fd = bpf_map_make(BPF_MAP_TYPE_ARRAY, sizeof(zero), sizeof(*config), 1);
    if (fd < 0)
        return fd;
    int status = bpf_map_put(fd, &zero, config, BPF_ANY);
    if (status == 0)
        status = pin_one(fd, dir, "", "config");
    close(fd);
    return status;
}

static int create(struct capture *capture, const struct capture_options *options, char *error) {
    const uint32_t bytes = options->ring_bytes;

    if (bytes < MIN_RING_BYTES || bytes > MAX_RING_BYTES || (bytes & (bytes - 1)) != 0 ||
        bytes % (uint32_t)sysconf(_SC_PAGESIZE) != 0)
        return capture_fail(error, -EINVAL,
                            "a ring of %u bytes is no power of two and multiple of the page size", bytes);
    int status = probe_required(error);
    if (status != 0)
        return status;
    struct variant_request request;
    status = variant_parse(options->variant, &request, error);
    if (status != 0)
        return status;
    request.options.ring_bytes = bytes;
    request.options.cgroup_level = options->cgroup_level;
    capture->config = (struct capture_config){.magic = CAPTURE_MAGIC,
                                              .map_version = CAPTURE_MAP_VERSION,
                                              .ring_layout_version = RECOVERY_RING_LAYOUT_VERSION,
                                              .ring_bytes = bytes,
                                              .cgroup_level = options->cgroup_level};
    status = remove_pins(options->pin_dir);
    if (status == 0)
        status = variant_load(&capture->objects, &request, &capture->config.variant, error);
    if (status != 0) {
        rmdir(options->pin_dir);
        return status;
    }
    status = pin_objects(&capture->objects, options->pin_dir);
    if (status == 0)
        status = pin_config(&capture->config, options->pin_dir);
    if (status != 0) {
        remove_pins(options->pin_dir);
        objects_close(&capture->objects);
        return capture_fail(error, status, "the capture programs cannot be pinned in %.128s: %s",
                            options->pin_dir, strerror(-status));
    }
    for (int i = 0; i < PROGRAM_TRACING; i++) { /* the pins hold them */
        if (capture->objects.links[i] >= 0)
            close(capture->objects.links[i]);
        capture->objects.links[i] = -1;
    }
    return 0;
}

/* ---- reopen ---- */

static int check_config(const struct capture_config *config, const struct capture_options *options,
                        char *error) {
    if (config->magic != CAPTURE_MAGIC || config->map_version != CAPTURE_MAP_VERSION ||
        config->ring_layout_version != RECOVERY_RING_LAYOUT_VERSION)
        return capture_fail(error, -ESTALE,
                            "%.128s was pinned by another version (maps %u, ring layout %u; this is %u, %u); "
                            "unpin it first",
                            options->pin_dir, config->map_version, config->ring_layout_version,
                            (unsigned int)CAPTURE_MAP_VERSION, (unsigned int)RECOVERY_RING_LAYOUT_VERSION);
    if (config->cgroup_level != options->cgroup_level)
        return capture_fail(error, -ESTALE, "%.128s records cgroups of level %u, not %u; unpin it first",
                            options->pin_dir, config->cgroup_level, options->cgroup_level);
    return 0;
}

static int read_config(int fd, struct capture_config *config) {
    struct bpf_map_info info = {0};
    const uint32_t zero = 0;
    const int status = bpf_info(fd, &info, sizeof(info));

    if (status != 0)
        return status;
    memset(config, 0, sizeof(*config));
    if (info.type != BPF_MAP_TYPE_ARRAY || info.value_size != sizeof(*config))
        return 0; /* all zero: fails check_config */
    return bpf_map_get(fd, &zero, config);
}

static int reopen_objects(struct objects *objects, const char *dir, uint32_t programs) {
    char path[PATH_MAX];

    objects_clear(objects);
    for (int i = 0; i < MAP_COUNT; i++) {
        objects->maps[i] = bpf_pinned(in_dir(path, dir, "", MAP_NAMES[i]));
        if (objects->maps[i] < 0)
            return objects->maps[i];
    }
    for (int i = 0; i < PROGRAM_COUNT; i++) {
        if ((programs & PROGRAM_BIT(i)) == 0)
            continue;
        objects->programs[i] = bpf_pinned(in_dir(path, dir, "prog_", PROGRAM_NAMES[i]));
        if (objects->programs[i] < 0)
            return objects->programs[i];
    }
    return 0;
}

/* -ENOENT: there is no complete instance. */
static int reopen(struct capture *capture, const struct capture_options *options, char *error) {
    char path[PATH_MAX];
    const int config = bpf_pinned(in_dir(path, options->pin_dir, "", "config"));
    if (config == -ENOENT)
        return config;
    if (config < 0)
        return capture_fail(error, config, "%.160s cannot be opened: %s", path, strerror(-config));
    int status = read_config(config, &capture->config);
    close(config);
    if (status != 0)
        return capture_fail(error, status, "%.160s cannot be read: %s", path, strerror(-status));
    status = check_config(&capture->config, options, error);
    if (status != 0)
        return status;
    status = reopen_objects(&capture->objects, options->pin_dir, variant_programs(capture->config.variant));
    if (status == 0)
        return 0;
    objects_close(&capture->objects);
    return capture_fail(error, -ESTALE, "the instance pinned in %.128s is damaged (%s); unpin it first",
                        options->pin_dir, strerror(-status));
}

static int open_locked(struct capture *capture, const struct capture_options *options, int *created,
                       char *error) {
    const int status = reopen(capture, options, error);

    *created = status == -ENOENT;
    return *created ? create(capture, options, error) : status;
}

static int open_directory(const char *pin_dir, char *error) {
    int status = ensure_bpffs(pin_dir, error);
    if (status != 0)
        return status;
    status = make_directories(pin_dir);
    if (status == 0)
        status = lock_directory(pin_dir);
    if (status < 0)
        return capture_fail(error, status, "the directory %.160s cannot be used: %s", pin_dir,
                            strerror(-status));
    return status;
}

int capture_open(const struct capture_options *options, struct capture **out, int *created, char *error) {
    int anew = 0, status = probe_rights(error);

    *out = NULL;
    if (status != 0)
        return status;
    const bool there = access(options->pin_dir, F_OK) == 0;
    const int directory = open_directory(options->pin_dir, error);
    if (directory < 0)
        return directory;
    struct capture *capture = calloc(1, sizeof(*capture));
    if (capture == NULL) {
        close(directory);
        return capture_fail(error, -ENOMEM, "out of memory");
    }
    objects_clear(&capture->objects);
    status = open_locked(capture, options, &anew, error);
    if (status != 0 && !there)
        rmdir(options->pin_dir); /* unless somebody has pinned something there */
    close(directory);
    if (status != 0) {
        capture_close(capture);
        /* With the rights for it, a refusal is the kernel's own: `error` says of what. */
        return (status == -EPERM || status == -EACCES) && probe_has_rights() ? -ENOTSUP : status;
    }
    if (created != NULL)
        *created = anew;
    *out = capture;
    return 0;
}

int capture_check_variant(const char *text, char *error) {
    struct variant_request request;
    return variant_parse(text, &request, error);
}

void capture_close(struct capture *capture) {
    if (capture == NULL)
        return;
    objects_close(&capture->objects);
    free(capture);
}

int capture_unpin(const char *pin_dir, char *error) {
    if (access(pin_dir, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    const int directory = lock_directory(pin_dir);
    if (directory == -ENOENT)
        return 0;
    if (directory < 0)
        return capture_fail(error, directory, "%.160s cannot be locked: %s", pin_dir, strerror(-directory));
    const int status = remove_pins(pin_dir);
    rmdir(pin_dir);
    close(directory);
    if (status != 0)
        return capture_fail(error, status, "%.160s cannot be unpinned: %s", pin_dir, strerror(-status));
    return 0;
}

/* ---- use ---- */

int capture_ring(struct capture *capture, int *fd, uint32_t *ring_bytes) {
    *fd = capture->objects.maps[MAP_RING];
    *ring_bytes = capture->config.ring_bytes;
    return 0;
}

/* So that the programs look for cgroups at this depth, too, from now on. */
static int add_level(struct capture *capture, uint32_t level) {
    const uint32_t zero = 0;
    struct cgroup_levels levels;
    const int status = bpf_map_get(capture->objects.maps[MAP_LEVELS], &zero, &levels);

    if (status != 0)
        return status;
    for (uint32_t at = 0; at < levels.count; at++)
        if (levels.level[at] == level)
            return 0;
    if (levels.count == CAPTURE_LEVELS)
        return -ENOSPC;
    levels.level[levels.count++] = level;
    return bpf_map_put(capture->objects.maps[MAP_LEVELS], &zero, &levels, BPF_ANY);
}

/* `elsewhere`: any level will do. */
static int check_level(struct capture *capture, uint64_t cgroup_id, int elsewhere, char *error) {
    const int directory = cgroup_open(cgroup_id);
    if (directory == -ENOENT)
        return capture_fail(error, -ENOENT, "there is no cgroup with id %llu", (unsigned long long)cgroup_id);
    if (directory < 0)
        return capture_fail(error, directory, "cgroups cannot be looked at: %s", strerror(-directory));
    const int depth = cgroup_depth(directory);
    close(directory);
    if (depth == -EXDEV)
        return capture_fail(
            error, -ENOTSUP,
            "this process is in a cgroup namespace: the level of a cgroup cannot be told from here");
    if (depth >= 0 && (uint32_t)depth != capture->config.cgroup_level && elsewhere) {
        const int status = depth == 0 ? -EINVAL : add_level(capture, (uint32_t)depth);
        if (status == -EINVAL)
            return capture_fail(error, status, "the root of all cgroups can't be a process");
        return status == 0 ? 0
                           : capture_fail(error, status, "cgroups at %u other levels are recorded already",
                                          CAPTURE_LEVELS);
    }
    if (depth >= 0 && (uint32_t)depth != capture->config.cgroup_level)
        return capture_fail(error, -EINVAL, "the cgroup is at level %d, but cgroups of level %u are recorded",
                            depth, capture->config.cgroup_level);
    return 0;
}

/* Whose place in the filter it is; 0: nobody's. Incarnation 0: nobody's from now on. See struct filter_slot.
 */
static int fill_slot(struct capture *capture, uint64_t cgroup_id, uint32_t incarnation) {
    const uint32_t place = cgroup_id % CAPTURE_FILTER_ENTRIES;
    struct filter_slot slot;
    int status = bpf_map_get(capture->objects.maps[MAP_FILTER], &place, &slot);

    if (status != 0 || (slot.ever && slot.process != 0 && slot.process != cgroup_id))
        return status;
    slot = (struct filter_slot){.incarnation = incarnation, .ever = 1};
    status = bpf_map_put(capture->objects.maps[MAP_FILTER], &place, &slot, BPF_ANY);
    if (status != 0 || incarnation == 0)
        return status;
    slot.process = cgroup_id;
    return bpf_map_put(capture->objects.maps[MAP_FILTER], &place, &slot, BPF_ANY);
}

static int deselect(struct capture *capture, uint64_t cgroup_id, char *error) {
    const int directory = cgroup_open(cgroup_id);

    if (directory >= 0) {
        cgroup_hooks_detach(&capture->objects, directory);
        close(directory);
    }
    closed_forget(capture, cgroup_id);
    ends_forget(capture, cgroup_id);
    fill_slot(capture, cgroup_id, 0);
    const int status = bpf_map_remove(capture->objects.maps[MAP_PROCESSES], &cgroup_id);
    if (status == 0 || status == -ENOENT)
        return 0;
    return capture_fail(error, status, "the process cannot be deselected: %s", strerror(-status));
}

static uint64_t parent_of(int directory) {
    struct stat above;
    return directory >= 0 && fstatat(directory, "..", &above, 0) == 0 ? above.st_ino : 0;
}

static int put_state(struct capture *capture, uint64_t cgroup_id, struct process_state fresh) {
    const uint32_t incarnation = fresh.incarnation;
    struct process_state now;
    int status = bpf_map_get(capture->objects.maps[MAP_PROCESSES], &cgroup_id, &now);

    if (status == 0 && now.incarnation == incarnation)
        return 0;
    if (status == 0) {
        closed_forget(capture, cgroup_id);
        ends_forget(capture, cgroup_id);
    }
    status = fill_slot(capture, cgroup_id, 0);
    if (status == 0)
        status = bpf_map_put(capture->objects.maps[MAP_PROCESSES], &cgroup_id, &fresh, BPF_ANY);
    return status == 0 ? fill_slot(capture, cgroup_id, incarnation) : status;
}

static int select_as(struct capture *capture, uint64_t cgroup_id, struct process_state fresh, char *error) {
    const int directory = cgroup_open(cgroup_id);

    fresh.misses = misses_that_matter(capture);
    if (fresh.parent == 0)
        fresh.parent = parent_of(directory);
    const int status = put_state(capture, cgroup_id, fresh);
    if (directory >= 0) {
        if (status == 0)
            cgroup_hooks_attach(&capture->objects, directory);
        close(directory);
    }
    if (status == -E2BIG)
        return capture_fail(error, status, "too many processes are recorded at once");
    if (status != 0)
        return capture_fail(error, status, "the process cannot be selected: %s", strerror(-status));
    return 0;
}

int capture_select(struct capture *capture, uint64_t cgroup_id, int on, uint32_t incarnation, char *error) {
    if (!on)
        return deselect(capture, cgroup_id, error);
    const int status = check_level(capture, cgroup_id, 0, error);
    const struct process_state fresh = {.incarnation = incarnation};
    return status == 0 ? select_as(capture, cgroup_id, fresh, error) : status;
}

int capture_attach(struct capture *capture, uint64_t cgroup_id, uint32_t incarnation, uint64_t parent,
                   char *error) {
    const int status = check_level(capture, cgroup_id, parent != 0, error);
    const struct process_state fresh = {.incarnation = incarnation, .parent = parent, .attached = 1};
    return status == 0 ? select_as(capture, cgroup_id, fresh, error) : status;
}

int possible_cpus(void) {
    FILE *file = fopen("/sys/devices/system/cpu/possible", "re");
    char list[256] = "";
    int last = -1;

    if (file == NULL)
        return -errno;
    if (fgets(list, sizeof(list), file) != NULL) { /* "0-63" or "0,2-5": the last number counts */
        const char *at = list + strcspn(list, "\n");
        while (at > list && at[-1] >= '0' && at[-1] <= '9')
            at--;
        last = atoi(at);
    }
    fclose(file);
    return last < 0 ? -EIO : last + 1;
}

static void add_cpu(struct capture_counters *out, const struct cpu_counters *cpu, int index) {
    const int slot = index < CAPTURE_MAX_CPUS ? index : CAPTURE_MAX_CPUS - 1;

    for (int kind = 0; kind < CAPTURE_KINDS; kind++) {
        out->committed[kind] += cpu->committed[kind];
        out->lost[slot][kind] += cpu->lost[kind];
    }
}

static int sum_misses(const struct capture *capture, uint64_t *misses) {
    for (int i = 0; i < PROGRAM_COUNT; i++) {
        struct bpf_prog_info info = {0};
        if (capture->objects.programs[i] < 0)
            continue;
        const int status = bpf_info(capture->objects.programs[i], &info, sizeof(info));
        if (status != 0)
            return status;
        *misses += info.recursion_misses;
    }
    return 0;
}

int capture_counters(struct capture *capture, struct capture_counters *out, char *error) {
    const int cpus = possible_cpus();
    const uint32_t zero = 0;
    struct cpu_counters *values = cpus > 0 ? calloc((size_t)cpus, sizeof(*values)) : NULL;

    memset(out, 0, sizeof(*out));
    if (values == NULL)
        return capture_fail(error, cpus < 0 ? cpus : -ENOMEM, "the number of CPUs is unknown");
    int status = bpf_map_get(capture->objects.maps[MAP_COUNTERS], &zero, values);
    if (status == 0)
        status = sum_misses(capture, &out->recursion_misses);
    for (int i = 0; status == 0 && i < cpus; i++)
        add_cpu(out, &values[i], i);
    free(values);
    if (status != 0)
        return capture_fail(error, status, "the counters cannot be read: %s", strerror(-status));
    out->cpus = (uint32_t)(cpus < CAPTURE_MAX_CPUS ? cpus : CAPTURE_MAX_CPUS);
    return 0;
}

/* ---- verdicts ---- */

static void add_verdict(struct capture_verdict **out, size_t *count, uint64_t id,
                        const struct process_state *state) {
    struct capture_verdict *more = realloc(*out, (*count + 1) * sizeof(**out));

    if (more == NULL)
        return; /* told by the next call */
    *out = more;
    more[(*count)++] = (struct capture_verdict){.cgroup_id = id,
                                                .incarnation = state->incarnation,
                                                .bits = state->verdicts,
                                                .other = state->other,
                                                .local = state->other_local,
                                                .remote = state->other_remote};
}

int capture_verdicts(struct capture *capture, struct capture_verdict **out, size_t *count, char *error) {
    const int map = capture->objects.maps[MAP_PROCESSES];
    struct process_state state;
    uint64_t id = 0, next;
    int status = bpf_map_next(map, NULL, &next);

    *out = NULL;
    *count = 0;
    for (; status == 0; status = bpf_map_next(map, &id, &next)) {
        id = next;
        if (bpf_map_get(map, &id, &state) == 0 && state.verdicts != 0)
            add_verdict(out, count, id, &state);
    }
    if (status == -ENOENT)
        return 0;
    free(*out);
    *out = NULL;
    return capture_fail(error, status, "the verdicts cannot be read: %s", strerror(-status));
}
