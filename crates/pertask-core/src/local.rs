//! Each thread's own [`Cpu`] of a [`System`]: found without a lock, returned when the thread ends.

use crate::cpu::Cpu;
use crate::system::System;
use std::cell::{Cell, RefCell};
use std::ptr::{self, NonNull};

thread_local! {
    /// The thread's CPU of the program's system. `None` before its first use.
    ///
    /// INVARIANT: a box that stays where it is until this is `None` again. It needs no destructor, so a thread has it to its
    /// last moment.
    static CURRENT: Cell<Option<NonNull<Cpu>>> = const { Cell::new(None) };
    static OWNER: Owner = const { Owner(RefCell::new(Vec::new())) };
}

/// The CPUs that a thread has, each of another system; takes them offline when the thread ends.
///
/// INVARIANT: each is a box, which stays where it is until the thread ends.
struct Owner(RefCell<Vec<NonNull<Cpu>>>);

impl Drop for Owner {
    fn drop(&mut self) {
        CURRENT.set(None);
        for cpu in self.0.take() {
            // SAFETY: whoever borrowed it has returned, for it was on this thread, but for runs that are suspended.
            unsafe { Cpu::end_boxed(cpu) };
        }
    }
}

impl Cpu {
    /// Calls `f` with this thread's CPU of [`System::global`].
    ///
    /// The first call makes the thread a CPU, and it is one until it ends. A thread that is ending, and has given its CPU
    /// back, becomes another for the rest of its life.
    #[inline(always)]
    pub fn with<R>(f: impl FnOnce(&Cpu) -> R) -> R {
        let cpu = CURRENT.get().unwrap_or_else(begin);
        // SAFETY: a CPU stays where it is until the thread ends; `f` has returned by then, because it runs on this thread.
        f(unsafe { cpu.as_ref() })
    }
}

/// Makes the thread a CPU.
#[cold]
#[inline(never)]
fn begin() -> NonNull<Cpu> {
    let cpu = find_or_make(System::global()).unwrap_or_else(late);
    CURRENT.set(Some(cpu));
    cpu
}

/// A CPU for a thread that is ending: its thread-locals are being destroyed, and `OWNER` has been.
fn late() -> NonNull<Cpu> {
    let cpu = boxed(System::global());
    // What the PMUs call finds it.
    CURRENT.set(Some(cpu));
    very_last::keep(cpu);
    // SAFETY: it has just been made.
    unsafe { cpu.as_ref() }.tell_online();
    cpu
}

/// What a thread does after it has destroyed its thread-locals: POSIX's keys.
#[cfg(unix)]
mod very_last {
    use super::{CURRENT, Cpu};
    use std::ffi::c_void;
    use std::ptr::NonNull;
    use std::sync::OnceLock;

    /// `None`: there are too many keys in this process.
    static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();

    /// Ends `cpu` when the thread has destroyed its thread-locals. Where that is not to be had, it stays online for good.
    pub(super) fn keep(cpu: NonNull<Cpu>) {
        let new_key = || {
            let mut key = 0;
            // SAFETY: writes the key.
            (unsafe { libc::pthread_key_create(&raw mut key, Some(end)) } == 0).then_some(key)
        };
        if let Some(key) = KEY.get_or_init(new_key) {
            // SAFETY: a key that was created, and is never deleted.
            unsafe { libc::pthread_setspecific(*key, cpu.as_ptr().cast()) };
        }
    }

    unsafe extern "C" fn end(cpu: *mut c_void) {
        CURRENT.set(None);
        if let Some(cpu) = NonNull::new(cpu.cast::<Cpu>()) {
            // SAFETY: what `keep` was given; whoever borrowed it has returned, but for runs that are suspended.
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
    /// The first call makes the thread a CPU of the system, and it is one until it ends. For the program's system
    /// [`Cpu::with`] is a little faster.
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
            // SAFETY: it stays where it is until the thread ends; `f` has returned by then, because it runs on this thread.
            Some(cpu) => f(unsafe { cpu.as_ref() }),
            // The thread is ending.
            None => f(&Cpu::new(self)),
        }
    }
}

/// The thread's CPU of a system. `None` if the thread is ending.
fn find_or_make(system: &'static System) -> Option<NonNull<Cpu>> {
    let find = |owner: &Owner| {
        let cpus = owner.0.borrow();
        // SAFETY: as the invariant says.
        cpus.iter().copied().find(|cpu| unsafe { cpu.as_ref() }.record().is_of(system))
    };
    if let Some(found) = OWNER.try_with(find).ok()? {
        return Some(found);
    }
    let cpu = boxed(system);
    let is_kept = OWNER.try_with(|owner| owner.0.borrow_mut().push(cpu)).is_ok();
    debug_assert!(is_kept, "it was there a moment ago");
    // Only now: what the PMUs call finds it.
    // SAFETY: as the invariant says.
    unsafe { cpu.as_ref() }.tell_online();
    Some(cpu)
}

fn boxed(system: &'static System) -> NonNull<Cpu> {
    let cpu = Box::into_raw(Box::new(Cpu::claim(system)));
    // SAFETY: a box is not null.
    unsafe { NonNull::new_unchecked(cpu) }
}
