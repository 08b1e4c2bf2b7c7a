//! A CPU's register file of scopes, and copies of it.

use crate::interned::OTHER;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

/// The number of scopes that a stack keeps, outermost first.
///
/// Deeper scopes are only counted.
pub const MAX_SCOPES: usize = 32;

/// Marks a scope that has been left while scopes inside it are still open. Such a scope is the span of a future that is not being
/// polled, and a guard in the future is held across its `.await`.
const LEFT: u32 = 1 << 31;

/// A stack of scopes, as the numbers of their names. It is all-zero when empty.
///
/// One thread at a time writes it. A signal handler on that thread may read it at any moment: the names below `depth` are always
/// whole.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Registers {
    /// The number of scopes, including those beyond `MAX_SCOPES`.
    depth: AtomicU32,
    names: [AtomicU32; MAX_SCOPES],
}

impl Registers {
    pub(super) fn depth(&self) -> u32 {
        // Relaxed, here and below: only one thread and its signal handlers use these words. The compiler fences are for the
        // handlers.
        self.depth.load(Ordering::Relaxed)
    }

    /// Enters a scope and returns its place. A scope beyond the last register is only counted.
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

    /// Leaves the scope at `place`, and those inside it. Does nothing if the scope is no longer there.
    #[inline]
    pub(super) fn pop(&self, place: u32, name: u32) {
        let is_there = match self.names.get(place as usize) {
            Some(register) => register.load(Ordering::Relaxed) == name,
            None => true,
        };
        if is_there && place < self.depth() {
            self.end_at(place);
        }
    }

    /// Enters again a scope that [`leave`](Self::leave) has marked as left. The scope has its old place, outside the scopes
    /// that are open in it. Returns whether there was such a scope.
    #[cfg(feature = "tracing")]
    pub(super) fn enter_again(&self, name: u32) -> bool {
        let open = &self.names[..(self.depth() as usize).min(MAX_SCOPES)];
        let left = |register: &&AtomicU32| register.load(Ordering::Relaxed) == name | LEFT;
        let register = open.iter().find(left).filter(|_| can_be_left(name));
        register.map(|register| register.store(name, Ordering::Relaxed)).is_some()
    }

    /// Leaves the innermost scope of that name, and none inside it. Does nothing if there is no such scope.
    ///
    /// Beyond the last register, names are not known. There this leaves the innermost scope.
    #[cfg(feature = "tracing")]
    pub(super) fn leave(&self, name: u32) {
        let depth = self.depth();
        if depth as usize > MAX_SCOPES {
            return self.depth.store(depth - 1, Ordering::Relaxed);
        }
        let open = &self.names[..depth as usize];
        let is_it = |register: &AtomicU32| register.load(Ordering::Relaxed) == name;
        let Some(place) = open.iter().rposition(is_it) else { return };
        if place + 1 == open.len() || !can_be_left(name) {
            return self.end_at(place as u32);
        }
        open[place].store(name | LEFT, Ordering::Relaxed);
    }

    /// Cuts the stack at `depth`, or before it if the innermost scopes there are marked as left.
    fn end_at(&self, depth: u32) {
        let open = &self.names[..(depth as usize).min(MAX_SCOPES)];
        let is_open = |register: &AtomicU32| !is_left(register.load(Ordering::Relaxed));
        let kept = open.iter().rposition(is_open).map_or(0, |last| last as u32 + 1);
        let beyond = depth as usize > MAX_SCOPES;
        self.depth.store(if beyond { depth } else { kept }, Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        self.depth.store(0, Ordering::Relaxed);
        compiler_fence(Ordering::Release);
    }

    /// Copies the scopes of `other`.
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

    /// Writes the scopes into `names`, outermost first. Returns how many it wrote, and how many deeper scopes there are.
    ///
    /// This neither allocates nor locks, so signal handlers may call it.
    pub(super) fn read(&self, names: &mut [u32; MAX_SCOPES]) -> (usize, u32) {
        let depth = self.depth();
        compiler_fence(Ordering::Acquire);
        let open = &self.names[..(depth as usize).min(MAX_SCOPES)];
        let open = open.iter().map(|register| register.load(Ordering::Relaxed));
        let mut kept = 0;
        for (place, name) in names.iter_mut().zip(open.filter(|name| !is_left(*name))) {
            *place = name;
            kept += 1;
        }
        (kept, depth.saturating_sub(MAX_SCOPES as u32))
    }
}

/// Whether a scope is marked as left. [`OTHER`] has the mark's bit, but never is.
fn is_left(name: u32) -> bool {
    name & LEFT != 0 && name != OTHER
}

#[cfg(feature = "tracing")]
fn can_be_left(name: u32) -> bool {
    name & LEFT == 0
}

/// How many scopes were too deep for a register, since the program began.
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
