#!/usr/bin/env bash
# Makes a fresh machine ready: Debian packages, npm packages, native addon, compiled TypeScript.
# Usage: scripts/setup.sh [run|demo|test|check]   quiet on success; a second run only compares time stamps.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=${1:-run}
mkdir -p .stamps
log=.stamps/setup.log

# What each purpose needs from Debian, as "package:probe", where the probe is a file or a command.
packages=(make:make g++:g++ libbpf-dev:/usr/include/bpf/bpf.h)
case $purpose in
demo) packages+=(nats-server:nats-server nftables:nft) ;;
test) packages+=(nats-server:nats-server netcat-openbsd:nc redis-server:redis-server redis-tools:redis-benchmark
    iproute2:ip nftables:nft procps:pgrep util-linux:setpriv attr:getfattr acl:setfacl xfsprogs:mkfs.xfs btrfs-progs:mkfs.btrfs clang:clang llvm:llvm-strip bpftool:bpftool clang-format:clang-format
    openmpi-bin:mpirun libopenmpi-dev:mpicc lammps:lmp postgresql-15:/usr/lib/postgresql/15/bin/postgres
    podman:podman runc:runc containernetworking-plugins:/usr/lib/cni/bridge busybox-static:busybox) ;;
check) packages+=(clang:clang llvm:llvm-strip bpftool:bpftool clang-format:clang-format) ;;
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

missing() {
    local entry probe
    for entry in "${packages[@]}"; do
        probe=${entry#*:}
        if [[ $probe == /* ]]; then [[ -e $probe ]] || echo "${entry%%:*}"; else
            PATH=$PATH:/usr/sbin:/sbin command -v "$probe" >/dev/null || echo "${entry%%:*}"
        fi
    done
}

install_debian() {
    local wanted sudo=()
    mapfile -t wanted < <(missing)
    ((${#wanted[@]})) || return 0
    if ! command -v apt-get >/dev/null; then
        echo "setup: please install what Debian calls: ${wanted[*]} (no apt-get on this machine)" >&2
        exit 1
    fi
    if ((EUID != 0)); then
        if ! sudo -n true 2>/dev/null; then
            echo "setup: please run as root: apt-get install ${wanted[*]}" >&2
            exit 1
        fi
        sudo=(sudo -n)
    fi
    quietly "apt-get update" "${sudo[@]}" apt-get update -q
    quietly "apt-get install ${wanted[*]}" "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${wanted[@]}"
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

install_npm() {
    newer .stamps/npm package-lock.json || [[ ! -d node_modules ]] || return 0
    quietly "npm ci" npm ci --no-audit --no-fund
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
    quietly "the TypeScript build" npm run -s build
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

install_debian
install_fuzzer
use_own_headers
install_npm
build_native
build_typescript
fetch_criu
