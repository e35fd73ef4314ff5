#!/usr/bin/env bash
# Fetches CRIU and its libraries from Debian's unstable branch into a folder of our own: nothing is installed, no file of
# the system's package manager is touched. Debian 12's CRIU fails on new kernels, 4.1 can't dump TCP; 4.2.1 works.
# Usage: scripts/get-criu.sh [FOLDER = .criu]   quiet on success; a second run only looks.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.criu}
suite=sid

works() { # its own loader and libraries, whatever the system has
    local loader
    loader=$(find "$folder/root/usr/lib" -path '*-linux-*/ld-linux*.so.*' -print -quit 2>/dev/null)
    [[ -n $loader ]] && "$loader" --library-path "${loader%/*}" "$folder/root/usr/sbin/criu" --version >/dev/null 2>&1
}
works && exit 0

if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "get-criu: needs apt-get and dpkg-deb; elsewhere install CRIU 4.2.1 or newer and set RECOVERY_LINE_CRIU" >&2
    exit 1
fi
mkdir -p "$folder"
work=$(mktemp -d "$folder/get.XXXXXX")
work=$(cd "$work" && pwd)
trap 'rm -rf "$work"' EXIT
log=$work/log

quietly() { # quietly WHAT COMMAND…
    local what=$1
    shift
    "$@" >>"$log" 2>&1 && return
    tail -n 40 "$log" >&2
    echo "get-criu: $what failed (above: what it printed)" >&2
    exit 1
}

# The machine's own mirror of Debian, whichever it is: the first source whose path ends in /debian.
mirror() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
        sed 's/#.*//' | grep -oE '(https?|file|copy|mirror\+[a-z]+)(:/)[^] ]*/debian/?( |$)' | head -n 1 | tr -d ' '
}
uri=$(mirror) || true
if [[ -z $uri ]]; then
    echo "get-criu: /etc/apt names no Debian mirror to take $suite from" >&2
    exit 1
fi
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/parts" "$work/debs" "$folder"
echo "deb [signed-by=$keyring] $uri $suite main" >"$work/sources.list"
: >"$work/status"
apt=(-o "Dir::Etc::SourceList=$work/sources.list" -o "Dir::Etc::SourceParts=$work/parts" -o "Dir::State=$work/state"
    -o "Dir::State::Status=$work/status" -o "Dir::Cache=$work/cache" -o "Acquire::Languages=none"
    -o "APT::Sandbox::User=root" -o "APT::Install-Recommends=false" -o "Acquire::Retries=2")

quietly "apt-get update of $suite in a private directory" apt-get "${apt[@]}" update -q
# Only what the binary is linked with: the closure of its library dependencies, without the programs some recommend.
mapfile -t packages < <(apt-cache "${apt[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances criu 2>>"$log" | grep -E '^(criu|lib[a-z0-9.+-]+)$' | grep -vE '^(libpam|libpython|libdb)' | sort -u)
if ! printf '%s\n' "${packages[@]}" | grep -qx criu; then
    tail -n 20 "$log" >&2
    echo "get-criu: $suite at this machine's mirror has no criu" >&2
    exit 1
fi
quietly "downloading criu and its ${#packages[@]} libraries" bash -c 'cd "$1" && shift && exec apt-get "$@"' _ "$work/debs" \
    "${apt[@]}" download -q "${packages[@]}"
rm -rf "$work/root"
mkdir "$work/root"
for package in "$work"/debs/*.deb; do quietly "unpacking ${package##*/}" dpkg-deb -x "$package" "$work/root"; done
rm -rf "$folder/root"
mv "$work/root" "$folder/root"
if ! works; then
    echo "get-criu: the unpacked CRIU does not start; remove $folder and try again" >&2
    exit 1
fi
