//! Calls of code that is not the core's: a PMU's hooks, its reads, its counts. It may panic, and what was begun here must
//! be finished all the same.
//!
//! A panic goes on to the caller once that is done, so that whoever wrote the code learns of it. Where one is on its way
//! already, a second would abort the program: such a one ends here, and is counted.

use crate::primitive::plain::AtomicU64;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;

static SWALLOWED: AtomicU64 = AtomicU64::new(0);

/// How many panics of PMUs' code have ended in the core, because another panic was on its way already.
#[must_use]
pub fn swallowed_panics() -> u64 {
    // Relaxed: a figure.
    SWALLOWED.load(Ordering::Relaxed)
}

/// Calls `f`; a panic of its ends here and is counted. For what is finished while another panic is on its way. False: it
/// panicked.
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
    // Relaxed: a figure.
    SWALLOWED.fetch_add(1, Ordering::Relaxed);
    // Its destructor is not ours, either.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(second);
    }
}

/// Panics that wait until all is finished.
#[derive(Default)]
pub(crate) struct Delayed(Option<Box<dyn Any + Send>>);

impl Delayed {
    /// Calls `f`, and keeps its panic. `None`: it panicked.
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

    /// All is finished: lets the panic go on, if there was one.
    pub(crate) fn go_on(self) {
        let Some(panic) = self.0 else { return };
        if std::thread::panicking() { swallow(panic) } else { resume_unwind(panic) }
    }
}

/// Does what must be done if code that is not ours panics. Forgotten where it has not.
pub(crate) struct OnUnwind<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnUnwind<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
