//! The memory of freed data, kept until a model or a schedule is over, so that a late use is seen, and not just undefined.

use std::alloc::Layout;
use std::cell::RefCell;
use std::ptr::NonNull;

thread_local! {
    // loom and shuttle run all threads of a run on one thread of the system.
    static KEPT: RefCell<Vec<(NonNull<u8>, Layout)>> = const { RefCell::new(Vec::new()) };
}

/// Keeps memory that has been freed.
pub(crate) fn keep(memory: NonNull<u8>, layout: Layout) {
    KEPT.with_borrow_mut(|kept| kept.push((memory, layout)));
}

/// Gives it back.
///
/// # Safety
/// Nobody looks at it any more.
pub(crate) unsafe fn release() {
    for (memory, layout) in KEPT.take() {
        // SAFETY: put here once, by the cache that allocated it with this layout; the rest is the caller's.
        unsafe { std::alloc::dealloc(memory.as_ptr(), layout) };
    }
}
