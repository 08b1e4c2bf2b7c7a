//! The whole: its PMUs, its tasks, its CPUs; fork and exit.

use crate::MAX_PMUS;
use crate::cpu::CpuRecord;
use crate::error::Error;
use crate::path::PathTable;
use crate::percpu_rwsem::PercpuRwsem;
use crate::pmu::{AnyPmu, Pmu, PmuHandle, PmuState, Registered};
use crate::primitive::plain::AtomicU64;
use crate::primitive::{Arc, AtomicU32, Mutex, Ordering, Padded, lock};
use crate::site::{Site, SiteTable};
use crate::task::{OwnedTask, Task, TaskId};
use crate::task_table::TaskTable;
use std::ops::Range;
use std::panic::Location;
use std::sync::OnceLock;

/// PMUs, tasks and CPUs that belong together.
///
/// A program has one, [`System::global`]. Tests and simulations make their own; a system is never freed.
pub struct System {
    /// How many events are attached, of all PMUs. The one word that a switch looks at while nothing is attached.
    events: AtomicU32,
    /// The same, by PMU.
    events_by_pmu: [AtomicU32; MAX_PMUS],
    pmus: [OnceLock<&'static dyn AnyPmu>; MAX_PMUS],
    /// Which PMUs have a global event: what fork reads.
    global: PercpuRwsem,
    tasks: TaskTable,
    sites: SiteTable,
    paths: PathTable,
    cpus: Mutex<Cpus>,
    /// Written by every fork; `events` is read by every switch.
    last_task: Padded<AtomicU64>,
}

/// INVARIANT: each record has data for each of the first `pmus` PMUs.
struct Cpus {
    records: Vec<&'static CpuRecord>,
    pmus: usize,
}

impl System {
    /// The program's system.
    #[cfg(not(any(pertask_loom, pertask_shuttle)))]
    pub fn global() -> &'static Self {
        static GLOBAL: OnceLock<&'static System> = OnceLock::new();
        GLOBAL.get_or_init(Self::leak)
    }

    /// A system of its own, which is never freed.
    #[must_use]
    pub fn leak() -> &'static Self {
        Box::leak(Box::new(Self::new()))
    }

    pub(crate) fn new() -> Self {
        Self {
            events: AtomicU32::new(0),
            events_by_pmu: std::array::from_fn(|_| AtomicU32::new(0)),
            pmus: [const { OnceLock::new() }; MAX_PMUS],
            global: PercpuRwsem::new(),
            tasks: TaskTable::new(),
            sites: SiteTable::new(),
            paths: PathTable::new(),
            cpus: Mutex::new(Cpus { records: Vec::new(), pmus: 0 }),
            last_task: Padded(AtomicU64::new(0)),
        }
    }

    /// Gives a PMU its place: a slot in every task and data on every CPU. It stays for good.
    ///
    /// # Errors
    /// [`Error::TooManyPmus`].
    pub fn register<P: Pmu>(&'static self, pmu: P) -> Result<PmuHandle<P>, Error> {
        let mut cpus = lock(&self.cpus);
        let index = cpus.pmus;
        let place = self.pmus.get(index).ok_or(Error::TooManyPmus)?;
        let registered: &'static Registered<P> =
            Box::leak(Box::new(Registered::new(pmu, self, index)));
        cpus.records.iter().for_each(|cpu| cpu.set_data(registered));
        place.get_or_init(|| registered);
        cpus.pmus += 1;
        let records = cpus.records.clone();
        // Hooks run under no lock.
        drop(cpus);
        let online = records.into_iter().filter(|cpu| cpu.thread().is_some());
        online.for_each(|cpu| registered.cpu_online(cpu));
        Ok(PmuHandle(registered))
    }

    /// The site of that name and place. [`Cpu::site`](crate::Cpu::site) is faster.
    #[must_use]
    pub fn site(&self, name: Option<&str>, location: &'static Location<'static>) -> &'static Site {
        self.sites.intern(name, location)
    }

    /// How many tasks found no place for their site, because there are [`MAX_SITES`](crate::MAX_SITES) already.
    #[must_use]
    pub fn tasks_without_site(&self) -> u64 {
        self.sites.overflowed()
    }

    /// How many tasks found no place for their spawn path, because there are [`MAX_PATHS`](crate::MAX_PATHS) already, or
    /// because it would be longer than [`MAX_DEPTH`](crate::MAX_DEPTH). Each is counted at its site's root.
    #[must_use]
    pub fn tasks_without_path(&self) -> u64 {
        self.paths.overflowed()
    }

    /// The spawn path of that [`id`](crate::SpawnPath::id).
    #[must_use]
    pub fn path(&self, id: u32) -> Option<&'static crate::SpawnPath> {
        self.paths.get(id)
    }

    /// Makes a task (the kernel's `perf_event_fork`). [`Cpu::fork`](crate::Cpu::fork) makes one as a child of the
    /// current task.
    ///
    /// It has data of every globally attached PMU before it is returned, and its parent's inherited events.
    /// Who forks with different `hint`s does not meet on a lock.
    pub fn fork(
        &'static self,
        site: &'static Site,
        parent: Option<&Task>,
        hint: usize,
    ) -> OwnedTask {
        self.fork_as(self.task_numbers(1).start, site, parent, hint)
    }

    /// The same, with a number from [`task_numbers`](Self::task_numbers).
    #[allow(unsafe_code)]
    pub(crate) fn fork_as(
        &'static self,
        number: u64,
        site: &'static Site,
        parent: Option<&Task>,
        hint: usize,
    ) -> OwnedTask {
        let id = TaskId::new(number).unwrap_or_else(|| unreachable!("2^64 tasks"));
        let parent = parent.filter(|parent| std::ptr::eq(parent.system(), self));
        let path = self.paths.of(parent.map(Task::path), self.sites.own(site));
        // From here on it ends as a task does, also when something below panics.
        let task = OwnedTask(Arc::new(Task::new(id, parent.map(Task::id), path, self)));
        task.set_tag(parent.map_or(0, Task::tag));
        {
            let global = self.global.read();
            // SAFETY: the `OwnedTask` keeps its strong count until its drop has called `exit`, which removes the task.
            unsafe { self.tasks.insert(&task.0, hint) };
            self.for_each_pmu(global.word(), |pmu| pmu.state().fork_global(&task));
        }
        if let Some(parent) = parent {
            parent.links.fork(&task.0);
        }
        task
    }

    /// As many numbers for tasks, which nobody else gets.
    pub(crate) fn task_numbers(&self, count: u64) -> Range<u64> {
        // Relaxed: numbers need only differ.
        let first = self.last_task.0.fetch_add(count, Ordering::Relaxed) + 1;
        first..first + count
    }

    /// Ends a task (the kernel's `perf_event_exit_task`). Its counts are folded before it leaves the table, so that a
    /// snapshot finds them in one place or the other; the tombstones come last, so that nothing is attached any more.
    pub(crate) fn exit(&self, task: &mut Arc<Task>) {
        self.for_each_pmu(u32::MAX, |pmu| {
            if pmu.state().has_data && !task.slot(pmu.state().index).is_empty() {
                pmu.fold(task);
            }
        });
        self.tasks.remove(task);
        // Once it is out of the table, nobody finds it who does not hold it already.
        match Arc::get_mut(task) {
            Some(unshared) => unshared.exit_unshared(),
            None => task.exit_shared(),
        }
    }

    /// How many tasks live.
    #[must_use]
    pub fn live_tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Calls `f` with each live task. Those that come or go meanwhile are seen or not.
    pub fn for_each_task(&self, f: impl FnMut(&Arc<Task>)) {
        self.tasks.for_each(f);
    }

    /// The live task of that number. It looks at all of them.
    #[must_use]
    pub fn find_task(&self, id: TaskId) -> Option<Arc<Task>> {
        let found = self.tasks.try_for_each(|task| match task.id() == id {
            true => Err(Arc::clone(task)),
            false => Ok(()),
        });
        found.err()
    }

    /// Calls `f` with each CPU, those included that no thread has at the moment.
    pub fn for_each_cpu(&self, f: impl FnMut(&'static CpuRecord)) {
        let records = lock(&self.cpus).records.clone();
        records.into_iter().for_each(f);
    }

    pub(crate) fn cpu_record(&'static self) -> &'static CpuRecord {
        let record = self.claim_cpu_record();
        self.for_each_pmu(u32::MAX, |pmu| pmu.cpu_online(record));
        record
    }

    fn claim_cpu_record(&'static self) -> &'static CpuRecord {
        let mut cpus = lock(&self.cpus);
        if let Some(record) = cpus.records.iter().find(|record| record.go_online()) {
            return record;
        }
        let index = u32::try_from(cpus.records.len()).unwrap_or(u32::MAX);
        let record: &'static CpuRecord = Box::leak(Box::new(CpuRecord::new(self, index)));
        record.go_online();
        self.for_each_pmu(u32::MAX, |pmu| record.set_data(pmu));
        cpus.records.push(record);
        record
    }

    pub(crate) fn cpu_offline(&self, record: &CpuRecord) {
        self.for_each_pmu(u32::MAX, |pmu| pmu.cpu_offline(record));
    }

    /// Frees a system of which there are too many to be kept, and all that a program's keeps for good: a model's, or a
    /// fuzzer's.
    ///
    /// # Safety
    /// Nothing of the system is used any more, and nothing that it has released waits to be freed.
    #[cfg(any(pertask_loom, pertask_shuttle, fuzzing))]
    #[allow(unsafe_code)]
    pub unsafe fn dispose(&'static self) {
        self.paths.for_each(|path| {
            // SAFETY: made by `Box::leak`; the rest is the caller's.
            drop(unsafe { Box::from_raw(std::ptr::from_ref(path).cast_mut()) });
        });
        self.sites.for_each(|site| {
            // SAFETY: made by `Box::leak`; the rest is the caller's.
            drop(unsafe { Box::from_raw(std::ptr::from_ref(site).cast_mut()) });
        });
        self.for_each_cpu(|cpu| {
            // SAFETY: as above.
            drop(unsafe { Box::from_raw(std::ptr::from_ref(cpu).cast_mut()) });
        });
        self.for_each_pmu(u32::MAX, |pmu| {
            // SAFETY: as above.
            drop(unsafe { Box::from_raw(std::ptr::from_ref(pmu).cast_mut()) });
        });
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(self).cast_mut()) });
        // SAFETY: the caller's.
        #[cfg(any(pertask_loom, pertask_shuttle))]
        unsafe {
            crate::quarantine::release();
        }
    }

    pub(crate) fn tasks(&self) -> &TaskTable {
        &self.tasks
    }

    pub(crate) fn paths(&self) -> &PathTable {
        &self.paths
    }

    pub(crate) fn global_use(&self) -> &PercpuRwsem {
        &self.global
    }

    /// Whether any event is attached.
    #[inline(always)]
    pub(crate) fn any_event(&self) -> bool {
        // Relaxed: the first global event of a PMU with data passes a barrier that all threads take part in before its attach
        // returns; any other event counts from the next switch that sees it.
        self.events.load(Ordering::Relaxed) != 0
    }

    /// Calls `f` with each PMU that has an event, or is in `owed`.
    #[inline(always)]
    pub(crate) fn for_each_active_pmu(
        &self,
        owed: u32,
        mut f: impl FnMut(usize, &'static dyn AnyPmu),
    ) {
        for (index, (pmu, events)) in self.pmus.iter().zip(&self.events_by_pmu).enumerate() {
            let Some(pmu) = pmu.get() else { return };
            // Relaxed: as in `any_event`.
            if (events.load(Ordering::Relaxed) != 0) | (owed & (1 << index) != 0) {
                f(index, *pmu);
            }
        }
    }

    #[inline(always)]
    pub(crate) fn for_each_pmu(&self, mask: u32, mut f: impl FnMut(&'static dyn AnyPmu)) {
        for (index, pmu) in self.pmus.iter().enumerate() {
            let Some(pmu) = pmu.get() else { return };
            if mask & (1 << index) != 0 {
                f(*pmu);
            }
        }
    }
}

/// One event counted among those for which switches call hooks, unless it comes to nothing.
pub(crate) struct CountedEvent<'a>(&'a PmuState);

impl PmuState {
    pub(crate) fn count_event(&self) -> CountedEvent<'_> {
        // Relaxed: see `any_event`.
        self.system.events_by_pmu[self.index].fetch_add(1, Ordering::Relaxed);
        self.system.events.fetch_add(1, Ordering::Relaxed);
        CountedEvent(self)
    }

    pub(crate) fn uncount_event(&self) {
        // Relaxed: a switch that still sees the event calls a hook that finds no data.
        self.system.events.fetch_sub(1, Ordering::Relaxed);
        self.system.events_by_pmu[self.index].fetch_sub(1, Ordering::Relaxed);
    }
}

impl CountedEvent<'_> {
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for CountedEvent<'_> {
    fn drop(&mut self) {
        self.0.uncount_event();
    }
}
