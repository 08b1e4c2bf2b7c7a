//! A poll on tokio that wakes its own task: without pertask, and with all that pertask may do at a poll.

use pertask::{Session, SessionOptions, TaskExt};
use pertask_bench::{Row, cpu_time_ns, medians_in_turn};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::runtime::{Builder, Runtime};

const POLLS: u32 = 50_000;
const ROUNDS: usize = 11;

fn main() {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let bare = || polled(&runtime, SelfWake(POLLS));
    let off = || polled(&runtime, SelfWake(POLLS).task("waking"));
    let on = || during(SessionOptions::default(), off);
    let waits = || during(SessionOptions { wake_latency: true, ..Default::default() }, off);
    let [bare, off, on, waits] = medians_in_turn(ROUNDS, [&bare, &off, &on, &waits]);
    Row::print("self-waking poll, bare", bare);
    Row::print("self-waking poll, off", off);
    Row::print("self-waking poll, on", on);
    Row::print("self-waking poll, on + wake latency", waits);
    Row::print("self-waking poll, off, over bare", off - bare);
    Row::print("self-waking poll, on, over bare", on - bare);
    Row::print("self-waking poll, on + wake latency, over bare", waits - bare);
}

/// What is measured while there is such a session; that it begins and ends is not measured.
fn during(options: SessionOptions, measure: impl Fn() -> f64) -> f64 {
    let _session: Session = options.start().expect("a session");
    measure()
}

/// What each poll takes of a future that is polled so often.
fn polled(runtime: &Runtime, future: impl Future<Output = ()> + Send + 'static) -> f64 {
    let time = cpu_time_ns(|| runtime.block_on(runtime.spawn(future)).expect("the task"));
    time / f64::from(POLLS)
}

/// A future that wakes itself so many times before it is ready.
struct SelfWake(u32);

impl Future for SelfWake {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
