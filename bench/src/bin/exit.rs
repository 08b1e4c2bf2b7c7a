//! A million tasks that end, with a PMU attached to them and without: for each task.

use pertask_bench::{Crowd, Row, cpu_time_ns};

const TASKS: usize = 1_000_000;

fn main() {
    let mut crowd = Crowd::of(TASKS);
    Row::print("exit, not attached", ends(&mut crowd));

    let mut crowd = Crowd::of(TASKS);
    let event = crowd.attach();
    Row::print("exit, attached", ends(&mut crowd));
    drop(event);
}

/// What it takes until all that was released is freed.
fn ends(crowd: &mut Crowd) -> f64 {
    let time = cpu_time_ns(|| {
        crowd.end();
        pertask_core::rcu::barrier().expect("RCU's barrier");
    });
    time / TASKS as f64
}
