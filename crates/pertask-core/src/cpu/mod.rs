//! A CPU: one thread that runs tasks, the tasks that run on it now, and the switch.
//!
//! The running tasks form a chain: the current task, the task that it was switched in over, and so on. Whatever safe code does,
//! each task leaves the chain before it ends, so following the chain never reaches a freed task.

mod hooks;
mod offline;
mod record;
mod sites;
mod strays;

pub use record::CpuRecord;
pub(crate) use strays::Whereabouts;

use hooks::Hooks;
use record::IN_HOOKS;
use sites::SiteCache;
use strays::{Taken, thread_pointer};

use crate::books::Mine;
use crate::foreign::{Delayed, OnUnwind, quietly};
use crate::path::SpawnPath;
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

/// How many task numbers a CPU takes at a time, so that CPUs do not contend for one word each time they make a task.
const NUMBERS: u64 = 64;

/// A CPU for its own thread: the right to switch tasks in and out.
///
/// Neither `Send` nor `Sync`: only one thread writes what belongs to a CPU. Most users reach it through [`Cpu::with`].
pub struct Cpu {
    record: &'static CpuRecord,
    /// The [thread pointer](thread_pointer) of its thread.
    home: usize,
    mine: Mine<'static>,
    sites: SiteCache,
    /// Task numbers for the tasks that are made here.
    numbers: Cell<(u64, u64)>,
    not_send: PhantomData<*const ()>,
}

impl Cpu {
    /// A CPU of `system` for the calling thread: an unused record if there is one, otherwise a new one.
    ///
    /// Simulations and tests make their own CPUs. The threads of a program get theirs from [`Cpu::with`] and
    /// [`System::with_cpu`].
    pub fn new(system: &'static System) -> Self {
        let cpu = Self::claim(system);
        cpu.tell_online();
        cpu
    }

    /// A CPU of which no PMU has been notified yet.
    pub(crate) fn claim(system: &'static System) -> Self {
        let record = system.claim_cpu_record();
        let mine = system.library().claim(record.index() as usize);
        system.library().remember(mine);
        Self {
            record,
            home: thread_pointer(),
            mine,
            sites: SiteCache::new(),
            numbers: Cell::new((0, 0)),
            not_send: PhantomData,
        }
    }

    /// Tells all PMUs that this CPU is online, even if one of them panics.
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

    /// The task that runs here now: the innermost one, if runs are nested.
    #[cfg(not(pertask_loom))]
    #[must_use]
    pub fn current(&self) -> Option<Arc<Task>> {
        let task: *const Task = self.record.current();
        if task.is_null() {
            return None;
        }
        // SAFETY: `current` is the pointer of an `Arc`, and the runner of a task keeps the task alive.
        unsafe {
            Arc::increment_strong_count(task);
            Some(Arc::from_raw(task))
        }
    }

    /// The current task, borrowed for as long as it is sure to run.
    #[inline]
    fn current_task(&self) -> Option<&Task> {
        // SAFETY: null, or a task that its runner keeps alive until it is switched out, which happens on this thread.
        unsafe { self.record.current().as_ref() }
    }

    /// The site of that name and location.
    ///
    /// Takes no lock if this CPU has been asked for the site before.
    #[must_use]
    pub fn site(&self, name: Option<&str>, location: &'static Location<'static>) -> &'static Site {
        self.sites.site(name, location, || self.record.system.site(name, location))
    }

    /// Makes a task, as a child of the current task.
    ///
    /// Before `fork` returns, the task has data of every globally attached PMU, and its parent's inherited events.
    pub fn fork(&self, site: &'static Site) -> OwnedTask {
        let current = self.current_task();
        let task = self.record.system.fork_as(self.next_number(), site, current, self.mine);
        if current.is_none() {
            task.set_tag(self.tag());
        }
        task
    }

    /// The [tag](Task::tag) of the current task, or the CPU's own tag if no task runs here.
    #[must_use]
    #[inline]
    pub fn tag(&self) -> u32 {
        self.current_task().map_or_else(|| self.record.own_tag(), Task::tag)
    }

    /// The [path](Task::path) of the current task, or `None` if no task runs here.
    #[must_use]
    #[inline]
    pub fn path(&self) -> Option<&'static SpawnPath> {
        self.current_task().map(Task::path)
    }

    /// Sets the [`tag`](Self::tag) of the current task, or the CPU's own tag, and returns the old one.
    ///
    /// If the current task's tag changes, the PMUs are told that the task leaves with the old tag and comes back with the new one,
    /// so that they can charge for the time before ([`Edge::Nested`]).
    ///
    /// # Panics
    /// If a hook panics. The tag is set nevertheless.
    #[inline]
    pub fn set_tag(&self, tag: u32) -> u32 {
        let Some(task) = self.current_task() else { return self.record.set_own_tag(tag) };
        let before = task.tag();
        let is_told = (self.record.system.active_mask() | self.record.owed()) != 0;
        if before == tag || !is_told || self.is_in_hooks() {
            return task.set_tag(tag);
        }
        self.change_tag(task, tag);
        before
    }

    /// Sets the tag of the current task between the hooks for its leaving and those for its coming back.
    fn change_tag(&self, task: &Task, tag: u32) {
        let (record, leaves, comes) = (self.record, Edge::Nested, Edge::Nested);
        let counted = OnUnwind(|| record.count_switch());
        let set = OnUnwind(|| {
            task.set_tag(tag);
        });
        Hooks { record, outgoing: Some(task), incoming: None, leaves, comes }.call();
        drop(set);
        Hooks { record, outgoing: None, incoming: Some(task), leaves, comes }.call();
        drop(counted);
    }

    fn next_number(&self) -> u64 {
        let (mut next, mut end) = self.numbers.get();
        if next == end {
            Range { start: next, end } = self.record.system.task_numbers(NUMBERS);
        }
        self.numbers.set((next + 1, end));
        next
    }

    /// Ends a task, a little faster than dropping it does.
    pub fn exit(&self, task: OwnedTask) {
        if ptr::eq(task.system(), self.record.system) {
            task.exit_with(self.mine);
        }
    }

    /// Runs `f` as `task`: switches the task in, and out again however `f` ends.
    ///
    /// The task that ran here until now is switched out meanwhile. A run does not allocate, and takes no lock.
    ///
    /// Runs should end in the reverse order of their beginnings. A run that does not (`f` suspends a coroutine, and another run
    /// begins before the coroutine resumes) leaves the CPU's chain of tasks from the middle when it ends, and is
    /// [counted](CpuRecord::disorders). So is a run that ends on another thread, because its coroutine was moved there: the CPU on
    /// which it began learns of it when it next switches a task in over it, or out below it, and nobody sees the task run until then.
    /// Executors that switch without a function call use [`switch_in`](Self::switch_in) and [`switch_out`](Self::switch_out).
    ///
    /// In a PMU's hook, or with a task of another system, `f` runs unseen.
    ///
    /// # Panics
    /// If `f` or a hook panics. The switch is finished first.
    #[inline]
    pub fn run<R>(&self, task: &mut OwnedTask, f: impl FnOnce() -> R) -> R {
        self.run_with_edge(task, Edge::Turn, f)
    }

    /// Runs `f` as `task`, like [`run`](Self::run), but not as a turn of the task: for its destructor.
    ///
    /// # Panics
    /// If `f` or a hook panics. The switch is finished first.
    pub fn run_aside<R>(&self, task: &mut OwnedTask, f: impl FnOnce() -> R) -> R {
        self.run_with_edge(task, Edge::Aside, f)
    }

    #[inline(always)]
    fn run_with_edge<R>(&self, task: &mut OwnedTask, edge: Edge, f: impl FnOnce() -> R) -> R {
        // Loaded once: `f` cannot change them, but the compiler does not know that.
        let record = self.record;
        let system = record.system;
        if !ptr::eq(task.system(), system) || !task.whereabouts().is_home() {
            return unseen(f);
        }
        // The `Arc`'s own pointer, because a handle may be made from it.
        let task = Arc::as_ptr(&task.0);
        let panicking = Panicking { cpu: self, task, edge };
        if !self.begin(record, system, task.cast_mut(), edge) {
            std::mem::forget(panicking);
            return unseen(f);
        }
        let result = f();
        // Called here and not in the guard's drop, for which the guard would have to be in memory.
        std::mem::forget(panicking);
        if self.home == thread_pointer() {
            self.end(record, system, task, edge);
        } else {
            leave_stray(record, task, edge);
        }
        result
    }

    /// Switches a task in, for executors that switch without a function call.
    ///
    /// The CPU keeps the task until it is [switched out](Self::switch_out), and ends it if the thread ends first.
    ///
    /// # Errors
    /// Returns the task if it belongs to another system, if this is called in a PMU's hook, or if a run of the task has ended on
    /// another thread than the one on which it began, which has not noticed it yet.
    ///
    /// # Panics
    /// If a hook panics. The task is switched in nevertheless.
    pub fn switch_in(&self, task: OwnedTask) -> Result<(), OwnedTask> {
        let is_seen = ptr::eq(task.system(), self.record.system) && task.whereabouts().is_home();
        if !is_seen || self.is_in_hooks() {
            return Err(task);
        }
        task.set_carried(true);
        // The CPU now has the right to run the task, so the drop of `OwnedTask` must not run.
        let task = std::mem::ManuallyDrop::new(task);
        let record = self.record;
        self.begin(record, record.system, Arc::as_ptr(&task.0).cast_mut(), Edge::Turn);
        Ok(())
    }

    /// Switches out the task that was last given to [`switch_in`](Self::switch_in), and returns it.
    ///
    /// Returns `None` if the current task was not switched in that way (no task runs, or a [`run`](Self::run) does), and in a
    /// PMU's hook.
    ///
    /// # Panics
    /// If a hook panics. The task then ends.
    #[must_use = "a task ends when this is dropped"]
    pub fn switch_out(&self) -> Option<OwnedTask> {
        if self.is_in_hooks() {
            return None;
        }
        let task: *const Task = self.record.current();
        self.current_task().filter(|task| task.is_carried())?.set_carried(false);
        // SAFETY: `switch_in` kept one strong count of exactly this `Arc`, and `carried` shows that the count is still ours. We
        // pass it to the caller, or drop it if a hook panics.
        let owned = OwnedTask(unsafe { Arc::from_raw(task) });
        self.end(self.record, self.record.system, task, Edge::Turn);
        Some(owned)
    }

    fn is_in_hooks(&self) -> bool {
        self.record.owed() & IN_HOOKS != 0
    }

    /// Switches `task` in. Returns false in a hook, where it changes nothing.
    #[inline(always)]
    pub(crate) fn begin(
        &self,
        record: &'static CpuRecord,
        system: &'static System,
        task: *mut Task,
        edge: Edge,
    ) -> bool {
        // SAFETY: the caller has the right to run the task, and with it a strong count.
        let incoming = unsafe { &*task };
        // Nearly always no task runs here, and none can be away.
        if !record.current().is_null() && record.strays.are_there() {
            self.settle();
        }
        let owed = record.owed();
        if (system.active_mask() | owed) != 0 {
            if owed & IN_HOOKS != 0 {
                return false;
            }
            // If a hook panics, the task is switched in nevertheless, and is switched out like any other.
            // SAFETY: the caller has the right to run the task, and keeps a strong count until the task has left the chain.
            let arrived = OnUnwind(|| unsafe { record.arrive(task) });
            record.switch(Some(incoming), Edge::Nested, edge);
            std::mem::forget(arrived);
        }
        // SAFETY: the caller has the right to run the task, and keeps a strong count until the task has left the chain.
        unsafe { record.arrive(task) };
        true
    }

    /// Switches out `task`, which is somewhere in the chain.
    #[inline(always)]
    pub(crate) fn end(
        &self,
        record: &'static CpuRecord,
        system: &'static System,
        task: *const Task,
        edge: Edge,
    ) {
        if !ptr::eq(record.current(), task) {
            return self.end_below(task, edge);
        }
        // SAFETY: the task is current, so its runner keeps it alive.
        let outgoing = unsafe { &*task };
        let owed = record.owed();
        if (system.active_mask() | owed) != 0 {
            if owed & IN_HOOKS != 0 {
                self.keep_for_hooks(task);
                return record.depart(outgoing);
            }
            // If a hook panics, the task leaves the chain nevertheless.
            let gone = OnUnwind(|| record.depart(outgoing));
            // SAFETY: null, or a task whose run goes on, so its runner keeps it alive.
            record.switch(unsafe { outgoing.outer().as_ref() }, edge, Edge::Nested);
            std::mem::forget(gone);
        }
        record.depart(outgoing);
    }

    /// Switches `task` out while a panic unwinds: a second panic is caught and counted.
    #[cold]
    #[inline(never)]
    fn end_quietly(&self, task: *const Task, edge: Edge) {
        quietly(|| self.end(self.record, self.record.system, task, edge));
    }

    /// Ends a run whose task is not at the top of the chain.
    #[cold]
    #[inline(never)]
    fn end_below(&self, task: *const Task, edge: Edge) {
        if self.record.strays.are_there() {
            self.settle();
            if ptr::eq(self.record.current(), task) {
                return self.end(self.record, self.record.system, task, edge);
            }
        }
        if !self.is_in_hooks() {
            // Tasks that were switched in during this run with `switch_in`, and not switched out, end with the run. If a hook
            // or the end of such a task panics, the rest still ends: the run is over when this returns.
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
        // SAFETY: the run that ends here keeps the task alive.
        self.unlink(unsafe { &*task }, edge);
    }

    /// Takes the tasks out of the chain whose runs have ended on other threads.
    #[cold]
    #[inline(never)]
    fn settle(&self) {
        if !self.is_in_hooks() {
            self.bring_home(self.record.strays.take());
        }
    }

    fn bring_home(&self, strays: Taken) {
        for stray in strays {
            let task = stray.task();
            if ptr::eq(self.record.current(), task) {
                self.between(task, task, Edge::Disorder);
                quietly(|| self.end(self.record, self.record.system, task, stray.edge));
            } else {
                self.unlink(task, stray.edge);
            }
            if let Some(ended) = stray.come_home() {
                quietly(|| self.exit(OwnedTask(ended)));
            }
        }
    }

    /// Whether there are tasks above `task`, and all of them were switched in by `switch_in`.
    fn is_left_behind_by(&self, task: *const Task) -> bool {
        let above = self.chain().take_while(|at| at.is_carried() && !ptr::eq(*at, task)).count();
        above != 0 && self.chain().nth(above).is_some_and(|at| ptr::eq(at, task))
    }

    /// The tasks that run here, the current one first.
    fn chain(&self) -> impl Iterator<Item = &Task> {
        // SAFETY: null, or a task in the chain, and a task leaves the chain, on this thread, before it ends.
        let next = |task: *mut Task| unsafe { task.as_ref() };
        std::iter::successors(next(self.record.current()), move |task| next(task.outer()))
    }

    /// Takes a task out of the middle of the chain. The hooks see it come to the top, end its run there, and give the CPU back.
    fn unlink(&self, task: &Task, edge: Edge) {
        if self.is_in_hooks() {
            self.keep_for_hooks(task);
        } else if let Some(top) = self.current_task() {
            // If a hook ends one of these tasks, the task's memory is kept, so the references stay valid.
            self.between(top, task, Edge::Disorder);
            self.between(task, top, edge);
        }
        // Searched only now, because the hooks may have changed the chain.
        if ptr::eq(self.record.current(), task) {
            return self.record.depart(task);
        }
        if let Some(above) = self.chain().find(|at| ptr::eq(at.outer(), task)) {
            above.set_outer(task.outer());
            task.set_outer(ptr::null_mut());
        }
    }

    /// Tells the PMUs that one task leaves and another comes, while the chain stays as it is.
    fn between(&self, outgoing: &Task, incoming: &Task, leaves: Edge) {
        let (record, comes) = (self.record, Edge::Nested);
        if (record.system.active_mask() | record.owed()) != 0 {
            let (outgoing, incoming) = (Some(outgoing), Some(incoming));
            quietly(|| Hooks { record, outgoing, incoming, leaves, comes }.call());
            record.count_switch();
        }
    }

    /// Leaks the memory of a task that ends inside a hook, because the switch that calls the hook may hold a reference to it.
    #[cold]
    fn keep_for_hooks(&self, task: *const Task) {
        self.record.count_disorder();
        // SAFETY: the pointer is that of the `Arc` which the ending run keeps.
        unsafe { Arc::increment_strong_count(task) };
    }
}

/// A `run` in progress, which ends when the closure panics.
struct Panicking<'a> {
    cpu: &'a Cpu,
    task: *const Task,
    edge: Edge,
}

impl Drop for Panicking<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.cpu.home == thread_pointer() {
            self.cpu.end_quietly(self.task, self.edge);
        } else {
            leave_stray(self.cpu.record, self.task, self.edge);
        }
    }
}

/// Ends a run of the CPU's on another thread than the CPU's.
#[cold]
#[inline(never)]
pub(crate) fn leave_stray(record: &CpuRecord, task: *const Task, edge: Edge) {
    record.count_disorder();
    // SAFETY: the run that ends here keeps the task alive, and has put it into the chain.
    unsafe { record.strays.leave(task, edge) };
}

/// Runs the closure without a switch. Kept out of the path of runs that switch.
#[cold]
#[inline(never)]
fn unseen<R>(f: impl FnOnce() -> R) -> R {
    f()
}
