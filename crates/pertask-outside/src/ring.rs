//! The ring of a CPU, into which the kernel writes, and from which this process reads.

use crate::record::HEADER;
use perf_event_open_sys::bindings::perf_event_mmap_page as Page;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

/// The ring of a CPU.
///
/// INVARIANT: `page` is the beginning of a mapping of `mapped` bytes: one page of the kernel's, and then `size` bytes of records. `size`
/// is a power of two. The mapping lasts as long as this.
#[derive(Debug)]
pub(crate) struct Ring {
    page: NonNull<Page>,
    mapped: usize,
    page_bytes: usize,
    size: usize,
    /// A record that lies across the end of the ring, put together.
    whole: Vec<u8>,
}

// SAFETY: the mapping belongs to the process and not to a thread, and `&mut self` is needed to read.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the ring of an event, which has room for so many bytes of records: a power of two, and at least a page.
    pub(crate) fn map(event: &File, size: usize) -> io::Result<Self> {
        // SAFETY: asks for a number.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let mapped = page_bytes + size;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let page = unsafe {
            libc::mmap(ptr::null_mut(), mapped, rights, libc::MAP_SHARED, event.as_raw_fd(), 0)
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let page = NonNull::new(page.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { page, mapped, page_bytes, size, whole: Vec::new() })
    }

    /// Passes on each record that is there, with its header, and makes room for others.
    pub(crate) fn read(&mut self, take: impl FnMut(&[u8])) {
        let tail = self.peek(take);
        // Release: the kernel may write there from now on, and all reads are done.
        self.tail().store(tail, Ordering::Release);
    }

    /// Passes on each record that is there, with its header, and leaves it there. Returns where the last one ends.
    pub(crate) fn peek(&mut self, mut take: impl FnMut(&[u8])) -> u64 {
        // Acquire: pairs with the kernel's release of the records before this position.
        let head = self.head().load(Ordering::Acquire);
        // Relaxed: nobody else writes it.
        let mut tail = self.tail().load(Ordering::Relaxed);
        while tail < head {
            let length = self.length_at(tail).filter(|length| *length as u64 <= head - tail);
            // If it is damaged, nothing can be made of what follows.
            let Some(length) = length else { return head };
            take(self.at(tail, length));
            tail += length as u64;
        }
        tail
    }

    /// The length of the record at a position, as its header says.
    fn length_at(&mut self, position: u64) -> Option<usize> {
        let header = self.at(position, HEADER);
        let length = usize::from(u16::from_ne_bytes([header[6], header[7]]));
        (HEADER..=self.size).contains(&length).then_some(length)
    }

    /// The bytes from a position on, at most as many as the ring has.
    fn at(&mut self, position: u64, length: usize) -> &[u8] {
        let from = (position % self.size as u64) as usize;
        let first = length.min(self.size - from);
        // SAFETY: by the invariant, the records begin after the kernel's page and have `size` bytes. The kernel writes none between the
        // tail and the head, where these are.
        let start = unsafe { self.page.as_ptr().cast::<u8>().add(self.page_bytes) };
        // SAFETY: `from + first` is at most `size`.
        let bytes = unsafe { std::slice::from_raw_parts(start.add(from), first) };
        if first == length {
            return bytes;
        }
        // SAFETY: the rest is at the beginning, and `length - first` is less than `size`.
        let rest = unsafe { std::slice::from_raw_parts(start, length - first) };
        self.whole.clear();
        self.whole.extend_from_slice(bytes);
        self.whole.extend_from_slice(rest);
        &self.whole
    }

    fn head(&self) -> &AtomicU64 {
        // SAFETY: by the invariant the page is there. The kernel writes the aligned word, and this process only loads it.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.page.as_ptr()).data_head) }
    }

    fn tail(&self) -> &AtomicU64 {
        // SAFETY: by the invariant the page is there. This process writes the aligned word, and the kernel only loads it.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.page.as_ptr()).data_tail) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: by the invariant, this is a mapping of that length, and no reference to it is left.
        unsafe { libc::munmap(self.page.as_ptr().cast(), self.mapped) };
    }
}

/// Whether the kernel has refused a ring because this user may not lock so much memory.
pub(crate) fn is_want_of_memory(cause: &io::Error) -> bool {
    matches!(cause.raw_os_error(), Some(libc::EPERM | libc::ENOMEM))
}
