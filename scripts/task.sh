#!/usr/bin/env bash
# The commands of package.json: each does all its own set-up first, then its work.
set -euo pipefail
cd "$(dirname "$0")/.."
task=${1:?usage: scripts/task.sh demo|test|test:long|check|bench [ARGUMENT…]}
shift

run_vitest() { # NAME ARGUMENT…: the report is .stamps/vitest-NAME.json
    local report=.stamps/vitest-$1.json
    shift
    rm -f "$report"
    [ -n "${RL_TEST_LONG:-}" ] || set -- --tags-filter='!long' "$@"
    npx --no-install vitest run --reporter=default --reporter=json --outputFile.json="$report" "$@"
}

# The lanes of vitest.config.ts side by side: most of them wait most of the time. The first is seen while it runs.
run_test() {
    bash scripts/setup.sh test
    # Commands that act and answer run in one process a lane (test/cli/cli.ts); in the long run each is started as users do.
    [ -n "${RL_TEST_LONG:-}" ] || export RL_SHARED_COMMANDS=1
    # Node reads these certificates at each start: half of a short command's time, for nobody but npm (test/library).
    if [ -n "${NODE_EXTRA_CA_CERTS:-}" ]; then
        export RL_TEST_CERTIFICATES=$NODE_EXTRA_CA_CERTS
        unset NODE_EXTRA_CA_CERTS
    fi
    local status=0 lane at lanes=(daemon restart native still) reports=() pids=()
    if [ $# -gt 0 ]; then
        run_vitest asked "$@" || status=$?
        node scripts/test-summary.mjs .stamps/vitest-asked.json || status=1
        return "$status"
    fi
    for lane in "${lanes[@]:1}"; do
        run_vitest "$lane" --project "$lane" >".stamps/vitest-$lane.log" 2>&1 &
        pids+=($!)
    done
    run_vitest "${lanes[0]}" --project "${lanes[0]}" || status=$?
    for at in "${!pids[@]}"; do
        wait "${pids[at]}" || status=$?
        cat ".stamps/vitest-${lanes[at + 1]}.log"
    done
    reports=("${lanes[@]/#/.stamps/vitest-}")
    node scripts/test-summary.mjs "${reports[@]/%/.json}" || status=1
    return "$status"
}

run_check() {
    bash scripts/setup.sh check
    npx --no-install tsc --noEmit -p tsconfig.json --incremental --tsBuildInfoFile .stamps/check.tsbuildinfo
    npx --no-install biome check --error-on-warnings .
    npx --no-install knip
    git ls-files 'native/*.c' 'native/*.h' 'test/*.c' 'test/*.h' | grep -v '\.skel\.h$' | xargs -r clang-format --dry-run -Werror
    make -s -C native check-skeleton
    make -s -C native/payload check-skeleton
    echo "check: types, Biome, knip, clang-format, generated files: all current"
}

case $task in
demo)
    bash scripts/setup.sh demo
    exec node dist/cli/main.js demo "$@"
    ;;
test) run_test "$@" ;;
test:long) RL_TEST_LONG=1 run_test "$@" ;;
check) run_check ;;
bench)
    bash scripts/setup.sh test
    exec bash scripts/bench.sh "$@"
    ;;
*)
    echo "unknown task '$task': demo, test, test:long, check or bench" >&2
    exit 2
    ;;
esac
