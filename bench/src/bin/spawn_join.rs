//! Spawn and join on tokio, one task at a time: without pertask, and what pertask adds.

use pertask::{Session, TaskExt};
use pertask_bench::{Row, cpu_time_ns, medians_in_turn};
use std::future::Future;
use tokio::runtime::{Builder, Runtime};

const TASKS: u32 = 10_000;
const ROUNDS: usize = 5;

fn main() {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let bare = || spawned(&runtime, || async {});
    let off = || spawned(&runtime, || async {}.task("spawned"));
    let on = || {
        let _session = Session::start().expect("a session");
        off()
    };
    let [bare, off, on] = medians_in_turn(ROUNDS, [&bare, &off, &on]);
    Row::print("spawn and join, bare", bare);
    Row::print("spawn and join, off", off);
    Row::print("spawn and join, off, over bare", off - bare);
    Row::print("spawn and join, on", on);
    Row::print("spawn and join, on, over bare", on - bare);
}

/// What each of the tasks takes. They are spawned in a task: the root future of `block_on` is woken in a slower way.
fn spawned<F>(runtime: &Runtime, make: impl Fn() -> F + Send + 'static) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let all = async move {
        for _ in 0..TASKS {
            tokio::spawn(make()).await.expect("a task");
        }
    };
    let time = cpu_time_ns(|| runtime.block_on(runtime.spawn(all)).expect("the task of tasks"));
    time / f64::from(TASKS)
}
