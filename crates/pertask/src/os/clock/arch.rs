//! What is particular to a processor: its time-stamp counter, and the kernel's rseq area.
//!
//! # rseq as a detector
//!
//! A thread may tell the kernel of a *restartable sequence*: it stores the address of a descriptor (a range of code and
//! an abort address) into the `rseq_cs` word of its rseq area, which glibc registers for every thread. When the kernel
//! takes the CPU from the thread (preemption, migration, sleep) or delivers a signal, it looks at that word before the
//! thread runs again. If the thread stood inside the range, it is sent to the abort address; if not, *the kernel
//! clears the word*. A system call that does not block, or a page fault that is served at once, leaves it alone.
//!
//! So a descriptor whose range is empty, which no instruction can stand in, is a flag: stored once, it stays as long as
//! the thread keeps its CPU, and is gone when it did not. It costs a store to arm and a load to look at.
//!
//! The kernel's demands on a descriptor (`rseq_get_rseq_cs` in `kernel/rseq.c`), each kept by [`DESCRIPTOR`]: version 0;
//! all addresses in user space; the abort address outside the range; and the four bytes before the abort address are
//! the signature that the area was registered with. A descriptor that breaks one of these costs the process a SIGSEGV,
//! so the signature is checked here against the one that glibc uses on this processor.
//!
//! A foreign user of rseq (tcmalloc, librseq) stores its own descriptors into the same word. Finding one means: not known
//! whether the thread kept its CPU. Overwriting it is harmless: foreign sequences do not call us, so theirs is over.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

/// Whether the processor's counter ticks evenly, whatever the CPU does. Err: why not.
pub(super) fn counter_is_steady() -> Result<(), &'static str> {
    counter::is_steady()?;
    let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    match std::fs::read_to_string(clock).unwrap_or_default().trim() {
        // What Linux falls back to when it has caught the counter cheating.
        "hpet" | "acpi_pm" | "jiffies" | "refined-jiffies" => {
            Err("the kernel does not trust the CPU's counter")
        }
        _ => Ok(()),
    }
}

/// The processor's counter.
#[inline(always)]
pub(super) fn ticks() -> u64 {
    counter::ticks()
}

/// The counter's rate as the processor states it, where it does.
pub(super) fn stated_ticks_a_second() -> Option<u64> {
    counter::stated_ticks_a_second()
}

#[cfg(target_arch = "x86_64")]
mod counter {
    use std::arch::x86_64::{__cpuid, _rdtsc};

    pub(super) fn is_steady() -> Result<(), &'static str> {
        const ADVANCED_POWER_MANAGEMENT: u32 = 0x8000_0007;
        const INVARIANT_TSC: u32 = 1 << 8;
        let highest = __cpuid(0x8000_0000).eax;
        let invariant = highest >= ADVANCED_POWER_MANAGEMENT
            && __cpuid(ADVANCED_POWER_MANAGEMENT).edx & INVARIANT_TSC != 0;
        invariant.then_some(()).ok_or("the TSC of this CPU is not invariant")
    }

    #[inline(always)]
    pub(super) fn ticks() -> u64 {
        // SAFETY: every x86-64 has it, and Linux lets user space read it.
        unsafe { _rdtsc() }
    }

    pub(super) fn stated_ticks_a_second() -> Option<u64> {
        // CPUID leaf 0x15 would, but hardly a hypervisor fills it.
        None
    }
}

#[cfg(target_arch = "aarch64")]
mod counter {
    pub(super) fn is_steady() -> Result<(), &'static str> {
        // The architecture demands it of the generic timer.
        Ok(())
    }

    #[inline(always)]
    pub(super) fn ticks() -> u64 {
        let ticks: u64;
        // Not `nomem`: it keeps its place among the looks at the detector. The processor may read the counter early or late,
        // but an interrupt comes between the same two instructions for both.
        // SAFETY: reads a register that Linux lets user space read.
        unsafe {
            std::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nostack, preserves_flags));
        }
        ticks
    }

    pub(super) fn stated_ticks_a_second() -> Option<u64> {
        let frequency: u64;
        // SAFETY: reads a register that Linux lets user space read together with the counter.
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

// SAFETY: never changes.
unsafe impl Sync for Descriptor {}

/// The signature, and an address behind it.
static ABORT: [u32; 2] = [SIGNATURE; 2];

/// Matches no instruction: its range is empty.
static DESCRIPTOR: Descriptor = Descriptor {
    version: 0,
    flags: 0,
    start_ip: 0x1000,
    post_commit_offset: 0,
    abort_ip: (&raw const ABORT).cast::<u32>().wrapping_add(1),
};

/// Where `rseq_cs` stands in `struct rseq`, and `cpu_id`, which is negative while the kernel knows of no area.
const RSEQ_CS: isize = 8;
const CPU_ID: isize = 4;

/// Where each thread's rseq area is, from its thread pointer. Err: why rseq cannot be used.
pub(super) fn rseq_offset() -> Result<isize, &'static str> {
    static OFFSET: OnceLock<Result<isize, &'static str>> = OnceLock::new();
    *OFFSET.get_or_init(find_rseq_offset)
}

/// glibc 2.35 and later say it; looked up at run time, so that older ones still link.
fn find_rseq_offset() -> Result<isize, &'static str> {
    if SIGNATURE == 0 {
        return Err("rseq is not known for this processor");
    }
    let offset = symbol(c"__rseq_offset").ok_or("the C library registers no rseq area")?;
    let size = symbol(c"__rseq_size").ok_or("the C library registers no rseq area")?;
    // SAFETY: glibc defines both, of these types.
    let (offset, size) = unsafe { (*offset.cast::<isize>(), *size.cast::<u32>()) };
    if size == 0 {
        return Err("rseq is switched off or refused");
    }
    // SAFETY: the area is in this thread's static TLS.
    let cpu =
        unsafe { thread_pointer().wrapping_offset(offset + CPU_ID).cast::<i32>().read_volatile() };
    if cpu < 0 {
        return Err("the kernel has not registered the rseq area");
    }
    Ok(offset)
}

fn symbol(name: &std::ffi::CStr) -> Option<*mut libc::c_void> {
    // SAFETY: a name that ends with a zero; the default search order.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

/// Stores our descriptor into this thread's `rseq_cs`.
#[inline(always)]
pub(super) fn rseq_arm(offset: isize) {
    rseq_cs(offset).store((&raw const DESCRIPTOR).addr() as u64, Ordering::Relaxed);
    // What is measured comes after, for the compiler; the kernel's look is on this thread.
    compiler_fence(Ordering::SeqCst);
}

/// Whether our descriptor is still there: the thread has kept its CPU since it was stored.
#[inline(always)]
pub(super) fn rseq_is_armed(offset: isize) -> bool {
    compiler_fence(Ordering::SeqCst);
    rseq_cs(offset).load(Ordering::Relaxed) == (&raw const DESCRIPTOR).addr() as u64
}

/// Takes our descriptor away, if it is there.
pub(super) fn rseq_disarm(offset: isize) {
    if rseq_is_armed(offset) {
        rseq_cs(offset).store(0, Ordering::Relaxed);
    }
}

#[inline(always)]
fn rseq_cs<'a>(offset: isize) -> &'a AtomicU64 {
    // SAFETY: `rseq_offset` has found the area, which every thread has at the same offset, aligned, for its lifetime; the
    // reference is not kept. The other writer is the kernel, on this thread.
    unsafe { AtomicU64::from_ptr(thread_pointer().wrapping_offset(offset + RSEQ_CS).cast::<u64>()) }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn thread_pointer() -> *mut u8 {
    let pointer: *mut u8;
    // SAFETY: the ABI keeps the thread pointer in the first word of the TLS block.
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags, pure, readonly));
    }
    pointer
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn thread_pointer() -> *mut u8 {
    let pointer: *mut u8;
    // SAFETY: reads the register in which the ABI keeps the thread pointer.
    unsafe {
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, preserves_flags, pure, nomem));
    }
    pointer
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn thread_pointer() -> *mut u8 {
    std::ptr::null_mut()
}
