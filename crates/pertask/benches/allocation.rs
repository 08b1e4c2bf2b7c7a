//! What `pertask::Alloc` costs an allocation, while nobody counts and in a session that does; and what counting costs a poll.
//!
//! ```text
//! cargo bench -p pertask --bench allocation
//! ```
//!
//! The variants are measured in turn, round by round, so that a machine that drifts drifts for all. Medians. Nothing here fails: a
//! figure is for reading.

mod support;

use pertask::{SessionOptions, TaskExt};
use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;
use support::{all_in_turn, heading, machine, row, timed};

#[global_allocator]
static COUNTING: pertask::Alloc<System> = pertask::Alloc::new(System);

const TIMES: u32 = 100_000;
const ROUNDS: usize = 60;

type Variant<'a> = (&'a str, Box<dyn Fn() -> Duration + 'a>);

fn main() {
    machine();
    [64, 4_096].into_iter().for_each(allocations);
    polls();
}

/// An allocation of so many bytes, and its end.
fn allocations(bytes: usize) {
    let layout = Layout::from_size_align(bytes, 8).unwrap();
    let bare = || timed(|| pairs(&System, layout));
    let counting = || pairs(&COUNTING, layout);
    // On a thread of its own, because this one has run tasks.
    let no_worker =
        || std::thread::scope(|scope| scope.spawn(|| counted(counting)).join().unwrap());
    let variants: [Variant<'_>; 6] = [
        ("bare", Box::new(bare)),
        ("bare, again", Box::new(bare)),
        ("nobody counts", Box::new(|| timed(counting))),
        ("counted, no worker", Box::new(no_worker)),
        ("counted, outside tasks", Box::new(|| counted(counting))),
        (
            "counted, in a task",
            Box::new(|| counted(|| poll(async { counting() }.task("bench"), 1))),
        ),
    ];
    compare(&format!("allocate and free {bytes} bytes, ns for the two together"), variants);
}

/// A poll that does nothing.
fn polls() {
    let plain = || poll(std::future::pending::<()>(), TIMES);
    let task = || poll(std::future::pending::<()>().task("bench"), TIMES);
    let variants: [Variant<'_>; 4] = [
        ("bare", Box::new(|| timed(plain))),
        ("a task, no session", Box::new(|| timed(task))),
        ("CPU time of every task", Box::new(|| in_session(SessionOptions::default(), task))),
        ("  and memory", Box::new(|| counted(task))),
    ];
    compare("a poll that does nothing, ns", variants);
}

fn compare<const N: usize>(what: &str, variants: [Variant<'_>; N]) {
    let (names, variants): (Vec<_>, Vec<_>) = variants.into_iter().unzip();
    let medians = all_in_turn(ROUNDS, &variants);
    heading(what);
    let each = |time: &Duration| time.as_nanos() as f64 / f64::from(TIMES);
    for (place, (name, median)) in names.iter().zip(&medians).enumerate() {
        row(name, each(median), (place > 0).then(|| each(&medians[0])));
    }
}

fn counted(work: impl FnOnce()) -> Duration {
    in_session(SessionOptions { memory: true, ..SessionOptions::default() }, work)
}

fn in_session(options: SessionOptions, work: impl FnOnce()) -> Duration {
    let session = options.start().unwrap();
    let elapsed = timed(work);
    drop(session);
    elapsed
}

/// Allocates and frees, again and again.
fn pairs(heap: &impl GlobalAlloc, layout: Layout) {
    for _ in 0..TIMES {
        // SAFETY: the layout has a size, and the memory is freed with the layout with which it was allocated.
        unsafe {
            let memory = black_box(heap.alloc(black_box(layout)));
            heap.dealloc(memory, layout);
        }
    }
}

fn poll(future: impl Future<Output = ()>, times: u32) {
    let mut future = pin!(future);
    for _ in 0..times {
        let _ = black_box(future.as_mut().poll(&mut Context::from_waker(Waker::noop())));
    }
}
