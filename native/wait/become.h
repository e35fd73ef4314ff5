#pragma once

/*
 * What both helpers of `run` do before the command is there: enter its cgroup, do what the words before the
 * cgroup say, and become the command.
 */
#define NO_IO_URING "--no-io-uring" /* io_uring_setup answers ENOSYS */
#define OWN_IPC "--own-ipc"         /* System V segments, semaphores and queues, and a /dev/shm, of its own */

enum { CANNOT_EXECUTE = 126, NOT_FOUND = 127 };

/* [OPTION...] CGROUP.PROCS WORD...: where CGROUP.PROCS stands, 0 where there are not at least `wanted` words
 * behind it. */
int procs_among(int count, char **words, int wanted);

/* `options`: up to CGROUP.PROCS. Never returns. */
_Noreturn void become(char **options, char **command);
