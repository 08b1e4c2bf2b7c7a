#!/usr/bin/env bash
# What the core costs, in two builds side by side: the working tree ("new") and another revision ("base").
#
#   bench/core.sh BASE_REV [ROUNDS]      ROUNDS is 20, or what the variable ROUNDS says
#
# README.md says what the rows are. Builds stay in bench/target, or in $CARGO_TARGET_DIR.
set -euo pipefail

[ $# = 1 ] || [ $# = 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
rounds=${2:-${ROUNDS:-20}}
[[ $rounds =~ ^[1-9][0-9]*$ ]] || { echo "ROUNDS is a number above 0, not $rounds" >&2; exit 2; }

new=$(realpath "$(dirname "$0")/..")
revision=$(git -C "$new" rev-parse --verify --quiet --end-of-options "$1^{commit}") ||
    { echo "there is no revision $1" >&2; exit 2; }
work=$(realpath -m "${CARGO_TARGET_DIR:-$new/bench/target}")/core
base=$work/base-tree
mkdir -p "$work"

# Two runs at once would build in each other's folders, and measure each other.
exec 9> "$work/lock"
flock --nonblock 9 || { echo "another run has $work" >&2; exit 1; }

remove_base() { git -C "$new" worktree remove --force "$base" 2> /dev/null || rm -rf "$base"; }
trap remove_base EXIT
trap 'exit 130' INT TERM

# The names of what not every revision's core has, if this tree's has it: features of the bench.
features() {
    local core=$1/crates/pertask-core/src
    grep -qr 'pub enum Retention' "$core" && printf 'retain '
    grep -qr 'fn fold(&self, ended: &Self::Data, totals: &Self::Data) -> bool {' "$core" && printf 'fold '
    true
}

# Both trees are built at one path, a link that is turned around: paths go into symbols, these into the order of functions, and
# that alone can make two builds of the same sources differ in speed.
build() {
    local name=$1 tree=$2
    ln -sfn "$tree" "$work/tree"
    cargo build --quiet --release --bins --manifest-path "$work/tree/bench/Cargo.toml" \
        --target-dir "$work/$name" --features "$(features "$tree")"
}

describe() {
    local tree=$1 changes=
    [ -z "$(git -C "$tree" status --porcelain -- crates)" ] || changes=', with changes that are not committed'
    git -C "$tree" log -1 --format="%h %s$changes"
}

remove_base
git -C "$new" worktree add --quiet --force --detach "$base" "$revision"
base_is=$(describe "$base")
build new "$new"
# The programs are this tree's in both builds, and so is what they are linked with.
rm -rf "$base/bench" && mkdir "$base/bench"
cp -R "$new"/bench/{Cargo.toml,Cargo.lock,src} "$base/bench"
build base "$base"

load() { cut -d ' ' -f 1 /proc/loadavg; }
echo "$(sed -n '/^model name/{s/.*: //p;q}' /proc/cpuinfo), $(nproc) CPUs, Linux $(uname -r), $(rustc --version)"
echo "base: $base_is"
echo "new:  $(describe "$new")"
echo "$rounds rounds: median (quartiles); ns of CPU time, unless a row says otherwise"
load_before=$(load)
"$work/new/release/compare" "$work/base/release" "$work/new/release" "$rounds"
echo "load before and after: $load_before, $(load)"
