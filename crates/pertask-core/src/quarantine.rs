//! The memory of freed data, kept until a model or a schedule is over, so that a late use is seen, and not just undefined.

use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

thread_local! {
    // loom and shuttle run all threads of a run on one thread of the system.
    static KEPT: RefCell<Vec<(NonNull<u8>, Layout)>> = const { RefCell::new(Vec::new()) };
    /// Whether it is handed out again.
    static REUSE: Cell<bool> = const { Cell::new(false) };
}

/// Keeps memory that has been freed.
pub(crate) fn keep(memory: NonNull<u8>, layout: Layout) {
    KEPT.with_borrow_mut(|kept| kept.push((memory, layout)));
}

/// For the rest of this run, new objects get the addresses of freed ones, the oldest first. A late use is then seen by what it
/// does to the new object.
#[cfg(pertask_loom)]
pub(crate) fn reuse_addresses() {
    REUSE.set(true);
}

/// Freed memory of that layout, if addresses are to be used again.
pub(crate) fn reused(layout: Layout) -> Option<NonNull<u8>> {
    if !REUSE.get() {
        return None;
    }
    KEPT.with_borrow_mut(|kept| {
        let at = kept.iter().position(|(_, other)| *other == layout)?;
        Some(kept.remove(at).0)
    })
}

/// For whoever looks at a part of an object, and not at its [`Life`].
#[cfg(pertask_loom)]
pub(crate) fn assert_not_kept<T>(part: &T) {
    let part = std::ptr::from_ref(part).addr();
    let inside = |(memory, layout): &(NonNull<u8>, Layout)| {
        (memory.addr().get()..memory.addr().get() + layout.size()).contains(&part)
    };
    assert!(!KEPT.with_borrow(|kept| kept.iter().any(inside)), "used after it was freed");
}

/// Gives all of it back.
///
/// # Safety
/// Nobody looks at it any more.
pub(crate) unsafe fn release() {
    REUSE.set(false);
    for (memory, layout) in KEPT.take() {
        // SAFETY: put here once, by the cache that allocated it with this layout; the rest is the caller's.
        unsafe { std::alloc::dealloc(memory.as_ptr(), layout) };
    }
}

/// Whether an object is still there. Part of each object in a schedule.
#[cfg(pertask_shuttle)]
pub(crate) struct Life(std::sync::atomic::AtomicBool);

#[cfg(pertask_shuttle)]
impl Life {
    pub(crate) fn new() -> Self {
        Self(true.into())
    }

    pub(crate) fn assert_not_freed(&self) {
        // Relaxed: shuttle runs one thread at a time.
        assert!(self.0.load(std::sync::atomic::Ordering::Relaxed), "used after it was freed");
    }

    pub(crate) fn end(&self) {
        // Relaxed: shuttle runs one thread at a time.
        assert!(self.0.swap(false, std::sync::atomic::Ordering::Relaxed), "freed twice");
    }
}
