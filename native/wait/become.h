#pragma once

/*
 * What both helpers of `run` do before the command is there: enter its cgroup, keep io_uring from it if
 * PROCS is preceded by NO_IO_URING, and become it. Never returns.
 */
#define NO_IO_URING "--no-io-uring"

enum { CANNOT_EXECUTE = 126, NOT_FOUND = 127 };

/* [--no-io-uring] CGROUP.PROCS …: where the words behind CGROUP.PROCS begin, 0 where there are not at least
 * `wanted` of them. */
int words_behind_procs(int count, char **words, int wanted);

_Noreturn void become(char **words, char **command);
