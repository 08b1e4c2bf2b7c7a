//! What `pertask::Alloc` costs an allocation: while nobody counts, and in a session that does, outside tasks and in one.
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
use std::hint::black_box;
use std::time::Duration;
use support::{all_in_turn, heading, machine, row, timed};

#[global_allocator]
static COUNTING: pertask::Alloc<System> = pertask::Alloc::new(System);

const TIMES: u32 = 100_000;
const ROUNDS: usize = 60;

fn main() {
    machine();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for bytes in [64, 4_096] {
        let layout = Layout::from_size_align(bytes, 8).unwrap();
        let on = |work: &dyn Fn()| {
            let session = SessionOptions { memory: true, ..SessionOptions::default() }.start();
            let elapsed = timed(work);
            drop(session.unwrap());
            elapsed
        };
        let in_task = || {
            runtime.block_on(async { pairs(&COUNTING, layout) }.task("bench"));
        };
        // On a thread of its own, because this one has run tasks.
        let no_worker = || {
            std::thread::scope(|scope| {
                scope.spawn(|| on(&|| pairs(&COUNTING, layout))).join().unwrap()
            })
        };
        let variants: [(&str, Box<dyn Fn() -> Duration>); 6] = [
            ("bare", Box::new(|| timed(|| pairs(&System, layout)))),
            ("bare, again", Box::new(|| timed(|| pairs(&System, layout)))),
            ("nobody counts", Box::new(|| timed(|| pairs(&COUNTING, layout)))),
            ("counted, no worker", Box::new(no_worker)),
            ("counted, outside tasks", Box::new(|| on(&|| pairs(&COUNTING, layout)))),
            ("counted, in a task", Box::new(|| on(&in_task))),
        ];
        let (names, variants): (Vec<_>, Vec<_>) = variants.into_iter().unzip();
        let medians = all_in_turn(ROUNDS, &variants);
        heading(&format!("allocate and free {bytes} bytes, ns for the two together"));
        let each = |time: &Duration| time.as_nanos() as f64 / f64::from(TIMES);
        for (place, (name, median)) in names.iter().zip(&medians).enumerate() {
            row(name, each(median), (place > 0).then(|| each(&medians[0])));
        }
    }
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
