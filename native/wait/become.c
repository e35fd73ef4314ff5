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
    if (own_ipc && unshare(CLONE_NEWIPC) != 0)
        fail(OWN_IPC, CANNOT_EXECUTE);
    if (no_io_uring)
        keep_io_uring_away();
    execvp(command[0], command);
    fail(command[0], errno == ENOENT ? NOT_FOUND : CANNOT_EXECUTE);
}
