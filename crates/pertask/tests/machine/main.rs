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

use machine::Machine;
use seed::seeds;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// RCU is the process's, and so is the quarantine of freed memory: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
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
