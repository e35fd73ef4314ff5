#!/bin/sh
# Records the jobs of Slurm that ask for it (sbatch --comment=recovery-line): slurm.conf: Prolog=/etc/slurm/recovery-line-prolog.sh
# Each is an application job-ID; what it does on this node is one process of it, named as the node.
#
# RUN: this script and epilog.sh, with Slurm's variables, on a cgroup of the form that Slurm makes (test/daemon/packaging.test.ts).
# NOT RUN: Slurm itself. The place of a job's cgroup is that of its cgroup/v2 plugin; RECOVERY_LINE_SLURM_CGROUPS names another.
#
# The job's processes come after the prolog: somebody who stays behind waits for them, so the prolog delays no job. What they did before
# they were attached is not recorded, and can't be undone (recovery-line attach --help).
[ "${SLURM_JOB_COMMENT:-}" = recovery-line ] || exit 0
cgroup=${RECOVERY_LINE_SLURM_CGROUPS:-/sys/fs/cgroup/system.slice/slurmstepd.scope}/job_${SLURM_JOB_ID:?}
node=${SLURMD_NODENAME:-$(uname -n)}

wait_and_attach() {
    seconds=0
    until grep -qs '^populated 1' "$cgroup/cgroup.events"; do
        seconds=$((seconds + 1))
        [ "$seconds" -le 300 ] || exit 0
        sleep 1
    done
    recovery-line attach "job-$SLURM_JOB_ID" "$node" --cgroup "$cgroup" --no-checkpoint 2>&1 |
        logger --tag recovery-line
}
wait_and_attach </dev/null >/dev/null 2>&1 &
exit 0
