/*
 * recovery-line-enter [--no-io-uring] CGROUP.PROCS COMMAND [ARGUMENT...]
 *
 * Enters the cgroup and becomes COMMAND: what `run` starts where it stays to hear how the command ends. Its
 * exit status is 126 where the cgroup can't be entered or the command can't be executed, 127 where it is not
 * there.
 */
#include "become.h"

#include <stdio.h>

int main(int count, char **words) {
    int first = words_behind_procs(count, words, 1);
    if (first == 0) {
        fprintf(stderr, "usage: recovery-line-enter [" NO_IO_URING "] CGROUP.PROCS COMMAND [ARGUMENT...]\n");
        return 2;
    }
    become(words, words + first);
}
