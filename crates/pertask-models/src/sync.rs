//! loom's, in place of the standard library's.

pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
pub(crate) use loom::sync::{Mutex, MutexGuard};

/// Passes the time before another try, which only another thread can make succeed.
pub(crate) fn before_try(number: usize) {
    if number > 0 {
        loom::thread::yield_now();
    }
}

/// A static, which each run of a model makes anew.
macro_rules! global {
    ($(#[$attribute:meta])* $visible:vis static $name:ident: $of:ty = $value:expr;) => {
        loom::lazy_static! {
            $(#[$attribute])*
            static ref $name: $of = $value;
        }
    };
}

pub(crate) use global;
