//! A PMU that is attached to all tasks and detached again, for each task: the first time, and the times that follow.

use pertask_bench::{Crowd, Quartiles, Row, cpu_time_ns};

const LATER: usize = 3;

fn main() {
    for (tasks, name) in [(100_000, "100,000"), (1_000_000, "1,000,000")] {
        let plain = format!("attach and detach, {name} tasks");
        measure(&Crowd::of(tasks), tasks, &plain);
        #[cfg(feature = "retain")]
        {
            let crowd = Crowd::of(tasks);
            crowd.retain();
            measure(&crowd, tasks, &format!("{plain}, data retained"));
        }
    }
}

fn measure(crowd: &Crowd, tasks: usize, name: &str) {
    let each = || attach_and_detach(crowd) / tasks as f64;
    Row::print(format!("{name}, first"), each());
    let later = Quartiles::of((0..LATER).map(|_| each()).collect());
    Row::print(format!("{name}, later"), later.map_or(f64::NAN, |later| later.median));
}

/// What it takes until all that was released is freed: else the next attach would pay for that.
fn attach_and_detach(crowd: &Crowd) -> f64 {
    cpu_time_ns(|| {
        drop(crowd.attach());
        pertask_core::rcu::barrier().expect("RCU's barrier");
    })
}
