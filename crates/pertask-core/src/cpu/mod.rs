//! A CPU: one thread that runs tasks, what runs on it now, and the switch.
//!
//! The tasks that run hang in a chain: the current one, the one that it was switched in over, and so on. Whatever safe code
//! does, each task leaves the chain before it ends: so whoever follows the chain finds no freed task in it.

mod hooks;
mod record;

pub use record::CpuRecord;

use hooks::Hooks;
use record::IN_HOOKS;

use crate::active::MAX_PMUS;
use crate::books::Mine;
use crate::foreign::{Delayed, OnUnwind, quietly};
use crate::pmu::Edge;
use crate::primitive::Arc;
use crate::site::Site;
use crate::system::System;
use crate::task::{OwnedTask, Task};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::Location;
use std::ptr;

/// How many spawn sites a CPU remembers, so that making a task takes no lock.
const SITE_CACHE: usize = 64;

/// How many numbers for tasks a CPU takes at a time, so that CPUs do not fight for one word at each task they make.
const NUMBERS: u64 = 64;

/// A CPU as its own thread has it: the right to switch tasks in and out.
///
/// Neither `Send` nor `Sync`: all that it writes is written by one thread. Most users reach it through
/// [`Cpu::with`].
pub struct Cpu {
    record: &'static CpuRecord,
    mine: Mine<'static>,
    sites: [Cell<Option<&'static Site>>; SITE_CACHE],
    /// Numbers for the tasks that are made here.
    numbers: Cell<(u64, u64)>,
    not_send: PhantomData<*const ()>,
}

impl Cpu {
    /// A CPU of a system, for the calling thread: a record that no thread has, or a new one.
    ///
    /// Simulations and tests make their own. A program's threads get theirs from [`Cpu::with`] and
    /// [`System::with_cpu`].
    pub fn new(system: &'static System) -> Self {
        let cpu = Self::claim(system);
        cpu.tell_online();
        cpu
    }

    /// A CPU of which no PMU has been told yet.
    pub(crate) fn claim(system: &'static System) -> Self {
        let record = system.claim_cpu_record();
        let mine = system.library().claim(record.index() as usize);
        system.library().remember(mine);
        Self {
            record,
            mine,
            sites: [const { Cell::new(None) }; SITE_CACHE],
            numbers: Cell::new((0, 0)),
            not_send: PhantomData,
        }
    }

    /// Tells all PMUs, also if one panics.
    pub(crate) fn tell_online(&self) {
        let mut panics = Delayed::default();
        self.record.system.for_each_pmu(u32::MAX, |pmu| {
            panics.call(|| self.record.tell_online(pmu));
        });
        panics.go_on();
    }

    /// The CPU as other threads see it.
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

    /// The task that runs here, borrowed for as long as it certainly runs.
    #[inline]
    fn current_task(&self) -> Option<&Task> {
        // SAFETY: null, or a task that its runner keeps alive until it is switched out, on this thread.
        unsafe { self.record.current().as_ref() }
    }

    /// The site of that name and place.
    ///
    /// A CPU that has asked for it before takes no lock.
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
    ///
    /// It has data of every globally attached PMU before it is returned, and its parent's inherited events.
    pub fn fork(&self, site: &'static Site) -> OwnedTask {
        let current = self.current_task();
        let task = self.record.system.fork_as(self.next_number(), site, current, self.mine);
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

    /// Sets the [`tag`](Self::tag) of the task that runs here, or the CPU's own, and returns the one before.
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

    /// Ends a task: what its drop does, and a little faster.
    pub fn exit(&self, task: OwnedTask) {
        if ptr::eq(task.system(), self.record.system) {
            task.exit_with(self.mine);
        }
    }

    /// Runs `f` as `task`: switches it in, and out again however `f` ends.
    ///
    /// The task that ran here until now is switched out for the time. A run does not allocate, and takes no lock.
    ///
    /// Runs should end in the order in which they began, the last first. One that does not (`f` suspends a coroutine, and
    /// another run begins before that goes on) is brought to its end where it stands, and [counted](CpuRecord::disorders).
    /// Executors whose switches are no function calls call [`switch_in`](Self::switch_in) and
    /// [`switch_out`](Self::switch_out).
    ///
    /// In a PMU's hook, or with a task of another system, `f` runs without being seen.
    ///
    /// # Panics
    /// If `f` does, or a hook. All is finished before.
    #[inline]
    pub fn run<R>(&self, task: &mut OwnedTask, f: impl FnOnce() -> R) -> R {
        self.run_with_edge(task, Edge::Turn, f)
    }

    /// Runs `f` as `task`, as [`run`](Self::run) does, for what is no turn of the task's: its destructor.
    ///
    /// # Panics
    /// If `f` does, or a hook. All is finished before.
    pub fn run_aside<R>(&self, task: &mut OwnedTask, f: impl FnOnce() -> R) -> R {
        self.run_with_edge(task, Edge::Aside, f)
    }

    #[inline(always)]
    fn run_with_edge<R>(&self, task: &mut OwnedTask, edge: Edge, f: impl FnOnce() -> R) -> R {
        // Looked up once: what `f` does to memory cannot change them, which the compiler does not know.
        let record = self.record;
        let system = record.system;
        if !ptr::eq(task.system(), system) {
            return unseen(f);
        }
        // The `Arc`'s own pointer: a handle may be made of it.
        let task = Arc::as_ptr(&task.0);
        let panicking = Panicking { cpu: self, task, edge };
        if !self.begin(record, system, task.cast_mut(), edge) {
            std::mem::forget(panicking);
            return unseen(f);
        }
        let result = f();
        // Not left to its drop, for which it would have to be in memory.
        std::mem::forget(panicking);
        self.end(record, system, task, edge);
        result
    }

    /// Switches a task in, for executors whose switches are no function calls.
    ///
    /// The CPU keeps the task until it is [switched out](Self::switch_out), and ends it if the thread ends first.
    ///
    /// # Errors
    /// The task itself, if it belongs to another system, or if this is called in a PMU's hook.
    ///
    /// # Panics
    /// If a hook does. The task has come all the same.
    pub fn switch_in(&self, task: OwnedTask) -> Result<(), OwnedTask> {
        if !ptr::eq(task.system(), self.record.system) || self.is_in_hooks() {
            return Err(task);
        }
        task.set_carried(true);
        // The CPU has the right to run the task now: `OwnedTask`'s drop must not run.
        let task = std::mem::ManuallyDrop::new(task);
        let record = self.record;
        self.begin(record, record.system, Arc::as_ptr(&task.0).cast_mut(), Edge::Turn);
        Ok(())
    }

    /// Switches out the task that was last given to [`switch_in`](Self::switch_in), and returns it.
    ///
    /// `None` if the current task is not of that kind: nothing runs, or a [`run`](Self::run) does. Also in a PMU's hook.
    ///
    /// # Panics
    /// If a hook does. The task has ended then.
    #[must_use = "a task ends when this is dropped"]
    pub fn switch_out(&self) -> Option<OwnedTask> {
        if self.is_in_hooks() {
            return None;
        }
        let task: *const Task = self.record.current();
        self.current_task().filter(|task| task.is_carried())?.set_carried(false);
        // SAFETY: `switch_in` kept one strong count of exactly this `Arc`, and `carried` said that it is still ours. It is given
        // to the caller, or dropped if a hook panics.
        let owned = OwnedTask(unsafe { Arc::from_raw(task) });
        self.end(self.record, self.record.system, task, Edge::Turn);
        Some(owned)
    }

    fn is_in_hooks(&self) -> bool {
        self.record.owed() & IN_HOOKS != 0
    }

    /// Switches `task` in. False in a hook: nothing has changed.
    #[inline(always)]
    fn begin(
        &self,
        record: &'static CpuRecord,
        system: &'static System,
        task: *mut Task,
        edge: Edge,
    ) -> bool {
        // SAFETY: the caller has the right to run it, and with it a strong count.
        let incoming = unsafe { &*task };
        let owed = record.owed();
        if (system.active_mask() | owed) != 0 {
            if owed & IN_HOOKS != 0 {
                return false;
            }
            // Should a hook panic, the task has come all the same, and is switched out like any other.
            // SAFETY: the caller's right to run it.
            let arrived = OnUnwind(|| unsafe { record.arrive(task) });
            record.switch(Some(incoming), Edge::Nested, edge);
            std::mem::forget(arrived);
        }
        // SAFETY: the caller's right to run it.
        unsafe { record.arrive(task) };
        true
    }

    /// Switches `task` out, which is somewhere in the chain.
    #[inline(always)]
    fn end(
        &self,
        record: &'static CpuRecord,
        system: &'static System,
        task: *const Task,
        edge: Edge,
    ) {
        if !ptr::eq(record.current(), task) {
            return self.end_below(task, edge);
        }
        // SAFETY: it is current, so its runner keeps it alive.
        let outgoing = unsafe { &*task };
        let owed = record.owed();
        if (system.active_mask() | owed) != 0 {
            if owed & IN_HOOKS != 0 {
                self.keep_for_hooks(task);
                return record.depart(outgoing);
            }
            // Should a hook panic, the task has gone all the same.
            let gone = OnUnwind(|| record.depart(outgoing));
            // SAFETY: null, or a task whose turn goes on.
            record.switch(unsafe { outgoing.outer().as_ref() }, edge, Edge::Nested);
            std::mem::forget(gone);
        }
        record.depart(outgoing);
    }

    /// As [`end`](Self::end), while a panic is on its way.
    #[cold]
    #[inline(never)]
    fn end_quietly(&self, task: *const Task, edge: Edge) {
        quietly(|| self.end(self.record, self.record.system, task, edge));
    }

    /// Ends a run whose task is not on top.
    #[cold]
    #[inline(never)]
    fn end_below(&self, task: *const Task, edge: Edge) {
        if !self.is_in_hooks() {
            // What was switched in over it, in its turn, and not out again, ends with it.
            // Should a hook panic, or the end of one, the rest ends all the same: the run is over when this returns.
            let rest = OnUnwind(|| self.end_quietly(task, edge));
            while self.is_left_behind_by(task) {
                drop(self.switch_out());
            }
            std::mem::forget(rest);
            if ptr::eq(self.record.current(), task) {
                return self.end(self.record, self.record.system, task, edge);
            }
        }
        self.record.count_disorder();
        // SAFETY: the run that ends here keeps it alive.
        self.unlink(unsafe { &*task }, edge);
    }

    /// Whether all that stands above a task was switched in by `switch_in`, and something does.
    fn is_left_behind_by(&self, task: *const Task) -> bool {
        let above = self.chain().take_while(|at| at.is_carried() && !ptr::eq(*at, task)).count();
        above != 0 && self.chain().nth(above).is_some_and(|at| ptr::eq(at, task))
    }

    /// The tasks that run here, the current one first.
    fn chain(&self) -> impl Iterator<Item = &Task> {
        // SAFETY: null, or a task of the chain, which leaves it before it ends; on this thread.
        let next = |task: *mut Task| unsafe { task.as_ref() };
        std::iter::successors(next(self.record.current()), move |task| next(task.outer()))
    }

    /// Takes a task out of the middle of the chain. The hooks are told that it comes to the top, ends its turn there, and gives
    /// back.
    fn unlink(&self, task: &Task, edge: Edge) {
        if self.is_in_hooks() {
            self.keep_for_hooks(task);
        } else if let Some(top) = self.current_task()
            && (self.record.system.active_mask() | self.record.owed()) != 0
        {
            // What a hook ends of these is kept for it.
            let record = self.record;
            let between = |outgoing, incoming, leaves| {
                let comes = Edge::Nested;
                quietly(|| Hooks { record, outgoing, incoming, leaves, comes }.call());
                record.count_switch();
            };
            between(Some(top), Some(task), Edge::Nested);
            between(Some(task), Some(top), edge);
        }
        // Looked for only now, for hooks have run.
        if ptr::eq(self.record.current(), task) {
            return self.record.depart(task);
        }
        if let Some(above) = self.chain().find(|at| ptr::eq(at.outer(), task)) {
            above.set_outer(task.outer());
            task.set_outer(ptr::null_mut());
        }
    }

    /// Keeps the memory of a task that ends inside a hook, for good: the switch that calls the hook may hold a reference to it.
    #[cold]
    fn keep_for_hooks(&self, task: *const Task) {
        self.record.count_disorder();
        // SAFETY: the pointer of an `Arc` that the run which ends here has.
        unsafe { Arc::increment_strong_count(task) };
    }
}

impl Cpu {
    /// Gives back what the thread has as a CPU. True: all of it, and this is of no use any more. False: a run is suspended
    /// here, and may still end; all that it could touch stays as it is, for good.
    fn go_offline(&self) -> bool {
        // What was switched in and left here ends.
        while self.current_task().is_some_and(Task::is_carried) && !self.is_in_hooks() {
            quietly(|| self.switch_out());
        }
        for pmu in 0..MAX_PMUS {
            quietly(|| self.record.tell_offline(pmu));
        }
        let is_free = self.record.current().is_null();
        if is_free {
            self.mine.release();
        } else {
            // No hook is called here any more.
            self.record.set_owed(IN_HOOKS);
        }
        self.record.go_offline();
        is_free
    }

    /// Ends the CPU of a thread that ends, which was made by `Box::into_raw`.
    ///
    /// # Safety
    /// Nobody borrows it but runs that are suspended on it.
    #[cfg(not(any(pertask_loom, pertask_shuttle)))]
    pub(crate) unsafe fn end_boxed(cpu: ptr::NonNull<Self>) {
        // SAFETY: the caller's.
        if unsafe { cpu.as_ref() }.go_offline() {
            // It has nothing left to do in its drop. SAFETY: no run is suspended on it, so nobody borrows it.
            drop(unsafe { Box::from_raw(cpu.cast::<std::mem::ManuallyDrop<Self>>().as_ptr()) });
        }
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        self.go_offline();
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
        self.cpu.end_quietly(self.task, self.edge);
    }
}

/// Runs what belongs to another system's task, or to none. Kept away from the path of those that are switched.
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
