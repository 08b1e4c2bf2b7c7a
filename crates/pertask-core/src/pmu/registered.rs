//! A registered PMU: with its types for handles and events, and type-erased for switches, forks and exits.

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

/// The state of a registered PMU that does not depend on its types.
pub(crate) struct PmuState {
    pub(crate) system: &'static System,
    /// INVARIANT: below [`MAX_PMUS`].
    pub(crate) index: usize,
    /// A nonzero number that no other PMU of the system has.
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

    /// Gives a child its data, for fork, in a section and before the child is published.
    pub(crate) fn fork(&self, child: &Task, mine: Mine<'_>) {
        if child.slot(self.index).install_unshared(&self.cache, mine).is_err() {
            self.global.count_hole();
        }
    }

    /// Counts an event, so that switches call the PMU's hooks. The count is taken back if the attach fails.
    pub(crate) fn count_event(&self) -> Result<Counted<'_>, Error> {
        self.system.active().count(self.index, &self.events)
    }

    pub(crate) fn uncount_event(&self) {
        self.system.active().uncount(self.index, &self.events);
    }

    /// Takes a reference to a task's data.
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
    /// The PMU's per-CPU data, by the CPU's index.
    pub(super) cpus: PerCpu<Padded<OnceLock<P::CpuData>>>,
    /// The counts of ended tasks, by the number of the books that they ended with.
    pub(crate) ended: PerCpu<EndedPaths<P>>,
    pub(crate) turns: Turns,
}

/// The part of a PMU that switches use. A switch finds a hook's address here with one load, which matters because the load
/// delays the first reading of a clock.
pub(crate) struct PmuHead {
    sched_in: Hook,
    sched_out: Hook,
    any: unsafe fn(NonNull<PmuHead>) -> &'static dyn AnyPmu,
}

/// Calls a PMU's hook. The caller is in a section.
///
/// # Safety
/// The pointer is that of the `Registered<P>` which begins with the head.
type Hook = unsafe fn(NonNull<PmuHead>, &CpuRecord, &Task, Edge, rcu::Token<'_>);

/// A registered PMU, type-erased for switches.
#[derive(Clone, Copy)]
pub(crate) struct ErasedPmu(NonNull<PmuHead>);

impl ErasedPmu {
    /// # Safety
    /// `head` is null or came from [`Registered::head`].
    #[inline(always)]
    pub(crate) unsafe fn new(head: *mut PmuHead) -> Option<Self> {
        NonNull::new(head).map(Self)
    }

    /// Tells the PMU that a task is switched in.
    #[inline(always)]
    pub(crate) fn sched_in(
        self,
        cpu: &CpuRecord,
        task: &Task,
        edge: Edge,
        section: rcu::Token<'_>,
    ) {
        // SAFETY: the pointer is the head of a PMU, which is never freed, and the hook is from the same head.
        unsafe { (self.0.as_ref().sched_in)(self.0, cpu, task, edge, section) }
    }

    /// Tells the PMU that a task is switched out.
    #[inline(always)]
    pub(crate) fn sched_out(
        self,
        cpu: &CpuRecord,
        task: &Task,
        edge: Edge,
        section: rcu::Token<'_>,
    ) {
        // SAFETY: the pointer is the head of a PMU, which is never freed, and the hook is from the same head.
        unsafe { (self.0.as_ref().sched_out)(self.0, cpu, task, edge, section) }
    }

    /// The PMU's other operations, which are not as time-critical as the hooks.
    pub(crate) fn any(self) -> &'static dyn AnyPmu {
        // SAFETY: the pointer is the head of a PMU, which is never freed, and the function is from the same head.
        unsafe { (self.0.as_ref().any)(self.0) }
    }
}

/// A registered PMU, type-erased for everything except switches.
pub(crate) trait AnyPmu: Send + Sync {
    fn state(&self) -> &PmuState;
    /// Makes the PMU's data for the CPU of that index, unless it exists.
    fn prepare_cpu(&self, index: usize);
    /// The data for the CPU of that index, or null. It lives as long as the PMU.
    fn cpu_data(&self, index: usize) -> *const ();
    fn cpu_online(&self, cpu: &CpuRecord);
    fn cpu_offline(&self, cpu: &CpuRecord);
    /// Folds an ending task's counts into those of its path, in a window of the books.
    ///
    /// `shared` says that other threads may look at the task.
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

    /// The type-erased PMU, as a pointer that fits into one word. It is valid for the whole `Registered`.
    pub(crate) fn head(&'static self) -> *mut PmuHead {
        std::ptr::from_ref(self).cast::<PmuHead>().cast_mut()
    }

    /// The payload of this PMU's data.
    ///
    /// # Safety
    /// The data came from this PMU's cache: it was found in the PMU's slot while the PMU was registered.
    #[inline(always)]
    unsafe fn payload<'d>(&self, view: CtxView<'d>) -> &'d P::Data {
        // SAFETY: the caller promises that the data came from this PMU's cache, and the cache is for payloads of this type.
        unsafe { view.payload() }
    }

    /// The payload, if the data belongs to this PMU. Once this PMU is unregistered, its slot may hold another PMU's data.
    pub(crate) fn own_payload<'d>(&self, view: CtxView<'d>) -> Option<&'d P::Data> {
        // SAFETY: `is_from` has just checked that the data came from this PMU's cache.
        view.is_from(&self.state.cache).then(|| unsafe { self.payload(view) })
    }

    /// The counts in data that was attached through this PMU.
    pub(crate) fn read(&self, view: CtxView<'_>) -> P::Count {
        self.own_payload(view).map_or_else(P::Count::default, |data| self.pmu.read(data))
    }

    /// Takes a reference to a task's data, and reads its counts at that moment.
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
        // SAFETY: by `PmuState`'s invariant the index is below `MAX_PMUS`. Two bounds checks would cost each switch some
        // instructions.
        unsafe { std::hint::assert_unchecked(index < MAX_PMUS) };
        // SAFETY: null, or this PMU's data for this CPU. The pointer is there while the PMU is registered, and the PMU was
        // registered when the section began.
        let cpu_data = unsafe { cpu.data(index).cast::<P::CpuData>().as_ref() }?;
        let data = task.slot(index).data(section);
        // SAFETY: while a PMU is registered, the data in its slot is its own.
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
            // Made before the call to `set`, so that no foreign code runs inside the cell.
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
    // SAFETY: the caller promises that the pointer is that of a `Registered<P>`, which is never freed.
    unsafe { head.cast::<Registered<P>>().as_ref() }
}

unsafe fn sched_in<P: Pmu>(
    head: NonNull<PmuHead>,
    cpu: &CpuRecord,
    task: &Task,
    edge: Edge,
    section: rcu::Token<'_>,
) {
    // SAFETY: the caller promises that the pointer is that of a `Registered<P>`, which is never freed.
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
    // SAFETY: the caller promises that the pointer is that of a `Registered<P>`, which is never freed.
    let registered = unsafe { head.cast::<Registered<P>>().as_ref() };
    if let Some(switch) = registered.switch(cpu, task, edge, section) {
        registered.pmu.sched_out(switch);
    }
}
