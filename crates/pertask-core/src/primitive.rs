//! The one door through which the core takes its shared-memory primitives.
//!
//! A normal build gets std's. Under the private `--cfg pertask_loom` the same names are loom's, and under
//! `--cfg pertask_shuttle` shuttle's, so that models and schedules check the code that ships and not a copy of it.

#[cfg(not(any(pertask_loom, pertask_shuttle)))]
mod imp {
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
    pub(crate) use std::thread::yield_now;
    pub(crate) use std::thread_local;
}

#[cfg(pertask_loom)]
mod imp {
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};
    pub(crate) use loom::thread::yield_now;
}

#[cfg(pertask_shuttle)]
mod imp {
    pub(crate) use shuttle::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard};
    pub(crate) use shuttle::thread::yield_now;
    pub(crate) use shuttle::thread_local;
}

pub(crate) use imp::*;

#[cfg(not(pertask_loom))]
pub(crate) use std::sync::OnceLock;

/// As std's, with a flag through which loom sees that what is found is found whole.
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

/// Atomics that are std's also in models and schedules, so that no model sees their orderings: figures, words that one thread
/// writes or a lock guards, and the places of PMUs, of which a system has too many for a model to follow.
pub(crate) mod plain {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
}

/// A number that tells this thread from all others that live; not 0.
#[cfg(not(any(pertask_loom, pertask_shuttle)))]
#[inline]
pub(crate) fn thread_token() -> usize {
    thread_local! {
        static HERE: u8 = const { 0 };
    }
    // It needs no destructor, so a thread has it to its last moment.
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

/// In models and schedules all threads are one thread of the system, and none is told apart.
#[cfg(any(pertask_loom, pertask_shuttle))]
pub(crate) fn thread_token() -> usize {
    1
}

/// Something that one thread writes often, kept off the cache lines of what others read. (Two lines: they are fetched in
/// pairs.)
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// Locks `mutex`, also when a thread has panicked while it held it.
///
/// Nothing in the core panics under a lock with its data half changed; what could is a [`Count`](crate::Count) of
/// the caller's, and a wrong count is a lesser harm to the host program than a second panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
