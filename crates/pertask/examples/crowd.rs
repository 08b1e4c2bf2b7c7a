//! A program with an agent and many tasks, for `bench/agent.sh`: of 100 of them, one wakes each second, and the others sleep.
//!
//! `crowd N` has N tasks. `crowd N blocked` also blocks all workers of the runtime.

use pertask::TaskExt;
use std::time::Duration;

const WORKERS: usize = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let tasks: u64 = arguments.next().ok_or("crowd N [blocked]")?.parse()?;
    let blocked = arguments.next().is_some_and(|argument| argument == "blocked");
    eprintln!("{}", pertask::init());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_time()
        .build()?;
    for task in 0..tasks {
        let pause = Duration::from_secs(if task % 100 == 0 { 1 } else { 3_600 });
        let sleeper = async move {
            loop {
                tokio::time::sleep(pause).await;
            }
        };
        runtime.spawn(sleeper.task(if task % 2 == 0 { "even" } else { "odd" }));
    }
    for _ in 0..if blocked { WORKERS } else { 0 } {
        runtime.spawn(async { std::thread::sleep(Duration::MAX) });
    }
    println!("ready");
    runtime.block_on(std::future::pending())
}
