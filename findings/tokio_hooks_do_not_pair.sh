#!/usr/bin/env bash
# tokio: a runtime's task hooks do not pair. Tasks end that never began, are polled without a poll, and end in mid-poll.
#
# Software: tokio 1.54.1, built with `--cfg tokio_unstable`.
# Expected: for each task one `on_task_spawn`, then pairs of `on_before_task_poll` and `on_after_task_poll`, one for each
#           poll of its future, then one `on_task_terminate`; so spawns less terminations are the live tasks.
# Seen:     `spawn_blocking` has a termination and no spawn: after three of them, -3 tasks live. A task that is
#           aborted before its first poll has both poll hooks, though its future is never polled. The termination
#           comes before the `on_after_task_poll` of the last poll. (That tasks of a `LocalSet` call no hooks is documented.)
# Source:   https://docs.rs/tokio/1.54.1, tokio::runtime::Builder.
#
# Exits 0 if it is as described, 1 if it has changed, 77 if it cannot be tried here.
set -euo pipefail
command -v cargo >/dev/null || { echo "SKIPPED: cargo is needed"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset CARGO_BUILD_TARGET
export CARGO_TARGET_DIR="$work/target" RUSTFLAGS="--cfg tokio_unstable"

mkdir "$work/src"
cat > "$work/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
tokio = { version = "=1.54.1", features = ["rt"] }
TOML
cat > "$work/src/main.rs" <<'RUST'
use std::future::Future;
use std::sync::{Arc, Mutex};
use tokio::{runtime::Builder, task};

/// Prints which hooks are called while `root` runs and the runtime is dropped.
fn show(name: &str, root: impl Future<Output = ()>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let hook = |call| {
        let calls = Arc::clone(&calls);
        move |_: &tokio::runtime::TaskMeta<'_>| calls.lock().unwrap().push(call)
    };
    let mut builder = Builder::new_current_thread();
    builder.on_task_spawn(hook("spawn")).on_task_terminate(hook("terminate"));
    builder.on_before_task_poll(hook("before")).on_after_task_poll(hook("after"));
    let runtime = builder.build().unwrap();
    runtime.block_on(root);
    drop(runtime);
    println!("{name}: {}", calls.lock().unwrap().join(" "));
}

fn main() {
    show("spawn", async { task::spawn(async {}).await.unwrap() });
    show("abort", async {
        let never_polled = task::spawn(async { unreachable!() });
        never_polled.abort();
        assert!(never_polled.await.unwrap_err().is_cancelled());
    });
    show("spawn_blocking", async {
        for _ in 0..3 {
            task::spawn_blocking(|| {}).await.unwrap();
        }
    });
}
RUST
cd "$work"
cargo fetch --quiet || { echo "SKIPPED: the crates cannot be fetched"; exit 77; }
calls=$(cargo run --quiet --offline)
printf 'tokio 1.54.1\n%s\n' "$calls"
described='spawn: spawn before terminate after
abort: spawn before terminate after
spawn_blocking: terminate terminate terminate'
if [ "$calls" = "$described" ]; then echo "as described"; else echo "CHANGED"; exit 1; fi
