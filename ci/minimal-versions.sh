#!/usr/bin/env bash
# The library crates with the lowest versions that they ask for, by the oldest compiler that they promise: what a team has
# that adds pertask and upgrades nothing else.
#
#   ci/minimal-versions.sh [check|test|all]
#
#   check    all features, and tokio's hooks with the tokio that first has them
#   test     the core's tests, and those of pertask that call its dependencies
#
# It works on a copy of the tree without the command, which may ask for newer versions, and has its own lock file. Only a
# nightly cargo can look for lowest versions; where there is none, that is said, and is no failure. The compiler is that of
# `rust-version` where rustup has it, else the usual one.
set -euo pipefail
cd "$(dirname "$0")/.."

WHAT=${1:-all}
TREE=$PWD/target/minimal-versions/tree
# The first tokio with `JoinSet::join_next_with_id`, which a test calls, and the first whose hooks know where a task was spawned.
TOKIO_OF_TESTS=1.41.0
TOKIO_OF_HOOKS=1.46.1

case "$WHAT" in
check | test | all) ;;
*)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac

cargo +nightly --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal >/dev/null 2>&1 || true
if ! cargo +nightly --version >/dev/null 2>&1; then
    printf 'SKIPPED: lowest versions: no nightly toolchain here, and rustup cannot install one\n'
    exit 0
fi

rust=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
if rustc "+$rust" --version >/dev/null 2>&1; then
    compiler=("+$rust")
else
    compiler=()
    printf 'SKIPPED: Rust %s: not installed here; the usual compiler takes its place\n' "$rust"
fi

# A copy always in the same place, so that what was built for it is built once.
rm -rf "$TREE"
mkdir -p "$TREE"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    # What is deleted and not yet committed is listed, too.
    if [ -e "$file" ]; then printf '%s\0' "$file"; fi
done | tar --null -T - -cf - | tar -C "$TREE" -xf -
cd "$TREE"
rm -r Cargo.lock crates/pertask-cli
sed -i '/^default-members = /d' Cargo.toml
export CARGO_TARGET_DIR=$TREE/../build

run() {
    printf -- '-- cargo %s\n' "$*"
    cargo "${compiler[@]}" "$@" --locked
}

lowest() { cp lowest.lock Cargo.lock; }

with_tokio() {
    lowest
    printf -- '-- tokio %s\n' "$1"
    cargo update -q -p tokio --precise "$1"
}

cargo +nightly -q -Z direct-minimal-versions generate-lockfile
cp Cargo.lock lowest.lock

check() {
    lowest
    run check -q --workspace --all-features
    with_tokio "$TOKIO_OF_HOOKS"
    RUSTFLAGS="--cfg tokio_unstable" CARGO_TARGET_DIR=$CARGO_TARGET_DIR/tokio-unstable \
        run check -q -p pertask --no-default-features --features tokio
}

tests() {
    lowest
    run test -q -p pertask-core
    run test -q -p pertask --all-features --test executors --test session --test tracing
    run test -q -p pertask-agent -p pertask-executors -p pertask-outside -p pertask-profile -p pertask-symbols -p pertask-text
    with_tokio "$TOKIO_OF_TESTS"
    run test -q -p pertask --no-default-features --features tokio,table --test tokio_api
}

case "$WHAT" in
check) check ;;
test) tests ;;
all)
    check
    tests
    ;;
esac
