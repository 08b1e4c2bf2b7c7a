//! What is particular to a processor: its time-stamp counter, and the kernel's rseq area.
//!
//! # rseq as a detector
//!
//! A thread may tell the kernel of a *restartable sequence*: it stores the address of a descriptor (a range of code and
//! an abort address) into the `rseq_cs` word of its rseq area, which glibc registers for every thread. When the kernel
//! takes the CPU from the thread (preemption, migration, sleep) or delivers a signal, it reads that word before the
//! thread runs again. If the thread was inside the range, the kernel sends it to the abort address; if not, *the kernel
//! clears the word*. A system call that does not block, or a page fault that is served at once, leaves the word alone.
//!
//! So a descriptor with an empty range is a flag, because no instruction is inside the range. Once stored, the descriptor stays
//! as long as the thread keeps its CPU, and is gone if the thread did not keep it. Arming costs a store, and a look costs a
//! load.
//!
//! The kernel demands of a descriptor (`rseq_get_rseq_cs` in `kernel/rseq.c`) that its version is 0; that all addresses are in
//! user space; that the abort address is outside the range; and that the four bytes before the abort address are the signature
//! with which the area was registered. [`DESCRIPTOR`] meets each demand. The kernel ends a process with SIGSEGV for a
//! descriptor that does not, so the signature here is the one that glibc uses on this processor.
//!
//! Another user of rseq (tcmalloc, librseq) stores its own descriptors into the same word. If a thread finds one of those, it
//! does not know whether it kept its CPU. To overwrite it is harmless: such a sequence never calls us, so it is over.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

/// Checks that the processor's counter ticks evenly, whatever the CPU does. Returns an error with the reason if it does not.
pub(super) fn counter_is_steady() -> Result<(), &'static str> {
    counter::is_steady()?;
    let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    match std::fs::read_to_string(clock).unwrap_or_default().trim() {
        // Linux falls back to these when it has seen the counter go wrong.
        "hpet" | "acpi_pm" | "jiffies" | "refined-jiffies" => {
            Err("the kernel does not trust the CPU's counter")
        }
        _ => Ok(()),
    }
}

/// Reads the processor's counter.
#[inline(always)]
pub(super) fn ticks() -> u64 {
    counter::ticks()
}

/// The rate of the counter, where the processor states it.
pub(super) fn stated_ticks_a_second() -> Option<u64> {
    counter::stated_ticks_a_second()
}

#[cfg(target_arch = "x86_64")]
mod counter {
    use std::arch::x86_64::{__cpuid, _rdtsc};

    // Newer compilers take `__cpuid` for safe, 1.88 does not.
    #[allow(unused_unsafe)]
    fn cpuid(leaf: u32) -> std::arch::x86_64::CpuidResult {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { __cpuid(leaf) }
    }

    pub(super) fn is_steady() -> Result<(), &'static str> {
        const ADVANCED_POWER_MANAGEMENT: u32 = 0x8000_0007;
        const INVARIANT_TSC: u32 = 1 << 8;
        let highest = cpuid(0x8000_0000).eax;
        let invariant = highest >= ADVANCED_POWER_MANAGEMENT
            && cpuid(ADVANCED_POWER_MANAGEMENT).edx & INVARIANT_TSC != 0;
        invariant.then_some(()).ok_or("the TSC of this CPU is not invariant")
    }

    #[inline(always)]
    pub(super) fn ticks() -> u64 {
        // SAFETY: every x86-64 processor has `rdtsc`, and Linux lets user space use it.
        unsafe { _rdtsc() }
    }

    pub(super) fn stated_ticks_a_second() -> Option<u64> {
        // CPUID leaf 0x15 states it, but hardly any hypervisor fills that leaf in.
        None
    }
}

#[cfg(target_arch = "aarch64")]
mod counter {
    pub(super) fn is_steady() -> Result<(), &'static str> {
        // The architecture demands this of the generic timer.
        Ok(())
    }

    #[inline(always)]
    pub(super) fn ticks() -> u64 {
        let ticks: u64;
        // Not `nomem`, so that the compiler keeps this in its place among the looks at the detector. The processor may read the
        // counter early or late, but an interrupt comes between the same two instructions for both.
        // SAFETY: this reads `cntvct_el0`, which Linux lets user space read.
        unsafe {
            std::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nostack, preserves_flags));
        }
        ticks
    }

    pub(super) fn stated_ticks_a_second() -> Option<u64> {
        let frequency: u64;
        // SAFETY: this reads `cntfrq_el0`, which Linux lets user space read where it lets it read the counter.
        unsafe {
            std::arch::asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(nostack, preserves_flags));
        }
        (frequency != 0).then_some(frequency)
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod counter {
    pub(super) fn is_steady() -> Result<(), &'static str> {
        Err("no counter is known for this processor")
    }

    pub(super) fn ticks() -> u64 {
        0
    }

    pub(super) fn stated_ticks_a_second() -> Option<u64> {
        None
    }
}

/// The signature with which glibc registers rseq.
#[cfg(target_arch = "x86_64")]
const SIGNATURE: u32 = 0x5305_3053;
#[cfg(target_arch = "aarch64")]
const SIGNATURE: u32 = 0xd428_bc00;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const SIGNATURE: u32 = 0;

/// `struct rseq_cs` of the kernel's ABI.
#[repr(C, align(32))]
struct Descriptor {
    version: u32,
    flags: u32,
    start_ip: u64,
    post_commit_offset: u64,
    abort_ip: *const u32,
}

// SAFETY: no thread writes a descriptor, and its pointer is to an immutable static.
unsafe impl Sync for Descriptor {}

/// The signature, followed by the word that is the abort address.
static ABORT: [u32; 2] = [SIGNATURE; 2];

/// The descriptor of an empty range, in which no instruction is.
static DESCRIPTOR: Descriptor = Descriptor {
    version: 0,
    flags: 0,
    start_ip: 0x1000,
    post_commit_offset: 0,
    abort_ip: (&raw const ABORT).cast::<u32>().wrapping_add(1),
};

/// The offsets of `rseq_cs` and of `cpu_id` in `struct rseq`. `cpu_id` is negative while the kernel knows of no area.
const RSEQ_CS: isize = 8;
const CPU_ID: isize = 4;

/// The offset of each thread's rseq area from its thread pointer. Returns an error with the reason if rseq cannot be used.
pub(super) fn rseq_offset() -> Result<isize, &'static str> {
    static OFFSET: OnceLock<Result<isize, &'static str>> = OnceLock::new();
    *OFFSET.get_or_init(find_rseq_offset)
}

/// Asks glibc, which has these symbols from version 2.35 on. They are looked up at run time, so that the program links with
/// older versions.
fn find_rseq_offset() -> Result<isize, &'static str> {
    if SIGNATURE == 0 {
        return Err("rseq is not known for this processor");
    }
    let offset = symbol(c"__rseq_offset").ok_or("the C library registers no rseq area")?;
    let size = symbol(c"__rseq_size").ok_or("the C library registers no rseq area")?;
    // SAFETY: glibc defines both symbols, as constants of these types.
    let (offset, size) = unsafe { (*offset.cast::<isize>(), *size.cast::<u32>()) };
    if size == 0 {
        return Err("rseq is switched off or refused");
    }
    // SAFETY: glibc says that the area is at this offset in every thread's static TLS, and this is inside it.
    let cpu =
        unsafe { thread_pointer().wrapping_offset(offset + CPU_ID).cast::<i32>().read_volatile() };
    if cpu < 0 {
        return Err("the kernel has not registered the rseq area");
    }
    Ok(offset)
}

fn symbol(name: &std::ffi::CStr) -> Option<*mut libc::c_void> {
    // SAFETY: the name is a C string, and `RTLD_DEFAULT` is a handle.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

/// Stores our descriptor into this thread's `rseq_cs`.
#[inline(always)]
pub(super) fn rseq_arm(offset: isize) {
    rseq_cs(offset).store((&raw const DESCRIPTOR).addr() as u64, Ordering::Relaxed);
    // The fence keeps the compiler from moving what is measured before the store. The kernel reads the word on this thread.
    compiler_fence(Ordering::SeqCst);
}

/// Whether our descriptor is still there. If so, the thread has kept its CPU since the descriptor was stored.
#[inline(always)]
pub(super) fn rseq_is_armed(offset: isize) -> bool {
    compiler_fence(Ordering::SeqCst);
    rseq_cs(offset).load(Ordering::Relaxed) == (&raw const DESCRIPTOR).addr() as u64
}

/// Removes our descriptor, if it is there.
pub(super) fn rseq_disarm(offset: isize) {
    if rseq_is_armed(offset) {
        rseq_cs(offset).store(0, Ordering::Relaxed);
    }
}

#[inline(always)]
fn rseq_cs<'a>(offset: isize) -> &'a AtomicU64 {
    // SAFETY: `rseq_offset` has found the area. Every thread has it at the same offset, aligned, as long as the thread lives,
    // and no caller keeps the reference. The only other writer is the kernel, on this thread.
    unsafe { AtomicU64::from_ptr(thread_pointer().wrapping_offset(offset + RSEQ_CS).cast::<u64>()) }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn thread_pointer() -> *mut u8 {
    let pointer: *mut u8;
    // SAFETY: by the ABI, the word at `fs:0` is the thread pointer.
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags, pure, readonly));
    }
    pointer
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn thread_pointer() -> *mut u8 {
    let pointer: *mut u8;
    // SAFETY: this reads the register in which the ABI keeps the thread pointer.
    unsafe {
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, preserves_flags, pure, nomem));
    }
    pointer
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn thread_pointer() -> *mut u8 {
    std::ptr::null_mut()
}
