//! A further poll of a task: the difference between tasks that are polled a hundred times and tasks that are polled once.

use pertask::{Session, TaskExt};
use pertask_bench::{Row, cpu_time_ns, medians_in_turn};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const TASKS: u32 = 1_000;
const POLLS: u32 = 100;
const ROUNDS: usize = 7;

fn main() {
    measure("off");
    let session = Session::start().expect("a session");
    measure("on");
    drop(session);
}

fn measure(session: &str) {
    let [once, often] = medians_in_turn(ROUNDS, [&|| tasks_with(1), &|| tasks_with(POLLS)]);
    let further = f64::from(TASKS * (POLLS - 1));
    Row::print(format!("a further poll, {session}"), (often - once) / further);
}

/// What the tasks take together, each polled so many times.
fn tasks_with(polls: u32) -> f64 {
    let mut context = Context::from_waker(Waker::noop());
    cpu_time_ns(|| {
        for _ in 0..TASKS {
            let mut task = pin!(ready_at(polls).task("polled"));
            while task.as_mut().poll(&mut context).is_pending() {}
        }
    })
}

/// A future that is ready at its poll of that number.
fn ready_at(polls: u32) -> impl Future<Output = ()> {
    let mut left = polls;
    poll_fn(move |_| {
        left -= 1;
        if left == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
}
