//! What code with models shares with other threads: the standard library's here, and loom's in `pertask-models`.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
pub(crate) use std::sync::{Mutex, MutexGuard};

/// After how many tries a thread lets others run: the one that it waits for may wait for its CPU.
const PATIENT_FROM: usize = 16;

/// Passes the time before another try.
pub(crate) fn before_try(number: usize) {
    if number >= PATIENT_FROM {
        std::thread::yield_now();
    }
}

/// A static. In models, each run makes it anew.
macro_rules! global {
    ($(#[$attribute:meta])* $visible:vis static $name:ident: $of:ty = $value:expr;) => {
        $(#[$attribute])*
        $visible static $name: $of = $value;
    };
}

pub(crate) use global;
