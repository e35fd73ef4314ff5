#!/usr/bin/env bash
# Runs the benches (all, or those named: `npm run bench -- log graph`) and keeps each one's figures under bench/results.
set -euo pipefail
cd "$(dirname "$0")/.."
npx --no-install tsc -p tsconfig.bench.json
ln -sfn "$PWD/build/Release" build/bench/build 2>/dev/null || true
ln -sfn "$PWD/dist" build/bench/dist # commands that a bench starts
mkdir -p bench/results
if (($# == 0)); then
    for file in bench/*.ts; do
        name=$(basename "$file" .ts)
        grep -q '^// bench:' "$file" && set -- "$@" "$name"
    done
fi
for name in "$@"; do
    node --expose-gc "build/bench/bench/$name.js" | tee "bench/results/$name.txt"
done
