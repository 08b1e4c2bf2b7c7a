//! Who holds the locks that tasks wait for, where the runtime says who takes them.
//!
//! A lock that is free is taken without a waker, so nothing of a wait tells who has it. tokio's own instrumentation does.

use super::accounts::can_look_up;
use crate::pmus::waits;
use pertask_core::{Cpu, SpawnPath};
use std::num::NonZeroU64;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The locks that there are, by the numbers that the runtime's instrumentation gives them.
static LOCKS: LazyLock<papaya::HashMap<NonZeroU64, Lock>> = LazyLock::new(papaya::HashMap::new);

/// In the lower half, how many guards of the lock there are; in the upper half, the spawn path of the task that took it last, as its
/// number plus one, or 0 if that was no task.
///
/// The next one may say that it has taken the lock before the last one says that it has dropped its guard. So there may be two guards for
/// a moment, and the last one to say that it took the lock has it.
struct Lock(AtomicU64);

/// Takes in a new lock, which nobody holds.
pub(super) fn made(lock: NonZeroU64) {
    if can_look_up() {
        waits::expect_locks();
        LOCKS.pin().insert(lock, Lock(AtomicU64::new(0)));
    }
}

/// Forgets a lock that is no more.
pub(super) fn gone(lock: NonZeroU64) {
    if can_look_up() {
        LOCKS.pin().remove(&lock);
    }
}

/// Notes that the running task has taken a lock.
pub(super) fn taken(lock: NonZeroU64) {
    let by = Cpu::try_with(|cpu| cpu.path().map(SpawnPath::id)).flatten();
    let by = by.map_or(0, |path| u64::from(path) + 1) << u32::BITS;
    change(lock, |word| by | u64::from((word as u32).saturating_add(1)));
}

/// Notes that a guard of a lock is dropped. A new lock says so, too, before anybody takes it.
pub(super) fn released(lock: NonZeroU64) {
    change(lock, |word| word - u64::from(word as u32 > 0));
}

/// Notes that the running task asks for a lock, or does something else with it.
pub(super) fn entered(lock: NonZeroU64) {
    if is_wanted(lock) {
        waits::begin_lock();
    }
}

/// Notes that the running task waits for the lock that it has asked for.
pub(super) fn awaited(lock: NonZeroU64) {
    if is_wanted(lock) {
        waits::note_lock(lock);
    }
}

/// Whether this is a lock, and somebody wants to know who waits for locks.
fn is_wanted(number: NonZeroU64) -> bool {
    waits::are_sampled() && can_look_up() && LOCKS.pin().contains_key(&number)
}

/// The number of the spawn path of the task that holds a lock, if a task does.
pub(crate) fn holder(lock: NonZeroU64) -> Option<u32> {
    let locks = LOCKS.pin();
    // Relaxed: one word says all.
    let word = locks.get(&lock)?.0.load(Ordering::Relaxed);
    if word as u32 == 0 { None } else { ((word >> u32::BITS) as u32).checked_sub(1) }
}

fn change(lock: NonZeroU64, to: impl Fn(u64) -> u64) {
    if can_look_up()
        && let Some(Lock(word)) = LOCKS.pin().get(&lock)
    {
        // Relaxed, both: one word says all.
        let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Some(to(word)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Job;

    #[test]
    fn the_last_one_that_took_a_lock_has_it_until_all_guards_are_dropped() {
        let lock = NonZeroU64::MAX;
        made(lock);
        released(lock);
        assert_eq!(holder(lock), None, "a new one says that it is free");
        let (mut first, mut second) = (Job::new("first"), Job::new("second"));
        let mut path = 0;
        first.run(|| taken(lock));
        second.run(|| {
            taken(lock);
            path = Cpu::with(|cpu| cpu.path().map(SpawnPath::id)).unwrap();
        });
        first.run(|| released(lock));
        assert_eq!(holder(lock), Some(path), "the first one said late that it has dropped it");
        // The guard may have moved to another task, or to none.
        released(lock);
        assert_eq!(holder(lock), None);
        taken(lock);
        assert_eq!(holder(lock), None, "no task has it");
        gone(lock);
        taken(lock);
        assert_eq!(holder(lock), None);
    }
}
