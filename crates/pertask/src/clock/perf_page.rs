//! A perf event's page as a detector: its sequence count moves whenever the thread leaves its CPU or comes back.
//!
//! The kernel keeps a page for each mmap'd event, with the sequence lock under which it says when the event was last
//! scheduled in. For an event on a thread that is at each switch out and in, so the `lock` word differs if the thread
//! was off its CPU. The event itself counts nothing (`PERF_COUNT_SW_DUMMY`).

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, compiler_fence};

/// One thread's event, open and mapped.
///
/// Made and read on that thread.
#[derive(Debug)]
pub(super) struct PerfPage {
    page: NonNull<libc::c_void>,
    length: usize,
}

// SAFETY: a mapping belongs to the process; it may be unmapped on any thread.
unsafe impl Send for PerfPage {}

/// Where `lock` stands in `struct perf_event_mmap_page`.
const LOCK: usize = 8;

impl PerfPage {
    /// Opens the event for the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let event = open_dummy()?;
        // SAFETY: asks for the page size.
        let length = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.cast_unsigned() as usize;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let page = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, event, 0)
        };
        let refused = io::Error::last_os_error();
        // The mapping keeps the event. SAFETY: ours, and closed once.
        unsafe { libc::close(event) };
        if page == libc::MAP_FAILED {
            return Err(refused);
        }
        NonNull::new(page).map(|page| Self { page, length }).ok_or(refused)
    }

    /// The sequence count; the same number later means that the thread has kept its CPU. Odd: not to be relied on.
    #[inline(always)]
    pub(super) fn sequence(&self) -> u32 {
        compiler_fence(Ordering::SeqCst);
        // SAFETY: within the page, which is mapped as long as `self`. The writer is the kernel.
        let lock = unsafe { AtomicU32::from_ptr(self.page.as_ptr().byte_add(LOCK).cast()) };
        // Relaxed: it is written on this thread's CPU, while the thread is not running.
        let sequence = lock.load(Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        sequence
    }
}

impl Drop for PerfPage {
    fn drop(&mut self) {
        // SAFETY: mapped by `open`, with this length, and not used any more.
        unsafe { libc::munmap(self.page.as_ptr(), self.length) };
    }
}

/// `struct perf_event_attr` up to its first version, which is all that a dummy needs.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}

fn open_dummy() -> io::Result<libc::c_int> {
    const PERF_TYPE_SOFTWARE: u32 = 1;
    const PERF_COUNT_SW_DUMMY: u64 = 9;
    const EXCLUDE_KERNEL: u64 = 1 << 5;
    const EXCLUDE_HV: u64 = 1 << 6;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
    let attr = PerfEventAttr {
        kind: PERF_TYPE_SOFTWARE,
        size: size_of::<PerfEventAttr>() as u32,
        config: PERF_COUNT_SW_DUMMY,
        // All that an unprivileged process may ask for, and no less than is needed.
        flags: EXCLUDE_KERNEL | EXCLUDE_HV,
        ..PerfEventAttr::default()
    };
    let (this_thread, any_cpu, no_group) = (0, -1, -1);
    // SAFETY: the kernel reads `size` bytes of `attr`.
    let event = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attr,
            this_thread,
            any_cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    libc::c_int::try_from(event)
        .ok()
        .filter(|event| *event >= 0)
        .ok_or_else(io::Error::last_os_error)
}
