#!/bin/sh
# Checkpoint command of driver hook for redis: redis-checkpoint.sh PORT
#
# BGSAVE writes the data set as it is at one moment, and the copy goes into $RECOVERY_LINE_IMAGE. It runs inside the process, so its own
# connection is the process's own affair; nobody else is connected (docs/hook.md). Exit code 75: ask again.
set -eu
port=$1
ask() { redis-cli -p "$port" --raw "$@"; }
field() { ask INFO persistence | tr -d '\r' | sed -n "s/^$1://p"; }

[ "$(field rdb_bgsave_in_progress)" = 0 ] || { echo "a BGSAVE is running"; exit 75; }
ask BGSAVE >/dev/null
while [ "$(field rdb_bgsave_in_progress)" != 0 ]; do sleep 0.01; done
[ "$(field rdb_last_bgsave_status)" = ok ] || { echo "BGSAVE failed"; exit 1; }
cp "$(ask CONFIG GET dir | sed -n 2p)/$(ask CONFIG GET dbfilename | sed -n 2p)" "$RECOVERY_LINE_IMAGE/dump.rdb"
# The server closes the last connection after we have gone; until then it counts as open.
sleep 0.03
