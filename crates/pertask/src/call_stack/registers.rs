//! A CPU's register file of scopes, and copies of it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

/// How many scopes are kept of a stack: the outermost. Deeper ones are counted.
pub const MAX_SCOPES: usize = 32;

/// A stack of scopes, by the numbers of their names. All-zero when empty.
///
/// Written by one thread at a time. A signal handler on that thread may read it at any moment: what is below `depth` is always
/// whole.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Registers {
    /// How many scopes there are, those beyond `MAX_SCOPES` included.
    depth: AtomicU32,
    names: [AtomicU32; MAX_SCOPES],
}

impl Registers {
    pub(super) fn depth(&self) -> u32 {
        // Relaxed, here and below: one thread's own, and its signal handlers' (the fences are for those).
        self.depth.load(Ordering::Relaxed)
    }

    /// Enters a scope. Returns its place; what is beyond the last register is only counted.
    #[inline]
    pub(super) fn push(&self, name: u32) -> u32 {
        let place = self.depth();
        if let Some(register) = self.names.get(place as usize) {
            register.store(name, Ordering::Relaxed);
        }
        compiler_fence(Ordering::Release);
        self.depth.store(place + 1, Ordering::Relaxed);
        place
    }

    /// Leaves the scope at `place`, and those inside it. Nothing is done if it is not there any more.
    #[inline]
    pub(super) fn pop(&self, place: u32, name: u32) {
        let is_there = match self.names.get(place as usize) {
            Some(register) => register.load(Ordering::Relaxed) == name,
            None => true,
        };
        if is_there && place < self.depth() {
            self.depth.store(place, Ordering::Relaxed);
        }
    }

    pub(super) fn clear(&self) {
        self.depth.store(0, Ordering::Relaxed);
        compiler_fence(Ordering::Release);
    }

    /// Takes over what stands in `other`.
    #[inline]
    pub(super) fn load(&self, other: &Self) {
        self.clear();
        let depth = other.depth();
        for (to, from) in self.names.iter().zip(&other.names).take(depth as usize) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        compiler_fence(Ordering::Release);
        self.depth.store(depth, Ordering::Relaxed);
    }

    /// The scopes that are kept, outermost first, into `names`; how many there are, and how many deeper ones.
    ///
    /// Neither allocates nor locks: for signal handlers, too.
    pub(super) fn read(&self, names: &mut [u32; MAX_SCOPES]) -> (usize, u32) {
        let depth = self.depth();
        compiler_fence(Ordering::Acquire);
        let kept = (depth as usize).min(MAX_SCOPES);
        for (name, register) in names.iter_mut().zip(&self.names).take(kept) {
            *name = register.load(Ordering::Relaxed);
        }
        (kept, depth.saturating_sub(MAX_SCOPES as u32))
    }
}

/// How many scopes were too deep for a register, for ever.
#[derive(Debug, Default)]
pub(super) struct Deeper(AtomicU64);

impl Deeper {
    #[cold]
    pub(super) fn count(&self) {
        // Relaxed: a figure.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        // Relaxed: a figure.
        self.0.load(Ordering::Relaxed)
    }
}
