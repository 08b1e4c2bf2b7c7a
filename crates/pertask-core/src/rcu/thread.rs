//! The process-wide domain, and each thread's record in it.
//!
//! A thread claims its record at its first section and gives it back when it ends. Code that still runs on the thread after
//! that (destructors of other thread-locals) claims a record for one section and those nested in it.

use super::{Head, domain::Domain, domain::Reader};
use crate::error::Error;
use crate::membarrier;
use crate::primitive::thread_local;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// The one domain of the process.
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

/// Makes the child of a `fork(2)` forget the sections of threads that it does not have; otherwise it would wait for them for
/// ever.
#[cfg(all(unix, not(any(pertask_shuttle, miri))))]
fn after_fork_keep_only_this_thread() {
    extern "C" fn in_child() {
        if let Some(domain) = DOMAIN.get() {
            membarrier::again_in_child();
            domain.keep_only(local().map(|local| local.reader));
            crate::books::after_fork();
        }
    }
    // SAFETY: the handler may run in the child of a multi-threaded process: it only makes a system call and writes atomics.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

#[cfg(not(any(pertask_shuttle, all(unix, not(miri)))))]
fn after_fork_keep_only_this_thread() {}

/// The domain of the current schedule.
#[cfg(pertask_shuttle)]
fn domain() -> &'static Domain {
    static DOMAIN: shuttle::lazy_static::Lazy<Domain> =
        shuttle::lazy_static::Lazy::new(Domain::new);
    DOMAIN.get()
}

thread_local! {
    /// `None` before the thread's first section, and again once the thread has given its record back.
    static LOCAL: Cell<Option<Local>> = const { Cell::new(None) };
    static OWNER: Owner = const { Owner(Cell::new(None)) };
}

/// A thread's own view of the domain.
#[derive(Clone, Copy)]
struct Local {
    /// The domain itself, so that entering a section need not check whether it exists.
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

/// A read-side section: while it lives, no object that was reachable in it is freed.
///
/// A section belongs to its thread, and must not be held while that thread waits for another.
#[must_use]
pub(crate) struct Guard {
    reader: &'static Reader,
    not_send: PhantomData<*const ()>,
}

/// Begins a section on this thread. Sections nest. After the thread's first section, `enter` neither allocates nor locks.
#[inline(always)]
pub(crate) fn enter() -> Guard {
    let local = local().unwrap_or_else(claim);
    local.domain.enter(local.reader);
    Guard { reader: local.reader, not_send: PhantomData }
}

#[inline(always)]
fn local() -> Option<Local> {
    // The thread-local needs no destructor, so the thread can use it until its very end.
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

/// Gives back a record that was claimed for one section and those nested in it, unless a signal handler has just done so at the
/// end of its own section.
#[cold]
fn give_back(reader: &'static Reader) {
    if let Ok(Some(_)) = LOCAL.try_with(Cell::take) {
        reader.release();
    }
}

/// Frees `object` once no section that runs now can hold it.
///
/// # Safety
/// The object is no longer reachable for new readers, and the caller retires it once.
pub(crate) unsafe fn retire(object: NonNull<Head>) {
    let guard = enter();
    // SAFETY: the caller promises that new readers cannot reach the object and that it is retired once.
    unsafe { domain().retire(guard.reader, object) };
}

/// Waits until every section that runs now has ended (the kernel's `synchronize_rcu`).
///
/// A hook runs in a section. So what a thread stores before this call, every hook that begins later reads; and what hooks wrote that
/// may not have read it, that thread reads after the call.
///
/// # Errors
/// [`Error::InsideHook`] when called from a PMU's hook; [`Error::BarrierRefused`] when the kernel refuses
/// `membarrier` after having granted it. Then nothing was waited for.
pub fn synchronize() -> Result<(), Error> {
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
/// Call it before you measure memory. Correctness never depends on it.
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
    // If `claim` got the record for this call only, the end of a section gives it back.
    drop(enter());
    result
}

/// Whether sections are nearly free here, because the kernel grants `membarrier(2)`.
///
/// Where the kernel refuses it, each section costs a full fence.
#[must_use]
pub fn asymmetric() -> bool {
    membarrier::is_asymmetric()
}

/// How many released objects still wait to be freed.
#[must_use]
pub fn pending() -> usize {
    domain().pending(held())
}

/// Claims a record for this thread; if the thread is ending, for one section only.
#[cold]
#[inline(never)]
fn claim() -> Local {
    let domain = domain();
    let local = Local { domain, reader: domain.claim() };
    let is_ending = OWNER.try_with(|owner| owner.0.set(Some(local.reader))).is_err();
    local.reader.lend(is_ending);
    // An ending thread notes the record too: nested sections must find that they are inside one.
    let _ = LOCAL.try_with(|mine| mine.set(Some(local)));
    local
}

#[cfg(all(test, not(any(pertask_loom, pertask_shuttle))))]
mod tests;
