#!/bin/sh
# After a job that prolog.sh had recorded: slurm.conf: Epilog=/etc/slurm/recovery-line-epilog.sh. Its log stays, for recovery-line compute.
# What was run and what was not is told in prolog.sh.
[ "${SLURM_JOB_COMMENT:-}" = recovery-line ] || exit 0
recovery-line detach "job-${SLURM_JOB_ID:?}" "${SLURMD_NODENAME:-$(uname -n)}" 2>&1 | logger --tag recovery-line
exit 0
