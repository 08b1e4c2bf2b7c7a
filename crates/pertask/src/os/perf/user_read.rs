//! Reading a counter in user space, by the kernel's page protocol (`perf_event_mmap_page` in `linux/perf_event.h`).
//!
//! The page has these fields, under its sequence lock. `index` minus one is the processor's counter in which the event runs;
//! `index` is 0 while the event does not run, or user space may not read counters. `offset` is the event's count without the
//! counter's value. The counter is `pmc_width` bits wide, and signed.
//!
//! The read faults in two cases:
//! - The thread moves, between the load of `index` and the instruction, to a core of another kind that does not allow the
//!   counter. So user space reads nothing on machines with several kinds of cores ([`cores_are_alike`]).
//! - A privileged user forbids user-space reads (`/sys/devices/cpu/rdpmc`, arm64's `kernel.perf_user_access`) while an event
//!   runs, and the thread reads in the moment before the page says so. The kernel's contract allows this.
//!   `PERTASK_COUNTERS=read` makes all reads system calls.

use perf_event_open_sys::bindings::perf_event_mmap_page;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, compiler_fence};

/// What a page says about its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) count: u64,
    /// The times at which the kernel last wrote the page. Since then, the event has run all the time.
    pub(super) enabled_ns: u64,
    pub(super) running_ns: u64,
}

/// `cap_user_rdpmc` in the page's capabilities.
const USER_RDPMC: u64 = 1 << 2;

/// The number of tries. After so many, the read gives up, because the page seems to change without end.
const TRIES: usize = 16;

/// Reads the page. `counter` reads the processor's counter with a given number.
///
/// # Safety
/// The page must be mapped. The calling thread must be the event's, or `counter` must be able to read any number.
#[inline(always)]
pub(super) unsafe fn read(
    page: NonNull<perf_event_mmap_page>,
    counter: impl Fn(u32) -> Option<u64>,
) -> Option<Reading> {
    let page = page.as_ptr();
    for _ in 0..TRIES {
        // SAFETY: the fields are in the page, which is mapped, by the caller's contract. The loads are volatile, because the
        // kernel may write at any time. It writes on this thread's CPU, so only the order of this thread's loads matters.
        unsafe {
            let sequence = (&raw const (*page).lock).read_volatile();
            compiler_fence(Ordering::SeqCst);
            let allowed = (&raw const (*page).__bindgen_anon_1).cast::<u64>().read_volatile();
            let index = (&raw const (*page).index).read_volatile();
            let offset = (&raw const (*page).offset).read_volatile();
            let width = (&raw const (*page).pmc_width).read_volatile();
            let enabled_ns = (&raw const (*page).time_enabled).read_volatile();
            let running_ns = (&raw const (*page).time_running).read_volatile();
            let runs = allowed & USER_RDPMC != 0 && index != 0 && (1..=64).contains(&width);
            let raw = if runs { counter(index - 1) } else { None };
            compiler_fence(Ordering::SeqCst);
            if (&raw const (*page).lock).read_volatile() == sequence {
                let count = offset.wrapping_add(sign_extended(raw?, width)).cast_unsigned();
                return Some(Reading { count, enabled_ns, running_ns });
            }
        }
    }
    None
}

/// Whether all CPUs have the same kind of counters, so that a thread can read them on any CPU.
///
/// Where there are several kinds of cores, and on arm64, the PMU of a kind of cores lists its CPUs in the file `cpus` in sysfs.
/// Other PMUs (uncore) have another file for that.
pub(super) fn cores_are_alike() -> bool {
    let read =
        |path: PathBuf| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let all =
        ["online", "possible"].map(|set| read(Path::new("/sys/devices/system/cpu").join(set)));
    let Ok(pmus) = std::fs::read_dir("/sys/bus/event_source/devices") else { return false };
    let mut cores = pmus.filter_map(|pmu| read(pmu.ok()?.path().join("cpus")));
    cores.all(|cpus| all.iter().any(|all| all.as_ref() == Some(&cpus)))
}

/// The value of a counter of this width, whose highest bit is its sign.
fn sign_extended(raw: u64, width: u16) -> i64 {
    let unused = 64 - u32::from(width);
    (raw << unused).cast_signed() >> unused
}

/// Reads the processor's counter with this number, which the kernel must have named in the page of an event that runs on this
/// thread.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn counter(number: u32) -> Option<u64> {
    let (low, high): (u32, u32);
    // SAFETY: the kernel has named the counter in the page, so user space may read it.
    unsafe {
        std::arch::asm!("rdpmc", in("ecx") number, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    Some(u64::from(high) << 32 | u64::from(low))
}

/// Reads the processor's counter with this number, which the kernel must have named in the page of an event that runs on this
/// thread.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) fn counter(number: u32) -> Option<u64> {
    macro_rules! read {
        ($($register:literal)*) => {{
            let value: u64;
            // SAFETY: the kernel has named the counter in the page, so user space may read it.
            unsafe {
                std::arch::asm!(concat!("mrs {}, ", $($register),*), out(reg) value, options(nomem, nostack, preserves_flags));
            }
            Some(value)
        }};
    }
    // The instruction contains the register's number.
    macro_rules! counters {
        ($($number:literal)*) => {
            match number {
                $($number => read!("pmevcntr" $number "_el0"),)*
                31 => read!("pmccntr_el0"),
                _ => None,
            }
        };
    }
    counters!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30)
}

/// Reads nothing, because no instruction is known for this processor.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn counter(_: u32) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, UnsafeCell};

    /// A page that a test writes, in place of the kernel.
    struct FakePage(Box<UnsafeCell<perf_event_mmap_page>>);

    impl FakePage {
        fn new(index: u32, offset: i64, width: u16) -> Self {
            // SAFETY: all fields are integers, for which zero is a value.
            let mut page: perf_event_mmap_page = unsafe { std::mem::zeroed() };
            page.__bindgen_anon_1.capabilities = USER_RDPMC;
            (page.index, page.offset, page.pmc_width) = (index, offset, width);
            (page.lock, page.time_enabled, page.time_running) = (8, 2_000, 1_000);
            Self(Box::new(UnsafeCell::new(page)))
        }

        fn write(&self, change: impl FnOnce(&mut perf_event_mmap_page)) {
            // SAFETY: only one thread uses the page, and no reference to it is held across this call.
            change(unsafe { &mut *self.0.get() });
        }

        fn read(&self, counter: impl Fn(u32) -> Option<u64>) -> Option<Reading> {
            let page = NonNull::new(self.0.get()).unwrap();
            // SAFETY: the page lives as long as `self`, and the tests' counters can read any number.
            unsafe { read(page, counter) }
        }
    }

    #[test]
    fn a_count_is_what_the_page_has_and_what_the_counter_has() {
        let page = FakePage::new(3, 1_000, 48);
        let reading = page.read(|number| (number == 2).then_some(234)).unwrap();
        assert_eq!(reading, Reading { count: 1_234, enabled_ns: 2_000, running_ns: 1_000 });
    }

    #[test]
    fn a_counter_is_signed_and_as_wide_as_the_page_says() {
        // The kernel starts counters below zero, and bits above the width are noise.
        let page = FakePage::new(1, 1 << 31, 32);
        assert_eq!(page.read(|_| Some(0xffff_8000_0007)).unwrap().count, 7);
        let page = FakePage::new(1, 5, 64);
        assert_eq!(page.read(|_| Some(10)).unwrap().count, 15);
    }

    #[test]
    fn what_does_not_run_or_is_forbidden_is_not_read() {
        let forbidden = |_| -> Option<u64> { panic!("an instruction that would fault") };
        assert_eq!(FakePage::new(0, 5, 48).read(forbidden), None, "no index");
        assert_eq!(FakePage::new(1, 5, 0).read(forbidden), None, "no width");
        let page = FakePage::new(1, 5, 48);
        page.write(|page| page.__bindgen_anon_1.capabilities = 0);
        assert_eq!(page.read(forbidden), None, "not allowed");
        assert_eq!(FakePage::new(40, 5, 48).read(|_| None), None, "an unknown counter");
    }

    #[test]
    fn a_page_that_changes_meanwhile_is_read_again() {
        let page = FakePage::new(1, 100, 48);
        let reads = Cell::new(0);
        let reading = page.read(|number| {
            reads.set(reads.get() + 1);
            if reads.get() == 1 {
                // The event moves to another counter, and its count so far into the offset.
                page.write(|page| (page.lock, page.index, page.offset) = (10, 2, 150));
                return Some(50);
            }
            (number == 1).then_some(3)
        });
        assert_eq!((reading.unwrap().count, reads.get()), (153, 2));
    }

    #[test]
    fn a_page_that_never_stands_still_is_given_up() {
        let page = FakePage::new(1, 100, 48);
        let changing = |_| {
            page.write(|page| page.lock += 2);
            Some(1)
        };
        assert_eq!(page.read(changing), None);
    }
}
