//! The collector's bell. A thread that begins to run tasks rings it, and the collector looks for the thread at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::Thread;

/// Whether a thread has rung since the collector's last look.
static RUNG: AtomicBool = AtomicBool::new(false);

/// The collector to wake. Threads hold this lock for a moment only, and take no other lock while they hold it.
static COLLECTOR: Mutex<Option<Thread>> = Mutex::new(None);

/// Wakes the collector, if there is one, to look for new threads now.
pub(super) fn ring() {
    // Relaxed: at worst, the next search comes no sooner than without the bell.
    RUNG.store(true, Ordering::Relaxed);
    // `try_lock`, because in a forked child the lock may be held for ever. A thread that holds it now wakes the collector,
    // starts it, or ends it.
    if let Ok(Some(collector)) = COLLECTOR.try_lock().as_deref() {
        collector.unpark();
    }
}

/// Whether a thread has rung since the last call.
pub(super) fn was_rung() -> bool {
    // Relaxed: see `ring`.
    RUNG.swap(false, Ordering::Relaxed)
}

/// Sets the collector to wake from now on.
pub(super) fn hang_at(collector: Option<Thread>) {
    *COLLECTOR.lock().unwrap_or_else(PoisonError::into_inner) = collector;
}
