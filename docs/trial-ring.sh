#!/bin/bash
# An application for `recovery-line policy trial`: two ranks of Open MPI that pass a number round, mpirun and all as one process (docs/restart.md).
set -e
program=$RECOVERY_LINE_FOLDER/ring
mpicc -O1 -x c -o "$program" - <<'CODE'
#include <mpi.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int rank, size, number = 0;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    for (;;) {
        int next = (rank + 1) % size, before = (rank + size - 1) % size, got;
        MPI_Sendrecv(&number, 1, MPI_INT, next, 0, &got, 1, MPI_INT, before, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        number = got + 1;
        usleep(20000);
    }
}
CODE
session=$RECOVERY_LINE_FOLDER/session
mkdir "$session"
$RECOVERY_LINE run "$RECOVERY_LINE_APP" job --detach --output "$RECOVERY_LINE_FOLDER/job.out" --data "$session" -- \
    env TMPDIR="$session" mpirun --allow-run-as-root -np 2 --mca btl self,tcp --mca btl_tcp_if_include lo "$program" >/dev/null
sleep 2 # until the ranks have met
