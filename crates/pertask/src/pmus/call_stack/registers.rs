//! A CPU's register file of scopes, and copies of it.

use crate::interned::OTHER;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

/// How many scopes are kept of a stack: the outermost. Deeper ones are counted.
pub const MAX_SCOPES: usize = 32;

/// Marks a name whose scope has been left, by itself, while scopes inside it are open: the span of a future that is not polled
/// at the moment, with a guard in it that is held across its `.await`.
const LEFT: u32 = 1 << 31;

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
            self.end_at(place);
        }
    }

    /// Enters a scope that may have been left for a while by [`leave`](Self::leave): then it is where it was, outside the scopes
    /// that have been entered in it. Whether it was.
    #[cfg(feature = "tracing")]
    pub(super) fn enter_again(&self, name: u32) -> bool {
        let open = &self.names[..(self.depth() as usize).min(MAX_SCOPES)];
        let left = |register: &&AtomicU32| register.load(Ordering::Relaxed) == name | LEFT;
        let register = open.iter().find(left).filter(|_| can_be_left(name));
        register.map(|register| register.store(name, Ordering::Relaxed)).is_some()
    }

    /// Leaves the innermost scope of that name, and none inside it. Nothing is done if there is none.
    ///
    /// Beyond the last register names are not known: there it is the innermost scope that is left.
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

    /// Ends the stack at `depth`, or before it if what is innermost there has been left.
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

/// What stands for names that found no place is no number that could be marked.
fn is_left(name: u32) -> bool {
    name & LEFT != 0 && name != OTHER
}

#[cfg(feature = "tracing")]
fn can_be_left(name: u32) -> bool {
    name & LEFT == 0
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
