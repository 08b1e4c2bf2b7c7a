//! The one place from which the core imports its atomics, locks and thread-locals.
//!
//! In a normal build they are std's. Under the private `--cfg pertask_loom` the same names are loom's, and under
//! `--cfg pertask_shuttle` they are shuttle's, so models and schedules check the code that ships and not a copy of it.

#[cfg(not(any(pertask_loom, pertask_shuttle)))]
mod imp {
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
    pub(crate) use std::thread::yield_now;
    pub(crate) use std::thread_local;
}

#[cfg(pertask_loom)]
mod imp {
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};
    pub(crate) use loom::thread::yield_now;
}

#[cfg(pertask_shuttle)]
mod imp {
    pub(crate) use shuttle::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard};
    pub(crate) use shuttle::thread::yield_now;
    pub(crate) use shuttle::thread_local;
}

pub(crate) use imp::*;

#[cfg(not(pertask_loom))]
pub(crate) use std::sync::OnceLock;

/// std's `OnceLock`, with a flag that shows loom the ordering: a thread that gets the value sees it fully initialised.
#[cfg(pertask_loom)]
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    is_set: AtomicBool,
    making: Mutex<()>,
}

#[cfg(pertask_loom)]
impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self {
            value: std::sync::OnceLock::new(),
            is_set: AtomicBool::new(false),
            making: Mutex::new(()),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.is_set.load(Ordering::Acquire).then(|| self.value.get()).flatten()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let result = self.value.set(value);
        self.is_set.store(true, Ordering::Release);
        result
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if !self.is_set.load(Ordering::Acquire) {
            let _making = lock(&self.making);
            self.value.get_or_init(make);
            self.is_set.store(true, Ordering::Release);
        }
        self.value.get().expect("it has been set")
    }
}

#[cfg(pertask_loom)]
impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Atomics that are std's even in models and schedules, so no model sees their orderings.
///
/// They are for statistics, for words that only one thread writes or a lock guards, and for the system's array of PMUs, which
/// has too many words for a model to explore.
pub(crate) mod plain {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
}

/// A nonzero number that identifies this thread among all live threads.
#[cfg(not(any(pertask_loom, pertask_shuttle)))]
#[inline]
pub(crate) fn thread_token() -> usize {
    thread_local! {
        static HERE: u8 = const { 0 };
    }
    // The thread-local needs no destructor, so the thread can use it until its very end.
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

/// In models and schedules all threads run on one thread of the system and share one token.
#[cfg(any(pertask_loom, pertask_shuttle))]
pub(crate) fn thread_token() -> usize {
    1
}

/// A value that one thread writes often, kept off the cache lines that other threads read.
///
/// It fills two lines, because the processor prefetches lines in pairs.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// Locks `mutex`, even if a thread panicked while it held the lock.
///
/// The core never panics under a lock with its data half changed. A caller's [`Count`](crate::Count) could, but a wrong count
/// harms the host program less than a second panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
