//! Sampled allocations: whoever begins to sample is heard by each worker, though a worker that finds nobody asks no more.

use super::METER;
use super::sampling::{NEVER, Sampled, reached};
use crate::check;
use loom::thread;

/// The worker makes an allocation.
fn allocate() {
    if METER.count_allocation(8) {
        reached(&METER, 8);
    }
}

/// A worker finds that nobody samples, and chooses no byte, while somebody begins to. Its next allocation asks again, at the latest.
#[test]
fn a_choice_races_a_beginning() {
    check(|| {
        // loom orders the first use of a static before all others.
        METER.chosen();
        drop(Sampled::begin(|_| ()));
        let worker = thread::spawn(allocate);
        let sampled = Sampled::begin(|_| ());
        worker.join().unwrap();
        assert_ne!(METER.chosen(), NEVER, "nobody would hear of this worker's allocations");
        drop(sampled);
    });
}

/// The same, where the worker had chosen no byte before.
#[test]
fn a_beginning_reaches_who_had_given_up() {
    check(|| {
        METER.chosen();
        drop(Sampled::begin(|_| ()));
        allocate();
        assert_eq!(METER.chosen(), NEVER, "nobody samples");
        let worker = thread::spawn(allocate);
        let sampled = Sampled::begin(|_| ());
        worker.join().unwrap();
        assert_ne!(METER.chosen(), NEVER);
        drop(sampled);
    });
}
