//! Each thread's own [`Cpu`] of the process-wide [`System`]: found without a lock, returned when the thread ends.

use crate::cpu::Cpu;
use crate::system::System;
use std::cell::{Cell, OnceCell};
use std::ptr;

thread_local! {
    /// The thread's CPU, or null before its first use and after the thread's end.
    static CURRENT: Cell<*const Cpu> = const { Cell::new(ptr::null()) };
    static OWNER: Owner = const { Owner(OnceCell::new()) };
}

/// Keeps the CPU where `CURRENT` points, and takes it offline when the thread ends.
struct Owner(OnceCell<Cpu>);

impl Drop for Owner {
    fn drop(&mut self) {
        CURRENT.set(ptr::null());
    }
}

impl Cpu {
    /// Calls `f` with this thread's CPU of [`System::global`].
    ///
    /// `None` is passed on a thread that is ending and has already given its CPU back: what still runs there is run
    /// without being seen.
    #[inline(always)]
    pub fn with<R>(f: impl FnOnce(Option<&Cpu>) -> R) -> R {
        let mut cpu = CURRENT.get();
        if cpu.is_null() {
            cpu = begin();
        }
        // SAFETY: null, or the CPU in `OWNER`, which stays where it is until the thread ends; `f` has returned by then,
        // because it runs on this thread.
        f(unsafe { cpu.as_ref() })
    }
}

/// Makes the thread's CPU. Null if the thread is ending.
#[cold]
#[inline(never)]
fn begin() -> *const Cpu {
    let cpu: *const Cpu = OWNER
        .try_with(|owner| ptr::from_ref(owner.0.get_or_init(|| Cpu::new(System::global()))))
        .unwrap_or(ptr::null());
    CURRENT.set(cpu);
    cpu
}
