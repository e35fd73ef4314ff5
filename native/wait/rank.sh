#!/bin/sh
# rank.sh ENTER CGROUPS NAME OUTPUT [OPTION...] -- COMMAND [ARGUMENT...]
#
# What mpirun starts instead of each rank (its parameter orte_fork_agent): becomes the rank, in a cgroup NAME-rank-N of its own that is
# frozen before it comes in, so that `run --ranks` can register it before its first instruction. It keeps the number that mpirun waits for.
# The pipes that mpirun laid to it are let go: nobody records them. ENTER: recovery-line-enter, which takes the options.
rank=${OMPI_COMM_WORLD_RANK:?is set by the mpirun of Open MPI}
enter=$1 cgroup=$2/$3-rank-$rank output=$4.rank-$rank
[ "$4" != - ] || output=/dev/null
shift 4
options=
while [ "$1" != -- ]; do
    options="$options $1"
    shift
done
shift
mkdir "$cgroup" && echo 1 >"$cgroup/cgroup.freeze" || exit 126
exec </dev/null >>"$output" 2>&1
exec "$enter" $options "$cgroup/cgroup.procs" "$@"
