#!/usr/bin/env bash
# The tests beside programs that want all CPUs, two for each CPU: threads then wait for their turn, and are interrupted anywhere.
#
#   ci/under-load.sh                             one round of all tests
#   ci/under-load.sh 10                          ten rounds
#   ci/under-load.sh 10 -p pertask --test truth  ten rounds of what `cargo test` runs with these options
#
# A round goes on after a failure; its end names the tests that failed, and says what they printed. The script fails if a round
# did. What the tests printed is in target/under-load (or in under-load where CARGO_TARGET_DIR says).
set -euo pipefail
cd "$(dirname "$0")/.."

ROUNDS=${1:-1}
[[ $ROUNDS =~ ^[1-9][0-9]*$ ]] || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 2; }
shift || true
TESTS=("$@")
((${#TESTS[@]})) || TESTS=(--workspace)
LOGS=${CARGO_TARGET_DIR:-target}/under-load
# A run of the deterministic machine follows from its seed, and load only makes it slow.
export PERTASK_MACHINE_SEEDS=${PERTASK_MACHINE_SEEDS:-100}

# Takes a CPU, as long as this script is there: it ends even where the script is killed and cannot say so.
take_a_cpu() {
    while kill -0 $$ 2>/dev/null; do
        for ((i = 0; i < 100000; i++)); do :; done
    done
}

# The names of the tests that a log says have failed, each after its program; and programs that a signal has ended.
failed() {
    sed -nE 's/^ +(Running|Doc-tests) (.*)$/in \2/p
        s/^test (.*) \.\.\. FAILED$/\1/p
        s/^ *process didn.t exit successfully: (.*)$/a program: \1/p' "$1" |
        awk '/^in / { program = $2 == "unittests" ? $3 : $2; next }
            /^a program: / && !/signal/ { next }
            !told[program, $0]++ { print "    " program ": " $0 }'
}

# What the tests that failed have printed.
printed() { awk '/^failures:$/ { shown = !ended } /^test result:/ { shown = 0 } shown' "$1"; }

cargo test -q --all-features "${TESTS[@]}" --no-run
mkdir -p "$LOGS"
trap 'kill $(jobs -p) 2>/dev/null' EXIT
for _ in $(seq $((2 * $(nproc)))); do take_a_cpu & done

red=0
for round in $(seq "$ROUNDS"); do
    log=$LOGS/round-$round.log
    begun=$SECONDS
    if cargo test --all-features --no-fail-fast "${TESTS[@]}" >"$log" 2>&1; then
        printf 'round %d: passed in %d s\n' "$round" $((SECONDS - begun))
    else
        red=$((red + 1))
        printed "$log"
        printf 'round %d: FAILED in %d s (%s)\n' "$round" $((SECONDS - begun)) "$log"
        failed "$log"
    fi
done
if ((ROUNDS > 1)); then printf '%d of %d rounds passed\n' $((ROUNDS - red)) "$ROUNDS"; fi
exit $((red > 0))
