//! What pertask costs: polls with each clock and with counters, spawn and exit, memory, attaching, and waiting for an attach.
//!
//! ```text
//! cargo bench -p pertask --bench cost
//! ```
//!
//! The variants of a row are measured in turn, round by round, so that a machine that drifts drifts for all. Medians;
//! ratios to the same program without pertask. Nothing here fails: a figure is for reading.

mod support;

use pertask::core::{Cpu, OwnedTask, System};
use pertask::{CpuTime, SessionOptions, TaskExt};
use std::future::Future;
use std::hint::black_box;
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use support::{Counting, all_in_turn, heading, in_turn, machine, medians, row, timed};
use tokio::runtime::Runtime;

#[global_allocator]
static HEAP: Counting = Counting;

/// Set in a child process that measures polls with another clock: which one is used is decided once in a process.
const CLOCK: &str = "PERTASK_CLOCK";

fn main() {
    let is_child = std::env::var_os(CLOCK).is_some();
    if !is_child {
        machine();
    }
    pin_to_last_cpu();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if is_child {
        return polls_with_this_clock(&runtime);
    }
    polls(&runtime);
    polls_with_a_label(&runtime);
    polls_with_each_clock();
    spawn_and_exit(&runtime);
    memory(&runtime);
    attach();
    unpin();
    waiting_for_an_attach();
}

/// A future that is ready at once, or wakes itself so many times first.
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

/// A self-waking poll, one task.
fn polls(runtime: &Runtime) {
    heading("poll that wakes itself, ns");
    compare(
        POLLS,
        &|| in_a_task(runtime, SelfWake(POLLS)),
        &|| in_a_task(runtime, SelfWake(POLLS).task("bench")),
        &[
            ("CPU time of every task", SessionOptions::default()),
            ("  and waits from wake to poll", waits()),
            ("  and lives", lives()),
            ("  and 2 events by getrusage", counting(&["page-faults", "context-switches"])),
            (
                "  and 3 events by a perf group",
                counting(&["page-faults", "task-clock", "cpu-migrations"]),
            ),
            ("  and cycles, instructions", counting(&["cycles", "instructions"])),
        ],
    );
}

const POLLS: u32 = 100_000;

/// A self-waking poll of a task that has a label.
fn polls_with_a_label(runtime: &Runtime) {
    heading("poll that wakes itself, in a task with a label, ns");
    compare(
        POLLS,
        &|| in_a_task(runtime, SelfWake(POLLS)),
        &|| in_a_task(runtime, SelfWake(POLLS).task("bench").labels([("tenant", "acme")])),
        &[("CPU time of every task", SessionOptions::default()), ("  and lives", lives())],
    );
}

/// The same with the other clocks, each in a process of its own, against the bare program there.
fn polls_with_each_clock() {
    for clock in ["rseq", "perf-page", "thread"] {
        let child =
            std::process::Command::new(std::env::current_exe().unwrap()).env(CLOCK, clock).status();
        assert!(
            child.is_ok_and(|status| status.success()),
            "the child that measures {clock} failed"
        );
    }
}

fn polls_with_this_clock(runtime: &Runtime) {
    let [bare, on] = in_turn(
        20,
        [&|| timed(|| in_a_task(runtime, SelfWake(POLLS))), &|| {
            measured(&SessionOptions::default(), &|| {
                in_a_task(runtime, SelfWake(POLLS).task("bench"))
            })
        }],
    );
    let each = |time: Duration| time.as_nanos() as f64 / f64::from(POLLS);
    let clock = SessionOptions::default().start().unwrap().stop().clock;
    let clock = clock.split([' ', ',']).next().unwrap_or_default().to_owned();
    row(&format!("CPU time, clock: {clock}"), each(on), Some(each(bare)));
}

fn waits() -> SessionOptions {
    SessionOptions { wake_latency: true, ..SessionOptions::default() }
}

fn lives() -> SessionOptions {
    SessionOptions { life: true, ..SessionOptions::default() }
}

fn counting(events: &[&str]) -> SessionOptions {
    let counters = events.iter().map(|event| event.parse().unwrap()).collect();
    SessionOptions { counters, ..SessionOptions::default() }
}

/// Spawn, run to its end, join: one task at a time, from inside a task (the root future of `block_on` is woken by another,
/// slower road).
fn spawn_and_exit(runtime: &Runtime) {
    const TASKS: u32 = 5_000;
    let bare = || {
        in_a_task(runtime, async {
            for _ in 0..TASKS {
                tokio::spawn(async {}).await.unwrap();
            }
        });
    };
    let tracked = || {
        in_a_task(runtime, async {
            for _ in 0..TASKS {
                tokio::spawn(async {}.task("bench")).await.unwrap();
            }
        });
    };
    heading("spawn + exit + join, ns");
    let on = [("CPU time of every task", SessionOptions::default())];
    compare(TASKS, &bare, &tracked, &on);
}

/// Rows for a program as it is, tracked with nothing attached, and tracked with what sessions measure.
fn compare(times: u32, bare: &dyn Fn(), tracked: &dyn Fn(), sessions: &[(&str, SessionOptions)]) {
    let mut variants: Vec<Box<dyn Fn() -> Duration + '_>> =
        vec![Box::new(|| timed(bare)), Box::new(|| timed(tracked))];
    // What nothing here can count is not measured either.
    let sessions: Vec<_> = sessions.iter().filter(|(_, options)| is_counted(options)).collect();
    for (_, options) in &sessions {
        variants.push(Box::new(move || measured(options, tracked)));
    }
    let medians = all_in_turn(40, &variants);
    let names = ["bare", "tracked, nothing attached"].into_iter();
    let names = names.chain(sessions.iter().map(|(name, _)| *name));
    let each = |time: &Duration| time.as_nanos() as f64 / f64::from(times);
    for (place, (name, median)) in names.zip(&medians).enumerate() {
        row(name, each(median), (place > 0).then(|| each(&medians[0])));
    }
}

fn measured(options: &SessionOptions, tracked: &dyn Fn()) -> Duration {
    let session = options.clone().start().unwrap();
    let elapsed = timed(tracked);
    black_box(session.stop());
    elapsed
}

fn is_counted(options: &SessionOptions) -> bool {
    let report = options.clone().start().unwrap().stop();
    report.counters.iter().all(|counter| counter.source.is_some())
}

/// Heap of an idle task.
fn memory(runtime: &Runtime) {
    const TASKS: usize = 20_000;
    let idle = |tracked: bool| {
        runtime.block_on(async {
            let before = Counting::bytes();
            let tasks: Vec<_> = (0..TASKS)
                .map(|_| match tracked {
                    true => tokio::spawn(std::future::pending::<()>().task("bench")),
                    false => tokio::spawn(std::future::pending::<()>()),
                })
                .collect();
            tokio::task::yield_now().await;
            let bytes = Counting::bytes() - before;
            for task in tasks {
                task.abort();
                let _ = task.await;
            }
            bytes as f64 / TASKS as f64
        })
    };
    // The first run grows the tables, which stay.
    idle(true);
    let (bare, off) = (idle(false), idle(true));
    let session = SessionOptions::default().start().unwrap();
    let on = idle(true);
    drop(session);
    heading("heap of an idle task, bytes (with its JoinHandle)");
    row("bare", bare, None);
    row("tracked, nothing attached", off, Some(bare));
    row("CPU time of every task", on, Some(bare));
}

/// Attaching to all tasks, by how many there are.
fn attach() {
    heading("attach to all tasks, and detach: ns a task");
    let handle = CpuTime::handle().unwrap();
    for tasks in [1_000, 10_000, 100_000, 1_000_000] {
        let live = fork(tasks);
        let rounds = if tasks > 100_000 { 5 } else { 15 };
        let [attach, detach] = medians(rounds, || {
            let start = Instant::now();
            let event = handle.attach_global().unwrap();
            let attach = start.elapsed();
            let start = Instant::now();
            drop(event);
            [attach, start.elapsed()]
        });
        let per_task = |time: Duration| time.as_nanos() as f64 / tasks as f64;
        println!(
            "{tasks:>9} tasks  {:>7.1}  {:>7.1}   ({:.3} ms, {:.3} ms)",
            per_task(attach),
            per_task(detach),
            attach.as_secs_f64() * 1e3,
            detach.as_secs_f64() * 1e3
        );
        if tasks == 1_000_000 {
            let _first = handle.attach_global().unwrap();
            let [second] = medians(15, || {
                [timed(|| (0..1_000).for_each(|_| drop(handle.attach_global().unwrap())))]
            });
            println!("   a second attach and detach: {:.1} ns", second.as_nanos() as f64 / 1e3);
        }
        drop(live);
    }
}

/// How long a spawn and an exit take while another thread attaches to a million tasks, again and again.
fn waiting_for_an_attach() {
    heading("one spawn + exit, ns: p50, p99, p99.99, max");
    let live = fork(1_000_000);
    latencies("alone", &AtomicBool::new(true));
    let attaching = AtomicBool::new(true);
    let walks = std::thread::scope(|scope| {
        let walker = scope.spawn(|| {
            let handle = CpuTime::handle().unwrap();
            let mut walks = 0;
            while attaching.load(Ordering::Relaxed) {
                drop(handle.attach_global().unwrap());
                walks += 1;
            }
            walks
        });
        latencies("while a thread attaches to 1,000,000 tasks", &attaching);
        walker.join().unwrap()
    });
    println!("   ({walks} attaches and detaches meanwhile)");
    drop(live);
}

fn latencies(what: &str, running: &AtomicBool) {
    let mut times: Vec<u64> = Vec::with_capacity(2_000_000);
    let end = Instant::now() + Duration::from_secs(3);
    let site = System::global().site(Some("bench"), Location::caller());
    Cpu::with(|cpu| {
        while times.len() < times.capacity() {
            let start = Instant::now();
            drop(cpu.fork(site));
            let now = Instant::now();
            times.push((now - start).as_nanos() as u64);
            if now > end {
                break;
            }
        }
    });
    running.store(false, Ordering::Relaxed);
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{what:<44} {:>7} {:>7} {:>8} {:>9}   (of {})",
        at(0.5),
        at(0.99),
        at(0.9999),
        at(1.0),
        times.len()
    );
}

fn fork(tasks: usize) -> Vec<OwnedTask> {
    let site = System::global().site(Some("idle"), Location::caller());
    (0..tasks).map(|hint| System::global().fork(site, None, hint)).collect()
}

fn in_a_task(runtime: &Runtime, work: impl Future<Output = ()> + Send + 'static) {
    runtime.block_on(async { tokio::spawn(work).await.unwrap() });
}

fn pin_to_last_cpu() {
    set_affinity(|cpu, cpus| cpu + 1 == cpus);
}

fn unpin() {
    set_affinity(|_, _| true);
}

fn set_affinity(allow: impl Fn(usize, usize) -> bool) {
    // SAFETY: the sets are ours, and of the size that is passed.
    unsafe {
        let cpus = libc::sysconf(libc::_SC_NPROCESSORS_ONLN) as usize;
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (0..cpus).filter(|cpu| allow(*cpu, cpus)).for_each(|cpu| libc::CPU_SET(cpu, &mut set));
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}
