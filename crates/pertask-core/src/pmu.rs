//! What measures: a source of counts that is told of each switch, and the data it keeps for each task.

use crate::active::{Counted, Events, MAX_PMUS};
use crate::books::Mine;
use crate::count::Count;
use crate::cpu::CpuRecord;
use crate::ctx_cache::CtxCache;
use crate::ctx_data::{CtxData, CtxRef, CtxView};
use crate::error::Error;
use crate::global::{Everywhere, GlobalUse};
use crate::global_mask::GlobalMask;
use crate::per_cpu::PerCpu;
use crate::primitive::{OnceLock, Padded};
use crate::rcu;
use crate::slot::{Attached, Holding, Slot};
use crate::system::System;
use crate::tally::{EndedPaths, Folder};
use crate::task::Task;
use crate::turn::Turns;
use bytemuck::Zeroable;
use std::fmt;
use std::ptr::NonNull;

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

/// What the core keeps of a PMU, whatever its types.
pub(crate) struct PmuState {
    pub(crate) system: &'static System,
    /// INVARIANT: below [`MAX_PMUS`].
    pub(crate) index: usize,
    /// A number that no other PMU of the system has, and not 0.
    pub(crate) serial: u32,
    pub(crate) has_data: bool,
    pub(crate) events: Events,
    pub(crate) cache: CtxCache,
    pub(crate) global: GlobalUse,
}

impl PmuState {
    fn new<P: Pmu>(system: &'static System, index: usize, serial: u32) -> Self {
        Self {
            system,
            index,
            serial,
            has_data: size_of::<P::Data>() != 0,
            events: Events::new(),
            cache: CtxCache::new(P::NAME, CtxData::layout::<P::Data>(), system.library()),
            global: GlobalUse::new(),
        }
    }

    /// For fork, in a section and before the child is published.
    pub(crate) fn fork(&self, child: &Task, mine: Mine<'_>) {
        if child.slot(self.index).install_unshared(&self.cache, mine).is_err() {
            self.global.count_hole();
        }
    }

    /// Counts an event among those for which switches call hooks, unless it comes to nothing.
    pub(crate) fn count_event(&self) -> Result<Counted<'_>, Error> {
        self.system.active().count(self.index, &self.events)
    }

    pub(crate) fn uncount_event(&self) {
        self.system.active().uncount(self.index, &self.events);
    }

    /// A reference to a task's data.
    fn attach(&self, slot: &Slot) -> Result<CtxRef, Error> {
        let attached = slot.attach(&self.cache)?;
        let held = match attached {
            Attached::Exited => return Err(Error::TaskExited),
            Attached::Installed(held) | Attached::Shared(held) if self.global.retains() => held,
            Attached::Installed(held) | Attached::Shared(held) => return Ok(held),
            Attached::Filled(held) => {
                self.global.count_filled();
                held
            }
        };
        self.global.share(self, slot);
        Ok(held)
    }
}

impl<P: Pmu> Folder for P {
    type Data = P::Data;
    type Count = P::Count;

    fn fold(&self, ended: &P::Data, totals: &P::Data) -> bool {
        Pmu::fold(self, ended, totals)
    }

    fn read(&self, data: &P::Data) -> P::Count {
        Pmu::read(self, data)
    }
}

impl Everywhere for PmuState {
    fn has_data(&self) -> bool {
        self.has_data
    }

    fn bit(&self) -> u32 {
        1 << self.index
    }

    fn mask(&self) -> &GlobalMask {
        self.system.global_mask()
    }

    fn cache(&self) -> &CtxCache {
        &self.cache
    }

    fn try_for_each(&self, f: &mut dyn FnMut(&Slot) -> Result<(), Error>) -> Result<(), Error> {
        self.system.tasks().try_for_each_pinned(|task| f(task.slot(self.index)))
    }
}

#[repr(C)]
pub(crate) struct Registered<P: Pmu> {
    head: PmuHead,
    pub(crate) pmu: P,
    pub(crate) state: PmuState,
    /// What it keeps for each CPU, by the CPU's index.
    cpus: PerCpu<Padded<OnceLock<P::CpuData>>>,
    /// The counts of the tasks that have ended, by the number of the books that they ended with.
    pub(crate) ended: PerCpu<EndedPaths<P>>,
    pub(crate) turns: Turns,
}

/// What switches need of a PMU, where one look finds it: a hook's address is on the way to the first reading of a clock.
pub(crate) struct PmuHead {
    sched_in: Hook,
    sched_out: Hook,
    any: unsafe fn(NonNull<PmuHead>) -> &'static dyn AnyPmu,
}

/// Calls a PMU's hook. In a section.
///
/// # Safety
/// The pointer is that of the `Registered<P>` which begins with the head.
type Hook = unsafe fn(NonNull<PmuHead>, &CpuRecord, &Task, Edge, rcu::Token<'_>);

/// A registered PMU, its types forgotten.
#[derive(Clone, Copy)]
pub(crate) struct ErasedPmu(NonNull<PmuHead>);

impl ErasedPmu {
    /// # Safety
    /// Null, or what [`Registered::head`] gave.
    #[inline(always)]
    pub(crate) unsafe fn new(head: *mut PmuHead) -> Option<Self> {
        NonNull::new(head).map(Self)
    }

    /// Tells the PMU that a task comes. In a section.
    #[inline(always)]
    pub(crate) fn sched_in(
        self,
        cpu: &CpuRecord,
        task: &Task,
        edge: Edge,
        section: rcu::Token<'_>,
    ) {
        // SAFETY: the head of a PMU, which is never freed, and its own hook.
        unsafe { (self.0.as_ref().sched_in)(self.0, cpu, task, edge, section) }
    }

    /// Tells the PMU that a task goes. In a section.
    #[inline(always)]
    pub(crate) fn sched_out(
        self,
        cpu: &CpuRecord,
        task: &Task,
        edge: Edge,
        section: rcu::Token<'_>,
    ) {
        // SAFETY: the head of a PMU, which is never freed, and its own hook.
        unsafe { (self.0.as_ref().sched_out)(self.0, cpu, task, edge, section) }
    }

    /// The PMU, for all that is not counted in nanoseconds.
    pub(crate) fn any(self) -> &'static dyn AnyPmu {
        // SAFETY: the head of a PMU, which is never freed.
        unsafe { (self.0.as_ref().any)(self.0) }
    }
}

/// A registered PMU, its types forgotten.
pub(crate) trait AnyPmu: Send + Sync {
    fn state(&self) -> &PmuState;
    /// Makes the PMU's data for the CPU of that index, unless there is some.
    fn prepare_cpu(&self, index: usize);
    /// The data for the CPU of that index, or null. It lives as long as the PMU.
    fn cpu_data(&self, index: usize) -> *const ();
    fn cpu_online(&self, cpu: &CpuRecord);
    fn cpu_offline(&self, cpu: &CpuRecord);
    /// Folds the counts of a task that ends into its path's, in a window of the books. In a section. `shared`: others may look
    /// at the task.
    fn fold(&self, task: &Task, mine: Mine<'_>, shared: bool, section: rcu::Token<'_>);
}

impl<P: Pmu> Registered<P> {
    pub(crate) fn new(pmu: P, system: &'static System, index: usize, serial: u32) -> Self {
        Self {
            head: PmuHead { sched_in: sched_in::<P>, sched_out: sched_out::<P>, any: any::<P> },
            pmu,
            state: PmuState::new::<P>(system, index, serial),
            cpus: PerCpu::new(),
            ended: PerCpu::new(),
            turns: Turns::new(),
        }
    }

    /// The PMU with its types forgotten, as a pointer that fits into a word. It is good for all of the PMU.
    pub(crate) fn head(&'static self) -> *mut PmuHead {
        std::ptr::from_ref(self).cast::<PmuHead>().cast_mut()
    }

    /// The payload of this PMU's data.
    ///
    /// # Safety
    /// The data came from this PMU's cache: it was found in its slot while it was registered.
    #[inline(always)]
    unsafe fn payload<'d>(&self, view: CtxView<'d>) -> &'d P::Data {
        // SAFETY: the caller's; the cache is for payloads of this type.
        unsafe { view.payload() }
    }

    /// The payload, if the data is this PMU's. A slot may hold another's once this one has been let go.
    pub(crate) fn own_payload<'d>(&self, view: CtxView<'d>) -> Option<&'d P::Data> {
        // SAFETY: it has just been asked where the data came from.
        view.is_from(&self.state.cache).then(|| unsafe { self.payload(view) })
    }

    /// The counts in data that was attached through this PMU.
    pub(crate) fn read(&self, view: CtxView<'_>) -> P::Count {
        self.own_payload(view).map_or_else(P::Count::default, |data| self.pmu.read(data))
    }

    /// A reference to a task's data, and its counts at that moment.
    pub(crate) fn attach(&self, task: &Task) -> Result<(CtxRef, P::Count), Error> {
        let slot = task.slot(self.state.index);
        let held = self.state.attach(slot)?;
        Ok(Holding::new(slot, held).keep_after(|view| self.read(view)))
    }

    #[inline(always)]
    fn switch<'s>(
        &self,
        cpu: &'s CpuRecord,
        task: &'s Task,
        edge: Edge,
        section: rcu::Token<'s>,
    ) -> Option<Switch<'s, P>> {
        let index = self.state.index;
        // SAFETY: the index is a place's, of which there are so many. Looking twice would cost each switch some instructions.
        unsafe { std::hint::assert_unchecked(index < MAX_PMUS) };
        // SAFETY: null, or this PMU's data for this CPU: it stands there while the PMU is registered, which it was when the
        // section began.
        let cpu_data = unsafe { cpu.data(index).cast::<P::CpuData>().as_ref() }?;
        let data = task.slot(index).data(section);
        // SAFETY: what is in a PMU's slot while it is registered is its own.
        let data = data.map(|data| unsafe { self.payload(data) });
        Some(Switch { cpu, cpu_data, task, data, edge })
    }
}

impl<P: Pmu> AnyPmu for Registered<P> {
    fn state(&self) -> &PmuState {
        &self.state
    }

    fn prepare_cpu(&self, index: usize) {
        let cell = &self.cpus.of(index).0;
        if cell.get().is_none() {
            // Made first: no code that is not ours runs inside the cell.
            let data = P::CpuData::default();
            let _ = cell.set(data);
        }
    }

    fn cpu_data(&self, index: usize) -> *const () {
        let data = self.cpus.get(index).and_then(|data| data.0.get());
        data.map_or(std::ptr::null(), |data| std::ptr::from_ref(data).cast())
    }

    fn cpu_online(&self, cpu: &CpuRecord) {
        if let Some(data) = self.cpus.get(cpu.index() as usize).and_then(|data| data.0.get()) {
            self.pmu.cpu_online(cpu, data);
        }
    }

    fn cpu_offline(&self, cpu: &CpuRecord) {
        if let Some(data) = self.cpus.get(cpu.index() as usize).and_then(|data| data.0.get()) {
            self.pmu.cpu_offline(cpu, data);
        }
    }

    fn fold(&self, task: &Task, mine: Mine<'_>, shared: bool, section: rcu::Token<'_>) {
        let Some(view) = task.slot(self.state.index).data(section) else { return };
        let Some(data) = self.own_payload(view) else { return };
        if view.refcount.read() == 0 {
            return;
        }
        let seen = if shared { view.fold_once() } else { Some(view.seen_unshared()) };
        if let Some(seen) = seen {
            self.ended.of(mine.number()).of(task.path()).fold(&self.pmu, seen, data);
        }
    }
}

unsafe fn any<P: Pmu>(head: NonNull<PmuHead>) -> &'static dyn AnyPmu {
    // SAFETY: the pointer of a `Registered<P>`, by the caller's word, which is never freed.
    unsafe { head.cast::<Registered<P>>().as_ref() }
}

unsafe fn sched_in<P: Pmu>(
    head: NonNull<PmuHead>,
    cpu: &CpuRecord,
    task: &Task,
    edge: Edge,
    section: rcu::Token<'_>,
) {
    // SAFETY: the pointer of a `Registered<P>`, by the caller's word.
    let registered = unsafe { head.cast::<Registered<P>>().as_ref() };
    if let Some(switch) = registered.switch(cpu, task, edge, section) {
        registered.pmu.sched_in(switch);
    }
}

unsafe fn sched_out<P: Pmu>(
    head: NonNull<PmuHead>,
    cpu: &CpuRecord,
    task: &Task,
    edge: Edge,
    section: rcu::Token<'_>,
) {
    // SAFETY: the pointer of a `Registered<P>`, by the caller's word.
    let registered = unsafe { head.cast::<Registered<P>>().as_ref() };
    if let Some(switch) = registered.switch(cpu, task, edge, section) {
        registered.pmu.sched_out(switch);
    }
}
