//! Where the core's memory comes from in this test: each allocation of data is a [`Point`](baton::Point), and can be refused; what
//! was freed stays unusable for a while, so that a late use or a second free is seen.

use crate::baton::{self, Point};
use crate::pmu::ProbeData;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

struct Watched;

#[global_allocator]
static WATCHED: Watched = Watched;

/// The size of a data object; told by [`watch`].
static DATA_BYTES: AtomicUsize = AtomicUsize::new(0);

/// A walk that shows tasks to a closure copies so many handles at a time: what it allocates before it begins. (Walks that
/// give data, take it or count pin one task at a time, and allocate nothing.)
const WALK_BYTES: usize = 64 * size_of::<usize>();

/// What the core keeps of those that have ended, as it lies in memory: nothing else has that size.
#[repr(C)]
struct Sum {
    rcu: [usize; 2],
    data: ProbeData,
    count: u64,
}

/// What freed memory is filled with.
pub const FREED: u8 = 0xd5;

/// The last of one size that were freed, and what was found wrong.
struct Quarantine {
    freed: [*mut u8; 64],
    next: usize,
    fault: Option<&'static str>,
}

// SAFETY: what the pointers point to was freed, and belongs to the quarantine.
unsafe impl Send for Quarantine {}

/// Of data, and of sums.
static QUARANTINES: [Mutex<Quarantine>; 2] =
    [const { Mutex::new(Quarantine { freed: [ptr::null_mut(); 64], next: 0, fault: None }) }; 2];

/// How many sums have been freed.
pub static SUMS_FREED: AtomicUsize = AtomicUsize::new(0);

/// From now on, memory of that size is data.
pub fn watch(data_bytes: usize) {
    DATA_BYTES.store(data_bytes, Relaxed);
}

/// What has been found wrong with freed data, once.
pub fn fault() -> Option<&'static str> {
    QUARANTINES.iter().find_map(|it| it.lock().unwrap_or_else(PoisonError::into_inner).fault.take())
}

impl Quarantine {
    /// Takes freed data in. What has been there longest leaves, if it is as it was.
    ///
    /// # Safety
    /// The data is the caller's to free; if it is not in the quarantine already.
    unsafe fn take(&mut self, data: *mut u8, layout: Layout) {
        if self.freed.contains(&data) {
            self.fault = Some("data, or a sum, was freed twice");
            return;
        }
        // SAFETY: freed memory of that layout, by the caller's word.
        unsafe { data.write_bytes(FREED, layout.size()) };
        let oldest = std::mem::replace(&mut self.freed[self.next], data);
        self.next = (self.next + 1) % self.freed.len();
        if oldest.is_null() {
            return;
        }
        // SAFETY: it came here as `data` did, and all that come here have one layout.
        let bytes = unsafe { std::slice::from_raw_parts(oldest, layout.size()) };
        if bytes.iter().any(|byte| *byte != FREED) {
            self.fault = Some("data, or a sum, was written to after it was freed");
        }
        // SAFETY: as above; it has left the quarantine.
        unsafe { System.dealloc(oldest, layout) };
    }
}

// SAFETY: all is done by the system's allocator, and what is freed to the quarantine is given to it later. Neither the
// points nor the quarantine allocate.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() == WALK_BYTES {
            baton::point(Point::Walk);
        }
        if layout.size() == DATA_BYTES.load(Relaxed) && !baton::may_allocate() {
            return ptr::null_mut();
        }
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let quarantine = if layout.size() == DATA_BYTES.load(Relaxed) {
            &QUARANTINES[0]
        } else if layout == Layout::new::<Sum>() {
            SUMS_FREED.fetch_add(1, Relaxed);
            &QUARANTINES[1]
        } else {
            // SAFETY: the caller's.
            return unsafe { System.dealloc(memory, layout) };
        };
        let mut quarantine = quarantine.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the caller frees it.
        unsafe { quarantine.take(memory, layout) };
    }
}
