//! A stack of the sampler's own for the work of a thread's handler. Unwinding takes some tens of kilobytes, which the stack that a
//! signal interrupts may not have: small threads' stacks and those of fibers do not.

use std::arch::naked_asm;
use std::ffi::c_void;
use std::ptr::{self, NonNull};

/// What unwinding may use. Measured use: 11 KB in optimised builds, 43 KB in unoptimised ones, and 32 KB in some builds with
/// link-time optimisation. A signal of the program's own may interrupt it, and its handler runs there, too.
const BYTES: usize = 192 << 10;

/// Memory below the stack that nobody may touch. No page is larger.
const GUARD: usize = 64 << 10;

/// Zeros above the stack, for whoever walks it and takes a word above the first frame for another frame.
const ABOVE: usize = 256;

/// A stack, which is never unmapped.
#[derive(Clone, Copy)]
pub(super) struct Area {
    top: NonNull<c_void>,
}

impl Area {
    /// Maps a stack, or returns `None` if there is no memory for it. Pages that are not used take no memory.
    pub(super) fn new() -> Option<Self> {
        let length = GUARD + BYTES;
        let (protection, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, anywhere, replaces no other.
        let base = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return None;
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the upper part of the mapping that was just made.
        if unsafe { libc::mprotect(base.byte_add(GUARD), BYTES, protection) } < 0 {
            // SAFETY: the mapping was just made, and nobody else knows it.
            unsafe { libc::munmap(base, length) };
            return None;
        }
        // SAFETY: near the end of the mapping.
        NonNull::new(unsafe { base.byte_add(length - ABOVE) }).map(|top| Self { top })
    }

    /// Calls `f` on this stack.
    ///
    /// # Safety
    /// Nothing may be using this stack, and `f` must not panic.
    pub(super) unsafe fn run<F: FnOnce()>(self, f: F) {
        extern "C" fn call<F: FnOnce()>(f: *mut c_void) {
            // SAFETY: `run` passes a pointer to an `Option` of this type, which it does not touch meanwhile.
            let f = unsafe { &mut *f.cast::<Option<F>>() };
            if let Some(f) = f.take() {
                f();
            }
        }
        let mut f = Some(f);
        // SAFETY: the stack is unused and large, by the caller's contract. `call` gets what it expects and returns, because `f` does
        // not panic.
        unsafe { switch((&raw mut f).cast(), call::<F>, self.top.as_ptr()) };
    }
}

/// Calls `f` with the stack pointer at `top`, which is aligned.
///
/// The frame is found by its frame pointer, and the tables say so: a handler of the program's own that interrupts `f` may walk the
/// stack from there.
///
/// # Safety
/// The memory below `top` must be an unused stack, and `f` must return.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn switch(
    argument: *mut c_void,
    f: extern "C" fn(*mut c_void),
    top: *mut c_void,
) {
    naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "mov rsp, rdx",
        "call rsi",
        "mov rsp, rbp",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
    )
}

/// As above.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn switch(
    argument: *mut c_void,
    f: extern "C" fn(*mut c_void),
    top: *mut c_void,
) {
    naked_asm!(
        ".cfi_startproc",
        "stp x29, x30, [sp, #-16]!",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset x29, -16",
        ".cfi_offset x30, -8",
        "mov x29, sp",
        ".cfi_def_cfa_register x29",
        "mov sp, x2",
        "blr x1",
        "mov sp, x29",
        ".cfi_def_cfa_register sp",
        "ldp x29, x30, [sp], #16",
        ".cfi_def_cfa_offset 0",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "ret",
        ".cfi_endproc",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn work_is_done_on_it_with_all_that_it_refers_to() {
        let area = Area::new().unwrap();
        let (mut sum, mut at) = (0_u64, 0);
        let numbers = black_box([1_u64, 2, 3, 4]);
        // SAFETY: the stack is this test's alone, and the closure does not panic.
        unsafe {
            area.run(|| {
                let large = black_box([7_u8; 16 << 10]);
                sum = numbers.iter().sum::<u64>() + u64::from(large[99]);
                at = (&raw const large).addr();
            });
        }
        assert_eq!(sum, 17);
        let top = area.top.as_ptr().addr();
        assert!((top - BYTES..top).contains(&at), "{at:#x}");
    }

    /// As a handler of the program's own does that interrupts ours.
    #[test]
    #[inline(never)]
    fn a_walk_from_there_finds_who_has_called() {
        let area = Area::new().unwrap();
        let mut walked = String::new();
        // SAFETY: the stack is this test's alone, and the closure does not panic.
        unsafe {
            area.run(|| walked = std::backtrace::Backtrace::force_capture().to_string());
        }
        assert!(walked.contains("a_walk_from_there_finds_who_has_called\n"), "{walked}");
    }

    #[test]
    fn floating_point_values_of_the_caller_survive() {
        let area = Area::new().unwrap();
        let before = black_box([1.5_f64, 2.5, 3.5]).map(|value| value * 2.0);
        let mut inside = 0.0;
        // SAFETY: the stack is this test's alone, and the closure does not panic.
        unsafe { area.run(|| inside = black_box(9.0_f64).sqrt()) };
        assert_eq!((before, inside), ([3.0, 5.0, 7.0], 3.0));
    }
}
