//! Turns: one reader of counts at a time, because a task remembers only the last walk that has seen it.

use crate::primitive::plain::AtomicUsize;
use crate::primitive::{Mutex, MutexGuard, Ordering, lock, thread_token};
use std::sync::TryLockError;

/// Whose turn it is to read, and how many turns there have been.
///
/// The reader calls code that is not ours while it has its turn. No fork, switch or end of a task waits for one.
pub(crate) struct Turns {
    count: Mutex<u64>,
    /// The token of the thread whose turn it is, or 0.
    reader: AtomicUsize,
}

/// A turn, which ends when this is dropped.
pub(crate) struct Turn<'a> {
    count: MutexGuard<'a, u64>,
    reader: &'a AtomicUsize,
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self { count: Mutex::new(0), reader: AtomicUsize::new(0) }
    }

    /// Waits for a turn.
    ///
    /// # Panics
    /// On a thread that has one already: it would wait for itself.
    pub(crate) fn begin(&self) -> Turn<'_> {
        // Relaxed: a thread finds its own token only if it has put it there.
        let own = cfg!(not(any(pertask_loom, pertask_shuttle)))
            && self.reader.load(Ordering::Relaxed) == thread_token();
        assert!(
            !own,
            "counts are read inside a read of the same counts: by a closure, or by the PMU"
        );
        let mut count = lock(&self.count);
        *count += 1;
        self.reader.store(thread_token(), Ordering::Relaxed);
        Turn { count, reader: &self.reader }
    }

    /// A turn, if it is nobody's.
    pub(crate) fn try_begin(&self) -> Option<Turn<'_>> {
        let mut count = match self.count.try_lock() {
            Ok(count) => count,
            // Code that is not ours has panicked in its turn.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        *count += 1;
        self.reader.store(thread_token(), Ordering::Relaxed);
        Some(Turn { count, reader: &self.reader })
    }
}

impl Turn<'_> {
    /// Its number, counted from 1.
    pub(crate) fn number(&self) -> u64 {
        *self.count
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.reader.store(0, Ordering::Relaxed);
    }
}
