/* SPDX-License-Identifier: Apache-2.0 */
/* From a cgroup id (the number BPF sees, the inode number of its directory) to the directory and its
 * processes. */
#define _GNU_SOURCE
#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KERNFS_ROOT_INODE 1     /* of the hierarchy; the root that a cgroup namespace shows is any other */
#define KERNFS_HANDLE_TYPE 0xfe /* FILEID_KERNFS: the handle is the 64-bit id */

int cgroup_mount(char *path, size_t bytes) {
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char *line = NULL, mount[PATH_MAX];
    size_t size = 0;
    int status = -ENOENT;

    if (file == NULL)
        return -errno;
    while (status != 0 && getline(&line, &size, file) > 0) {
        const char *type = strstr(line, " - ");
        if (type == NULL || strncmp(type, " - cgroup2 ", 11) != 0)
            continue;
        if (sscanf(line, "%*s %*s %*s %*s %4095s", mount) == 1 && strlen(mount) < bytes) {
            strcpy(path, mount);
            status = 0;
        }
    }
    free(line);
    fclose(file);
    return status;
}

static int open_by_handle(int mount, uint64_t id) {
    struct {
        struct file_handle handle;
        uint64_t id;
    } name = {.handle = {.handle_bytes = sizeof(id), .handle_type = KERNFS_HANDLE_TYPE}};

    memcpy(name.handle.f_handle, &id, sizeof(id));
    return open_by_handle_at(mount, &name.handle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Calls `visit` for every directory below (and including) `directory` until it returns non-zero. */
static int walk(int directory, int (*visit)(int directory, void *context), void *context) {
    const int status = visit(directory, context);
    const int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;
    int result = status;

    if (entries == NULL) {
        if (copy >= 0)
            close(copy);
        return result;
    }
    while (result == 0 && (entry = readdir(entries)) != NULL) {
        if (entry->d_type != DT_DIR || strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        const int child = openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (child < 0)
            continue; /* removed in the meantime */
        result = walk(child, visit, context);
        close(child);
    }
    closedir(entries);
    return result;
}

struct search {
    uint64_t id;
    int found;
};

static int is_it(int directory, void *context) {
    struct search *search = context;
    struct stat status;

    if (fstat(directory, &status) != 0 || status.st_ino != search->id)
        return 0;
    search->found = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return 1;
}

int cgroup_open(uint64_t id) {
    char path[PATH_MAX];
    int status = cgroup_mount(path, sizeof(path));
    if (status != 0)
        return status;
    const int mount = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (mount < 0)
        return -errno;
    struct search search = {.id = id, .found = open_by_handle(mount, id)};
    /* Without CAP_DAC_READ_SEARCH there are no handles: look at every directory. */
    if (search.found < 0 && errno != ESTALE)
        walk(mount, is_it, &search);
    close(mount);
    return search.found < 0 ? -ENOENT : search.found;
}

/* Where the directory lies below the cgroup2 mount, "" for the mount itself. */
static int path_below_mount(int directory, char *path, size_t bytes) {
    char mount[PATH_MAX], link[64], whole[PATH_MAX];
    int status = cgroup_mount(mount, sizeof(mount));

    if (status != 0)
        return status;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", directory);
    const ssize_t length = readlink(link, whole, sizeof(whole) - 1);
    if (length < 0)
        return -errno;
    whole[length] = '\0';
    const size_t prefix = strlen(mount);
    if (strncmp(whole, mount, prefix) != 0 || (whole[prefix] != '/' && whole[prefix] != '\0'))
        return -ENOENT;
    return snprintf(path, bytes, "%s", whole + prefix) < (int)bytes ? 0 : -ENAMETOOLONG;
}

int cgroup_depth(int directory) {
    char mount[PATH_MAX], path[PATH_MAX];
    struct stat root;
    int depth = 0, status = cgroup_mount(mount, sizeof(mount));
    if (status != 0)
        return status;
    if (stat(mount, &root) != 0)
        return -errno;
    if (root.st_ino != KERNFS_ROOT_INODE)
        return -EXDEV;
    status = path_below_mount(directory, path, sizeof(path));
    if (status != 0)
        return status;
    for (const char *at = path; *at != '\0'; at++)
        depth += *at == '/' && at[1] != '\0';
    return depth;
}

int capture_cgroup_path(uint64_t cgroup_id, char *path, size_t bytes) {
    const int directory = cgroup_open(cgroup_id);
    if (directory < 0)
        return directory;
    int status = path_below_mount(directory, path, bytes);
    close(directory);
    if (status == 0 && path[0] == '\0' && snprintf(path, bytes, "/") >= (int)bytes)
        status = -ENAMETOOLONG;
    return status;
}

struct pid_list {
    int *pids;
    size_t count, room;
};

static int add_pid(struct pid_list *list, int pid) {
    if (list->count == list->room) {
        const size_t room = list->room == 0 ? 64 : list->room * 2;
        int *pids = realloc(list->pids, room * sizeof(*pids));
        if (pids == NULL)
            return -ENOMEM;
        list->pids = pids;
        list->room = room;
    }
    list->pids[list->count++] = pid;
    return 0;
}

static int list_pids(int directory, void *context) {
    const int fd = openat(directory, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    int pid, status = 0;

    if (file == NULL) {
        if (fd >= 0)
            close(fd);
        return errno == ENOENT || errno == ENODEV ? 0 : -errno;
    }
    while (status == 0 && fscanf(file, "%d", &pid) == 1)
        status = add_pid(context, pid);
    if (status == 0 && ferror(file) && errno != ENODEV && errno != EOPNOTSUPP)
        status = -errno; /* EOPNOTSUPP: a threaded cgroup; its domain above lists the process */
    fclose(file);
    return status;
}

int cgroup_pids(int directory, int **pids, size_t *count) {
    struct pid_list list = {0};
    const int status = walk(directory, list_pids, &list);

    if (status != 0) {
        free(list.pids);
        return status;
    }
    *pids = list.pids;
    *count = list.count;
    return 0;
}
