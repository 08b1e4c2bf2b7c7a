//! Read-copy-update: readers never wait and never see freed memory; the freeing thread waits for them.
//!
//! The four calls are the kernel's: `enter` is `rcu_read_lock`, `retire` is `call_rcu`, `synchronize` is
//! `synchronize_rcu`, [`barrier`] is `rcu_barrier`. The algorithm is in `domain.rs`; `thread.rs` binds one process-wide
//! domain to each thread. Models of the rest of the core run on `stand_in.rs`, which frees at the first moment that the
//! contract allows and notices what is used afterwards.

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
pub(crate) use thread::{Guard, enter, held, retire, synchronize};
#[cfg(not(pertask_loom))]
pub use thread::{asymmetric, barrier, pending};

/// A section as others see it for as long as it lasts: what is found in it stays. It takes no room.
#[derive(Clone, Copy)]
pub(crate) struct Token<'g>(std::marker::PhantomData<&'g Guard>);

impl Guard {
    #[inline(always)]
    pub(crate) fn token(&self) -> Token<'_> {
        Token(std::marker::PhantomData)
    }
}

/// What a retired object carries: the link of the list it waits in, and how to free it.
///
/// It stands first in the object (`repr(C)`), so that a pointer to it is a pointer to the object.
pub(crate) struct Head {
    /// Used only while the object is retired.
    next: AtomicPtr<Head>,
    free: unsafe fn(NonNull<Head>),
}

impl Head {
    /// `free` is called once, on any thread, when no reader can hold the object any more.
    pub(crate) fn new(free: unsafe fn(NonNull<Head>)) -> Self {
        Self { next: AtomicPtr::new(std::ptr::null_mut()), free }
    }
}
