//! PMUs: sources of counts that are notified of each switch, and that keep data for each task.

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
/// A switch calls the hooks on its own thread, inside an RCU section, while any event of this PMU is attached. Hooks must not
/// block, allocate, attach or detach events, make tasks, or panic.
///
/// A hook that does so anyway cannot break memory safety. A call that would wait for the hook itself returns
/// [`Error::InsideHook`]; tasks that a hook runs are not seen; a panic goes on to the caller of the switch, once the switch is
/// finished.
pub trait Pmu: Send + Sync + Sized + 'static {
    /// The PMU's name, for messages.
    const NAME: &'static str;

    /// The data that the core keeps for each task: all-zero when new, shared between threads, and freed without being dropped.
    ///
    /// Atomics qualify, and so do arrays and tuples of them, and structs that derive `Zeroable` (bytemuck's feature `derive`).
    /// A zero-sized type means that the PMU keeps no data: an attach then allocates and walks nothing, and the hooks get
    /// `None`.
    type Data: Zeroable + Send + Sync + 'static;

    /// The data that the core keeps for each [`Cpu`](crate::Cpu), such as when its task was switched in.
    type CpuData: Default + Send + Sync + 'static;

    /// The counts that an event of this PMU reads.
    type Count: Count;

    /// Called when a task comes onto a CPU (the kernel's `sched_task(ctx, task, true)`).
    fn sched_in(&self, switch: Switch<'_, Self>);

    /// Called when a task leaves its CPU (the kernel's `sched_task(ctx, task, false)`).
    ///
    /// Every `sched_in` is followed by a `sched_out` on the same CPU; the task's data may appear or disappear in between. A
    /// `sched_out` without a `sched_in` is for a task that was running when the PMU's first event was attached.
    fn sched_out(&self, switch: Switch<'_, Self>);

    /// Called when a thread becomes a CPU, and for each existing CPU when the PMU is registered.
    ///
    /// The data is new, or left by a thread that has ended.
    fn cpu_online(&self, _cpu: &CpuRecord, _cpu_data: &Self::CpuData) {}

    /// Called when the thread behind a CPU ends, on that thread.
    fn cpu_offline(&self, _cpu: &CpuRecord, _cpu_data: &Self::CpuData) {}

    /// The counts in a task's data, on any thread.
    fn read(&self, data: &Self::Data) -> Self::Count;

    /// Adds an ended task's data to `totals`, which is data of the same type, and is read in the same way.
    ///
    /// Returns false if it added nothing. The core then keeps the sum as a [`Count`](Pmu::Count), at the cost of an allocation
    /// each time. One thread at a time writes `totals` while others read it; each CPU has totals of its own.
    ///
    /// The thread that ends the task calls this, inside an RCU section, and whoever reads the counts of ended tasks waits until
    /// it returns. So it must not wait for a grace period, for a reading of counts, or for anything that waits for one of these. It
    /// may take a lock that other threads hold only for a moment, and never while they do any of that, or end a task; after a `fork`, in
    /// the child, such a lock may stay locked for good.
    fn fold(&self, ended: &Self::Data, totals: &Self::Data) -> bool {
        let _ = (ended, totals);
        false
    }
}

/// Why a task is switched in or out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The task's turn begins or ends: a poll of a future, a run of a fiber.
    Turn,
    /// A nested task takes over for a while, or ends its turn and gives the CPU back; or the task goes on with another
    /// [tag](Task::tag).
    Nested,
    /// The task runs outside its turns: in its destructor.
    Aside,
    /// The task leaves, because a run below its own has ended: since the last switch, either of the two tasks may have run. See
    /// [`CpuRecord::disorders`].
    Disorder,
}

/// One side of a switch, as a hook sees it.
pub struct Switch<'a, P: Pmu> {
    /// The CPU.
    pub cpu: &'a CpuRecord,
    /// The PMU's own data for the CPU.
    pub cpu_data: &'a P::CpuData,
    /// The task that is switched in or out.
    pub task: &'a Task,
    /// The PMU's data for the task, if any event is attached to the task.
    pub data: Option<&'a P::Data>,
    /// Why the task is switched in or out.
    pub edge: Edge,
}

/// A registered PMU, through which events are attached.
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

    /// The cache of the PMU's per-task data, which tells its size and sets its limit.
    #[must_use]
    pub fn cache(self) -> &'static CtxCache {
        &self.0.state.cache
    }

    /// The system that the PMU is registered with.
    #[must_use]
    pub fn system(self) -> &'static System {
        self.0.state.system
    }

    /// The PMU's data for a CPU; `None` if the CPU belongs to another system.
    ///
    /// It stays where it is, and what it is for, also when the CPU's thread has ended.
    #[must_use]
    pub fn cpu_data(self, cpu: &CpuRecord) -> Option<&'static P::CpuData> {
        if !cpu.is_of(self.0.state.system) {
            return None;
        }
        self.0.cpus.get(cpu.index() as usize)?.0.get()
    }

    /// How many tasks were forked without data while a global event was attached, and have got none since.
    ///
    /// The next event that is attached to such a task, or globally, gives it data if there is memory.
    #[must_use]
    pub fn tasks_without_data(self) -> u64 {
        self.0.state.global.tasks_without_data()
    }

    /// Sets how long a task's data stays.
    ///
    /// Data that is no longer retained is released at once, unless a global event is attached.
    ///
    /// If events come and go in quick succession (a scraper every ten seconds, over a million tasks), retained data saves the
    /// walk of each detach, and the allocations of every attach but the first. It costs the memory in between. The counts in
    /// the data stay, too.
    ///
    /// # Errors
    /// [`Error::Unregistered`] if the PMU has been [unregistered](Self::unregister). After [`Error::InsideHook`] or
    /// [`Error::BarrierRefused`], data that should no longer be retained may stay until its task ends.
    pub fn set_retention(self, retention: Retention) -> Result<(), Error> {
        let (state, retains) = (&self.0.state, retention == Retention::UntilExit);
        state.events.while_open(|| state.global.set_retains(retains))?;
        if retains {
            return Ok(());
        }
        // With no lock held: a hook, which the grace period waits for, may be waiting for one to drop its event.
        rcu::synchronize()?;
        match state.events.while_open(|| state.global.release_retained(state)) {
            // `unregister` has released the data.
            Err(Error::Unregistered) => Ok(()),
            released => released,
        }
    }

    /// Unregisters the PMU: its place in the system is free for the next [`register`](System::register).
    ///
    /// Handles to the PMU remain, but attaching through them fails. The PMU's per-CPU data is not freed, because others may
    /// hold references to it. `cpu_offline` is not called for the CPUs that are online.
    ///
    /// # Errors
    /// [`Error::InUse`] while the PMU has events; [`Error::Unregistered`] if it was unregistered before; [`Error::InsideHook`]
    /// in a hook, or while a thread is telling the PMU that a CPU comes or goes; [`Error::BarrierRefused`]. An `unregister`
    /// that fails changes nothing.
    pub fn unregister(self) -> Result<(), Error> {
        self.0.state.system.unregister(self.0)
    }

    /// Calls `f` with the PMU's data for a task, in an RCU section.
    ///
    /// Returns `None` if no event is attached to the task, or if the task belongs to another system. `f` must not wait for
    /// another thread.
    pub fn with_data<R>(self, task: &Task, f: impl FnOnce(&P::Data) -> R) -> Option<R> {
        if !std::ptr::eq(task.system(), self.0.state.system) {
            return None;
        }
        let slot = task.slot(self.0.state.index);
        // A task without data needs no section.
        if !slot.has_data() {
            return None;
        }
        let section = rcu::enter();
        let view = slot.data(section.token())?;
        Some(f(self.0.own_payload(view)?))
    }
}

/// How long a task's data stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// Until the last event on the task is detached.
    #[default]
    UntilDetached,
    /// Until the task ends.
    UntilExit,
}
