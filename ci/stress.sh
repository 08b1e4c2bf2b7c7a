#!/usr/bin/env bash
# The core's tests with real threads, where they find more than in an ordinary run:
#
#   ci/stress.sh [plain|asan|valgrind|all]
#
#   plain      optimised, as users run it
#   asan       under AddressSanitizer, with debug assertions; LeakSanitizer looks for what is lost at the end
#   valgrind   under memcheck, which also sees uninitialised memory; one thread at a time, switched at odd places
#
# PERTASK_STRESS is a percentage of the usual work, for all three: 3000 is a soak of about half an hour. What cannot be had
# here is skipped, and said so at the end.
#
# Systems are never freed, on purpose; the tests keep them where a leak checker finds them, so nothing is suppressed for them.
# The tests named in FORGETFUL forget events and tasks on purpose: no leaks are looked for there. Left out everywhere are
# those that count allocations or weigh memory (the tools have their own), and those that wait for walks over 100,000 tasks.
set -euo pipefail
cd "$(dirname "$0")/.."

TESTS="stress model combinations grace switch alloc_refused misuse edges retention"
FORGETFUL="misuse edges retention"
TARGET=$(rustc -vV | sed -n 's/^host: //p')
STRESS=${PERTASK_STRESS:-100}
SKIPPED=()

skip() { SKIPPED+=("$*"); printf 'SKIPPED: %s\n' "$*"; }

# Builds the tests with the given options of cargo's, and prints a line for each: its name and its program.
programs() {
    local test options=()
    for test in $TESTS; do options+=(--test "$test"); done
    cargo test -p pertask-core "$@" "${options[@]}" --no-run 2>&1 | tee >(cat >&2) |
        sed -n 's|/main\.rs|.rs|; s|^ *Executable tests/\(.*\)\.rs (\(.*\))$|\1 \2|p'
}

is_forgetful() { [[ " $FORGETFUL " == *" $1 "* ]]; }

plain() {
    programs --release >"$LIST"
    while read -r name program; do
        printf -- '-- %s\n' "$name"
        PERTASK_STRESS=$((STRESS * 10)) "$program" -q
    done <"$LIST"
}

asan() {
    if ! [ -e "$(rustc --print target-libdir)/librustc-stable_rt.asan.a" ] &&
        ! [ -e "$(rustc --print target-libdir)/librustc-nightly_rt.asan.a" ]; then
        skip "AddressSanitizer: this toolchain has none for $TARGET"
        return
    fi
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=target/asan \
        programs --target "$TARGET" >"$LIST"
    local leaks=1 name program
    read -r name program <"$LIST"
    if ! ASAN_OPTIONS=detect_leaks=1 "$program" --list >"$LOG" 2>&1; then
        grep -q 'LeakSanitizer has encountered a fatal error' "$LOG" || { cat "$LOG"; return 1; }
        skip "LeakSanitizer: it may not look into its own threads here (ptrace is forbidden)"
        leaks=0
    fi
    while read -r name program; do
        printf -- '-- %s\n' "$name"
        local look=$leaks
        is_forgetful "$name" && look=0
        ASAN_OPTIONS=detect_leaks=$look:detect_stack_use_after_return=1 PERTASK_STRESS=$((STRESS / 2)) \
            "$program" -q --skip moves::
        # To detect such uses, frames are put into memory of their thread, which a coroutine that is moved outlives.
        if "$program" --list | grep -q '^moves::'; then
            ASAN_OPTIONS=detect_leaks=$look:detect_stack_use_after_return=0 "$program" -q moves::
        fi
    done <"$LIST"
}

valgrind() {
    if ! type -P valgrind >/dev/null; then
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy valgrind libc6-dbg; } >"$LOG" 2>&1 || true
    fi
    if ! type -P valgrind >/dev/null; then
        skip "valgrind: not here, and apt-get cannot install it"
        return
    fi
    programs --release >"$LIST"
    while read -r name program; do
        printf -- '-- %s\n' "$name"
        local look=full
        is_forgetful "$name" && look=no
        # What is reachable is kept on purpose; what is possibly lost hangs on a pointer to its middle, as every `Arc` does.
        PERTASK_STRESS=$((STRESS / 5)) command valgrind --quiet --error-exitcode=99 --fair-sched=yes \
            --leak-check=$look --show-leak-kinds=definite --errors-for-leak-kinds=definite "$program" -q
    done <"$LIST"
}

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
LIST=$WORK/list
LOG=$WORK/log

case "${1:-all}" in
plain | asan | valgrind) "$1" ;;
all)
    plain
    asan
    valgrind
    ;;
*)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
# Once more, where it is not overlooked.
for what in "${SKIPPED[@]}"; do printf 'SKIPPED: %s\n' "$what"; done
