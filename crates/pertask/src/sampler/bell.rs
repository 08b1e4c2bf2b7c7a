//! The bell at the collector's door: a thread that begins to run tasks rings, and is looked for at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::Thread;

/// Whether a thread has begun that runs tasks.
static RUNG: AtomicBool = AtomicBool::new(false);

/// Whom to wake then. Held for a moment, and with no other lock inside.
static COLLECTOR: Mutex<Option<Thread>> = Mutex::new(None);

/// Wakes the collector, if there is one, to look for threads now.
pub(super) fn ring() {
    // Relaxed: at worst the next search is as soon as it would have been.
    RUNG.store(true, Ordering::Relaxed);
    // Not waited for: in a forked child it may be locked for ever. Who else holds it wakes the collector, or begins or ends it.
    if let Ok(Some(collector)) = COLLECTOR.try_lock().as_deref() {
        collector.unpark();
    }
}

/// Whether somebody has rung since this was asked last.
pub(super) fn was_rung() -> bool {
    // Relaxed: see `ring`.
    RUNG.swap(false, Ordering::Relaxed)
}

/// Whom to wake from now on.
pub(super) fn hang_at(collector: Option<Thread>) {
    *COLLECTOR.lock().unwrap_or_else(PoisonError::into_inner) = collector;
}
