//! A PMU of your own: how long tasks held their CPU in total, and for how long at most without a pause.
//!
//! `cargo run -p pertask-core --example pmu` attaches it to all tasks, and to one task with its descendants, and prints both
//! events and a snapshot. A task that holds its CPU for too long at a time stands out.

#![forbid(unsafe_code)]

use bytemuck::Zeroable;
use pertask_core::{Count, Inherit, OwnedTask, Pmu, SpawnPath, Switch, System};
use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Measures the wall time from the moment a task is switched in until it is switched out.
struct Stretches {
    begin: Instant,
}

/// The data of each task: it starts as zeroes, is written by hooks and read by any thread, so it consists of atomics.
///
/// (`derive(Zeroable)` needs bytemuck's feature `derive`. An array or a tuple of atomics works without it.)
#[derive(Zeroable)]
#[repr(C)]
struct TaskData {
    sum_ns: AtomicU64,
    longest_ns: AtomicU64,
}

/// The data of each CPU: when its current task was switched in, or 0.
#[derive(Default)]
struct CpuData {
    since_ns: AtomicU64,
}

/// The counts that an event reads: plain numbers.
#[derive(Clone, Default)]
struct Held {
    sum_ns: u64,
    longest_ns: u64,
}

impl Pmu for Stretches {
    const NAME: &'static str = "stretches";
    type Data = TaskData;
    type CpuData = CpuData;
    type Count = Held;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.since_ns.store(self.now_ns(), Relaxed);
    }

    fn sched_out(&self, switch: Switch<'_, Self>) {
        // 0: the task was running when the first event was attached, so `sched_in` was not called.
        let since_ns = switch.cpu_data.since_ns.swap(0, Relaxed);
        // No data: no event is attached to this task.
        if let Some(data) = switch.data
            && since_ns != 0
        {
            data.add(self.now_ns() - since_ns);
        }
    }

    fn read(&self, data: &TaskData) -> Held {
        Held { sum_ns: data.sum_ns.load(Relaxed), longest_ns: data.longest_ns.load(Relaxed) }
    }

    /// Optional. With it, the exit of a task allocates nothing for its counts.
    fn fold(&self, ended: &TaskData, totals: &TaskData) -> bool {
        let Held { sum_ns, longest_ns } = self.read(ended);
        totals.sum_ns.fetch_add(sum_ns, Relaxed);
        totals.longest_ns.fetch_max(longest_ns, Relaxed);
        true
    }
}

impl Stretches {
    /// The time since `begin`; never 0.
    fn now_ns(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64 + 1
    }
}

impl TaskData {
    fn add(&self, stretch_ns: u64) {
        self.sum_ns.fetch_add(stretch_ns, Relaxed);
        self.longest_ns.fetch_max(stretch_ns, Relaxed);
    }
}

impl Count for Held {
    fn add(&mut self, other: &Self) {
        self.sum_ns += other.sum_ns;
        self.longest_ns = self.longest_ns.max(other.longest_ns);
    }

    /// A maximum cannot be subtracted, so it is always the maximum since the data was made.
    fn since(&self, base: &Self) -> Self {
        Self { sum_ns: self.sum_ns.saturating_sub(base.sum_ns), longest_ns: self.longest_ns }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns| ns as f64 / 1e6;
        write!(f, "{:7.2} ms, {:6.2} ms at most", ms(self.sum_ns), ms(self.longest_ns))
    }
}

fn main() -> Result<(), pertask_core::Error> {
    // A program has one system, `System::global()`. Tests and simulations make their own.
    let system = System::leak();
    let stretches = system.register(Stretches { begin: Instant::now() })?;

    // All tasks, including future tasks.
    let of_all = stretches.attach_global()?;
    let (mut indexer, mut mailer) = (fork(system, "indexer"), fork(system, "mailer"));
    // One task, and the tasks that it makes from now on.
    let of_mailer = stretches.attach_task(mailer.handle_ref(), Inherit::Children)?;

    // Each task runs on a thread of its own, which becomes a CPU.
    thread::scope(|scope| {
        scope.spawn(move || (0..5).for_each(|_| turn(system, &mut indexer, "read a file", 2)));
        scope.spawn(move || (0..5).for_each(|_| turn(system, &mut mailer, "resolve a name", 20)));
    });

    println!("all tasks                 {}", of_all.read());
    println!("mailer, descendants too   {}", of_mailer.read());
    println!("by spawn path:");
    for row in stretches.snapshot(|_| {}) {
        println!("  {:<24}{} of {} tasks", name(row.path), row.count, row.exited + row.live);
    }

    // Dropping an event detaches it. A PMU without events can be unregistered, and another can have its place.
    drop((of_all, of_mailer));
    stretches.unregister()
}

#[track_caller]
fn fork(system: &'static System, name: &str) -> OwnedTask {
    let location = Location::caller();
    system.with_cpu(|cpu| cpu.fork(cpu.site(Some(name), location)))
}

/// A turn of a task: some work, and a part that is a task of its own. While the part runs, the time is charged to the part.
fn turn(system: &'static System, task: &mut OwnedTask, part: &str, part_ms: u64) {
    system.with_cpu(|cpu| {
        cpu.run(task, || {
            thread::sleep(Duration::from_millis(1));
            let mut part = fork(system, part);
            cpu.run(&mut part, || thread::sleep(Duration::from_millis(part_ms)));
        });
    });
}

/// The sites of a spawn path, root first.
fn name(path: &SpawnPath) -> String {
    let name = path.site().name().unwrap_or("-");
    match path.parent() {
        Some(parent) => format!("{} > {name}", self::name(parent)),
        None => name.to_owned(),
    }
}
