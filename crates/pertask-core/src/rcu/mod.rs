//! Read-copy-update: readers never wait and never see freed memory; the reclaimer waits for the readers.
//!
//! The four operations are the kernel's: `enter` is `rcu_read_lock`, `retire` is `call_rcu`, [`synchronize`] is
//! `synchronize_rcu`, [`barrier`] is `rcu_barrier`. `domain.rs` holds the algorithm; `thread.rs` gives each thread a record in
//! one process-wide domain. Models of the rest of the core run on `stand_in.rs`, which frees each object at the first moment
//! the contract allows and reports any later use.

mod cell;
pub(crate) mod domain;
#[cfg(pertask_loom)]
pub(crate) mod stand_in;
#[cfg(not(pertask_loom))]
mod thread;

pub use cell::RcuCell;

use crate::primitive::plain::AtomicPtr;
use std::ptr::NonNull;

#[cfg(pertask_loom)]
pub(crate) use stand_in::{Guard, enter, held, retire, synchronize};
#[cfg(not(pertask_loom))]
pub(crate) use thread::{Guard, enter, held, retire};
#[cfg(not(pertask_loom))]
pub use thread::{asymmetric, barrier, pending, synchronize};

/// A zero-sized proof that a section lasts for `'g`: objects that were reachable in the section are not freed before it ends.
#[derive(Clone, Copy)]
pub(crate) struct Token<'g>(std::marker::PhantomData<&'g Guard>);

impl Guard {
    #[inline(always)]
    pub(crate) fn token(&self) -> Token<'_> {
        Token(std::marker::PhantomData)
    }
}

/// The header of an object that can be retired: its link in the list of retired objects, and the function that frees it.
///
/// The header is the object's first field (`repr(C)`), so a pointer to the header is also a pointer to the object.
pub(crate) struct Head {
    /// The next retired object. Used only once this object is retired.
    next: AtomicPtr<Head>,
    free: unsafe fn(NonNull<Head>),
}

impl Head {
    /// RCU calls `free` once, on any thread, when no reader can hold the object any more.
    pub(crate) fn new(free: unsafe fn(NonNull<Head>)) -> Self {
        Self { next: AtomicPtr::new(std::ptr::null_mut()), free }
    }
}
