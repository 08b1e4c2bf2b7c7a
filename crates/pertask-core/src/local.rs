//! Each thread's own [`Cpu`] of a [`System`]: found without a lock, and given back when the thread ends.

use crate::cpu::{Cpu, CpuRecord};
use crate::system::System;
use std::cell::{Cell, RefCell};
use std::ptr::{self, NonNull};

thread_local! {
    /// The thread's CPU of the program's system. `None` before its first use.
    ///
    /// INVARIANT: a box that is neither moved nor freed until this is `None` again. The thread-local needs no destructor, so
    /// the thread can use it until its very end.
    static CURRENT: Cell<Option<NonNull<Cpu>>> = const { Cell::new(None) };
    static OWNER: Owner = const { Owner(RefCell::new(Vec::new())) };
}

/// The CPUs of this thread, each of a different system. The drop takes them offline.
///
/// INVARIANT: each is a box, which is neither moved nor freed until the thread ends.
struct Owner(RefCell<Vec<NonNull<Cpu>>>);

impl Drop for Owner {
    fn drop(&mut self) {
        CURRENT.set(None);
        for cpu in self.0.take() {
            // SAFETY: every borrow was on this thread and has ended, except those of suspended runs.
            unsafe { Cpu::end_boxed(cpu) };
        }
    }
}

impl Cpu {
    /// Calls `f` with this thread's CPU of [`System::global`].
    ///
    /// The first call makes the thread a CPU until the thread ends. An ending thread that has already given its CPU back
    /// becomes a new CPU for the rest of its life.
    #[inline(always)]
    pub fn with<R>(f: impl FnOnce(&Cpu) -> R) -> R {
        let cpu = CURRENT.get().unwrap_or_else(begin);
        // SAFETY: the CPU is neither moved nor freed until the thread ends; `f` runs on this thread, so it has returned by
        // then.
        f(unsafe { cpu.as_ref() })
    }

    /// The record of this thread's CPU of [`System::global`], if the thread is a CPU by now.
    ///
    /// Unlike [`with`](Self::with) it makes no CPU. It neither allocates nor waits, so a global allocator may call it at any
    /// moment of the thread.
    ///
    /// ```
    /// use pertask_core::Cpu;
    ///
    /// std::thread::spawn(|| {
    ///     assert!(Cpu::record_here().is_none());
    ///     let index = Cpu::with(|cpu| cpu.record().index());
    ///     assert_eq!(Cpu::record_here().map(|record| record.index()), Some(index));
    /// })
    /// .join()
    /// .unwrap();
    /// ```
    #[must_use]
    pub fn record_here() -> Option<&'static CpuRecord> {
        // SAFETY: by `CURRENT`'s invariant the CPU lives as long as it is there.
        CURRENT.get().map(|cpu| unsafe { cpu.as_ref() }.record())
    }
}

impl Cpu {
    /// Calls `f` with this thread's CPU of [`System::global`], if the thread is one.
    ///
    /// Unlike [`with`](Self::with), this makes no CPU of a thread that has run no task.
    #[inline]
    pub fn try_with<R>(f: impl FnOnce(&Cpu) -> R) -> Option<R> {
        // SAFETY: as in `with`: the CPU lives until the thread ends, and `f` runs on this thread.
        CURRENT.get().map(|cpu| f(unsafe { cpu.as_ref() }))
    }
}

/// Makes the thread a CPU of the program's system.
#[cold]
#[inline(never)]
fn begin() -> NonNull<Cpu> {
    let cpu = find_or_make(System::global()).unwrap_or_else(late);
    CURRENT.set(Some(cpu));
    cpu
}

/// Makes a CPU for an ending thread, whose thread-locals are being destroyed and whose `OWNER` is gone.
fn late() -> NonNull<Cpu> {
    let cpu = boxed(System::global());
    // Stored before `tell_online`, so that `Cpu::with` in a PMU's `cpu_online` finds it.
    CURRENT.set(Some(cpu));
    very_last::keep(cpu);
    // SAFETY: the CPU was just made, and lives until the thread ends.
    unsafe { cpu.as_ref() }.tell_online();
    cpu
}

/// The last code that a thread runs, after the destructors of its thread-locals: the destructors of POSIX keys.
#[cfg(unix)]
mod very_last {
    use super::{CURRENT, Cpu};
    use std::ffi::c_void;
    use std::ptr::NonNull;
    use std::sync::OnceLock;

    /// `None` if the process has too many keys.
    static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();

    /// Ends `cpu` after the thread has destroyed its thread-locals. If that is impossible, the CPU stays online for good.
    pub(super) fn keep(cpu: NonNull<Cpu>) {
        let new_key = || {
            let mut key = 0;
            // SAFETY: the call only writes the key.
            (unsafe { libc::pthread_key_create(&raw mut key, Some(end)) } == 0).then_some(key)
        };
        if let Some(key) = KEY.get_or_init(new_key) {
            // SAFETY: the key was created, and is never deleted.
            unsafe { libc::pthread_setspecific(*key, cpu.as_ptr().cast()) };
        }
    }

    unsafe extern "C" fn end(cpu: *mut c_void) {
        CURRENT.set(None);
        if let Some(cpu) = NonNull::new(cpu.cast::<Cpu>()) {
            // SAFETY: the pointer is the one given to `keep`; every borrow of the CPU has ended, except those of suspended
            // runs.
            unsafe { Cpu::end_boxed(cpu) };
        }
    }
}

#[cfg(not(unix))]
mod very_last {
    pub(super) fn keep(_: std::ptr::NonNull<super::Cpu>) {}
}

impl System {
    /// Calls `f` with this thread's CPU of this system.
    ///
    /// The first call makes the thread a CPU of the system until the thread ends. For the program's system, [`Cpu::with`] is a
    /// little faster.
    ///
    /// ```
    /// use pertask_core::{Cpu, System};
    ///
    /// let system = System::leak();
    /// let index = system.with_cpu(|cpu| cpu.record().index());
    /// assert_eq!(system.with_cpu(|cpu| cpu.record().index()), index);
    /// assert_eq!(System::global().with_cpu(|cpu| cpu.tag()), Cpu::with(|cpu| cpu.tag()));
    /// ```
    pub fn with_cpu<R>(&'static self, f: impl FnOnce(&Cpu) -> R) -> R {
        if ptr::eq(self, System::global()) {
            return Cpu::with(f);
        }
        match find_or_make(self) {
            // SAFETY: the CPU is neither moved nor freed until the thread ends; `f` runs on this thread, so it has returned by
            // then.
            Some(cpu) => f(unsafe { cpu.as_ref() }),
            // The thread is ending.
            None => f(&Cpu::new(self)),
        }
    }
}

/// The thread's CPU of a system, made if it does not exist. `None` if the thread is ending.
fn find_or_make(system: &'static System) -> Option<NonNull<Cpu>> {
    let find = |owner: &Owner| {
        let cpus = owner.0.borrow();
        // SAFETY: by `Owner`'s invariant, the box is not freed until the thread ends.
        cpus.iter().copied().find(|cpu| unsafe { cpu.as_ref() }.record().is_of(system))
    };
    if let Some(found) = OWNER.try_with(find).ok()? {
        return Some(found);
    }
    let cpu = boxed(system);
    let is_kept = OWNER.try_with(|owner| owner.0.borrow_mut().push(cpu)).is_ok();
    debug_assert!(is_kept, "it was there a moment ago");
    // After the push, so that `with_cpu` in a PMU's `cpu_online` finds the CPU.
    // SAFETY: by `Owner`'s invariant, the box is not freed until the thread ends.
    unsafe { cpu.as_ref() }.tell_online();
    Some(cpu)
}

fn boxed(system: &'static System) -> NonNull<Cpu> {
    let cpu = Box::into_raw(Box::new(Cpu::claim(system)));
    // SAFETY: the pointer of a box is never null.
    unsafe { NonNull::new_unchecked(cpu) }
}
