#!/usr/bin/env bash
# The sampler's torture while other programs want all CPUs, twice over: threads are then interrupted anywhere, and late.
#
#   ci/torture-under-load.sh [arguments for the tests]
set -euo pipefail
cd "$(dirname "$0")/.."

# What needs a quiet machine for what it measures: how long a handler is stepped through, and shares of few samples.
QUIET="--skip steps::"

cargo test -q -p pertask --all-features --test torture --no-run
for _ in $(seq $((2 * $(nproc)))); do
    (while :; do :; done) &
done
trap 'kill $(jobs -p) 2>/dev/null' EXIT
# shellcheck disable=SC2086
cargo test -q -p pertask --all-features --test torture -- $QUIET "$@"
