//! A sampled thread as the signal handler on it finds it: its ring, its task, its stack, its unwinder's cache. And all of
//! them, by number: what a signal carries.

use super::modules::Unwinder;
use super::ring::Ring;
use super::unwind::Cache;
use pertask_core::CpuRecord;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

/// Threads that can be sampled at once.
pub(super) const MOST: usize = 4096;

/// INVARIANT: null, or a record, which is never freed: a signal that was sent long ago may still name it.
static RECORDS: [AtomicPtr<Record>; MOST] = [const { AtomicPtr::new(ptr::null_mut()) }; MOST];

/// The modules' unwinder that handlers use now, or null.
///
/// INVARIANT: comes from a box, and is freed by [`publish`] alone.
static UNWINDER: AtomicPtr<Unwinder> = AtomicPtr::new(ptr::null_mut());

/// What a handler needs to know of its thread, and where it leaves what it sees.
pub(super) struct Record {
    number: u32,
    /// The kernel's number of the thread, or 0 while it is nobody's. A handler on another thread leaves it alone.
    thread: AtomicU32,
    /// The CPU that the thread is for tasks, if the collector has seen it be one. It may have ceased to be.
    cpu: AtomicPtr<CpuRecord>,
    pub(super) ring: Ring,
    /// Whether a handler is at work: another signal may interrupt it.
    busy: AtomicBool,
    /// The unwinder that the handler is using: not to be freed.
    using: AtomicPtr<Unwinder>,
    /// Samples that were not taken because a handler was at work.
    nested: AtomicU64,
    /// And because there was no room on the stack.
    no_room: AtomicU64,
    /// INVARIANT: changed only while no thread has the record, or by the handler that holds `busy`, on its thread.
    own: UnsafeCell<Own>,
}

/// What the handler alone uses while a thread has the record.
pub(super) struct Own {
    pub(super) cache: Cache,
    pub(super) stack: Stack,
    /// Where stacks may be, by address: the handler finds its thread's among them. Freed when the record is given away.
    pub(super) mappings: Arc<[Range<u64>]>,
}

/// Where the thread's stack is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stack {
    Known(Range<u64>),
    /// Where the thread's control block is: the handler will look.
    Sought,
    /// Not where threads usually have theirs: it is not read.
    Unknown,
}

// SAFETY: all but `own` is atomic, and `own` is used by one at a time, as its invariant says.
unsafe impl Sync for Record {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Record {}

impl Record {
    /// A new record, or `None` if there are [`MOST`], or no memory.
    pub(super) fn new(ring_bytes: usize) -> Option<&'static Self> {
        let number = RECORDS.iter().position(|place| place.load(Ordering::Relaxed).is_null())?;
        let ring = Ring::new(ring_bytes)?;
        let record = Box::leak(Box::new(Self {
            number: u32::try_from(number).ok()?,
            thread: AtomicU32::new(0),
            cpu: AtomicPtr::new(ptr::null_mut()),
            ring,
            busy: AtomicBool::new(false),
            using: AtomicPtr::new(ptr::null_mut()),
            nested: AtomicU64::new(0),
            no_room: AtomicU64::new(0),
            own: UnsafeCell::new(Own {
                cache: Cache::default(),
                stack: Stack::Unknown,
                mappings: Arc::default(),
            }),
        }));
        // Release: pairs with the Acquire in `of_number`. Records are made by one thread at a time.
        RECORDS[number].store(record, Ordering::Release);
        Some(record)
    }

    pub(super) fn of_number(number: u32) -> Option<&'static Self> {
        // Acquire: pairs with the Release in `new`.
        let record = RECORDS.get(number as usize)?.load(Ordering::Acquire);
        // SAFETY: null, or a record, which is never freed.
        unsafe { record.as_ref() }
    }

    /// The record that a thread has.
    pub(super) fn of_thread(thread: u32) -> Option<&'static Self> {
        // There is none behind the first place that is empty.
        (0..MOST as u32).map_while(Self::of_number).find(|record| record.is_of(thread))
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Says which CPU the thread is. Told again when it is another.
    pub(super) fn set_cpu(&self, cpu: &CpuRecord) {
        // Relaxed: it was whole before the system told of it, and the handler reads of it what its own thread writes.
        self.cpu.store(ptr::from_ref(cpu).cast_mut(), Ordering::Relaxed);
    }

    /// The CPU that the thread has been seen to be.
    pub(super) fn cpu(&self) -> Option<&'static CpuRecord> {
        // SAFETY: null, or what `set_cpu` was given, which is never freed. Relaxed: see there.
        unsafe { self.cpu.load(Ordering::Relaxed).as_ref() }
    }

    /// Samples that were not taken because a handler was at work, ever.
    pub(super) fn nested(&self) -> u64 {
        // Relaxed: a figure.
        self.nested.load(Ordering::Relaxed)
    }

    /// Samples that were not taken because there was no room on the stack, ever.
    pub(super) fn no_room(&self) -> u64 {
        // Relaxed: a figure.
        self.no_room.load(Ordering::Relaxed)
    }

    /// Counts one of those.
    pub(super) fn note_no_room(&self) {
        // Relaxed: as above.
        self.no_room.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives a record that is nobody's to a thread that is not sampled yet.
    ///
    /// # Safety
    /// No thread has it, or that thread has ended; and only one thread gives records away at a time.
    pub(super) unsafe fn give(&self, thread: u32, stack: Stack, mappings: Arc<[Range<u64>]>) {
        // SAFETY: no handler looks into it, by the caller's word.
        let own = unsafe { &mut *self.own.get() };
        (own.stack, own.mappings) = (stack, mappings);
        // Relaxed: as below.
        self.cpu.store(ptr::null_mut(), Ordering::Relaxed);
        // Release: pairs with the Acquire in `is_of`.
        self.thread.store(thread, Ordering::Release);
    }

    /// Whether it is that thread's.
    pub(super) fn is_of(&self, thread: u32) -> bool {
        // Acquire: pairs with the Release in `give`.
        self.thread.load(Ordering::Acquire) == thread
    }

    /// Calls `f` with what is the handler's own, unless a handler is at work below this one.
    ///
    /// # Safety
    /// In a signal handler on the thread that has the record.
    pub(super) unsafe fn enter(&self, f: impl FnOnce(&mut Own)) {
        // Relaxed: both handlers run on one thread, in program order.
        if self.busy.load(Ordering::Relaxed) {
            self.nested.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.busy.store(true, Ordering::Relaxed);
        // SAFETY: the thread has it, and `busy` keeps out every other handler on it.
        f(unsafe { &mut *self.own.get() });
        self.busy.store(false, Ordering::Relaxed);
    }

    /// Calls `f` with the unwinder of this moment. In [`enter`](Self::enter).
    pub(super) fn with_unwinder<R>(&self, f: impl FnOnce(Option<&Unwinder>) -> R) -> R {
        let mut unwinder = UNWINDER.load(Ordering::Acquire);
        loop {
            self.using.store(unwinder, Ordering::Relaxed);
            // SeqCst: pairs with the fence in `publish`: either the collector sees that we use it, or we see that it was
            // replaced.
            fence(Ordering::SeqCst);
            // Acquire: pairs with the Release in `publish`, for what the box holds.
            let now = UNWINDER.load(Ordering::Acquire);
            if now == unwinder {
                break;
            }
            unwinder = now;
        }
        // SAFETY: null, or from a box that `publish` does not free while `using` names it.
        let result = f(unsafe { unwinder.as_ref() });
        // Release: pairs with the Acquire in `publish`: what was read, was read before it is freed.
        self.using.store(ptr::null_mut(), Ordering::Release);
        result
    }
}

/// Unwinders that were replaced while a handler used them.
#[derive(Default)]
pub(super) struct Replaced(Vec<*mut Unwinder>);

// SAFETY: it owns what they point to.
unsafe impl Send for Replaced {}

impl Replaced {
    /// Makes all handlers use another unwinder from now on.
    pub(super) fn publish(&mut self, unwinder: Unwinder) {
        let new = Box::into_raw(Box::new(unwinder));
        // AcqRel: pairs with the loads in `with_unwinder`, and with the swap before.
        let old = UNWINDER.swap(new, Ordering::AcqRel);
        if !old.is_null() {
            self.0.push(old);
        }
    }

    /// Frees those that no handler uses any more.
    pub(super) fn free_unused(&mut self) {
        if self.0.is_empty() {
            return;
        }
        // SeqCst: pairs with the fence in `with_unwinder`.
        fence(Ordering::SeqCst);
        // Acquire: pairs with the Release in `with_unwinder`.
        let used: Vec<_> = (0..MOST as u32)
            .map_while(Record::of_number)
            .map(|record| record.using.load(Ordering::Acquire))
            .collect();
        self.0.retain(|old| {
            let free = !used.contains(old);
            if free {
                // SAFETY: from a box, taken out by us alone; no handler uses it, and none finds it any more.
                drop(unsafe { Box::from_raw(*old) });
            }
            !free
        });
    }
}
