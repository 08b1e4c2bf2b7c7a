//! The memory of freed data, kept until a model or schedule ends, so that a late use is detected instead of undefined.

use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

thread_local! {
    // loom and shuttle run all threads of a run on one thread of the system, so this is shared by all of them.
    static KEPT: RefCell<Vec<(NonNull<u8>, Layout)>> = const { RefCell::new(Vec::new()) };
    /// Whether freed memory is handed out again.
    static REUSE: Cell<bool> = const { Cell::new(false) };
}

/// Keeps memory that was freed.
pub(crate) fn keep(memory: NonNull<u8>, layout: Layout) {
    KEPT.with_borrow_mut(|kept| kept.push((memory, layout)));
}

/// For the rest of this run, hands out the addresses of freed objects again, oldest first. A late use then shows in its effect
/// on the new object.
#[cfg(pertask_loom)]
pub(crate) fn reuse_addresses() {
    REUSE.set(true);
}

/// Freed memory of that layout, if addresses are reused.
pub(crate) fn reused(layout: Layout) -> Option<NonNull<u8>> {
    if !REUSE.get() {
        return None;
    }
    KEPT.with_borrow_mut(|kept| {
        let at = kept.iter().position(|(_, other)| *other == layout)?;
        Some(kept.remove(at).0)
    })
}

/// Panics if `part` lies in a freed object. For code that reads a part of an object and not its [`Life`].
#[cfg(pertask_loom)]
pub(crate) fn assert_not_kept<T>(part: &T) {
    let part = std::ptr::from_ref(part).addr();
    let inside = |(memory, layout): &(NonNull<u8>, Layout)| {
        (memory.addr().get()..memory.addr().get() + layout.size()).contains(&part)
    };
    assert!(!KEPT.with_borrow(|kept| kept.iter().any(inside)), "used after it was freed");
}

/// Returns all kept memory to the allocator.
///
/// # Safety
/// Nobody uses the memory any more.
pub(crate) unsafe fn release() {
    REUSE.set(false);
    for (memory, layout) in KEPT.take() {
        // SAFETY: the cache that allocated this memory with this layout put it here once, and nobody uses it, by the caller's
        // contract.
        unsafe { std::alloc::dealloc(memory.as_ptr(), layout) };
    }
}

/// Whether an object is still alive. Every object in a schedule has one.
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
