//! Calls of foreign code: a PMU's hooks, its reads, its counts. Foreign code may panic, and the core must still finish what it
//! has begun.
//!
//! The core finishes, and then lets the panic go on to the caller, so that the author of the code sees it. If another panic is
//! already unwinding, a second one would abort the program. So the core catches the second panic and counts it.

use crate::primitive::plain::AtomicU64;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;

static SWALLOWED: AtomicU64 = AtomicU64::new(0);

/// How many panics of PMU code the core has caught because another panic was already unwinding.
#[must_use]
pub fn swallowed_panics() -> u64 {
    // Relaxed: for statistics.
    SWALLOWED.load(Ordering::Relaxed)
}

/// Calls `f` while another panic may be unwinding: a panic in `f` is caught and counted. Returns false if `f` panicked.
pub(crate) fn quietly<R>(f: impl FnOnce() -> R) -> bool {
    match catch_unwind(AssertUnwindSafe(|| drop(f()))) {
        Ok(()) => true,
        Err(panic) => {
            swallow(panic);
            false
        }
    }
}

fn swallow(panic: Box<dyn Any + Send>) {
    // Relaxed: for statistics.
    SWALLOWED.fetch_add(1, Ordering::Relaxed);
    // The payload's destructor is foreign code, too.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(second);
    }
}

/// A panic that is held back until everything is finished.
#[derive(Default)]
pub(crate) struct Delayed(Option<Box<dyn Any + Send>>);

impl Delayed {
    /// Calls `f`, and keeps its panic. Returns `None` if `f` panicked.
    pub(crate) fn call<R>(&mut self, f: impl FnOnce() -> R) -> Option<R> {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(result) => Some(result),
            Err(panic) => {
                self.keep(panic);
                None
            }
        }
    }

    fn keep(&mut self, panic: Box<dyn Any + Send>) {
        if let Some(earlier) = self.0.replace(panic) {
            swallow(earlier);
        }
    }

    /// Resumes the panic, if there was one. Call it when everything is finished.
    pub(crate) fn go_on(self) {
        let Some(panic) = self.0 else { return };
        if std::thread::panicking() { swallow(panic) } else { resume_unwind(panic) }
    }
}

/// Runs a closure if foreign code panics. Forget it when the code has returned.
pub(crate) struct OnUnwind<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnUnwind<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
