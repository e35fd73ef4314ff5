#include "become.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same number on every architecture but Alpha; x32 sets one bit more. */
enum { IO_URING_SETUP = 425, X32_BIT = 0x40000000 };

static int keeps_io_uring_away(char **words) {
    return strcmp(words[1], NO_IO_URING) == 0;
}

int words_behind_procs(int count, char **words, int wanted) {
    int first = count > 1 && keeps_io_uring_away(words) ? 3 : 2;
    return count - first < wanted ? 0 : first;
}

/*
 * io_uring_setup answers ENOSYS, here and in all children: no image holds a ring, and programs fall back by
 * themselves, as in containers. Without no_new_privs, so that set-user-ID programs go on working; that takes
 * CAP_SYS_ADMIN. Who lacks it takes no images either, and gets no filter.
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

/* The cgroup may be frozen: then this stands still in the write's return. */
_Noreturn void become(char **words, char **command) {
    int filtered = keeps_io_uring_away(words);
    int fd = open(words[filtered ? 2 : 1], O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1)
        _exit(CANNOT_EXECUTE);
    close(fd);
    if (filtered)
        keep_io_uring_away();
    execvp(command[0], command);
    int code = errno == ENOENT ? NOT_FOUND : CANNOT_EXECUTE;
    dprintf(STDERR_FILENO, "%s: %s\n", command[0], strerror(errno));
    _exit(code);
}
