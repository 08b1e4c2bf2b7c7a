//! The life of a task: it is made, polled once, and dropped; on one thread, and on two at once.

use pertask::{Session, TaskExt};
use pertask_bench::{Row, cpu_time_ns, medians_in_turn};
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Barrier;
use std::task::{Context, Waker};
use std::thread;
use std::time::Instant;

const LIVES: u32 = 30_000;
const ROUNDS: usize = 7;
const TRIES: usize = 30;

fn main() {
    measure("off");
    // The first session also looks for a clock, and the core remembers some of what it was asked for: so it comes second.
    let session = Session::start().expect("a session");
    measure("on");
    drop(session);
}

fn measure(session: &str) {
    let [alone, together] = medians_in_turn(ROUNDS, [&|| lives_on(1), &|| lives_on(2)]);
    Row::print(format!("life of a task, {session}, 1 thread"), alone);
    Row::print(format!("life of a task, {session}, 2 threads"), together);
}

/// What a life takes on so many threads at once, as the mean over the threads. NaN if the machine is too busy to tell.
fn lives_on(threads: usize) -> f64 {
    let mut tries = (0..TRIES).map(|_| run_on(threads));
    let together = tries.find(|runs| are_at_once(runs));
    together.map_or(f64::NAN, |runs| {
        let sum: f64 = runs.iter().map(|run| run.cpu_time_ns).sum();
        sum / threads as f64 / f64::from(LIVES)
    })
}

/// The lives on one thread.
struct Run {
    start: Instant,
    end: Instant,
    cpu_time_ns: f64,
}

fn run_on(threads: usize) -> Vec<Run> {
    let barrier = Barrier::new(threads);
    let worker = || {
        // What a thread does once is not part of a life.
        live(LIVES / 50);
        barrier.wait();
        let start = Instant::now();
        let cpu_time_ns = cpu_time_ns(|| live(LIVES));
        Run { start, end: Instant::now(), cpu_time_ns }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).collect()
    })
}

/// Whether all had a CPU nearly all the time from the first one's start to the last one's end. Where other programs want
/// the CPUs, threads may run one after the other, and then do not meet where they would contend.
fn are_at_once(runs: &[Run]) -> bool {
    let start = runs.iter().map(|run| run.start).min();
    let end = runs.iter().map(|run| run.end).max();
    let Some((start, end)) = start.zip(end) else { return false };
    let wall_ns = (end - start).as_nanos() as f64;
    runs.iter().all(|run| run.cpu_time_ns > 0.8 * wall_ns)
}

fn live(times: u32) {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..times {
        let task = pin!(async {}.task("life"));
        assert!(black_box(task.poll(&mut context)).is_ready());
    }
}
