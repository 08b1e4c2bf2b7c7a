//! The thread-local pointer by which readers find a thread's record: the symbol `otel_thread_ctx_v1`.
//!
//! Rust has no stable way to give a thread-local variable a name that others can find, so the variable and the way to it are assembly. The
//! variable is in the program's static thread-local memory (the initial-exec model), which readers know.

use super::record::Record;
use std::sync::atomic::{AtomicPtr, Ordering};

core::arch::global_asm!(
    r#".pushsection .tbss, "awT", %nobits"#,
    ".p2align 3",
    ".globl otel_thread_ctx_v1",
    ".type otel_thread_ctx_v1, %tls_object",
    "otel_thread_ctx_v1:",
    ".skip 8",
    ".size otel_thread_ctx_v1, 8",
    ".popsection",
);

/// The address of this thread's variable.
#[cfg(target_arch = "x86_64")]
fn address() -> *mut *mut Record {
    let address;
    // SAFETY: the two instructions read the thread's own base, and the variable's distance from it, which the dynamic linker has put into
    // the global offset table. The second one has the form that linkers may rewrite.
    unsafe {
        core::arch::asm!(
            "mov {address}, qword ptr fs:[0]",
            "add {address}, qword ptr [rip + otel_thread_ctx_v1@GOTTPOFF]",
            address = out(reg) address,
            options(pure, readonly, nostack),
        );
    }
    address
}

/// The address of this thread's variable.
#[cfg(target_arch = "aarch64")]
fn address() -> *mut *mut Record {
    let address;
    // SAFETY: the instructions read the thread's own base, and the variable's distance from it, which the dynamic linker has put into the
    // global offset table. Those that have the variable's name have the form that linkers may rewrite.
    unsafe {
        core::arch::asm!(
            "adrp {address}, :gottprel:otel_thread_ctx_v1",
            "ldr {address}, [{address}, #:gottprel_lo12:otel_thread_ctx_v1]",
            "mrs {base}, tpidr_el0",
            "add {address}, {address}, {base}",
            address = out(reg) address,
            base = out(reg) _,
            options(pure, readonly, nostack),
        );
    }
    address
}

/// Has this thread's variable point to a record that stays, or to none.
pub(super) fn point_to(record: *const Record) {
    // SAFETY: the variable is this thread's own, has the size and alignment of a pointer, and lives as long as the thread. Nobody else in the
    // process uses it.
    let slot = unsafe { AtomicPtr::from_ptr(address()) };
    // Relaxed: a reader has stopped this thread.
    slot.store(record.cast_mut(), Ordering::Relaxed);
}

/// Whether the dynamic symbol table has the variable.
pub(super) fn is_exported() -> bool {
    // SAFETY: the name is a C string. The address of a thread-local variable that is found is not used.
    !unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"otel_thread_ctx_v1".as_ptr()) }.is_null()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    #[test]
    fn each_thread_has_its_own() {
        let read = || {
            // SAFETY: as in `point_to`.
            unsafe { AtomicPtr::from_ptr(address()) }.load(Ordering::Relaxed)
        };
        static RECORD: Record = Record::new();
        assert!(read().is_null());
        point_to(&raw const RECORD);
        assert_eq!(read().cast_const(), ptr::from_ref(&RECORD));
        std::thread::spawn(move || assert!(read().is_null())).join().unwrap();
        point_to(ptr::null());
        assert!(read().is_null());
    }
}
