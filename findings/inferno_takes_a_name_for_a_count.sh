#!/usr/bin/env bash
# inferno: a frame whose name ends in a blank and a number makes a folded line a comparison of two profiles.
#
# Software: inferno 0.12.8, as a library (it has no option that says which of the two is meant).
# Expected: `main;worker 3 10` is the function `worker 3` below `main` with 10 samples. Blanks are usual in frames, and the
#           number after the last one is the count.
# Seen:     the function `worker` with 10 samples, which had 3 before. `worker 3` and `worker 4` become one function, with
#           a change in percent that nobody measured. No error, and no warning. Only the last frame of a line is
#           read so: `worker 3;poll` keeps its name.
# Source:   https://crates.io/crates/inferno/0.12.8
#
# Exits 0 if it is as described, 1 if it has changed, 77 if it cannot be tried here.
set -euo pipefail
command -v cargo >/dev/null || { echo "SKIPPED: cargo is needed"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset RUSTFLAGS CARGO_BUILD_TARGET
export CARGO_TARGET_DIR="$work/target"

mkdir "$work/src"
cat > "$work/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
inferno = { version = "=0.12.8", default-features = false }
TOML
cat > "$work/src/main.rs" <<'RUST'
use inferno::flamegraph::{from_lines, Options};

/// Prints the frames of the picture, as their tooltips have them.
fn main() {
    let lines = ["main;worker 3 10", "main;worker 4 20", "main;worker 5;poll 30"];
    let mut svg = Vec::new();
    from_lines(&mut Options::default(), lines, &mut svg).expect("a flamegraph");
    let svg = String::from_utf8(svg).expect("text");
    let mut frames: Vec<_> =
        svg.split("<title>").skip(1).filter_map(|rest| rest.split("</title>").next()).collect();
    frames.sort_unstable();
    println!("{}", frames.join("\n"));
}
RUST
cd "$work"
cargo fetch --quiet || { echo "SKIPPED: the crates cannot be fetched"; exit 77; }
frames=$(cargo run --quiet --offline)
echo "inferno 0.12.8 draws \`worker 3\` with 10, \`worker 4\` with 20 and \`worker 5;poll\` with 30 samples as:"
echo "$frames"
if grep -q '^worker (30 samples, 50.00%; +' <<< "$frames" && grep -q '^worker 5 (30 samples' <<< "$frames" &&
    ! grep -q '^worker [34]' <<< "$frames"
then echo "as described"; else echo "CHANGED"; exit 1; fi
