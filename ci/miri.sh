#!/usr/bin/env bash
# The core's tests under Miri, which sees undefined behaviour that happens to do no harm: a pointer used for more than it was
# derived for, a race, a value that is not one. Under both models of what references promise (stacked borrows and tree
# borrows).
#
#   ci/miri.sh [stacked|tree|all] [TEST...]
#   ci/miri.sh none                          only installs Miri
#
# Miri has no membarrier(2), so both sides of the barrier are fences there; no fork(2) and no coroutines, so the tests of those
# are left out. Systems are never freed, on purpose, so leaks are not looked for. Where no nightly has Miri, that is said at the
# end, and is no failure.
set -euo pipefail
cd "$(dirname "$0")/.."

MODEL=${1:-all}
[ $# -gt 0 ] && shift
TESTS=${*:-edges misuse switch alloc_refused}

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    rustup toolchain install nightly --profile minimal >/dev/null 2>&1 || true
    rustup component add miri rust-src --toolchain nightly >/dev/null 2>&1 || true
fi
if ! cargo +nightly miri --version >/dev/null 2>&1; then
    printf 'SKIPPED: Miri: no nightly toolchain here has it, and rustup cannot install one\n'
    exit 0
fi
cargo +nightly miri --version

options=()
for test in $TESTS; do options+=(--test "$test"); done

run() {
    printf -- '-- %s\n' "$1"
    MIRIFLAGS="-Zmiri-ignore-leaks $2" CARGO_TARGET_DIR=target/miri \
        cargo +nightly miri test -q -p pertask-core "${options[@]}"
}

case "$MODEL" in
none) ;;
stacked) run "stacked borrows" "" ;;
tree) run "tree borrows" "-Zmiri-tree-borrows" ;;
all)
    run "stacked borrows" ""
    run "tree borrows" "-Zmiri-tree-borrows"
    ;;
*)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
