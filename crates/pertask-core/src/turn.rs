//! Turns: one thread reads counts at a time, because a task records only the last walk that saw it.

use crate::primitive::plain::AtomicUsize;
use crate::primitive::{Mutex, MutexGuard, Ordering, lock, thread_token};
use std::sync::TryLockError;

/// The turn to read counts, and how many turns there have been.
///
/// The reader calls foreign code during its turn. No fork, switch or exit waits for a turn.
pub(crate) struct Turns {
    count: Mutex<u64>,
    /// The token of the thread whose turn it is, or 0.
    reader: AtomicUsize,
}

/// A turn. It ends when this is dropped.
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
    /// If this thread already has a turn, because it would wait for itself.
    pub(crate) fn begin(&self) -> Turn<'_> {
        // Relaxed: a thread finds its own token only if it stored the token itself.
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

    /// Takes a turn if no other thread has one.
    pub(crate) fn try_begin(&self) -> Option<Turn<'_>> {
        let mut count = match self.count.try_lock() {
            Ok(count) => count,
            // Foreign code panicked during an earlier turn.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        *count += 1;
        self.reader.store(thread_token(), Ordering::Relaxed);
        Some(Turn { count, reader: &self.reader })
    }
}

impl Turn<'_> {
    /// The turn's number, counted from 1.
    pub(crate) fn number(&self) -> u64 {
        *self.count
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.reader.store(0, Ordering::Relaxed);
    }
}
