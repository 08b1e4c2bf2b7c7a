//! A perf event's page: what the kernel tells of the event without a system call.
//!
//! The kernel keeps a page for each mmap'd event, under a sequence lock. For an event on a thread it is rewritten whenever
//! the thread leaves its CPU or comes back, so `lock` differs if the thread was off its CPU in between: a detector for the
//! clock. And where the kernel allows it, the page says in which of the processor's counters the event runs, so that
//! the count can be read in user space.

use super::{Attr, Refused, What, open, user_read};
use perf_event_open_sys::bindings::perf_event_mmap_page;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, compiler_fence};

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
        NonNull::new(page.cast()).map(|page| Self { page, length }).ok_or(refused)
    }

    /// The sequence count; the same number later means that the thread has kept its CPU.
    #[inline(always)]
    pub(crate) fn sequence(&self) -> u32 {
        compiler_fence(Ordering::SeqCst);
        // SAFETY: within the page, which is mapped as long as `self`. The writer is the kernel.
        let lock = unsafe { AtomicU32::from_ptr(&raw mut (*self.page.as_ptr()).lock) };
        // Relaxed: it is written on this thread's CPU, while the thread is not running.
        let sequence = lock.load(Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        sequence
    }

    /// The event's count and times, without a system call. On the event's own thread. `None` if the event does not run in a
    /// counter at this moment, or the kernel keeps the counters to itself.
    #[inline]
    pub(super) fn read(&self) -> Option<user_read::Reading> {
        // SAFETY: the page is mapped as long as `self`; the caller is the event's thread, where the index is true.
        unsafe { user_read::read(self.page, user_read::counter) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, with this length, and not used any more.
        unsafe { libc::munmap(self.page.as_ptr().cast(), self.length) };
    }
}
