//! A registered PMU, as the core has it: with its types for handles and events, and without them for switches, forks and ends.

use super::{Edge, Pmu, Switch};
use crate::active::{Counted, Events, MAX_PMUS};
use crate::books::Mine;
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
use std::ptr::NonNull;

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
    pub(super) cpus: PerCpu<Padded<OnceLock<P::CpuData>>>,
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
