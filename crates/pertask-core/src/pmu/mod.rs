//! What measures: a source of counts that is told of each switch, and the data it keeps for each task.

mod registered;

pub(crate) use registered::{AnyPmu, ErasedPmu, PmuHead, Registered};

#[cfg(doc)]
use crate::active::MAX_PMUS;
use crate::count::Count;
use crate::cpu::CpuRecord;
use crate::ctx_cache::CtxCache;
use crate::error::Error;
use crate::rcu;
use crate::system::System;
use crate::task::Task;
use bytemuck::Zeroable;
use std::fmt;

/// A source of counts that is saved and restored with each task (the kernel's `struct pmu`).
///
/// The hooks run on the thread that switches, at each switch while any event of this PMU is attached, inside an RCU section.
/// They must not block, allocate, attach or detach events, make tasks, or panic.
///
/// Where a hook does so, memory is safe all the same. What would wait for the hook itself is an [`Error::InsideHook`]; tasks that
/// a hook runs are not seen; a panic goes on to whoever switched, once the switch is finished.
pub trait Pmu: Send + Sync + Sized + 'static {
    /// The PMU's name, for messages.
    const NAME: &'static str;

    /// The data that the core keeps for each task: all-zero when new, shared between threads, freed without being dropped.
    ///
    /// Atomics will do, and arrays and tuples of them, and structs that derive `Zeroable` (bytemuck's feature `derive`). A
    /// type without size means that the PMU keeps nothing: an attach then allocates and walks nothing, and the hooks get
    /// `None`.
    type Data: Zeroable + Send + Sync + 'static;

    /// The data that the core keeps for each [`Cpu`](crate::Cpu), such as since when its task runs.
    type CpuData: Default + Send + Sync + 'static;

    /// The counts that an event of this PMU reads.
    type Count: Count;

    /// Called when a task comes onto a CPU (the kernel's `sched_task(ctx, task, true)`).
    fn sched_in(&self, switch: Switch<'_, Self>);

    /// Called when a task leaves its CPU (the kernel's `sched_task(ctx, task, false)`).
    ///
    /// Every `sched_in` is answered by a `sched_out` on the same CPU; the task's data may have come or gone in between. A
    /// `sched_out` that answers no `sched_in` is for a task that was running when the PMU's first event was attached.
    fn sched_out(&self, switch: Switch<'_, Self>);

    /// Called when a thread has begun to be a CPU, and for each that is one when the PMU is registered.
    ///
    /// The data is new, or that of a thread which has ended.
    fn cpu_online(&self, _cpu: &CpuRecord, _cpu_data: &Self::CpuData) {}

    /// Called when the thread behind a CPU ends, on that thread.
    fn cpu_offline(&self, _cpu: &CpuRecord, _cpu_data: &Self::CpuData) {}

    /// The counts in a task's data, on any thread.
    fn read(&self, data: &Self::Data) -> Self::Count;

    /// Adds the data of a task that has ended to `totals`, which is such data, too, and is read as any other.
    ///
    /// False: nothing was added, and the core keeps the sum as a [`Count`](Pmu::Count), which costs an allocation each time.
    /// One thread at a time writes to `totals`, while others read; each CPU has its own.
    fn fold(&self, ended: &Self::Data, totals: &Self::Data) -> bool {
        let _ = (ended, totals);
        false
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

/// A PMU's place in a system, through which events are attached.
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

    /// The cache that the PMU's per-task data comes from: how much there is, and its limit.
    #[must_use]
    pub fn cache(self) -> &'static CtxCache {
        &self.0.state.cache
    }

    /// The system that the PMU is registered with.
    #[must_use]
    pub fn system(self) -> &'static System {
        self.0.state.system
    }

    /// The PMU's data for a CPU; `None` if that belongs to another system.
    #[must_use]
    pub fn cpu_data(self, cpu: &CpuRecord) -> Option<&P::CpuData> {
        if !cpu.is_of(self.0.state.system) {
            return None;
        }
        self.0.cpus.get(cpu.index() as usize)?.0.get()
    }

    /// How many tasks were born without data although a global event was attached, and have been given none since.
    ///
    /// An event that is attached to such a task, or globally while there are any, gives them data if there is memory.
    #[must_use]
    pub fn tasks_without_data(self) -> u64 {
        self.0.state.global.tasks_without_data()
    }

    /// Says how long a task's data stays.
    ///
    /// Data that was retained and is no more goes at once, if no global event is attached.
    ///
    /// Where events come and go in quick succession (a scraper every ten seconds, on a million tasks), data that stays saves
    /// the walk of each detach, and the allocations of each attach but the first. It costs the memory meanwhile. What it has
    /// counted stays, too.
    ///
    /// # Errors
    /// [`Error::Unregistered`] if the PMU has been [let go](Self::unregister). [`Error::InsideHook`] and [`Error::BarrierRefused`]:
    /// then data that is retained no more may stay until its task ends.
    pub fn set_retention(self, retention: Retention) -> Result<(), Error> {
        let (state, retains) = (&self.0.state, retention == Retention::UntilExit);
        state.events.while_open(|| state.global.set_retains(state, retains))
    }

    /// Lets the PMU go: its place in the system is free for the next [`register`](System::register).
    ///
    /// Handles of it remain, and nothing can be attached through them. What it keeps for CPUs is not freed, for others may hold
    /// references to it. Its `cpu_offline` is not called for the CPUs that are online.
    ///
    /// # Errors
    /// [`Error::InUse`] while it has events, [`Error::Unregistered`] if it has been let go, [`Error::InsideHook`] also while the
    /// PMU is told of a CPU, [`Error::BarrierRefused`]. Then nothing has changed.
    pub fn unregister(self) -> Result<(), Error> {
        self.0.state.system.unregister(self.0)
    }

    /// Calls `f` with the PMU's data for a task, in an RCU section.
    ///
    /// `None` if nobody is attached to the task, or if it belongs to another system. `f` must not wait for another thread.
    pub fn with_data<R>(self, task: &Task, f: impl FnOnce(&P::Data) -> R) -> Option<R> {
        if !std::ptr::eq(task.system(), self.0.state.system) {
            return None;
        }
        let section = rcu::enter();
        let view = task.slot(self.0.state.index).data(section.token())?;
        Some(f(self.0.own_payload(view)?))
    }
}

/// The time for which a task's data stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// Until the last event on the task goes.
    #[default]
    UntilDetached,
    /// Until the task ends.
    UntilExit,
}
