//! Why data must be per task: the same program sampled twice, with and without.
//!
//! A CPU keeps the scopes that are open in a register file. When it switches from one task to another, the first one's scopes
//! must be saved and the other's loaded, or what is in the registers is cut off at each switch: that is what Linux perf's
//! task-specific data is for, and the symptom which it was made against. Here it is, on real samples:
//!
//! ```text
//! cargo run --release -p pertask --features sampler --example whole_stacks
//! ```

use pertask::sampler::{RawProfile, Sampler, SamplerOptions};
use pertask::{CallStack, CallStacks, Error, Inherit, TaskExt, scope};
use std::hint::black_box;

const TASKS: u64 = 16;
const TURNS: u64 = 400;
/// How many scopes each task has open whenever it computes: request, session, query, row.
const OPEN: usize = 4;

fn main() -> Result<(), Error> {
    // All tasks, and those to come.
    let with = sampled(CallStack::record)?;
    // Scopes are recorded, but these tasks have nowhere to keep them while another one runs.
    let one = async {}.task("another task");
    let nobody = || match one.handle() {
        Some(task) => CallStack::record_task(task, Inherit::No),
        None => CallStack::record(),
    };
    let without = sampled(nobody)?;
    println!("{}", with.mechanism);
    println!("with per-task call stacks:    {}", shares(&with));
    println!("without per-task call stacks: {}", shares(&without));
    Ok(())
}

fn sampled(record: impl FnOnce() -> Result<CallStacks, Error>) -> Result<RawProfile, Error> {
    let _recording = record()?;
    let mut options = SamplerOptions::with_frequency(999);
    // Not what we are here to compare.
    options.scopes = false;
    let sampler = Sampler::start(options)?;
    futures::executor::block_on(async {
        let requests = (0..TASKS).map(|number| request(number).task("request"));
        futures::future::join_all(requests).await
    });
    Ok(sampler.stop())
}

async fn request(number: u64) -> u64 {
    let _request = scope!("request");
    // Requests do not all do the same at the same time.
    for _ in 0..number {
        yield_now().await;
    }
    let _session = scope!("session");
    let mut sum = 0;
    for turn in 0..TURNS {
        let _query = scope!("query");
        yield_now().await;
        let _row = scope!("row");
        sum += compute(turn);
    }
    sum
}

/// Some microseconds of work.
fn compute(seed: u64) -> u64 {
    (0..100_000).fold(seed, |sum, round| black_box(sum.rotate_left(5) ^ round))
}

async fn yield_now() {
    let mut yielded = false;
    futures::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut yielded, true) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

/// How many of the samples of tasks, by CPU time, have all scopes, some, or none.
fn shares(profile: &RawProfile) -> String {
    let (mut whole, mut cut, mut none) = (0, 0, 0);
    let of_tasks = profile.samples.iter().filter(|sample| sample.task.is_some());
    for sample in of_tasks.clone() {
        match sample.scopes.len() {
            0 => none += sample.cpu_ns,
            OPEN.. => whole += sample.cpu_ns,
            _ => cut += sample.cpu_ns,
        }
    }
    let all = (whole + cut + none).max(1) as f64;
    let percent = |part: u64| 100.0 * part as f64 / all;
    format!(
        "{:5.1} % whole, {:5.1} % cut, {:5.1} % none, of {} samples",
        percent(whole),
        percent(cut),
        percent(none),
        of_tasks.count()
    )
}
