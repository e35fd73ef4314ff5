#!/bin/bash
# An application for `recovery-line policy trial`: redis, its replica, and a client that counts up in it, unmodified.
set -e
port=$(((RANDOM % 15000) + 15000))
run() { # PROCESS COMMAND…
    local process=$1
    shift
    $RECOVERY_LINE run "$RECOVERY_LINE_APP" "$process" --detach --output "$RECOVERY_LINE_FOLDER/$process.out" -- "$@" >/dev/null
}
server() { # PROCESS PORT FLAG…
    local process=$1 own=$2 dir=$RECOVERY_LINE_FOLDER/$1
    shift 2
    mkdir "$dir"
    run "$process" redis-server --port "$own" --bind 127.0.0.1 --dir "$dir" --save '' --logfile "$dir/log" --repl-diskless-sync-delay 0 "$@"
    until grep -qs 'Ready to accept connections' "$dir/log"; do sleep 0.1; done
}
server primary "$port"
server replica $((port + 1)) --replicaof "127.0.0.1 $port"
until grep -qs 'Finished with success' "$RECOVERY_LINE_FOLDER/replica/log"; do sleep 0.1; done
run writer bash -c "trap '' PIPE; while :; do until exec 3<>/dev/tcp/127.0.0.1/$port; do sleep 0.1; done 2>/dev/null; while printf 'INCR n\\r\\n' >&3 && read -r answer <&3; do sleep 0.05; done; done" # whoever loses the server connects again
