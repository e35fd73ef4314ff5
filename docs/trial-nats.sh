#!/bin/bash
# An application for `recovery-line policy trial`: a nats-server, a publisher and a subscriber, unmodified.
set -e
port=$(((RANDOM % 15000) + 15000))
run() { # PROCESS COMMAND…
    local process=$1
    shift
    $RECOVERY_LINE run "$RECOVERY_LINE_APP" "$process" --detach --output "$RECOVERY_LINE_FOLDER/$process.out" -- "$@" >/dev/null
}
log=$RECOVERY_LINE_FOLDER/server.log
run server nats-server -a 127.0.0.1 -p "$port" -l "$log"
until grep -qs 'Server is ready' "$log"; do sleep 0.1; done
# Whoever loses the server connects again.
connect="trap '' PIPE; while :; do until exec 3<>/dev/tcp/127.0.0.1/$port; do sleep 0.1; done 2>/dev/null; printf 'CONNECT {\"verbose\":false}\\r\\n"
run subscriber bash -c "${connect}SUB orders 1\\r\\n' >&3; while read -r line <&3; do :; done; done"
run publisher bash -c "${connect}' >&3; while printf 'PUB orders 5\\r\\nhello\\r\\n' >&3; do sleep 0.05; done; done"
