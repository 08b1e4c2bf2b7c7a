//! Whether anybody wants to know what threads allocate: the one word that the allocator loads at each call.

use super::place;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The number of the epoch in which threads count, or 0 while they do not. No number comes twice.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// How many want threads to count, and the number of the last epoch.
static WANTED: Mutex<(usize, u64)> = Mutex::new((0, 0));

fn wanted() -> MutexGuard<'static, (usize, u64)> {
    WANTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The epoch, or 0 while nobody wants threads to count.
#[inline(always)]
pub(super) fn now() -> u64 {
    // Relaxed: a thread that has heard of the beginning, or of the end, in any way that orders memory finds the new number.
    EPOCH.load(Ordering::Relaxed)
}

/// While a value of this type lives, threads count what they allocate and free.
///
/// INVARIANT: whoever wants counts by task has attached an event before, and detaches it afterwards: then each poll that begins
/// while threads count is seen, and a thread that is found to run no task has not begun one unseen.
#[derive(Debug)]
pub(crate) struct Counting(());

impl Counting {
    pub(crate) fn begin() -> Self {
        let mut wanted = wanted();
        if wanted.0 == 0 {
            open(&mut wanted);
        }
        wanted.0 += 1;
        Self(())
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let mut wanted = wanted();
        wanted.0 -= 1;
        if wanted.0 == 0 {
            close();
        }
    }
}

fn open(wanted: &mut (usize, u64)) {
    wanted.1 += 1;
    // Relaxed: see `now`.
    EPOCH.store(wanted.1, Ordering::Relaxed);
}

fn close() {
    // Relaxed: see `now`.
    EPOCH.store(0, Ordering::Relaxed);
}

/// Whether the program's memory comes from an allocator that counts, found by allocating.
pub(crate) fn is_possible() -> bool {
    in_an_epoch(|| drop(black_box(Box::new(0_u8))));
    place::is_asked_for()
}

/// Calls `allocate` while threads count. If nobody wants them to, it is in an epoch of its own, which nobody else counts in.
///
/// No event need be attached, so a thread may find in that epoch that it runs no task, and then begin one unseen. If somebody began to
/// count in the same epoch, the thread would go on counting at the wrong place. So whoever begins or ends meanwhile waits here. The
/// allocator does not take this lock.
fn in_an_epoch(allocate: impl FnOnce()) {
    let mut wanted = wanted();
    let is_own = wanted.0 == 0;
    if is_own {
        open(&mut wanted);
    }
    allocate();
    if is_own {
        close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    /// One test at a time counts.
    static TURN: Mutex<()> = Mutex::new(());

    #[test]
    fn who_begins_while_the_allocator_is_tried_has_another_epoch() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut of_trial, (tell, told)) = (0, mpsc::channel());
        let mut other = None;
        in_an_epoch(|| {
            of_trial = now();
            other = Some(thread::spawn(move || {
                tell.send(()).unwrap();
                let _counting = Counting::begin();
                now()
            }));
            told.recv().unwrap();
            // Long enough for it to begin, if it could.
            thread::sleep(Duration::from_millis(50));
        });
        let of_other = other.unwrap().join().unwrap();
        assert!(of_trial != 0 && of_other > of_trial, "{of_trial}, {of_other}");
        let _counting = Counting::begin();
        let epoch = now();
        in_an_epoch(|| assert_eq!(now(), epoch, "it is open already"));
        assert_eq!(now(), epoch, "and stays so");
    }

    #[test]
    fn threads_count_while_anybody_wants_it_and_each_time_is_another_epoch() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(now(), 0);
        let first = Counting::begin();
        let epoch = now();
        assert_ne!(epoch, 0);
        let second = Counting::begin();
        drop(first);
        assert_eq!(now(), epoch, "one goes on");
        drop(second);
        assert_eq!(now(), 0);
        let _third = Counting::begin();
        assert!(now() > epoch);
    }
}
