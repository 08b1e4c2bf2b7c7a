//! The page of a perf event, which a thread can read without a system call.
//!
//! The kernel keeps a page for each mapped event, under a sequence lock. If the event is on a thread, the kernel rewrites the
//! page whenever the thread leaves its CPU or returns to one. So `lock` differs if the thread was off its CPU in between, which
//! makes it a detector for the clock. Where the kernel allows it, the page also says in which of the processor's counters the
//! event runs, so that the thread can read its count in user space.
//!
//! A child made by `fork(2)` does not have the mapping, and never reads a page. Its clock asks the kernel, and it reads counts
//! by system call.

use super::{Attr, Refused, What, open, user_read};
use perf_event_open_sys::bindings::perf_event_mmap_page;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, compiler_fence};

/// The mapped page of one thread's event. What it says of counters is true only on that thread.
#[derive(Debug)]
pub(crate) struct Page {
    page: NonNull<perf_event_mmap_page>,
    length: usize,
}

// SAFETY: a mapping belongs to the process, so any thread may read it and unmap it.
unsafe impl Send for Page {}
// SAFETY: threads only read the page, by volatile or atomic loads.
unsafe impl Sync for Page {}

impl Page {
    /// Opens an event that counts nothing for the calling thread, for its page.
    pub(crate) fn open_dummy() -> Result<Self, Refused> {
        let mut attr: Attr = What::DUMMY.attr();
        // The mapping keeps the event open.
        Self::map(&open(&mut attr, 0, None)?)
    }

    pub(super) fn map(event: &File) -> Result<Self, Refused> {
        // SAFETY: `sysconf` touches no memory of ours.
        let length = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.cast_unsigned() as usize;
        let (anywhere, read, shared) = (std::ptr::null_mut(), libc::PROT_READ, libc::MAP_SHARED);
        // SAFETY: this makes a new mapping, at an address of the kernel's choice.
        let page = unsafe { libc::mmap(anywhere, length, read, shared, event.as_raw_fd(), 0) };
        let refused = Refused::last();
        if page == libc::MAP_FAILED {
            return Err(refused);
        }
        notice_forks();
        NonNull::new(page.cast()).map(|page| Self { page, length }).ok_or(refused)
    }

    /// The sequence count. If a later call returns the same count, the thread has kept its CPU. Returns `None` in a forked
    /// child of the process that mapped the page.
    #[inline(always)]
    pub(crate) fn sequence(&self) -> Option<u32> {
        if is_forked() {
            return None;
        }
        compiler_fence(Ordering::SeqCst);
        // SAFETY: `lock` is within the page, which is mapped as long as `self` lives. Only the kernel writes it.
        let lock = unsafe { AtomicU32::from_ptr(&raw mut (*self.page.as_ptr()).lock) };
        // Relaxed: the kernel writes it on this thread's CPU, while the thread does not run.
        let sequence = lock.load(Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        Some(sequence)
    }

    /// The multiplier and the shift with which the kernel turns the counter's ticks into nanoseconds, where it says so
    /// (`cap_user_time`): nanoseconds are `ticks * multiplier >> shift`.
    pub(crate) fn tick_rate(&self) -> Option<(u32, u16)> {
        const USER_TIME: u64 = 1 << 3;
        if is_forked() {
            return None;
        }
        let page = self.page.as_ptr();
        // SAFETY: the fields are within the page, which is mapped as long as `self` lives. The kernel does not change them
        // after it has handed out the page.
        unsafe {
            let allowed = (&raw const (*page).__bindgen_anon_1).cast::<u64>().read_volatile();
            let rate = (
                (&raw const (*page).time_mult).read_volatile(),
                (&raw const (*page).time_shift).read_volatile(),
            );
            (allowed & USER_TIME != 0 && rate.0 != 0 && rate.1 < 64).then_some(rate)
        }
    }

    /// Reads the event's count and times without a system call, on the event's own thread. Returns `None` if the event runs in
    /// no counter at this moment, or if the kernel does not let user space read counters.
    #[inline]
    pub(super) fn read(&self) -> Option<user_read::Reading> {
        if is_forked() {
            return None;
        }
        // SAFETY: the page is mapped as long as `self` lives. The caller is the event's thread, on which the index is true.
        unsafe { user_read::read(self.page, user_read::counter) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if is_forked() {
            // This process does not have the mapping, and may have another one at that address.
            return;
        }
        // SAFETY: `map` made this mapping with this length, and nothing uses it any more.
        unsafe { libc::munmap(self.page.as_ptr().cast(), self.length) };
    }
}

/// Whether this process is a child of one that had mapped pages.
static FORKED: AtomicBool = AtomicBool::new(false);

#[inline(always)]
fn is_forked() -> bool {
    // Relaxed: the flag is set before the child has a second thread.
    FORKED.load(Ordering::Relaxed)
}

/// Makes forked children set [`FORKED`]. Only the first call does anything. If there is no memory for it, a child that polls
/// may fault.
fn notice_forks() {
    extern "C" fn in_the_child() {
        // Relaxed: see `is_forked`.
        FORKED.store(true, Ordering::Relaxed);
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler only stores one word, which is allowed in a child of a process with threads.
        let _ = unsafe { libc::pthread_atfork(None, None, Some(in_the_child)) };
    });
}
