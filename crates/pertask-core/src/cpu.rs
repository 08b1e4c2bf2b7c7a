//! A CPU: one thread that runs tasks, what runs on it now, and the switch.

use crate::MAX_PMUS;
use crate::pmu::{AnyPmu, Edge};
use crate::primitive::{Arc, AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::rcu;
use crate::site::Site;
use crate::system::System;
use crate::task::{OwnedTask, Task, TaskId};
use std::any::Any;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::Location;
use std::ptr;
use std::sync::OnceLock;

/// How many spawn sites a CPU remembers, so that making a task takes no lock.
const SITE_CACHE: usize = 64;

/// How many numbers for tasks a CPU takes at a time, so that CPUs do not fight for one word at each task they make.
const NUMBERS: u64 = 64;

/// A CPU as others see it: which thread it is, and what runs there.
///
/// Written by its thread alone. Another thread reads numbers; a signal handler on the CPU's own thread may also follow
/// `current`, which stays valid while the handler runs.
#[repr(C, align(128))]
pub struct CpuRecord {
    // What each switch touches comes first, in one cache line.
    system: &'static System,
    /// INVARIANT: null, or the task that runs here, which is kept alive by whoever runs it. The tasks it was switched
    /// in over hang behind it, each from its `outer`.
    current: AtomicPtr<Task>,
    current_id: AtomicU64,
    /// Grows with every switch, so that another thread can tell one turn from the next.
    switches: AtomicU64,
    /// The PMUs whose `sched_in` the current task has had, and whose `sched_out` it is owed.
    owed: AtomicU32,
    index: u32,
    /// The tag while no task runs.
    own_tag: AtomicU32,
    /// The kernel's number of the thread, or 0 while no thread has this record.
    thread: AtomicU32,
    online: AtomicBool,
    /// The PMUs' data.
    ///
    /// INVARIANT: each is null, or points into the box at the same index of `owned`.
    data: [AtomicPtr<()>; MAX_PMUS],
    owned: [OnceLock<Box<dyn Any + Send + Sync>>; MAX_PMUS],
}

/// A CPU as its own thread has it: the right to switch tasks in and out.
///
/// Neither `Send` nor `Sync`: all that it writes is written by one thread. Most users reach it through
/// [`Cpu::with`].
pub struct Cpu {
    record: &'static CpuRecord,
    sites: [Cell<Option<&'static Site>>; SITE_CACHE],
    /// Numbers for the tasks that are made here.
    numbers: Cell<(u64, u64)>,
    not_send: PhantomData<*const ()>,
}

impl CpuRecord {
    pub(crate) fn new(system: &'static System, index: u32) -> Self {
        Self {
            system,
            index,
            current: AtomicPtr::new(ptr::null_mut()),
            current_id: AtomicU64::new(0),
            switches: AtomicU64::new(0),
            owed: AtomicU32::new(0),
            own_tag: AtomicU32::new(0),
            thread: AtomicU32::new(0),
            online: AtomicBool::new(false),
            data: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            owned: [const { OnceLock::new() }; MAX_PMUS],
        }
    }

    /// A number, dense from 0. When a thread ends, the next new one gets its number.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The kernel's number of the thread (`gettid`), or `None` while no thread has this CPU.
    #[must_use]
    pub fn thread(&self) -> Option<u32> {
        // Relaxed: a figure.
        Some(self.thread.load(Ordering::Relaxed)).filter(|thread| *thread != 0)
    }

    /// The task that runs here, by number: what another thread may know.
    ///
    /// Acquire: pairs with the Release of the switch, so that what `switches` counts is at least as new.
    #[must_use]
    pub fn current_id(&self) -> Option<TaskId> {
        TaskId::new(self.current_id.load(Ordering::Acquire))
    }

    /// How many switches there have been. While it stays the same, so does the current task.
    ///
    /// Acquire: pairs with the Release of the switch.
    #[must_use]
    #[inline]
    pub fn switches(&self) -> u64 {
        self.switches.load(Ordering::Acquire)
    }

    /// Calls `f` with the task that runs here: for a signal handler on the CPU's own thread, which may have interrupted
    /// anything, a switch included.
    ///
    /// # Safety
    /// The calling thread is the one that has this CPU: [`thread`](Self::thread) is its own number.
    pub unsafe fn with_current<R>(&self, f: impl FnOnce(Option<&Task>) -> R) -> R {
        // SAFETY: null, or a task that its runner keeps alive until it is switched out on this thread, which is not
        // before `f` has returned.
        f(unsafe { self.current().as_ref() })
    }

    /// The CPU's own [tag](Cpu::tag), which holds while no task runs here. For signal handlers, too.
    #[must_use]
    #[inline]
    pub fn own_tag(&self) -> u32 {
        // Relaxed: a number that means the same to whoever sees it.
        self.own_tag.load(Ordering::Relaxed)
    }

    fn set_own_tag(&self, tag: u32) -> u32 {
        let before = self.own_tag();
        // Relaxed: as above; this thread alone writes it.
        self.own_tag.store(tag, Ordering::Relaxed);
        before
    }

    pub(crate) fn is_of(&self, system: &System) -> bool {
        ptr::eq(self.system, system)
    }

    /// A PMU's data, or null. It lives as long as the record.
    #[inline(always)]
    pub(crate) fn data(&self, pmu: usize) -> *const () {
        // Acquire: pairs with the Release in `set_data`.
        self.data[pmu].load(Ordering::Acquire)
    }

    pub(crate) fn set_data(&self, pmu: &dyn AnyPmu) {
        let index = pmu.state().index;
        let data: *const (dyn Any + Send + Sync) =
            &raw const **self.owned[index].get_or_init(|| pmu.new_cpu_data());
        // Release: pairs with the Acquire in `data`.
        self.data[index].store(data.cast::<()>().cast_mut(), Ordering::Release);
    }

    /// Claims the record for the calling thread. Under the system's lock.
    pub(crate) fn go_online(&self) -> bool {
        // Acquire: pairs with the Release in `go_offline`; the former owner's writes come first.
        if self.online.swap(true, Ordering::Acquire) {
            return false;
        }
        self.own_tag.store(0, Ordering::Relaxed);
        self.thread.store(thread_number(), Ordering::Relaxed);
        true
    }

    fn go_offline(&self) {
        self.thread.store(0, Ordering::Relaxed);
        // Release: pairs with the Acquire in `go_online`.
        self.online.store(false, Ordering::Release);
    }

    #[inline]
    fn current(&self) -> *mut Task {
        // Relaxed: read by the thread that writes it.
        self.current.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn owed(&self) -> u32 {
        // Relaxed: this thread's own.
        self.owed.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn set_current(&self, task: *mut Task) {
        // SAFETY: null, or the task that is about to run, which its runner keeps alive.
        let id = unsafe { task.as_ref() }.map_or(0, |task| task.id().get());
        // Relaxed: other threads do not follow the pointer; this thread's signal handlers see it in program order.
        self.current.store(task, Ordering::Relaxed);
        // Release: pairs with the Acquire in `switches` and `current_id`.
        self.current_id.store(id, Ordering::Release);
        let switches = self.switches.load(Ordering::Relaxed);
        self.switches.store(switches + 1, Ordering::Release);
    }
}

impl Cpu {
    /// A CPU of a system, for the calling thread: a record that no thread has, or a new one.
    ///
    /// Simulations and tests make their own. A program's threads get theirs from [`Cpu::with`].
    pub fn new(system: &'static System) -> Self {
        Self {
            record: system.cpu_record(),
            sites: [const { Cell::new(None) }; SITE_CACHE],
            numbers: Cell::new((0, 0)),
            not_send: PhantomData,
        }
    }

    /// What others see of it.
    #[must_use]
    pub fn record(&self) -> &'static CpuRecord {
        self.record
    }

    /// The task that runs here now: the innermost, if they are nested.
    #[cfg(not(pertask_loom))]
    #[must_use]
    pub fn current(&self) -> Option<Arc<Task>> {
        let task: *const Task = self.record.current();
        if task.is_null() {
            return None;
        }
        // SAFETY: every task that runs is in an `Arc`, whose pointer this is, and is kept alive by its runner.
        unsafe {
            Arc::increment_strong_count(task);
            Some(Arc::from_raw(task))
        }
    }

    /// The same, for the time that it certainly runs: the borrow must not be handed out.
    #[inline]
    fn current_task(&self) -> Option<&Task> {
        // SAFETY: null, or a task that its runner keeps alive until it is switched out, on this thread.
        unsafe { self.record.current().as_ref() }
    }

    /// The site of that name and place. Takes no lock when this CPU has asked for it before.
    #[must_use]
    pub fn site(&self, name: Option<&str>, location: &'static Location<'static>) -> &'static Site {
        let place = &self.sites[site_place(name, location)];
        if let Some(site) = place.get()
            && site.is(name, location)
        {
            return site;
        }
        let site = self.record.system.site(name, location);
        // What overflowed is asked for again each time, and counted each time.
        if !site.is_other() {
            place.set(Some(site));
        }
        site
    }

    /// Makes a task, as a child of the one that runs here.
    pub fn fork(&self, site: &'static Site) -> OwnedTask {
        let CpuRecord { system, index, .. } = *self.record;
        let current = self.current_task();
        let task = system.fork_as(self.next_number(), site, current, index as usize);
        if current.is_none() {
            task.set_tag(self.tag());
        }
        task
    }

    /// The [tag](Task::tag) of the task that runs here, or the CPU's own where none does.
    #[must_use]
    #[inline]
    pub fn tag(&self) -> u32 {
        self.current_task().map_or_else(|| self.record.own_tag(), Task::tag)
    }

    /// Sets that tag, and returns the one before.
    #[inline]
    pub fn set_tag(&self, tag: u32) -> u32 {
        match self.current_task() {
            Some(task) => task.set_tag(tag),
            None => self.record.set_own_tag(tag),
        }
    }

    fn next_number(&self) -> u64 {
        let (mut next, mut end) = self.numbers.get();
        if next == end {
            Range { start: next, end } = self.record.system.task_numbers(NUMBERS);
        }
        self.numbers.set((next + 1, end));
        next
    }

    /// Runs `f` as `task`: switches it in, and out again however `f` ends.
    ///
    /// The task that ran here until now is switched out for the time. It does not allocate and takes no lock.
    ///
    /// `f` must not leave this thread's stack behind (a fiber that is suspended inside `f` and abandoned): for such
    /// tasks there are [`switch_in`](Self::switch_in) and [`switch_out`](Self::switch_out).
    #[inline]
    pub fn run<R>(&self, task: &mut OwnedTask, f: impl FnOnce() -> R) -> R {
        self.run_with_edge(task, Edge::Turn, f)
    }

    /// The same, for what is no turn of the task's: its destructor.
    pub fn run_aside<R>(&self, task: &mut OwnedTask, f: impl FnOnce() -> R) -> R {
        self.run_with_edge(task, Edge::Aside, f)
    }

    #[inline(always)]
    fn run_with_edge<R>(&self, task: &mut OwnedTask, edge: Edge, f: impl FnOnce() -> R) -> R {
        if !ptr::eq(task.system(), self.record.system) {
            return unseen(f);
        }
        // The `Arc`'s own pointer: a handle may be made of it.
        let task = Arc::as_ptr(&task.0);
        self.begin(task.cast_mut(), edge);
        let panicking = Panicking { cpu: self, task, edge };
        let result = f();
        // Not left to its drop, for which it would have to be in memory.
        std::mem::forget(panicking);
        self.end(task, edge);
        result
    }

    /// Switches a task in; the CPU keeps it until it is switched out, and ends it if the thread ends first.
    ///
    /// For executors whose switches are no function calls.
    ///
    /// # Errors
    /// The task itself, if it belongs to another system.
    pub fn switch_in(&self, task: OwnedTask) -> Result<(), OwnedTask> {
        if !ptr::eq(task.system(), self.record.system) {
            return Err(task);
        }
        task.set_carried(true);
        // The CPU has the right to run the task now: `OwnedTask`'s drop must not run.
        let task = std::mem::ManuallyDrop::new(task);
        self.begin(Arc::as_ptr(&task.0).cast_mut(), Edge::Turn);
        Ok(())
    }

    /// Switches out the task that was last given to [`switch_in`](Self::switch_in), and returns it.
    ///
    /// `None` if the current task is not of that kind: nothing runs, or a [`run`](Self::run) does.
    #[must_use = "a task ends when this is dropped"]
    pub fn switch_out(&self) -> Option<OwnedTask> {
        let task: *const Task = self.record.current();
        self.current_task().filter(|task| task.is_carried())?.set_carried(false);
        self.end(task, Edge::Turn);
        // SAFETY: `switch_in` kept one strong count of exactly this `Arc`, and `carried` said that it is still ours.
        Some(OwnedTask(unsafe { Arc::from_raw(task) }))
    }

    #[inline(always)]
    fn begin(&self, task: *mut Task, edge: Edge) {
        let record = self.record;
        // SAFETY: the caller has the right to run it, and with it a strong count.
        let incoming = unsafe { &*task };
        incoming.set_outer(record.current());
        if record.system.any_event() | (record.owed() != 0) {
            self.switch(Some(incoming), Edge::Nested, edge);
        }
        record.set_current(task);
    }

    /// Switches out `task`, and before it whatever was switched in over it and left there.
    #[inline(always)]
    fn end(&self, task: *const Task, edge: Edge) {
        let record = self.record;
        if !ptr::eq(record.current(), task) {
            self.end_left_behind(task);
        }
        // SAFETY: it is current, so its runner keeps it alive.
        let outer = unsafe { &*task }.outer();
        if record.system.any_event() | (record.owed() != 0) {
            // SAFETY: null, or a task whose turn goes on.
            self.switch(unsafe { outer.as_ref() }, edge, Edge::Nested);
        }
        record.set_current(outer);
    }

    #[cold]
    #[inline(never)]
    fn end_cold(&self, task: *const Task, edge: Edge) {
        self.end(task, edge);
    }

    /// Ends what was switched in over `task`, in its turn, and not out again.
    #[cold]
    fn end_left_behind(&self, task: *const Task) {
        while !ptr::eq(self.record.current(), task) {
            // What is above a turn was switched in by `switch_in`, for turns end in order.
            let Some(left_behind) = self.switch_out() else { return };
            drop(left_behind);
        }
    }

    /// The hooks' side of a switch: the current task leaves, `incoming` comes.
    #[inline(never)]
    fn switch(&self, incoming: Option<&Task>, leaves: Edge, comes: Edge) {
        let record = self.record;
        // One section for all hooks: each finds data that stays as long as they run.
        let guard = rcu::enter();
        let mut owed = record.owed();
        if let Some(outgoing) = self.current_task() {
            // Also for the PMUs that were attached while the task ran.
            record.system.for_each_active_pmu(owed, |_, pmu| {
                pmu.sched_out(record, outgoing, leaves, &guard);
            });
        }
        owed = 0;
        if let Some(incoming) = incoming {
            record.system.for_each_active_pmu(0, |index, pmu| {
                pmu.sched_in(record, incoming, comes, &guard);
                owed |= 1 << index;
            });
        }
        record.owed.store(owed, Ordering::Relaxed);
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        while let Some(left_behind) = self.switch_out() {
            drop(left_behind);
        }
        self.record.system.cpu_offline(self.record);
        self.record.go_offline();
    }
}

/// One `run`: ends it when the closure panics.
struct Panicking<'a> {
    cpu: &'a Cpu,
    task: *const Task,
    edge: Edge,
}

impl Drop for Panicking<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.cpu.end_cold(self.task, self.edge);
    }
}

/// A run that is no task's, off the path of those that are.
#[cold]
#[inline(never)]
fn unseen<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Where in the cache a site stands. Cheap: a collision costs a look into the table, no more.
fn site_place(name: Option<&str>, location: &'static Location<'static>) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let name = name.unwrap_or_default().as_bytes();
    let ends = |eight: Option<&[u8; 8]>| eight.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let name =
        ends(name.first_chunk()) ^ ends(name.last_chunk()).rotate_left(29) ^ name.len() as u64;
    let place = (ptr::from_ref(location).addr() as u64 >> 3).wrapping_add(name.wrapping_mul(ODD));
    (place.wrapping_mul(ODD) >> 32) as usize % SITE_CACHE
}

#[cfg(target_os = "linux")]
fn thread_number() -> u32 {
    // SAFETY: no arguments, no memory.
    unsafe { libc::gettid() }.cast_unsigned()
}

#[cfg(not(target_os = "linux"))]
fn thread_number() -> u32 {
    0
}
