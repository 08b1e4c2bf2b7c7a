//! A CPU: one thread that runs tasks, what runs on it now, and the switch.
//!
//! The tasks that run hang in a chain: the current one, the one that it was switched in over, and so on. Whatever safe code
//! does, each task leaves the chain before it ends: so whoever follows the chain finds no freed task in it.

use crate::books::Mine;
use crate::foreign::{Delayed, OnUnwind, quietly};
use crate::pmu::{AnyPmu, Edge, MAX_PMUS};
use crate::primitive::plain;
use crate::primitive::{
    Arc, AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, yield_now,
};
use crate::rcu;
use crate::site::Site;
use crate::system::System;
use crate::task::{OwnedTask, Task, TaskId};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::Location;
use std::ptr;

/// How many spawn sites a CPU remembers, so that making a task takes no lock.
const SITE_CACHE: usize = 64;

/// How many numbers for tasks a CPU takes at a time, so that CPUs do not fight for one word at each task they make.
const NUMBERS: u64 = 64;

/// In `owed`: hooks run at this moment. It makes every switch take the slow path, where it is looked at.
const IN_HOOKS: u32 = 1 << 31;

/// A CPU as others see it: which thread it is, and what runs there.
///
/// Written by its thread alone. Another thread reads numbers; a signal handler on the CPU's own thread may also follow
/// `current`, which stays valid while the handler runs.
#[repr(C, align(128))]
pub struct CpuRecord {
    // What each switch touches comes first, together.
    system: &'static System,
    /// INVARIANT: null, or the task that runs here. The tasks it was switched in over hang behind it, each from its `outer`.
    /// Each of them is kept alive by whoever runs it, and leaves the chain before it ends.
    current: AtomicPtr<Task>,
    /// Grows with every switch, so that another thread can tell one turn from the next.
    switches: AtomicU64,
    /// The number of the task that runs here, or 0, after an even number of switches and after an odd one. One switch writes the
    /// one place, the next the other; so while the number stays the same, so does the task.
    ids: [AtomicU64; 2],
    /// The PMUs whose `sched_in` the current task has had, and whose `sched_out` it is owed; and [`IN_HOOKS`].
    owed: AtomicU32,
    index: u32,
    /// The tag while no task runs.
    own_tag: AtomicU32,
    /// The kernel's number of the thread, or 0 while no thread has this record.
    thread: AtomicU32,
    online: AtomicBool,
    /// Runs that ended in another order than they began, and what else was out of order.
    disorders: plain::AtomicU64,
    /// The PMUs' data.
    ///
    /// INVARIANT: each is null, or what the PMU of that index keeps for this CPU.
    data: [AtomicPtr<()>; MAX_PMUS],
    /// Whether each PMU has been told of the thread: one of [`AWAY`] and so on.
    told: [AtomicU32; MAX_PMUS],
}

/// No thread has the record: nobody is to be told.
const AWAY: u32 = 0;
/// A thread has it, and the PMU has not been told.
const HERE: u32 = 1;
/// Somebody is telling the PMU.
const TELLING: u32 = 2;
/// The PMU has been told.
const TOLD: u32 = 3;

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

impl CpuRecord {
    pub(crate) fn new(system: &'static System, index: u32) -> Self {
        Self {
            system,
            index,
            current: AtomicPtr::new(ptr::null_mut()),
            switches: AtomicU64::new(0),
            ids: [AtomicU64::new(0), AtomicU64::new(0)],
            owed: AtomicU32::new(0),
            own_tag: AtomicU32::new(0),
            thread: AtomicU32::new(0),
            online: AtomicBool::new(false),
            disorders: plain::AtomicU64::new(0),
            data: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            told: std::array::from_fn(|_| AtomicU32::new(AWAY)),
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
    /// Acquire: pairs with the Release of the switch, with what the hooks have written before it.
    #[must_use]
    pub fn current_id(&self) -> Option<TaskId> {
        loop {
            let switches = self.switches();
            // Acquire: pairs with the Release in `set_current`. A number that belongs to a later switch brings the number of
            // switches before it, which is then found to have changed.
            let id = self.ids[(switches & 1) as usize].load(Ordering::Acquire);
            if self.switches() == switches {
                return TaskId::new(id);
            }
        }
    }

    /// How many switches there have been. While it stays the same, so does [`current_id`](Self::current_id).
    ///
    /// Acquire: pairs with the Release of the switch.
    #[must_use]
    #[inline]
    pub fn switches(&self) -> u64 {
        self.switches.load(Ordering::Acquire)
    }

    /// How often something was out of order here: a run that ended below another that goes on, as those of coroutines may
    /// that are suspended in a poll; a run that a hook began or ended; a thread that ended with a run suspended on it.
    ///
    /// Until such a run ends, what its coroutine does is charged to the task on top of it.
    #[must_use]
    pub fn disorders(&self) -> u64 {
        // Relaxed: a figure.
        self.disorders.load(Ordering::Relaxed)
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
        // Relaxed: a number, which this thread alone writes.
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

    /// Shows a PMU's data for this CPU to switches.
    pub(crate) fn set_data(&self, pmu: &dyn AnyPmu) {
        let data = pmu.cpu_data(self.index as usize);
        // Release: pairs with the Acquire in `data`.
        self.data[pmu.state().index].store(data.cast_mut(), Ordering::Release);
    }

    /// Takes the data of a PMU away that is let go.
    pub(crate) fn take_data(&self, pmu: usize) {
        // Relaxed: hooks have seen to it that the PMU is not called any more.
        self.data[pmu].store(ptr::null_mut(), Ordering::Relaxed);
        // A thread that is here has this PMU's successor still to hear of. Relaxed: under the system's lock.
        let forget = |told| (told == TOLD).then_some(HERE);
        let _ = self.told[pmu].fetch_update(Ordering::Relaxed, Ordering::Relaxed, forget);
    }

    /// Claims the record for the calling thread. Under the system's lock.
    pub(crate) fn go_online(&self) -> bool {
        // Acquire: pairs with the Release in `go_offline`; the former owner's writes come first.
        if self.online.swap(true, Ordering::Acquire) {
            return false;
        }
        self.own_tag.store(0, Ordering::Relaxed);
        self.thread.store(thread_number(), Ordering::Relaxed);
        // Relaxed: ordered by the lock, under which PMUs are registered, too.
        self.told.iter().for_each(|told| told.store(HERE, Ordering::Relaxed));
        true
    }

    fn go_offline(&self) {
        self.thread.store(0, Ordering::Relaxed);
        if !self.current().is_null() {
            // A run is suspended here that may still end. The record is not used again.
            return self.count_disorder();
        }
        // Release: pairs with the Acquire in `go_online`.
        self.online.store(false, Ordering::Release);
    }

    /// Tells a PMU that this CPU has come, once: both the CPU's own thread and whoever registers the PMU try to.
    pub(crate) fn tell_online(&self, pmu: &dyn AnyPmu) {
        let told = &self.told[pmu.state().index];
        // Acquire: pairs with the Release of the last one who changed it.
        if told.compare_exchange(HERE, TELLING, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            // Release: pairs with the Acquire in `tell_offline`. Also if the hook panics.
            let done = OnUnwind(|| told.store(TOLD, Ordering::Release));
            pmu.cpu_online(self);
            drop(done);
        }
    }

    /// Tells a PMU that this CPU goes, if it has been told that it came. For the CPU's thread, which waits for a hook that
    /// another thread calls at this moment.
    pub(crate) fn tell_offline(&self, pmu: &dyn AnyPmu) {
        if self.leave(pmu.state().index) == TOLD {
            pmu.cpu_offline(self);
        }
    }

    /// From here on the PMU of that index is not told that this CPU has come. What it was told before.
    pub(crate) fn leave(&self, pmu: usize) -> u32 {
        let told = &self.told[pmu];
        loop {
            let now = told.load(Ordering::Relaxed);
            // AcqRel: Acquire pairs with the Release in `tell_online`, Release with the Acquire there.
            if now != TELLING
                && told.compare_exchange(now, AWAY, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                return now;
            }
            yield_now();
        }
    }

    /// As [`leave`](Self::leave), for all PMUs: also those that were registered since the thread was told to go.
    fn leave_all(&self) {
        (0..MAX_PMUS).for_each(|pmu| {
            self.leave(pmu);
        });
    }

    #[cold]
    fn count_disorder(&self) {
        // Relaxed: a figure.
        self.disorders.fetch_add(1, Ordering::Relaxed);
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
    fn set_owed(&self, owed: u32) {
        // Relaxed: this thread's own.
        self.owed.store(owed, Ordering::Relaxed);
    }

    /// The hooks' side of a switch: the current task leaves, `incoming` comes. Not in a hook.
    #[inline(never)]
    fn switch(&'static self, incoming: Option<&Task>, leaves: Edge, comes: Edge) {
        // SAFETY: null, or a task that its runner keeps alive until it is switched out, on this thread.
        let outgoing = unsafe { self.current().as_ref() };
        Hooks { record: self, outgoing, incoming, leaves, comes }.call();
    }

    /// Counts a switch that leaves the current task what it is.
    fn count_switch(&self) {
        self.set_current(self.current());
    }

    /// Puts a task on top of the chain: as it is now, for hooks have run.
    #[inline(always)]
    fn arrive(&self, task: &Task) {
        let below = self.current();
        // Nearly always nothing runs here, and a task that is in no chain has nothing below it.
        if !below.is_null() {
            task.set_outer(below);
        }
        self.set_current_and_id(ptr::from_ref(task).cast_mut(), task.id().get());
    }

    /// Takes a task off the top of the chain: as it is now, for hooks have run.
    #[inline(always)]
    fn depart(&self, task: &Task) {
        let below = task.outer();
        if below.is_null() {
            return self.set_current_and_id(below, 0);
        }
        task.set_outer(ptr::null_mut());
        self.set_current(below);
    }

    #[inline(always)]
    fn set_current(&self, task: *mut Task) {
        // SAFETY: null, or the task that is about to run, which its runner keeps alive.
        let id = unsafe { task.as_ref() }.map_or(0, |task| task.id().get());
        self.set_current_and_id(task, id);
    }

    #[inline(always)]
    fn set_current_and_id(&self, task: *mut Task, id: u64) {
        // Relaxed: other threads do not follow the pointer; this thread's signal handlers see it in program order.
        self.current.store(task, Ordering::Relaxed);
        // Relaxed: this thread alone writes it.
        let switches = self.switches.load(Ordering::Relaxed) + 1;
        // Release: pairs with the Acquire in `current_id`.
        self.ids[(switches & 1) as usize].store(id, Ordering::Release);
        // Release: pairs with the Acquire in `switches`.
        self.switches.store(switches, Ordering::Release);
    }
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
        let mine = system.library().claim(record.index as usize);
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

    /// The task that runs here, borrowed for as long as it certainly runs.
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

    /// Ends a task: what its drop does, with this CPU's books, which need not be looked for.
    pub fn exit(&self, task: OwnedTask) {
        if ptr::eq(task.system(), self.record.system) {
            task.exit_with(self.mine);
        }
    }

    /// Runs `f` as `task`: switches it in, and out again however `f` ends.
    ///
    /// The task that ran here until now is switched out for the time. It does not allocate and takes no lock.
    ///
    /// Runs should end in the order in which they began, the last first. One that does not (`f` suspends a coroutine, and another
    /// run begins before that goes on) is brought to its end where it stands, and [counted](CpuRecord::disorders). For
    /// executors whose switches are no function calls there are [`switch_in`](Self::switch_in) and
    /// [`switch_out`](Self::switch_out). In a PMU's hook, `f` runs without being seen.
    ///
    /// # Panics
    /// If `f` does, or a hook. All is finished before.
    #[inline]
    pub fn run<R>(&self, task: &mut OwnedTask, f: impl FnOnce() -> R) -> R {
        self.run_with_edge(task, Edge::Turn, f)
    }

    /// As [`run`](Self::run), for what is no turn of the task's: its destructor.
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

    /// Switches a task in; the CPU keeps it until it is switched out, and ends it if the thread ends first.
    ///
    /// For executors whose switches are no function calls.
    ///
    /// # Errors
    /// The task itself, if it belongs to another system, or if this is called in a PMU's hook.
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
            let arrived = OnUnwind(|| record.arrive(incoming));
            record.switch(Some(incoming), Edge::Nested, edge);
            std::mem::forget(arrived);
        }
        record.arrive(incoming);
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
            while self.is_left_behind_by(task) {
                drop(self.switch_out());
            }
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
        let mut above = 0;
        for at in self.chain() {
            if ptr::eq(at, task) {
                return above != 0;
            }
            if !at.is_carried() {
                return false;
            }
            above += 1;
        }
        false
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

/// The hooks of one switch. While they run, `owed` of the record says how far they are, beside [`IN_HOOKS`]: first which PMUs
/// are still to be told that a task leaves, then which have been told that one comes.
#[derive(Clone, Copy)]
struct Hooks<'a> {
    record: &'static CpuRecord,
    outgoing: Option<&'a Task>,
    incoming: Option<&'a Task>,
    leaves: Edge,
    comes: Edge,
}

impl Hooks<'_> {
    /// Calls all hooks, also if one panics. Not in a hook.
    #[inline(always)]
    fn call(self) {
        let record = self.record;
        let owed = record.owed();
        // One section for all hooks: each finds data that stays as long as they run.
        let section = rcu::enter();
        let active = record.system.active_mask();
        if let Some(outgoing) = self.outgoing {
            let others = OnUnwind(move || self.finish_sched_out());
            // Also for the PMUs that were attached while the task ran.
            self.sched_out(outgoing, owed | active, section.token());
            std::mem::forget(others);
        }
        let Some(incoming) = self.incoming else {
            return record.set_owed(0);
        };
        let others = OnUnwind(move || self.finish_sched_in());
        let told = self.sched_in(incoming, active, 0, section.token());
        std::mem::forget(others);
        record.set_owed(told);
    }

    /// Tells the PMUs of `rest` that the outgoing task leaves.
    #[inline(always)]
    fn sched_out(self, outgoing: &Task, rest: u32, section: rcu::Token<'_>) {
        let (record, system) = (self.record, self.record.system);
        let mut rest = rest | IN_HOOKS;
        loop {
            let index = rest.trailing_zeros();
            if index as usize >= MAX_PMUS {
                break;
            }
            rest &= rest - 1;
            // Crossed off before it is called: so none is called twice.
            record.set_owed(rest);
            if let Some(pmu) = system.pmu(index) {
                pmu.sched_out(record, outgoing, self.leaves, section);
            }
        }
    }

    /// Tells the PMUs of `rest` that the incoming task comes. Those that have been told, and those of `told`.
    #[inline(always)]
    fn sched_in(self, incoming: &Task, rest: u32, told: u32, section: rcu::Token<'_>) -> u32 {
        let (record, system) = (self.record, self.record.system);
        let (mut rest, mut told) = (rest | IN_HOOKS, told | IN_HOOKS);
        loop {
            let index = rest.trailing_zeros();
            if index as usize >= MAX_PMUS {
                break;
            }
            rest &= rest - 1;
            if let Some(pmu) = system.pmu(index) {
                told |= 1 << index;
                // Noted before it is called: so it is owed a `sched_out` also if it panics.
                record.set_owed(told);
                pmu.sched_in(record, incoming, self.comes, section);
            }
        }
        told & !IN_HOOKS
    }

    /// Calls the hooks that are left, after one has panicked as a task left.
    #[cold]
    #[inline(never)]
    fn finish_sched_out(self) {
        let (record, section) = (self.record, rcu::enter());
        let Some(outgoing) = self.outgoing else { return };
        while !quietly(|| self.sched_out(outgoing, record.owed(), section.token())) {}
        record.set_owed(IN_HOOKS);
        self.finish_sched_in();
    }

    /// Calls the hooks that are left, after one has panicked as a task left or came.
    #[cold]
    #[inline(never)]
    fn finish_sched_in(self) {
        let (record, section) = (self.record, rcu::enter());
        let Some(incoming) = self.incoming else { return record.set_owed(0) };
        loop {
            let told = record.owed() & !IN_HOOKS;
            let next = u32::BITS - told.leading_zeros();
            let rest = record.system.active_mask() & u32::MAX.checked_shl(next).unwrap_or(0);
            if quietly(|| {
                self.sched_in(incoming, rest, told, section.token());
            }) {
                break;
            }
        }
        record.set_owed(record.owed() & !IN_HOOKS);
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
        let system = self.record.system;
        system.for_each_pmu(u32::MAX, |pmu| {
            quietly(|| self.record.tell_offline(pmu));
        });
        self.record.leave_all();
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

#[cfg(target_os = "linux")]
fn thread_number() -> u32 {
    // SAFETY: no arguments, no memory.
    unsafe { libc::gettid() }.cast_unsigned()
}

#[cfg(not(target_os = "linux"))]
fn thread_number() -> u32 {
    0
}
