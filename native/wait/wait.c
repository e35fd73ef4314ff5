/*
 * recovery-line-wait [--no-io-uring] [--own-ipc] CGROUP.PROCS FOLDER COMMAND [ARGUMENT...]
 *
 * Starts COMMAND in the cgroup, in a session of its own, waits for it, and leaves how it ended as a file in
 * FOLDER: the exit status of a detached command, which `run` does not stay to hear.
 *
 *   FOLDER/<pid>-<start in ticks since boot>   "exited <code>\n" or "killed <signal>\n"; it appears whole
 * (rename)
 *
 * It holds nothing of the command's: neither its output nor its cgroup nor its session. Its own exit status
 * is 126 where the cgroup can't be entered or the command can't be executed, else 0.
 */
#include "become.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* The command has the caller's streams; whoever reads them must see their end when the command ends. */
static void let_go(void) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    if (chdir("/") != 0) /* keeps no file system busy */
        return;
    for (int number = 1; number < NSIG; number++)
        if (number != SIGCHLD)
            signal(number, SIG_IGN);
}

/* Of a task that has ended and was not yet waited for, too. 0: unknown. */
static unsigned long long start_of(pid_t pid) {
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    size_t length = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[length] = 0;
    const char *at = strrchr(text, ')'); /* the name before it may hold anything */
    for (int field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at == NULL ? 0 : strtoull(at, NULL, 10);
}

static void tell(const char *folder, pid_t pid, unsigned long long start, int status) {
    char path[4096], unfinished[4096 + 8];
    if (snprintf(path, sizeof(path), "%s/%d-%llu", folder, (int)pid, start) >= (int)sizeof(path))
        return;
    snprintf(unfinished, sizeof(unfinished), "%s.new", path);
    int fd = open(unfinished, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return;
    if (WIFSIGNALED(status))
        dprintf(fd, "killed %d\n", WTERMSIG(status));
    else
        dprintf(fd, "exited %d\n", WEXITSTATUS(status));
    close(fd);
    if (rename(unfinished, path) != 0)
        unlink(unfinished);
}

int main(int count, char **words) {
    int procs = procs_among(count, words, 2);
    if (procs == 0) {
        fprintf(stderr, "usage: recovery-line-wait [" NO_IO_URING "] [" OWN_IPC
                        "] CGROUP.PROCS FOLDER COMMAND [ARGUMENT...]\n");
        return 2;
    }
    pid_t child = fork();
    if (child < 0)
        return CANNOT_EXECUTE;
    if (child == 0) {
        setsid();
        become(words + 1, words + procs + 2);
    }
    let_go();
    siginfo_t ended;
    while (waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT) != 0)
        if (errno != EINTR)
            return 1;
    unsigned long long start = start_of(child);
    int status = 0;
    if (waitpid(child, &status, 0) != child)
        return 1;
    umask(022);
    tell(words[procs + 1], child, start, status);
    return WIFEXITED(status) && WEXITSTATUS(status) == CANNOT_EXECUTE ? CANNOT_EXECUTE : 0;
}
