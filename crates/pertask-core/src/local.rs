//! Each thread's own [`Cpu`] of a [`System`]: found without a lock, returned when the thread ends.

use crate::cpu::Cpu;
use crate::system::System;
use std::cell::{Cell, RefCell};
use std::ptr::{self, NonNull};

thread_local! {
    /// The thread's CPU of the program's system. `None` before its first use, and after the thread's end but for the time of
    /// a call.
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
    /// Calls `f` with this thread's CPU of [`System::global`]. The first call makes the thread one.
    ///
    /// On a thread that is ending, and has given its CPU back, it is one for the time of the call.
    #[inline(always)]
    pub fn with<R>(f: impl FnOnce(&Cpu) -> R) -> R {
        let Some(cpu) = CURRENT.get() else { return begin(f) };
        // SAFETY: a CPU stays where it is until the thread ends, or the call that made it; `f` has returned by then, because it
        // runs on this thread.
        f(unsafe { cpu.as_ref() })
    }
}

#[cold]
#[inline(never)]
fn begin<R>(f: impl FnOnce(&Cpu) -> R) -> R {
    CURRENT.set(find_or_make(System::global()));
    match CURRENT.get() {
        // SAFETY: as in `with`.
        Some(cpu) => f(unsafe { cpu.as_ref() }),
        None => for_the_time_of(f),
    }
}

/// Calls `f` with a CPU of the program's system that ends with the call: the thread is ending.
fn for_the_time_of<R>(f: impl FnOnce(&Cpu) -> R) -> R {
    /// Ends it.
    struct Ends(NonNull<Cpu>);
    impl Drop for Ends {
        fn drop(&mut self) {
            CURRENT.set(None);
            // SAFETY: whoever borrowed it has returned, but for runs that are suspended.
            unsafe { Cpu::end_boxed(self.0) };
        }
    }
    let cpu = boxed(System::global());
    let ends = Ends(cpu);
    // What is called from here on finds it.
    CURRENT.set(Some(cpu));
    // SAFETY: it ends below.
    let cpu = unsafe { ends.0.as_ref() };
    cpu.tell_online();
    f(cpu)
}

impl System {
    /// Calls `f` with this thread's CPU of this system. The first call makes the thread one.
    ///
    /// As [`Cpu::with`], which is a little faster, for a system of one's own.
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
