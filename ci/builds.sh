#!/usr/bin/env bash
# Whether stacks come out whole from programs that were built in different ways, and tasks that nobody named have their types: each program
# is built, run and sampled. And whether tasks of one type are told apart from outside.
#
#   ci/builds.sh                all ways, which takes some minutes
#   ci/builds.sh lto-fat size   some
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cat > "$scratch/apply.c" <<'C'
__attribute__((noinline)) static void down(int depth, void (*call)(void *), void *argument) {
    if (depth) down(depth - 1, call, argument); else call(argument);
    __asm__ volatile("");
}
void apply(void (*call)(void *), void *argument) { down(5, call, argument); }
C
cc -shared -fPIC -O2 -fomit-frame-pointer -o "$scratch/libapply.so" "$scratch/apply.c"

# Name, profile, and what is set for it. Each has a folder of its own, so that none is built twice.
ways='
default             release
debug               dev
no-debug-info       release CARGO_PROFILE_RELEASE_DEBUG=0
frame-pointers      release RUSTFLAGS=-Cforce-frame-pointers=yes
panic-abort         release CARGO_PROFILE_RELEASE_PANIC=abort
lto-fat             release CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1
lto-abort-stripped  release CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_PANIC=abort CARGO_PROFILE_RELEASE_STRIP=symbols
size                release CARGO_PROFILE_RELEASE_OPT_LEVEL=z
v0                  release CARGO_PROFILE_RELEASE_DEBUG=0 RUSTFLAGS=-Csymbol-mangling-version=v0
line-tables         release CARGO_PROFILE_RELEASE_DEBUG=line-tables-only
packed              release CARGO_PROFILE_RELEASE_SPLIT_DEBUGINFO=packed
unpacked            release CARGO_PROFILE_RELEASE_SPLIT_DEBUGINFO=unpacked
'
# In these, the types of tasks cannot be known, or only those of some.
without_types=' no-debug-info lto-abort-stripped '
# And in these, tasks of one type cannot be told apart: that needs symbols.
without_ids=' lto-abort-stripped '

# The types that a profile has of the tasks of `plain`, one a line. Where there are line tables only, a method may lack its type's name.
types() {
    target/debug/pertask report "$1" --by site --json | sed -nE 's/^ *"name": "~plain::(Worker::)?([A-Za-z_]+).*/\2/p' | sort -u
}
# Records two seconds of what the program does with this argument, once it has said something.
recorded() {
    "$1" "$2" > "$scratch/said" &
    local pid=$!
    until [ -s "$scratch/said" ]; do kill -0 $pid && sleep 0.1 || exit 1; done
    target/debug/pertask record -F 997 -o "$scratch/$2.pb.gz" -d 2s --pid $pid > "$scratch/why" 2>&1 || cat "$scratch/why" >&2
    kill $pid
}
# Which of the two tasks that `plain twins` prints are in a recording of it.
found_ids() {
    recorded "$1" twins
    target/debug/pertask report "$scratch/twins.pb.gz" --by task --json > "$scratch/twins.json"
    for id in $(cat "$scratch/said"); do
        if grep -q "\"task\": $id," "$scratch/twins.json"; then echo "$id"; fi
    done
}
# The IDs in a recording of `plain families` that are wrong.
wrong_ids() {
    recorded "$1" families
    for parity in even odd; do
        target/debug/pertask report "$scratch/families.pb.gz" --by task --json --function "of_${parity}_tasks" |
            sed -nE 's/^ *"task": ([0-9]+),/\1/p' | { [ $parity = even ] && grep '[13579]$' || grep '[02468]$'; } || true
    done
}
wanted_types=$(printf '%s\n' Own async_function blocking boxed local method of_smol selects unordered | sort)
cargo build -q

for wanted in "$@"; do
    grep -q "^$wanted " <<< "$ways" || { echo "there is no way called $wanted" >&2; exit 2; }
done

failed=0
while read -r name profile settings; do
    [ -n "$name" ] && [[ $# = 0 || " $* " == *" $name "* ]] || continue
    folder=target/builds/$name
    # shellcheck disable=SC2086
    env $settings CARGO_TARGET_DIR="$folder" \
        cargo build -q --profile "$profile" -p pertask-builds --example native_stacks --example plain
    program=$(find "$folder" -path '*/examples/native_stacks' -type f | head -1)
    printf '\n%s\n' "$name"
    "$program" "$scratch/libapply.so" || { failed=1; echo "NOT WHOLE: $name"; }
    program=$(find "$folder" -path '*/examples/plain' -type f | head -1)
    if ! target/debug/pertask record -F 997 --unresolved -o "$scratch/plain.pb.gz" -- "$program" 2>"$scratch/why" >/dev/null; then
        grep -q 'the kernel refuses perf events' "$scratch/why" || { failed=1; cat "$scratch/why"; }
        echo "SKIPPED: types: $(tail -1 "$scratch/why")"
        continue
    fi
    missing=$(comm -23 <(echo "$wanted_types") <(types "$scratch/plain.pb.gz") | tr '\n' ' ')
    if [[ $without_types == *" $name "* ]]; then
        echo "types that cannot be known here: ${missing:-none}"
    elif [ -n "$missing" ]; then
        failed=1
        echo "NO TYPES: $name: $missing"
    else
        echo "all tasks have their types"
    fi
    found=$(found_ids "$program" | wc -l)
    if [[ $without_ids == *" $name "* ]]; then
        echo "tasks of one type cannot be told apart here: $found of 2"
    elif [ "$found" != 2 ]; then
        failed=1
        echo "NOT TOLD APART: $name: $found of 2 tasks"
    else
        echo "tasks of one type are told apart"
    fi
    [[ $without_ids == *" $name "* ]] && continue
    wrong=$(wrong_ids "$program" | tr '\n' ' ')
    [ -z "$wrong" ] || { failed=1; echo "WRONG IDS: $name: $wrong"; }
done <<< "$ways"
exit $failed
