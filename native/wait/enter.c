/*
 * recovery-line-enter [--no-io-uring] [--own-ipc] CGROUP.PROCS COMMAND [ARGUMENT...]
 *
 * Enters the cgroup and becomes COMMAND: what `run` starts where it stays to hear how the command ends. Its
 * exit status is 126 where the cgroup can't be entered or the command can't be executed, 127 where it is not
 * there.
 */
#include "become.h"

#include <stdio.h>

int main(int count, char **words) {
    int procs = procs_among(count, words, 1);
    if (procs == 0) {
        fprintf(stderr, "usage: recovery-line-enter [" NO_IO_URING "] [" OWN_IPC
                        "] CGROUP.PROCS COMMAND [ARGUMENT...]\n");
        return 2;
    }
    become(words + 1, words + procs + 1);
}
