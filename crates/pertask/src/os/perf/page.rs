//! A perf event's page: what the kernel tells of the event without a system call.
//!
//! The kernel keeps a page for each mmap'd event, under a sequence lock. For an event on a thread it is rewritten whenever
//! the thread leaves its CPU or comes back, so `lock` differs if the thread was off its CPU in between: a detector for the
//! clock. And where the kernel allows it, the page says in which of the processor's counters the event runs, so that
//! the count can be read in user space.
//!
//! A child made by `fork(2)` does not have the mapping. It never looks at one again: its clock asks the kernel, its counts are read
//! by system call.

use super::{Attr, Refused, What, open, user_read};
use perf_event_open_sys::bindings::perf_event_mmap_page;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, compiler_fence};

/// One thread's event, mapped. What it says of counters is true on that thread alone.
#[derive(Debug)]
pub(crate) struct Page {
    page: NonNull<perf_event_mmap_page>,
    length: usize,
}

// SAFETY: a mapping belongs to the process; it may be read and unmapped on any thread.
unsafe impl Send for Page {}
// SAFETY: the page is read only, by volatile or atomic loads.
unsafe impl Sync for Page {}

impl Page {
    /// Opens an event that counts nothing for the calling thread, for its page.
    pub(crate) fn open_dummy() -> Result<Self, Refused> {
        let mut attr: Attr = What::DUMMY.attr();
        // The mapping keeps the event.
        Self::map(&open(&mut attr, 0, None)?)
    }

    pub(super) fn map(event: &File) -> Result<Self, Refused> {
        // SAFETY: asks for the page size.
        let length = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.cast_unsigned() as usize;
        let (anywhere, read, shared) = (std::ptr::null_mut(), libc::PROT_READ, libc::MAP_SHARED);
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let page = unsafe { libc::mmap(anywhere, length, read, shared, event.as_raw_fd(), 0) };
        let refused = Refused::last();
        if page == libc::MAP_FAILED {
            return Err(refused);
        }
        notice_forks();
        NonNull::new(page.cast()).map(|page| Self { page, length }).ok_or(refused)
    }

    /// The sequence count; the same number later means that the thread has kept its CPU. `None` in a child of the process that
    /// mapped the page.
    #[inline(always)]
    pub(crate) fn sequence(&self) -> Option<u32> {
        if is_forked() {
            return None;
        }
        compiler_fence(Ordering::SeqCst);
        // SAFETY: within the page, which is mapped as long as `self`. The writer is the kernel.
        let lock = unsafe { AtomicU32::from_ptr(&raw mut (*self.page.as_ptr()).lock) };
        // Relaxed: it is written on this thread's CPU, while the thread is not running.
        let sequence = lock.load(Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        Some(sequence)
    }

    /// How the kernel tells time from the processor's counter, where it says so (`cap_user_time`): nanoseconds are ticks times the
    /// first, divided by two to the power of the second.
    pub(crate) fn tick_rate(&self) -> Option<(u32, u16)> {
        const USER_TIME: u64 = 1 << 3;
        if is_forked() {
            return None;
        }
        let page = self.page.as_ptr();
        // SAFETY: within the page, which is mapped as long as `self`; the kernel fixes these before it hands out the page.
        unsafe {
            let allowed = (&raw const (*page).__bindgen_anon_1).cast::<u64>().read_volatile();
            let rate = (
                (&raw const (*page).time_mult).read_volatile(),
                (&raw const (*page).time_shift).read_volatile(),
            );
            (allowed & USER_TIME != 0 && rate.0 != 0 && rate.1 < 64).then_some(rate)
        }
    }

    /// The event's count and times, without a system call. On the event's own thread. `None` if the event does not run in a
    /// counter at this moment, or the kernel keeps the counters to itself.
    #[inline]
    pub(super) fn read(&self) -> Option<user_read::Reading> {
        if is_forked() {
            return None;
        }
        // SAFETY: the page is mapped as long as `self`; the caller is the event's thread, where the index is true.
        unsafe { user_read::read(self.page, user_read::counter) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if is_forked() {
            // It may be somebody else's by now.
            return;
        }
        // SAFETY: mapped by `map`, with this length, and not used any more.
        unsafe { libc::munmap(self.page.as_ptr().cast(), self.length) };
    }
}

/// Whether this process is a child of one that had mapped pages.
static FORKED: AtomicBool = AtomicBool::new(false);

#[inline(always)]
fn is_forked() -> bool {
    // Relaxed: set before the child has any other thread.
    FORKED.load(Ordering::Relaxed)
}

/// Has [`FORKED`] set in children. Once; where there is no memory for it, a child that polls may fault.
fn notice_forks() {
    extern "C" fn in_the_child() {
        FORKED.store(true, Ordering::Relaxed);
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler stores one word, which is allowed in a child of a process with threads.
        let _ = unsafe { libc::pthread_atfork(None, None, Some(in_the_child)) };
    });
}
