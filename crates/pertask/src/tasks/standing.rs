//! The sites whose tasks stand alone: what runs there was polled by no other task. Such tasks are closures and loops on threads of their own,
//! which may take as long as they like. A poll that is as long blocks the worker of other tasks.

use pertask_core::{Cpu, Site};
use std::sync::atomic::{AtomicU64, Ordering};

const BITS: usize = u64::BITS as usize;

/// A bit for each site, by its number. There are at most 4097 sites.
static SITES: [AtomicU64; 65] = [const { AtomicU64::new(0) }; 65];

/// Notes that a job of this site is about to run on the calling thread.
pub(crate) fn note_run(site: &Site) {
    // The site that stands for all without a place of their own tells nothing of its tasks.
    if !site.is_other() && !is_standing(site) && Cpu::with(|cpu| cpu.path().is_none()) {
        let (word, bit) = place(site);
        if let Some(word) = SITES.get(word) {
            // Relaxed: nothing else comes with it.
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }
}

/// Whether jobs of this site have run alone on a thread.
pub(crate) fn is_standing(site: &Site) -> bool {
    let (word, bit) = place(site);
    // Relaxed: nothing else comes with it.
    SITES.get(word).is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0)
}

fn place(site: &Site) -> (usize, u64) {
    (site.id() as usize / BITS, 1 << (site.id() as usize % BITS))
}
