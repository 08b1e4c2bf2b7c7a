//! What tasks say that end while a [cut](super::cut) is being read: the walk over the live tasks may not see them.

use super::count::LifeCount;
use super::data::Seen;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, fence, global};
use std::collections::HashMap;
use std::sync::PoisonError;

/// What a task that has ended had not been charged at the cut.
struct Ended {
    cut: u32,
    task: u64,
    tag: u32,
    open: LifeCount,
}

global! {
    /// The cut that is being read, with the process that reads it above it; or 0. A child that was forked meanwhile does not read it.
    static READ: AtomicU64 = AtomicU64::new(0);
}

global! {
    /// The tasks that have ended since the cut that is being read; and of the cut before, those that were about to say so as its reading
    /// ended.
    static ENDED: Mutex<Vec<Ended>> = Mutex::new(Vec::new());
}

fn ended() -> MutexGuard<'static, Vec<Ended>> {
    ENDED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_by_this_process(cut: u32) -> u64 {
    u64::from(std::process::id()) << u32::BITS | u64::from(cut)
}

/// Says that a cut is being read, before it is the latest.
pub(super) fn begin_reading(cut: u32) {
    ended().clear();
    // Relaxed: the Release in `begin_cut` orders it.
    READ.store(read_by_this_process(cut), Ordering::Relaxed);
}

pub(super) fn end_reading() {
    // Relaxed: a task that ends now leaves a line that no reading takes.
    READ.store(0, Ordering::Relaxed);
}

/// Notes a task that ends, if a cut is being read. `cut` is the latest cut as the task's last change knew it. The caller is in the
/// section of that change.
pub(super) fn note_end(task: u64, cut: u32, seen: Seen) {
    // Acquire: pairs with the Release in `begin_cut`. Whoever knows of the cut finds that it is being read.
    fence(Ordering::Acquire);
    // Relaxed: the fence orders it.
    let read = READ.load(Ordering::Relaxed);
    if read as u32 == cut && seen.tag != 0 && read == read_by_this_process(cut) {
        push(cut, task, seen.tag, seen.open);
    }
}

pub(super) fn push(cut: u32, task: u64, tag: u32, open: LifeCount) {
    ended().push(Ended { cut, task, tag, open });
}

/// The tasks that have ended since a cut and that the walk has not `seen`: what each had not been charged at the cut, and the tag that it
/// had then.
pub(super) fn unseen(
    cut: u32,
    seen: impl Iterator<Item = u64>,
) -> impl Iterator<Item = (u32, LifeCount)> {
    let of_this = std::mem::take(&mut *ended()).into_iter().filter(|ended| ended.cut == cut);
    let mut unseen: HashMap<u64, Ended> = of_this.map(|ended| (ended.task, ended)).collect();
    if !unseen.is_empty() {
        for task in seen {
            unseen.remove(&task);
        }
    }
    unseen.into_values().map(|ended| (ended.tag, ended.open))
}
