//! A PMU that is as small as one with data can be: what it costs is what the core costs.

use pertask_core::{Edge, Pmu, Switch};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts how often each task is switched in.
#[derive(Debug)]
pub struct Turns;

impl Pmu for Turns {
    const NAME: &'static str = "turns";
    type Data = AtomicU64;
    type CpuData = ();
    type Count = u64;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        if let (Some(turns), Edge::Turn) = (switch.data, switch.edge) {
            turns.fetch_add(1, Relaxed);
        }
    }

    fn sched_out(&self, _: Switch<'_, Self>) {}

    fn read(&self, turns: &AtomicU64) -> u64 {
        turns.load(Relaxed)
    }

    // Whoever writes a PMU against a core that asks for this writes it: without, each exit pays for a way that is not meant
    // to be taken.
    #[cfg(feature = "fold")]
    fn fold(&self, ended: &AtomicU64, totals: &AtomicU64) -> bool {
        // One thread at a time writes.
        totals.store(totals.load(Relaxed) + ended.load(Relaxed), Relaxed);
        true
    }
}
