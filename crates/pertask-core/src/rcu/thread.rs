//! The process-wide domain, and each thread's record in it.
//!
//! A thread claims its record at its first section and gives it back when it ends. What still runs on it after that
//! (destructors of other thread-locals) claims a record for the one section.

use super::{Head, domain::Domain, domain::Reader};
use crate::error::Error;
use crate::membarrier;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::LazyLock;

static DOMAIN: LazyLock<Domain> = LazyLock::new(|| {
    membarrier::init();
    Domain::new()
});

thread_local! {
    /// `None` before the thread's first section and after its end.
    static LOCAL: Cell<Option<Local>> = const { Cell::new(None) };
    /// Gives the record back when the thread ends.
    static OWNER: Owner = const { Owner };
}

/// What a thread has of the domain.
#[derive(Clone, Copy)]
struct Local {
    /// The domain itself, so that a section need not ask whether there is one.
    domain: &'static Domain,
    reader: &'static Reader,
}

struct Owner;

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(local) = LOCAL.take() {
            local.reader.release();
        }
    }
}

/// A section: while it lives, nothing that was reachable in it is freed.
///
/// It belongs to its thread and must not be held over a wait for another thread.
#[must_use]
pub(crate) struct Guard {
    reader: &'static Reader,
    /// Whether the record was claimed for this section alone.
    borrowed: bool,
    not_send: PhantomData<*const ()>,
}

/// Begins a section on this thread. Sections nest. Neither allocates nor locks after the thread's first.
#[inline(always)]
pub(crate) fn enter() -> Guard {
    let (local, borrowed) = match LOCAL.get() {
        Some(local) => (local, false),
        None => claim(),
    };
    local.domain.enter(local.reader);
    Guard { reader: local.reader, borrowed, not_send: PhantomData }
}

impl Drop for Guard {
    #[inline(always)]
    fn drop(&mut self) {
        self.reader.leave();
        if self.borrowed {
            self.reader.release();
        }
    }
}

/// Frees `object` once no section that runs now can hold it.
///
/// # Safety
/// The object is no longer reachable for new readers, and is retired once.
pub(crate) unsafe fn retire(object: NonNull<Head>) {
    let guard = enter();
    // SAFETY: the caller's.
    unsafe { DOMAIN.retire(guard.reader, object) };
}

/// Waits until every section that runs now has ended.
pub(crate) fn synchronize() -> Result<(), Error> {
    if held() {
        return Err(Error::InsideHook);
    }
    DOMAIN.synchronize().map_err(|_| Error::BarrierRefused)
}

/// Whether this thread is inside a section.
pub(crate) fn held() -> bool {
    LOCAL.get().is_some_and(|local| local.reader.inside())
}

/// Waits until all data that was released before the call has been freed (the kernel's `rcu_barrier`).
///
/// Useful before memory is measured. Nothing needs it for correctness.
///
/// # Errors
/// [`Error::InsideHook`] when called from a PMU's hook; [`Error::BarrierRefused`] when the kernel refuses
/// `membarrier` after having granted it.
pub fn barrier() -> Result<(), Error> {
    if held() {
        return Err(Error::InsideHook);
    }
    DOMAIN.barrier().map_err(|_| Error::BarrierRefused)
}

/// Whether sections are nearly free here: the kernel grants `membarrier(2)`. If not, each costs a full fence.
#[must_use]
pub fn asymmetric() -> bool {
    membarrier::is_asymmetric()
}

/// How many released objects still wait to be freed.
#[must_use]
pub fn pending() -> usize {
    DOMAIN.pending()
}

/// A record for this thread, and whether it is for one section alone: the thread is ending.
#[cold]
#[inline(never)]
fn claim() -> (Local, bool) {
    let domain: &'static Domain = &DOMAIN;
    let local = Local { domain, reader: domain.claim() };
    let alive = OWNER.try_with(|_| LOCAL.set(Some(local))).is_ok();
    (local, !alive)
}
