#define _GNU_SOURCE
#include "become.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same number on every architecture but Alpha; x32 sets one bit more. */
enum { IO_URING_SETUP = 425, X32_BIT = 0x40000000 };

static int is_option(const char *word) {
    return strcmp(word, NO_IO_URING) == 0 || strcmp(word, OWN_IPC) == 0;
}

int procs_among(int count, char **words, int wanted) {
    int at = 1;
    while (at < count && is_option(words[at]))
        at++;
    return count - at - 1 < wanted ? 0 : at;
}

/*
 * Here and in all children: no image holds a ring, and programs fall back by themselves, as in containers.
 * Without no_new_privs, so that set-user-ID programs go on working; that takes CAP_SYS_ADMIN. Who lacks it
 * takes no images either, and gets no filter.
 */
static void keep_io_uring_away(void) {
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, (unsigned)~X32_BIT),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IO_URING_SETUP, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof(steps) / sizeof(steps[0]), steps};
    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &filter);
}

static _Noreturn void fail(const char *what, int code) {
    dprintf(STDERR_FILENO, "%s: %s\n", what, strerror(errno));
    _exit(code);
}

/*
 * A file that was opened before is one of the host's mounts, and no image of a process among other mounts holds
 * it: the same file by the same path. What is written at a place that others share (no O_APPEND) stays as it is.
 */
static void open_again(int fd) {
    char link[32], path[4096];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof(path) - 1);
    int flags = fcntl(fd, F_GETFL);
    struct stat before, now;
    if (length <= 0 || path[0] != '/' || flags < 0 || fstat(fd, &before) != 0 || isatty(fd))
        return;
    path[length] = 0;
    if (S_ISREG(before.st_mode) && (flags & O_ACCMODE) != O_RDONLY && !(flags & O_APPEND))
        return;
    int fresh = open(path, (flags & (O_ACCMODE | O_APPEND | O_NONBLOCK)) | O_NOCTTY | O_CLOEXEC);
    if (fresh < 0)
        return;
    if (fstat(fresh, &now) == 0 && now.st_dev == before.st_dev && now.st_ino == before.st_ino) {
        if (S_ISREG(now.st_mode))
            lseek(fresh, lseek(fd, 0, SEEK_CUR), SEEK_SET);
        dup2(fresh, fd);
    }
    close(fresh);
}

/*
 * Segments of System V, and POSIX shared memory: a /dev/shm that only it sees. All other mounts go on coming
 * from the host. By the source's name images tell it from everybody's (src/images/criu/own-memory.ts).
 */
static void have_own_ipc(void) {
    if (unshare(CLONE_NEWIPC | CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) != 0 ||
        mount("recovery-line", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777") != 0)
        fail(OWN_IPC, CANNOT_EXECUTE);
    for (int fd = 0; fd < 3; fd++)
        open_again(fd);
}

/* The cgroup may be frozen: then this stands still in the write's return. */
static void enter(const char *procs) {
    int fd = open(procs, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1)
        _exit(CANNOT_EXECUTE);
    close(fd);
}

_Noreturn void become(char **options, char **command) {
    int own_ipc = 0, no_io_uring = 0;
    for (; is_option(*options); options++) {
        own_ipc |= strcmp(*options, OWN_IPC) == 0;
        no_io_uring |= strcmp(*options, NO_IO_URING) == 0;
    }
    enter(*options);
    if (own_ipc)
        have_own_ipc();
    if (no_io_uring)
        keep_io_uring_away();
    execvp(command[0], command);
    fail(command[0], errno == ENOENT ? NOT_FOUND : CANNOT_EXECUTE);
}
