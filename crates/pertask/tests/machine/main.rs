//! A deterministic machine: simulated CPUs, tasks, and a scheduler that follows from a seed, with the real core underneath.
//!
//! Each CPU is a thread; a baton lets exactly one run at a time, so a run follows from its seed alone. Operations are
//! interleaved, also in their middle: wherever the core calls a PMU's hook, a caller's closure or the allocator, a CPU can
//! stop, and others go on. After each step the invariants of ARCHITECTURE.md are looked at.
//!
//! ```sh
//! PERTASK_MACHINE_SEEDS=100000 cargo test -p pertask --test machine -- --nocapture
//! PERTASK_MACHINE_SEED=17      cargo test -p pertask --test machine    # that one again
//! ```
#![cfg(not(pertask_loom))]

mod baton;
mod cpu;
mod flight;
mod invariants;
mod ledger;
mod machine;
mod memory;
mod operation;
mod pmu;
mod scheduler;
mod seed;
mod symptom;

use machine::Machine;
use seed::seeds;
use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// RCU is the process's, and so is the quarantine of freed memory: one test at a time, and none after one that has failed.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().expect("a run that failed has left its CPUs where they stood")
}

/// Runs the machine of a seed to its end. What is wrong is told with the steps that led there.
fn run(seed: u64) -> Machine {
    let mut machine = Machine::new(seed);
    let run = panic::catch_unwind(AssertUnwindSafe(|| machine.run()));
    let wrong = match run {
        Ok(Ok(())) => return machine,
        Ok(Err(wrong)) => wrong,
        Err(_) => "a panic".to_owned(),
    };
    let steps = machine.trace.last_steps();
    // Its CPUs may stand anywhere.
    std::mem::forget(machine);
    panic!("\n{steps}seed {seed}: {wrong}\nagain: PERTASK_MACHINE_SEED={seed}\n");
}

#[test]
fn whatever_the_scheduler_does_the_invariants_hold() {
    let _alone = alone();
    let (began, seeds) = (Instant::now(), seeds());
    let count = seeds.end - seeds.start;
    for seed in seeds {
        run(seed);
    }
    println!("{count} seeds in {:.1?}", began.elapsed());
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_another() {
    let _alone = alone();
    let hashes = |_| (0..50).map(|seed| run(seed).trace.hash()).collect::<Vec<_>>();
    let [first, second] = [0, 1].map(hashes);
    assert_eq!(first, second);
    let mut different = first.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), first.len());
}

/// What a core with other points, or a scheduler with another taste, might silently do no more.
#[test]
fn operations_stop_wherever_they_can() {
    const SWITCHES: [&str; 4] = ["SchedOut(0)", "SchedOut(1)", "SchedIn(0)", "SchedIn(1)"];
    const READS: [&str; 5] = ["Allocation", "Read(0)", "Read(1)", "ReadNew(0)", "ReadNew(1)"];
    // What a walk of theirs does between two tasks calls nothing but the allocator, so a global attach stops nowhere else, and
    // a detach nowhere; a family is closed without a call. An exit does not stop before its families: whoever reads counts
    // waits until it has been folded.
    const STOPS: [(&str, &[&str]); 14] = [
        ("switch in", &SWITCHES),
        ("preempt", &SWITCHES),
        ("block", &SWITCHES),
        ("run", &SWITCHES),
        ("end of run", &SWITCHES),
        // No hook has seen a child's data.
        ("fork", &["Allocation", "ReadNew(0)", "ReadNew(1)"]),
        ("exit", &["Read(0)", "Read(1)"]),
        ("attach to task", &READS),
        ("attach to task and children", &READS),
        ("attach globally", &["Allocation"]),
        ("attach globally again", &["Allocation"]),
        // Of tasks, and of sums.
        ("snapshot", &["Shown", "Read(0)", "Read(1)", "ReadNew(0)", "ReadNew(1)"]),
        ("read", &["Read(0)", "Read(1)", "ReadNew(0)", "ReadNew(1)"]),
        ("walk", &["Walk", "Shown"]),
    ];
    const OTHERS: [&str; 12] = [
        "attach globally again mends",
        "attach to task mends",
        "attach to task and children mends",
        "a global attach or detach waits for a section",
        "a child joins a family",
        "a family loses a child",
        "a fork is counted as one without data",
        "a task is left on a CPU and ends",
        "a task migrates",
        "an attach is refused: no memory",
        "an attach is refused: the limit",
        "an attach is refused: the task has ended",
    ];
    let _alone = alone();
    let happened: BTreeSet<_> = (0..400).flat_map(|seed| run(seed).happened).collect();
    let stops = STOPS.iter().flat_map(|(operation, points)| {
        points.iter().map(move |point| format!("{operation} stops at {point}"))
    });
    let expected = stops.chain(OTHERS.map(str::to_owned));
    let missing: Vec<_> = expected.filter(|what| !happened.contains(what)).collect();
    assert_ne!(memory::SUMS_FREED.load(Relaxed), 0, "sums are not what they are taken for");
    assert!(missing.is_empty(), "in 400 seeds never: {missing:#?}");
}
