//! Records: what the signal handler uses of its thread (the ring, the CPU, the stack, the unwinder's cache), and the table in
//! which it finds the record by the number that the signal carries. The thread also uses its record outside of a handler, to take its
//! own stack and to write into its ring. Whichever of the two comes second finds the record busy, and leaves it alone.

use super::area::Area;
use super::ring::Ring;
use super::unwind::Cache;
use super::walker::Walker;
use pertask_core::CpuRecord;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, compiler_fence, fence,
};

/// The most threads that can be sampled at the same time.
pub(super) const MOST: usize = 4096;

/// The records, by number.
///
/// INVARIANT: each is null, or points to a record that is never freed, because a signal that was sent long ago may still carry
/// its number.
static RECORDS: [AtomicPtr<Record>; MOST] = [const { AtomicPtr::new(ptr::null_mut()) }; MOST];

/// The walker that walks use now, or null.
///
/// INVARIANT: it comes from a box, and only [`Replaced`] frees it.
static WALKER: AtomicPtr<Walker> = AtomicPtr::new(ptr::null_mut());

/// What a handler needs to know about its thread, and the ring into which it writes samples.
pub(super) struct Record {
    number: u32,
    /// The kernel's number of the thread that has the record, or 0. A handler on another thread does not use the record.
    thread: AtomicU32,
    /// The CPU that the thread is for tasks, or null if the sampler has not seen it become one. The thread may have ceased to
    /// be this CPU.
    cpu: AtomicPtr<CpuRecord>,
    pub(super) ring: Ring,
    /// Whether a handler is at work with the record, or its thread outside of a handler. A signal may interrupt either.
    busy: AtomicBool,
    /// The walker that is used with the record at this moment, which must not be freed.
    using: AtomicPtr<Walker>,
    /// The number of samples that were not taken because the record was busy.
    nested: AtomicU64,
    /// The number of samples that were not taken because the stack had no room.
    no_room: AtomicU64,
    /// INVARIANT: this is used only while no thread has the record, by the one thread that gives it away; or on the record's thread, by
    /// who has set `busy`: a signal handler in [`enter`](Self::enter), or the thread itself in
    /// [`enter_outside`](Self::enter_outside).
    own: UnsafeCell<Own>,
}

/// What, of a record that a thread has, only that thread uses, and only while the record is busy.
pub(super) struct Own {
    pub(super) cache: Cache,
    pub(super) stack: Stack,
    /// The stack on which the work is done.
    area: Area,
}

/// Where a thread's stack is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stack {
    /// The stack is at these addresses.
    Known(Range<u64>),
    /// The stack is where the thread's control block is. The thread's first walk will look for it.
    Sought,
    /// The stack is not where stacks usually are. It is treated like a fiber's.
    Unknown,
}

// SAFETY: all fields except `own` are atomic or never change, and by its invariant only one thread uses `own` at a time.
unsafe impl Sync for Record {}
// SAFETY: nothing in a record depends on the thread that made it.
unsafe impl Send for Record {}

impl Record {
    /// Makes a record, or returns `None` if there are [`MOST`] already, or there is no memory.
    pub(super) fn new(ring_bytes: usize) -> Option<&'static Self> {
        let number = RECORDS.iter().position(|place| place.load(Ordering::Relaxed).is_null())?;
        let (ring, area) = (Ring::new(ring_bytes)?, Area::new()?);
        let record = Box::leak(Box::new(Self {
            number: u32::try_from(number).ok()?,
            thread: AtomicU32::new(0),
            cpu: AtomicPtr::new(ptr::null_mut()),
            ring,
            busy: AtomicBool::new(false),
            using: AtomicPtr::new(ptr::null_mut()),
            nested: AtomicU64::new(0),
            no_room: AtomicU64::new(0),
            own: UnsafeCell::new(Own { cache: Cache::default(), stack: Stack::Unknown, area }),
        }));
        // Release: pairs with the Acquire in `of_number`, so that the record is whole. Only one thread makes records at a time.
        RECORDS[number].store(record, Ordering::Release);
        Some(record)
    }

    /// The record with this number.
    pub(super) fn of_number(number: u32) -> Option<&'static Self> {
        // Acquire: pairs with the Release in `new`.
        let record = RECORDS.get(number as usize)?.load(Ordering::Acquire);
        // SAFETY: the pointer is null, or points to a record, which is never freed.
        unsafe { record.as_ref() }
    }

    /// The record that a thread has.
    pub(super) fn of_thread(thread: u32) -> Option<&'static Self> {
        // No record is behind the first empty place.
        (0..MOST as u32).map_while(Self::of_number).find(|record| record.is_of(thread))
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Notes which CPU the thread is. The sampler calls this again if the thread becomes another CPU.
    pub(super) fn set_cpu(&self, cpu: &CpuRecord) {
        // Relaxed: the record of the CPU was whole before the system handed it out, and the handler reads only what its own
        // thread writes there.
        self.cpu.store(ptr::from_ref(cpu).cast_mut(), Ordering::Relaxed);
    }

    /// The CPU that the thread was last seen to be.
    pub(super) fn cpu(&self) -> Option<&'static CpuRecord> {
        // SAFETY: the pointer is null, or comes from a `CpuRecord` that `set_cpu` was given. The system never frees those.
        // Relaxed: see `set_cpu`.
        unsafe { self.cpu.load(Ordering::Relaxed).as_ref() }
    }

    /// The number of samples that were not taken because the record was busy, since the record was made.
    pub(super) fn nested(&self) -> u64 {
        // Relaxed: a figure.
        self.nested.load(Ordering::Relaxed)
    }

    /// The number of samples that were not taken because the stack had no room, since the record was made.
    pub(super) fn no_room(&self) -> u64 {
        // Relaxed: a figure.
        self.no_room.load(Ordering::Relaxed)
    }

    /// Counts a sample that was not taken because the stack had no room.
    pub(super) fn note_no_room(&self) {
        // Relaxed: a figure.
        self.no_room.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives the record to a thread that is not sampled yet.
    ///
    /// # Safety
    /// No live thread may have the record, and only one thread may give records away at a time.
    pub(super) unsafe fn give(&self, thread: u32, stack: Stack) {
        // SAFETY: nobody uses `own`, because no live thread has the record, by the caller's contract.
        let own = unsafe { &mut *self.own.get() };
        own.stack = stack;
        // Relaxed: the Release below orders it.
        self.cpu.store(ptr::null_mut(), Ordering::Relaxed);
        // Release: pairs with the Acquire in `is_of`.
        self.thread.store(thread, Ordering::Release);
    }

    /// Whether this thread has the record.
    pub(super) fn is_of(&self, thread: u32) -> bool {
        // Acquire: pairs with the Release in `give`.
        self.thread.load(Ordering::Acquire) == thread
    }

    /// Calls `f` with `own`, on a stack of the sampler's own, unless this handler has interrupted another one, or its thread in
    /// [`enter_outside`](Self::enter_outside). Then it counts a sample that was not taken.
    ///
    /// # Safety
    /// The caller must be a signal handler, on the thread that has the record, and `f` must not panic.
    pub(super) unsafe fn enter(&self, f: impl FnOnce(&mut Own)) {
        // Relaxed, and fences for the compiler alone: whoever is interrupted runs on this thread, too.
        if self.busy.load(Ordering::Relaxed) {
            // Relaxed: a figure.
            self.nested.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.busy.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let own = self.own.get();
        // SAFETY: the calling thread has the record, by the caller's contract. `busy` was not set, so this handler has interrupted
        // nobody who uses `own`, and it is set now, so every handler that interrupts this one keeps out. So nobody else uses `own` or its
        // stack.
        unsafe {
            let area = (*own).area;
            area.run(|| f(&mut *own));
        }
        compiler_fence(Ordering::SeqCst);
        self.busy.store(false, Ordering::Relaxed);
    }

    /// Calls `f` with `own`, outside of the sampler's handler, on a stack of the sampler's own: the caller's may be that of a small fiber. A
    /// signal that comes meanwhile takes no sample, and is counted. Returns `None`, and does not call `f`, if the record is busy: a
    /// handler of the program's may have interrupted another such call.
    ///
    /// # Safety
    /// The calling thread must have the record, and `f` must not panic.
    pub(super) unsafe fn enter_outside<R>(&self, f: impl FnOnce(&mut Own) -> R) -> Option<R> {
        // Relaxed, and fences for the compiler alone: a handler that comes meanwhile runs on this thread.
        if self.busy.load(Ordering::Relaxed) {
            return None;
        }
        self.busy.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let (own, mut result) = (self.own.get(), None);
        // SAFETY: the calling thread has the record, by the caller's contract. `busy` was not set, so nobody who uses `own` was
        // interrupted, and it is set now, so every handler that comes meanwhile keeps out. So nobody else uses `own` or its stack.
        unsafe {
            let area = (*own).area;
            area.run(|| result = Some(f(&mut *own)));
        }
        compiler_fence(Ordering::SeqCst);
        self.busy.store(false, Ordering::Relaxed);
        result
    }

    /// Calls `f` with the current walker. The caller is in [`enter`](Self::enter) or [`enter_outside`](Self::enter_outside), so one caller
    /// at a time writes `using`.
    pub(super) fn with_walker<R>(&self, f: impl FnOnce(Option<&Walker>) -> R) -> R {
        // Acquire: pairs with the AcqRel in `publish`, for what the box holds.
        let mut walker = WALKER.load(Ordering::Acquire);
        loop {
            // Relaxed: the fence below orders it.
            self.using.store(walker, Ordering::Relaxed);
            // SeqCst: pairs with the fence in `free_unused`. If this fence comes first, the collector sees that the walker is
            // used here. If the collector's comes first, the load below sees that the walker was replaced.
            fence(Ordering::SeqCst);
            // Acquire: pairs with the AcqRel in `publish`, for what the box holds.
            let now = WALKER.load(Ordering::Acquire);
            if now == walker {
                break;
            }
            walker = now;
        }
        // SAFETY: the pointer is null, or from a box that `free_unused` does not free while `using` names it.
        let result = f(unsafe { walker.as_ref() });
        // Release: pairs with the Acquire in `free_unused`, so that the walker is freed only after `f` has read it.
        self.using.store(ptr::null_mut(), Ordering::Release);
        result
    }
}

/// Walkers that were replaced and that a thread may still use.
#[derive(Default)]
pub(super) struct Replaced(Vec<*mut Walker>);

// SAFETY: this value owns the boxes to which the pointers point, and a `Walker` is `Send`.
unsafe impl Send for Replaced {}

impl Replaced {
    /// Publishes a walker, which all walks use that begin from now on.
    pub(super) fn publish(&mut self, walker: Walker) {
        let new = Box::into_raw(Box::new(walker));
        // AcqRel: pairs with the Acquire loads in `with_walker`, and with the swap that published the old walker.
        let old = WALKER.swap(new, Ordering::AcqRel);
        if !old.is_null() {
            self.0.push(old);
        }
    }

    /// Frees the walkers that no thread uses any more.
    pub(super) fn free_unused(&mut self) {
        if self.0.is_empty() {
            return;
        }
        // SeqCst: pairs with the fence in `with_walker`. If this fence comes first, no walk takes a replaced walker any
        // more. If the walk's comes first, the loads below see that it uses one.
        fence(Ordering::SeqCst);
        // Acquire: pairs with the Release in `with_walker`, so that a walk has finished with a walker that it no longer uses.
        let used: Vec<_> = (0..MOST as u32)
            .map_while(Record::of_number)
            .map(|record| record.using.load(Ordering::Acquire))
            .collect();
        self.0.retain(|old| {
            let free = !used.contains(old);
            if free {
                // SAFETY: the pointer is from a box, and only this value has it. No walk uses it, and none can find it any
                // more.
                drop(unsafe { Box::from_raw(*old) });
            }
            !free
        });
    }
}
