//! The process-wide domain, and each thread's record in it.
//!
//! A thread claims its record at its first section and gives it back when it ends. What still runs on it after that
//! (destructors of other thread-locals) claims a record for one section and those inside it.

use super::{Head, domain::Domain, domain::Reader};
use crate::error::Error;
use crate::membarrier;
use crate::primitive::thread_local;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// The process's domain.
#[cfg(not(pertask_shuttle))]
static DOMAIN: std::sync::OnceLock<Domain> = std::sync::OnceLock::new();

#[cfg(not(pertask_shuttle))]
fn domain() -> &'static Domain {
    DOMAIN.get_or_init(|| {
        membarrier::init();
        after_fork_keep_only_this_thread();
        Domain::new()
    })
}

/// Has the child of a `fork(2)` forget the sections of the threads that it does not have: it would wait for them for ever.
#[cfg(all(unix, not(any(pertask_shuttle, miri))))]
fn after_fork_keep_only_this_thread() {
    extern "C" fn in_child() {
        if let Some(domain) = DOMAIN.get() {
            membarrier::again_in_child();
            domain.keep_only(local().map(|local| local.reader));
            crate::books::after_fork();
        }
    }
    // SAFETY: the handler may run in the child of a process with threads: it makes a system call and writes atomics.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

#[cfg(not(any(pertask_shuttle, all(unix, not(miri)))))]
fn after_fork_keep_only_this_thread() {}

/// Each schedule's own.
#[cfg(pertask_shuttle)]
fn domain() -> &'static Domain {
    static DOMAIN: shuttle::lazy_static::Lazy<Domain> =
        shuttle::lazy_static::Lazy::new(Domain::new);
    DOMAIN.get()
}

thread_local! {
    /// `None` before the thread's first section and after its end.
    static LOCAL: Cell<Option<Local>> = const { Cell::new(None) };
    static OWNER: Owner = const { Owner(Cell::new(None)) };
}

/// What a thread has of the domain.
#[derive(Clone, Copy)]
struct Local {
    /// The domain itself, so that a section need not ask whether there is one.
    domain: &'static Domain,
    reader: &'static Reader,
}

/// Gives the thread's record back when the thread ends.
struct Owner(Cell<Option<&'static Reader>>);

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = LOCAL.try_with(Cell::take);
        if let Some(reader) = self.0.take() {
            reader.release();
        }
    }
}

/// A section: while it lives, nothing that was reachable in it is freed.
///
/// It belongs to its thread and must not be held over a wait for another thread.
#[must_use]
pub(crate) struct Guard {
    reader: &'static Reader,
    not_send: PhantomData<*const ()>,
}

/// Begins a section on this thread. Sections nest. Neither allocates nor locks after the thread's first.
#[inline(always)]
pub(crate) fn enter() -> Guard {
    let local = local().unwrap_or_else(claim);
    local.domain.enter(local.reader);
    Guard { reader: local.reader, not_send: PhantomData }
}

#[inline(always)]
fn local() -> Option<Local> {
    // It needs no destructor, so a thread has it to its last moment.
    LOCAL.try_with(Cell::get).ok().flatten()
}

impl Drop for Guard {
    #[inline(always)]
    fn drop(&mut self) {
        if self.reader.leave() {
            give_back(self.reader);
        }
    }
}

/// Gives back a record that was claimed for one section, and for those inside it; unless a signal handler, in a section of its
/// own, has just done so.
#[cold]
fn give_back(reader: &'static Reader) {
    if let Ok(Some(_)) = LOCAL.try_with(Cell::take) {
        reader.release();
    }
}

/// Frees `object` once no section that runs now can hold it.
///
/// # Safety
/// The object is no longer reachable for new readers, and is retired once.
pub(crate) unsafe fn retire(object: NonNull<Head>) {
    let guard = enter();
    // SAFETY: the caller's.
    unsafe { domain().retire(guard.reader, object) };
}

/// Waits until every section that runs now has ended.
pub(crate) fn synchronize() -> Result<(), Error> {
    if held() {
        return Err(Error::InsideHook);
    }
    domain().synchronize().map_err(|_| Error::BarrierRefused)
}

/// Whether this thread is inside a section.
pub(crate) fn held() -> bool {
    local().is_some_and(|local| local.reader.inside())
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
    let local = local().unwrap_or_else(claim);
    let result = local.domain.barrier(local.reader).map_err(|_| Error::BarrierRefused);
    // A record that was claimed for this goes as a section ends.
    drop(enter());
    result
}

/// Whether sections are nearly free here, because the kernel grants `membarrier(2)`.
///
/// If not, each costs a full fence.
#[must_use]
pub fn asymmetric() -> bool {
    membarrier::is_asymmetric()
}

/// How many released objects still wait to be freed.
#[must_use]
pub fn pending() -> usize {
    domain().pending(held())
}

/// A record for this thread; for one section, if the thread is ending.
#[cold]
#[inline(never)]
fn claim() -> Local {
    let domain = domain();
    let local = Local { domain, reader: domain.claim() };
    let is_ending = OWNER.try_with(|owner| owner.0.set(Some(local.reader))).is_err();
    local.reader.lend(is_ending);
    // Also on a thread that is ending: what comes inside the section must find that it is inside one.
    let _ = LOCAL.try_with(|mine| mine.set(Some(local)));
    local
}

#[cfg(all(test, not(any(pertask_loom, pertask_shuttle))))]
mod tests;
