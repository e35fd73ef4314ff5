#!/usr/bin/env bash
# Makes a fresh machine ready: Debian packages, npm packages, native addon, payload logger, compiled TypeScript.
# Usage: scripts/setup.sh [run|demo|test|check]   quiet on success; a second run only compares time stamps.
# `npm run demo`, `npm test`, `npm run check` and, as package.json's `prepare`, `npm link` and `npm ci` come through here.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=${1:-run}
mkdir -p .stamps
log=.stamps/setup.log

# What each purpose needs from Debian, as "package:probe:what it is for", where the probe is a file or a command.
packages=("make:make:builds the native part" "g++:g++:builds the native part"
    "libbpf-dev:/usr/include/bpf/bpf.h:loads the capture programs into the kernel")
case $purpose in
demo) packages+=("nats-server:nats-server:the servers that the demo traces" "nftables:nft:restarts keep packets away meanwhile") ;;
test) packages+=("nats-server:nats-server:a program under test" "redis-server:redis-server:a program under test"
    "redis-tools:redis-benchmark:a program under test" "lammps:lmp:a program under test"
    "postgresql-15:/usr/lib/postgresql/15/bin/postgres:a program under test"
    "openmpi-bin:mpirun:jobs under test" "libopenmpi-dev:mpicc:jobs under test" "netcat-openbsd:nc:traffic of tests"
    "iproute2:ip:networks of tests" "nftables:nft:restarts keep packets away meanwhile" "procps:pgrep:tests look for processes"
    "util-linux:setpriv:tests without rights" "attr:getfattr:data trees" "acl:setfacl:data trees"
    "xfsprogs:mkfs.xfs:data trees" "btrfs-progs:mkfs.btrfs:data trees"
    "clang:clang:compiles the BPF programs, fuzzer" "llvm:llvm-strip:BPF skeletons" "bpftool:bpftool:BPF skeletons"
    "clang-format:clang-format:format of C" "podman:podman:containers under test" "runc:runc:containers under test"
    "docker.io:dockerd:containers under test" "containernetworking-plugins:/usr/lib/cni/bridge:containers under test" "busybox-static:busybox:containers under test") ;;
check) packages+=("clang:clang:compiles the BPF programs" "llvm:llvm-strip:BPF skeletons" "bpftool:bpftool:BPF skeletons"
    "clang-format:clang-format:format of C") ;;
esac

quietly() { # quietly WHAT COMMAND…: runs it; only where it fails, shows what it printed and says what failed
    local what=$1
    shift
    if ! "$@" >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        echo "setup: $what failed; the whole output is in $PWD/$log" >&2
        exit 1
    fi
}

missing() { # "package: what it is for", a line each
    local entry package probe
    for entry in "${packages[@]}"; do
        package=${entry%%:*}
        entry=${entry#*:}
        probe=${entry%%:*}
        if [[ $probe == /* ]]; then [[ -e $probe ]] || echo "$package: ${entry#*:}"; else
            PATH=$PATH:/usr/sbin:/sbin command -v "$probe" >/dev/null || echo "$package: ${entry#*:}"
        fi
    done
}

# All that is missing in one go; each is named with what it is for.
install_debian() {
    local wanted names=()
    sudo=()
    mapfile -t wanted < <(missing)
    ((${#wanted[@]})) || return 0
    names=("${wanted[@]%%:*}")
    echo "setup: missing Debian packages:" >&2
    printf '    %s\n' "${wanted[@]}" >&2
    if ! command -v apt-get >/dev/null; then
        echo "setup: please install them (no apt-get on this machine)" >&2
        return 1
    fi
    if ((EUID != 0)); then
        if ! sudo -n true 2>/dev/null; then
            echo "setup: please run as root: apt-get install ${names[*]}" >&2
            return 1
        fi
        sudo=(sudo -n)
    fi
    echo "setup: installing them" >&2
    quietly "apt-get update" "${sudo[@]}" apt-get update -q
    hold_services
    quietly "apt-get install ${names[*]}" "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${names[@]}"
}

# Servers that come with the packages are not started: whoever needs one here starts its own.
hold_services() {
    local policy=/usr/sbin/policy-rc.d
    [[ -e $policy ]] && return
    trap '"${sudo[@]}" rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
    "${sudo[@]}" chmod 755 "$policy"
}

# The fuzzer's runtime has clang's version in its name; where Debian has none, the test that wants it says so and skips.
install_fuzzer() {
    [[ $purpose == test ]] && command -v apt-get >/dev/null && ((EUID == 0)) || return 0
    compgen -G "$(clang -print-resource-dir)/lib/*/libclang_rt.fuzzer*" >/dev/null && return 0
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev" >"$log" 2>&1 || true
}

# newer STAMP PATH…: true if anything below the paths changed after the stamp
newer() {
    local stamp=$1
    shift
    [[ ! -e $stamp ]] || [[ -n $(find "$@" -newer "$stamp" -not -path '*/build/*' -type f -print -quit) ]]
}

# Else node-gyp downloads Node's headers from nodejs.org, also within npm ci.
use_own_headers() {
    [[ ! -e /usr/include/node/node_api.h ]] || export npm_config_nodedir="${npm_config_nodedir:-/usr}"
}

# Without our own scripts: they would build everything a first time, and the next steps again.
install_npm() {
    newer .stamps/npm package-lock.json || [[ ! -d node_modules ]] || return 0
    quietly "npm ci" npm ci --no-audit --no-fund --ignore-scripts --no-global
    quietly "npm rebuild" npm rebuild --no-global classic-level
    touch .stamps/npm
}

build_native() {
    newer .stamps/native native binding.gyp || [[ ! -e build/Release/recovery_line.node ]] ||
        [[ ! -e build/payload/recovery-line-payload ]] || return 0
    quietly "the native build" npx --no-install node-gyp rebuild
    quietly "the payload logger's build" make -s -C native/payload
    touch .stamps/native
}

build_typescript() {
    newer .stamps/tsc src tsconfig.json tsconfig.build.json || [[ ! -e dist/cli/main.js ]] || return 0
    quietly "the TypeScript build" npx --no-install tsc -p tsconfig.build.json
    chmod +x dist/cli/main.js
    touch .stamps/tsc
}

# On any machine that is not Linux nothing of the capture exists, but import, export and compute do.
# Checkpoints need an image driver; without CRIU everything else still works, so its absence is told and no failure.
fetch_criu() {
    case $purpose in demo | test) ;; *) return 0 ;; esac
    bash scripts/get-criu.sh >"$log" 2>&1 && return 0
    echo "setup: no CRIU (images of processes can't be taken here): $(tail -n 1 "$log")" >&2
}

# npm is at work itself: `npm ci` has put its packages there, `npm link` has not. What can't be built is left out and told, as in install.mjs.
within_npm() {
    if [[ -d node_modules/typescript ]]; then touch .stamps/npm; else install_npm; fi
    if install_debian; then build_native; else echo "setup: the native part is left out; nothing can be captured" >&2; fi
    build_typescript
}

use_own_headers
if [[ ${npm_lifecycle_event:-} == prepare ]]; then
    within_npm
    exit 0
fi
install_debian || exit 1
install_fuzzer
install_npm
build_native
build_typescript
fetch_criu
