//! What measures: a source of counts that is told of each switch, and the data it keeps for each task.

use crate::cpu::CpuRecord;
use crate::ctx_cache::CtxCache;
use crate::ctx_data::{CtxData, CtxRef};
use crate::global::GlobalUse;
use crate::path::SpawnPath;
use crate::primitive::{Arc, Mutex, lock};
use crate::rcu;
use crate::system::System;
use crate::tally::{Tally, Totals};
use crate::task::Task;
use bytemuck::Zeroable;
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;

/// How many PMUs a [`System`] has room for: each task has a slot for each.
#[cfg(not(any(pertask_loom, pertask_shuttle)))]
pub const MAX_PMUS: usize = 6;
/// Schedules have two, so that an exit has few steps.
#[cfg(pertask_shuttle)]
pub const MAX_PMUS: usize = 2;
/// The models have one, so that an exit is one step.
#[cfg(pertask_loom)]
pub const MAX_PMUS: usize = 1;

/// A source of counts that is saved and restored with each task (the kernel's `struct pmu`).
///
/// The hooks run on the worker, at each switch while any event of this PMU is attached, inside an RCU section. They
/// must not block, allocate, attach or detach events, make tasks, or panic.
pub trait Pmu: Send + Sync + Sized + 'static {
    /// The PMU's name, for messages.
    const NAME: &'static str;

    /// What is kept for each task. All-zero when new, shared between threads, freed without being dropped.
    ///
    /// A type without size means that the PMU keeps nothing: an attach then allocates and walks nothing, and the hooks
    /// get `None`.
    type Data: Zeroable + Send + Sync + 'static;

    /// What is kept for each [`Cpu`](crate::Cpu).
    type CpuData: Default + Send + Sync + 'static;

    /// What an event of this PMU reads.
    type Count: Count;

    /// A task comes onto a CPU (the kernel's `sched_task(ctx, task, true)`).
    fn sched_in(&self, switch: Switch<'_, Self>);

    /// A task leaves its CPU (the kernel's `sched_task(ctx, task, false)`).
    ///
    /// Every `sched_in` is answered by one of these on the same CPU; the task's data may have come or gone in between.
    /// One that answers no `sched_in` is for a task that was running when the PMU's first event was attached.
    fn sched_out(&self, switch: Switch<'_, Self>);

    /// A thread has begun to be a CPU, or the PMU been registered while one is. The data is new, or that of a thread which
    /// has ended.
    fn cpu_online(&self, _cpu: &CpuRecord, _cpu_data: &Self::CpuData) {}

    /// The thread behind a CPU ends. Called on that thread.
    fn cpu_offline(&self, _cpu: &CpuRecord, _cpu_data: &Self::CpuData) {}

    /// The counts in a task's data, on any thread.
    fn read(&self, data: &Self::Data) -> Self::Count;
}

/// What an event reads: a sum that can be added up over tasks and taken as a difference over time.
pub trait Count: Clone + Default + Send + 'static {
    /// Adds the counts of another task.
    fn add(&mut self, other: &Self);

    /// What has come since `base` was read from the same source.
    #[must_use]
    fn since(&self, base: &Self) -> Self;
}

/// A PMU without counts reads nothing.
impl Count for () {
    fn add(&mut self, (): &Self) {}
    fn since(&self, (): &Self) -> Self {}
}

/// Plain sums.
impl Count for u64 {
    fn add(&mut self, other: &Self) {
        *self = self.wrapping_add(*other);
    }
    fn since(&self, base: &Self) -> Self {
        self.saturating_sub(*base)
    }
}

/// Why a task comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Its turn begins or ends: a poll of a future, a run of a fiber.
    Turn,
    /// A task inside it takes over for a while, or gives back.
    Nested,
    /// It runs outside its turns: its destructor.
    Aside,
}

/// One side of a switch, as a hook sees it.
pub struct Switch<'a, P: Pmu> {
    /// The CPU.
    pub cpu: &'a CpuRecord,
    /// The PMU's own data for the CPU.
    pub cpu_data: &'a P::CpuData,
    /// The task that comes or goes.
    pub task: &'a Task,
    /// The PMU's data for the task, if anybody is attached to it.
    pub data: Option<&'a P::Data>,
    /// Why it comes or goes.
    pub edge: Edge,
}

/// A PMU's place in a system. What events are attached through.
pub struct PmuHandle<P: Pmu>(pub(crate) &'static Registered<P>);

impl<P: Pmu> Clone for PmuHandle<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Pmu> Copy for PmuHandle<P> {}

impl<P: Pmu> fmt::Debug for PmuHandle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PmuHandle").field(&P::NAME).finish()
    }
}

impl<P: Pmu> PmuHandle<P> {
    /// The PMU.
    #[must_use]
    pub fn pmu(self) -> &'static P {
        &self.0.pmu
    }

    /// Where the PMU's per-task data comes from: how much there is, and its limit.
    #[must_use]
    pub fn cache(self) -> &'static CtxCache {
        &self.0.state.cache
    }

    /// The system that the PMU is registered with.
    #[must_use]
    pub fn system(self) -> &'static System {
        self.0.state.system
    }

    /// The PMU's data for a CPU of the same system.
    #[must_use]
    pub fn cpu_data(self, cpu: &CpuRecord) -> Option<&P::CpuData> {
        if !cpu.is_of(self.0.state.system) {
            return None;
        }
        self.0.cpu_data(cpu)
    }

    /// How many tasks were born without data although a global event was attached, since the start.
    #[must_use]
    pub fn tasks_without_data(self) -> u64 {
        self.0.state.global.tasks_without_data()
    }

    /// Looks at the PMU's data for a task, in an RCU section. `None` when nobody is attached to it.
    ///
    /// `f` must not wait for another thread.
    pub fn with_data<R>(self, task: &Task, f: impl FnOnce(&P::Data) -> R) -> Option<R> {
        if !std::ptr::eq(task.system(), self.0.state.system) {
            return None;
        }
        let section = rcu::enter();
        let data = task.slot(self.0.state.index).data(&section)?;
        // SAFETY: it comes from this PMU's slot, and stays while the section lasts.
        Some(f(unsafe { self.0.payload(data) }))
    }

    /// Reads all counts: those of the tasks that have ended, spawn path by spawn path, and of each that lives.
    ///
    /// `live` is called for each live task that has data. It may amend the count, before it is added to the path's, by what
    /// has not reached the data yet; [`Live::read`] tells what has. A task that ends meanwhile is counted once, among the living or the ended. It is
    /// a walk over all tasks; spawn and exit do not wait for it. One at a time for a PMU: `live` must not take another, nor
    /// read a global event. It runs in an RCU section, as the hooks do.
    pub fn snapshot(self, mut live: impl FnMut(&mut Live<'_, P>)) -> Vec<PathCounts<P::Count>> {
        self.0.snapshot(&mut live)
    }
}

/// A live task in a snapshot.
pub struct Live<'a, P: Pmu> {
    /// The task.
    pub task: &'a Arc<Task>,
    /// Its count, as it goes into the snapshot.
    pub count: P::Count,
    pmu: &'a P,
    data: &'a P::Data,
}

impl<P: Pmu> Live<'_, P> {
    /// Reads the task's data again, also when the task has ended meanwhile.
    #[must_use]
    pub fn read(&self) -> P::Count {
        self.pmu.read(self.data)
    }
}

/// The counts of all tasks of one spawn path: these alone, without their descendants.
#[derive(Clone, Debug)]
pub struct PathCounts<C> {
    /// The path. Its parents have rows of their own, if they have counts.
    pub path: &'static SpawnPath,
    /// Tasks with data that have ended.
    pub exited: u64,
    /// Tasks with data that live.
    pub live: u64,
    /// The counts of both.
    pub count: C,
}

/// What the core keeps of a PMU, whatever its types.
pub(crate) struct PmuState {
    pub(crate) system: &'static System,
    pub(crate) index: usize,
    pub(crate) has_data: bool,
    pub(crate) cache: CtxCache,
    pub(crate) global: GlobalUse,
}

impl PmuState {
    pub(crate) fn bit(&self) -> u32 {
        1 << self.index
    }
}

pub(crate) struct Registered<P: Pmu> {
    pub(crate) pmu: P,
    pub(crate) state: PmuState,
    /// The number of the last walk over counts; one at a time.
    walks: Mutex<u64>,
}

/// A registered PMU, its types forgotten.
pub(crate) trait AnyPmu: Send + Sync {
    fn state(&self) -> &PmuState;
    fn new_cpu_data(&self) -> Box<dyn Any + Send + Sync>;
    fn cpu_online(&self, cpu: &CpuRecord);
    fn cpu_offline(&self, cpu: &CpuRecord);
    /// One side of a switch, in a section: in as many words as registers take.
    fn sched_in(&self, cpu: &CpuRecord, task: &Task, edge: Edge, guard: &rcu::Guard);
    fn sched_out(&self, cpu: &CpuRecord, task: &Task, edge: Edge, guard: &rcu::Guard);
    /// Folds the counts of a task that ends into its path's.
    fn fold(&self, task: &Task);
}

impl<P: Pmu> Registered<P> {
    pub(crate) fn new(pmu: P, system: &'static System, index: usize) -> Self {
        let state = PmuState {
            system,
            index,
            has_data: size_of::<P::Data>() != 0,
            cache: CtxCache::new::<P::Data>(P::NAME),
            global: GlobalUse::new(),
        };
        Self { pmu, state, walks: Mutex::new(0) }
    }

    /// The CPU must be of this PMU's system: there the index stands for the type.
    #[inline(always)]
    fn cpu_data<'c>(&self, cpu: &'c CpuRecord) -> Option<&'c P::CpuData> {
        // SAFETY: null, or what that PMU's `new_cpu_data` has made whose index it stands at; it lives as long as the record.
        unsafe { cpu.data(self.state.index).cast::<P::CpuData>().as_ref() }
    }

    /// # Safety
    /// `data` comes from this PMU's slot of a task.
    pub(crate) unsafe fn payload<'d>(&self, data: &'d CtxData) -> &'d P::Data {
        // SAFETY: a PMU's slot holds only objects from its own cache.
        unsafe { data.payload() }
    }

    pub(crate) fn read_held(&self, held: &CtxRef) -> P::Count {
        // SAFETY: it was taken from this PMU's slot.
        self.pmu.read(unsafe { self.payload(held.data()) })
    }

    #[inline(always)]
    fn switch<'s>(
        &self,
        cpu: &'s CpuRecord,
        task: &'s Task,
        edge: Edge,
        guard: &'s rcu::Guard,
    ) -> Option<Switch<'s, P>> {
        let cpu_data = self.cpu_data(cpu)?;
        let data = task.slot(self.state.index).data(guard);
        // SAFETY: it comes from this PMU's slot.
        let data = data.map(|data| unsafe { self.payload(data) });
        Some(Switch { cpu, cpu_data, task, data, edge })
    }

    fn snapshot(&self, live: &mut dyn FnMut(&mut Live<'_, P>)) -> Vec<PathCounts<P::Count>> {
        let mut walk = lock(&self.walks);
        *walk += 1;
        let mut by_path = ByPath::default();
        self.state.system.tasks().for_each(|task| {
            let guard = rcu::enter();
            if let Some(mut seen) = self.see(task, *walk, &guard) {
                live(&mut seen);
                by_path.add_live(task.path(), &seen.count);
            }
        });
        self.state.system.paths().for_each(|path| {
            // None: nobody has ended there whom the walk has missed.
            if let Some(tally) = path.tally_if_any(self.state.index) {
                by_path.add_ended(path, &lock(tally).total_beside(*walk));
            }
        });
        by_path.0.into_values().collect()
    }

    /// Reads a live task's counts and marks them as seen by `walk`.
    fn see<'a>(
        &'a self,
        task: &'a Arc<Task>,
        walk: u64,
        guard: &'a rcu::Guard,
    ) -> Option<Live<'a, P>> {
        let data = task.slot(self.state.index).data(guard)?;
        let _tally = lock(self.tally(task));
        if data.refcount.read() == 0 || !data.see_in_walk(walk) {
            return None;
        }
        // SAFETY: it comes from this PMU's slot.
        let data = unsafe { self.payload(data) };
        Some(Live { task, count: self.pmu.read(data), pmu: &self.pmu, data })
    }

    fn tally(&self, task: &Task) -> &'static Mutex<Tally<P::Count>> {
        task.path().tally(self.state.index)
    }
}

impl<P: Pmu> AnyPmu for Registered<P> {
    fn state(&self) -> &PmuState {
        &self.state
    }

    fn new_cpu_data(&self) -> Box<dyn Any + Send + Sync> {
        Box::new(P::CpuData::default())
    }

    fn cpu_online(&self, cpu: &CpuRecord) {
        if let Some(data) = self.cpu_data(cpu) {
            self.pmu.cpu_online(cpu, data);
        }
    }

    fn cpu_offline(&self, cpu: &CpuRecord) {
        if let Some(data) = self.cpu_data(cpu) {
            self.pmu.cpu_offline(cpu, data);
        }
    }

    fn sched_in(&self, cpu: &CpuRecord, task: &Task, edge: Edge, guard: &rcu::Guard) {
        if let Some(switch) = self.switch(cpu, task, edge, guard) {
            self.pmu.sched_in(switch);
        }
    }

    fn sched_out(&self, cpu: &CpuRecord, task: &Task, edge: Edge, guard: &rcu::Guard) {
        if let Some(switch) = self.switch(cpu, task, edge, guard) {
            self.pmu.sched_out(switch);
        }
    }

    fn fold(&self, task: &Task) {
        let guard = rcu::enter();
        let Some(data) = task.slot(self.state.index).data(&guard) else { return };
        if data.refcount.read() == 0 {
            return;
        }
        // SAFETY: it comes from this PMU's slot.
        let count = self.pmu.read(unsafe { self.payload(data) });
        let mut tally = lock(self.tally(task));
        if data.fold_once() {
            tally.fold(data.seen_in_walk(), &count);
        }
    }
}

/// A snapshot under way: one row for each path that has any, by the path's number.
struct ByPath<C>(BTreeMap<u32, PathCounts<C>>);

impl<C> Default for ByPath<C> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<C: Count> ByPath<C> {
    fn add_live(&mut self, path: &'static SpawnPath, count: &C) {
        let row = self.row(path);
        row.live += 1;
        row.count.add(count);
    }

    fn add_ended(&mut self, path: &'static SpawnPath, ended: &Totals<C>) {
        if ended.tasks != 0 {
            let row = self.row(path);
            row.exited += ended.tasks;
            row.count.add(&ended.count);
        }
    }

    fn row(&mut self, path: &'static SpawnPath) -> &mut PathCounts<C> {
        let new = || PathCounts { path, exited: 0, live: 0, count: C::default() };
        self.0.entry(path.id()).or_insert_with(new)
    }
}
