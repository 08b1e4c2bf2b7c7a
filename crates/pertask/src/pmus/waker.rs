//! The waker that tracked futures are polled with while a session measures what only a wake tells.
//!
//! It is around the executor's waker. It notes the time of a wake for the PMUs that want it, and then wakes the task. Executors and
//! futures may compare wakers, or look into them, so tracked futures have this waker only while a session wants it, and keep it
//! from poll to poll until another session is attached.

use super::life::Life;
use super::waits::Wait;
use super::wake::WakeLatency;
use pertask_core::Task;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{RawWaker, RawWakerVTable, Waker};

/// The number of sessions that want to know of wakes.
static WANTED: AtomicU32 = AtomicU32::new(0);

/// In the lower half the number of sessions that want to know of wakes and are being attached. Meanwhile each poll asks what is measured of
/// its task. In the upper half, how many of such attaches have ended. A task that was found to be measured is asked for again only when
/// this has changed.
static ATTACHES: AtomicU64 = AtomicU64::new(0);

/// One attach that has ended.
const ENDED: u64 = 1 << 32;

/// While a value of this type lives, tracked futures are polled with our waker.
#[derive(Debug)]
pub(crate) struct Wanted(());

impl Wanted {
    pub(crate) fn begin() -> Self {
        // Relaxed: a future that is polled at this moment is measured from this poll on, or from its next.
        WANTED.fetch_add(1, Ordering::Relaxed);
        Self(())
    }

    /// Says that the session begins to attach to its tasks.
    pub(crate) fn attach(&self) -> Attaching {
        // Relaxed: a poll that begins at this moment may find that its task is not measured yet.
        ATTACHES.fetch_add(1, Ordering::Relaxed);
        Attaching(())
    }
}

/// While a value of this type lives, a session is being attached.
#[derive(Debug)]
pub(crate) struct Attaching(());

impl Drop for Attaching {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `noting`. Whoever finds that the attach has ended finds what was attached.
        ATTACHES.fetch_add(ENDED - 1, Ordering::Release);
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        // Relaxed: a future that is polled at this moment may keep our waker for one poll more.
        WANTED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a session wants to know of wakes.
#[inline(always)]
pub(crate) fn is_wanted() -> bool {
    // Relaxed: see `Wanted::begin`.
    WANTED.load(Ordering::Relaxed) != 0
}

/// A waker that notes the time, and then wakes the task by the executor's waker.
///
/// A tracked future keeps one as long as the executor's waker stays the same and no session is attached, because futures may compare
/// wakers.
#[derive(Debug)]
pub(crate) struct NotingWaker {
    inner: Waker,
    task: Arc<Task>,
    /// The epoch in which it was found that the task is measured.
    epoch: u32,
    /// The wait that is sampled, with the number plus one of its leaf that this waker is, or 0.
    wait: Option<(Arc<Wait>, u32)>,
}

/// A waker for one poll, which its tracked future keeps.
pub(crate) struct Lent<'a> {
    /// INVARIANT: not dropped, because it has no count of its own in the `Arc`.
    waker: ManuallyDrop<Waker>,
    keeper: &'a NotingWaker,
}

/// A waker that notes when it wakes `task`, kept in `own`, or `None` if no session measures the task. A task that was found to be measured
/// counts as such until another session is attached.
#[cold]
pub(crate) fn noting<'a>(
    task: &Arc<Task>,
    inner: &Waker,
    own: &'a mut Option<Arc<NotingWaker>>,
) -> Option<Lent<'a>> {
    end_wait(own.as_ref());
    // Acquire: pairs with the Release of `Attaching`.
    let attaches = ATTACHES.load(Ordering::Acquire);
    let (is_settled, epoch) = (attaches as u32 == 0, (attaches >> 32) as u32);
    let is_current = own.as_ref().is_some_and(|noting| noting.epoch == epoch);
    let is_known = is_current && is_settled;
    if !is_known && !expect_wakes(task) {
        return None;
    }
    let wait = Wait::choose(task).map(|wait| (wait, 0));
    // A poll that is watched needs a waker that the future has not seen, and one that is not needs one that notes no wait.
    let serves = |noting: &Arc<NotingWaker>| noting.wait.is_none() && noting.inner.will_wake(inner);
    if is_current && wait.is_none() && own.as_ref().is_some_and(serves) {
        return own.as_ref().map(Lent::of);
    }
    let new = NotingWaker { inner: inner.clone(), task: Arc::clone(task), epoch, wait };
    Some(Lent::of(own.insert(Arc::new(new))))
}

/// Says that the task's polls have wakers that note wakes, from the next one on. Returns false if no session measures the task.
fn expect_wakes(task: &Task) -> bool {
    let has_latency = WakeLatency::expect_wakes(task);
    Life::expect_wakes(task) || has_latency
}

/// Ends the wait of a task that is polled again, or dropped.
#[inline(always)]
pub(crate) fn end_wait(own: Option<&Arc<NotingWaker>>) {
    if let Some((wait, _)) = own.and_then(|noting| noting.wait.as_ref()) {
        wait.end();
    }
}

impl<'a> Lent<'a> {
    fn of(noting: &'a Arc<NotingWaker>) -> Self {
        let raw = RawWaker::new(Arc::as_ptr(noting).cast(), &VTABLE);
        // SAFETY: the functions of `VTABLE` get the pointer of an `Arc<NotingWaker>`, and keep the contract of `RawWaker`. The
        // waker itself owns no count. It is not dropped, and not used longer than `noting` is borrowed.
        Self { waker: ManuallyDrop::new(unsafe { Waker::from_raw(raw) }), keeper: noting }
    }

    /// Says that the poll has ended.
    #[inline(always)]
    pub(crate) fn end_poll(&self, is_pending: bool) {
        if let Some((wait, _)) = &self.keeper.wait {
            wait.end_poll(is_pending);
        }
    }
}

impl Drop for Lent<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // The poll may have panicked.
        if let Some((wait, _)) = &self.keeper.wait {
            wait.leave();
        }
    }
}

impl Deref for Lent<'_> {
    type Target = Waker;

    fn deref(&self) -> &Waker {
        &self.waker
    }
}

impl NotingWaker {
    fn wake(&self) {
        WakeLatency::note_wake(&self.task);
        Life::note_wake(&self.task);
        if let Some((wait, leaf)) = &self.wait {
            wait.note_wake(*leaf);
        }
        self.inner.wake_by_ref();
    }

    /// A waker of its own for the leaf that is being left, if the poll is watched.
    fn leaf(&self) -> Option<Arc<Self>> {
        let (wait, leaf) = self.wait.as_ref()?;
        // A leaf that is handed on is the same leaf.
        if *leaf != 0 {
            return None;
        }
        let own = Some((Arc::clone(wait), wait.make_leaf()?));
        // The clone may be a leaf of the task around this one.
        let (inner, task) = (self.inner.clone(), Arc::clone(&self.task));
        let leaf = Self { inner, task, epoch: self.epoch, wait: own };
        wait.note_leaf();
        Some(Arc::new(leaf))
    }
}

impl Drop for NotingWaker {
    fn drop(&mut self) {
        if let Some((wait, leaf)) = &self.wait
            && *leaf != 0
        {
            wait.drop_leaf(*leaf);
        }
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_one);

/// # Safety
/// Here and below, `noting` is from `Arc::into_raw` or `as_ptr`, and the `Arc` lives.
unsafe fn clone(noting: *const ()) -> RawWaker {
    // SAFETY: by this function's contract. The caller's waker keeps the `Arc` meanwhile.
    if let Some(leaf) = unsafe { &*noting.cast::<NotingWaker>() }.leaf() {
        return RawWaker::new(Arc::into_raw(leaf).cast(), &VTABLE);
    }
    // SAFETY: by this function's contract.
    unsafe { Arc::increment_strong_count(noting.cast::<NotingWaker>()) };
    RawWaker::new(noting, &VTABLE)
}

/// # Safety
/// As for [`clone`], and the waker that owned a count gives it up.
unsafe fn wake(noting: *const ()) {
    // SAFETY: by this function's contract.
    unsafe { Arc::from_raw(noting.cast::<NotingWaker>()) }.wake();
}

/// # Safety
/// As for [`clone`].
unsafe fn wake_by_ref(noting: *const ()) {
    // SAFETY: by this function's contract. The caller's waker keeps the `Arc` meanwhile.
    unsafe { &*noting.cast::<NotingWaker>() }.wake();
}

/// # Safety
/// As for [`wake`].
unsafe fn drop_one(noting: *const ()) {
    // SAFETY: by this function's contract.
    drop(unsafe { Arc::from_raw(noting.cast::<NotingWaker>()) });
}
