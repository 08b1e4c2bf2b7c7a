//! The stack of the calling thread from some frame up, and reading it. A signal handler reads the stack that it has interrupted, and a
//! function that records its own stack reads that.
//!
//! It is usually the thread's own, which stays mapped as long as the thread lives. A fiber (a coroutine with a stack of its own) runs
//! on other memory. What is known of that memory is a mapping that was there at some moment before. So each page of it is tried
//! before it is read.

use super::record::Stack;
use super::unwind;
use super::walker::Walker;
use std::ops::Range;
use std::ptr;

const WORD: u64 = size_of::<u64>() as u64;

/// No page is smaller.
const PAGE: u64 = 4 << 10;

/// A stack of the calling thread, from a frame up: the frame that a signal has interrupted, or that of a function that records its own
/// stack. It is called the first frame here.
pub(super) struct Ground {
    /// The thread's own stack, on which a fiber's resumer may be.
    own: Range<u64>,
    /// The page of the thread's own stack that was last tried. Of a fiber it is not certain whose stack it leads to.
    own_tried: u64,
    /// The fiber's stack, or nothing.
    fiber: Range<u64>,
    /// Up to here the pages of the fiber's stack have been tried.
    tried: u64,
}

impl Ground {
    /// The stack in which this address is, or `None` if it is not known.
    pub(super) fn at(address: u64, thread: &mut Stack, walker: &Walker) -> Option<Self> {
        if *thread == Stack::Sought {
            // The thread's stack is in the mapping that has its control block, and ends there.
            let control_block = unwind::thread_pointer();
            if let Some(found) = walker.mapping(control_block) {
                *thread = Stack::Known(found.start..control_block);
            }
        }
        let own = match thread {
            Stack::Known(own) => own.clone(),
            Stack::Sought | Stack::Unknown => 0..0,
        };
        if own.contains(&address) {
            // Memory below the first frame belongs to no frame that is walked.
            return Some(Self { own: address..own.end, own_tried: 0, fiber: 0..0, tried: 0 });
        }
        let fiber = walker.mapping(address)?;
        // The first thread's stack may grow, and is mapped only as far as it has grown.
        let mapped = walker.mapping(own.end.saturating_sub(1)).unwrap_or(0..0);
        let own = own.start.max(mapped.start)..own.end.min(mapped.end);
        let tried = address & !(PAGE - 1);
        Some(Self { own, own_tried: 0, fiber: address..fiber.end, tried })
    }

    /// Whether this is a fiber's stack, and a frame with this stack pointer is on it.
    pub(super) fn is_fiber(&self, stack: u64) -> bool {
        // At the very end there is no frame: each has at least its caller's address above it.
        self.fiber.contains(&stack)
    }

    /// Whether a frame is the first one of a fiber: above it there is next to nothing.
    pub(super) fn is_root(&self, stack: u64) -> bool {
        /// What fibers have above their first frame, such as the arguments with which they were made.
        const ABOVE: u64 = 1 << 10;
        self.is_fiber(stack) && self.fiber.end - stack <= ABOVE
    }

    /// Reads a word.
    ///
    /// # Safety
    /// This must be a stack of the calling thread, and its first frame must not end meanwhile: it is the frame that the calling signal
    /// handler has interrupted, or that of a function that has called this, directly or not, and has not returned.
    pub(super) unsafe fn read(&mut self, at: u64) -> Result<u64, ()> {
        let holds =
            |range: &Range<u64>| range.start <= at && at < range.end && range.end - at >= WORD;
        let readable = holds(&self.own) && (self.fiber.is_empty() || self.try_own(at))
            || holds(&self.fiber) && self.try_up_to(at);
        if !readable || !at.is_multiple_of(WORD) {
            return Err(());
        }
        // SAFETY: the word is aligned. It is on the thread's own stack, which is mapped as long as the thread lives. Or the thread runs
        // on a fiber, and the word's page is mapped now. If it is above the first frame, so are all pages between, which are the
        // fiber's; a fiber's stack stays mapped while the thread runs on it. (A mapping may go on above the stack, where another
        // thread could unmap a page between the two: only a walk that has left the stack reads there, and the next page is tried.)
        Ok(unsafe { (at as *const u64).read_volatile() })
    }

    /// Tries a page of the thread's own stack, unless it was the last one.
    fn try_own(&mut self, at: u64) -> bool {
        let page = at & !(PAGE - 1);
        let readable = page == self.own_tried || is_readable(page);
        if readable {
            self.own_tried = page;
        }
        readable
    }

    /// Tries the pages up to the one with this address. Returns whether all of them can be read.
    fn try_up_to(&mut self, at: u64) -> bool {
        while self.tried <= at {
            if !is_readable(self.tried) {
                return false;
            }
            self.tried += PAGE;
        }
        true
    }
}

/// Whether the word at this address can be read. The kernel reads a set of signals there, and then refuses the call, because it
/// does not say what to do with the set.
fn is_readable(at: u64) -> bool {
    const NOTHING_TO_DO: i32 = -1;
    let set = ptr::with_exposed_provenance::<u64>(at as usize);
    let none = ptr::null_mut::<u64>();
    // SAFETY: the kernel reads the set, with an error and without a fault if it cannot. It changes nothing, as there is nothing to do.
    let refused = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, NOTHING_TO_DO, set, none, size_of::<u64>()) < 0
    };
    // SAFETY: `errno` is a word of the calling thread.
    refused && unsafe { *libc::__errno_location() } == libc::EINVAL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mapped_is_readable_and_nothing_else_is() {
        let word = 5_u64;
        assert!(is_readable((&raw const word).addr() as u64));
        assert!(!is_readable(8));
        // SAFETY: a new mapping, which is unmapped again.
        let unreadable = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let page = libc::mmap(ptr::null_mut(), 4096, libc::PROT_NONE, flags, -1, 0);
            let readable = is_readable(page.addr() as u64);
            libc::munmap(page, 4096);
            readable || is_readable(page.addr() as u64)
        };
        assert!(!unreadable);
    }
}
