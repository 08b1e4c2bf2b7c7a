//! Long random schedules of the code that ships: some threads, some tens of operations each, and a scheduler (shuttle) that
//! says at each access to shared memory who goes on.
//!
//! ```text
//! RUSTFLAGS="--cfg pertask_shuttle" cargo test -p pertask-core --release --test schedules
//! ```
//!
//! Half of the schedules are random, half favour one thread until few random moments (PCT, which finds what needs few
//! switches at odd places). `PERTASK_SCHEDULES` says how many of each scenario. A schedule that fails is written to a file,
//! whose name is shown; it runs again, alone, with `PERTASK_REPLAY=file` and the test's name.
//!
//! Models are the other way round: short, but every interleaving, and every value that an ordering allows. Here memory is
//! sequentially consistent, so no missing ordering is seen, nor a missing barrier. But RCU is the real one, walks have several
//! chunks, and threads do what they like. Released data is freed early, its memory is kept and overwritten: a late use is
//! seen. (That an address is used again is not.)
//!
//! No scenario uses `thread::scope`: shuttle's ends before its threads' thread-locals do, with which they leave RCU.

#![cfg(pertask_shuttle)]

mod common;

#[path = "schedules/chunks.rs"]
mod chunks;
#[path = "schedules/grace.rs"]
mod grace;
#[path = "schedules/load.rs"]
mod load;
#[path = "schedules/whole.rs"]
mod whole;
#[path = "schedules/world.rs"]
mod world;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};
use std::env;

/// Schedules of each scenario, unless `PERTASK_SCHEDULES` says otherwise.
const SCHEDULES: usize = 2000;

/// Moments at which another thread is favoured, in one schedule of PCT.
const CHANGES: usize = 4;

/// Plays a scenario: the same thing each time, but for what the scheduler decides.
fn check(scenario: fn()) {
    if let Some(file) = env::var_os("PERTASK_REPLAY") {
        return play(ReplayScheduler::new_from_file(file).expect("a schedule"), scenario);
    }
    let schedules = env::var("PERTASK_SCHEDULES")
        .map_or(SCHEDULES, |schedules| schedules.parse().expect("a number"));
    play(RandomScheduler::new(schedules.div_ceil(2)), scenario);
    play(PctScheduler::new(CHANGES, schedules / 2), scenario);
}

fn play(scheduler: impl Scheduler + 'static, scenario: fn()) {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.failure_persistence = FailurePersistence::File(Some(env::temp_dir()));
    // That orderings are not looked at is said above.
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(scenario);
}
