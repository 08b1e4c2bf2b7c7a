//! A system: PMUs, tasks and CPUs that belong together; and fork.

mod exit;
mod places;

use crate::active::{ActivePmus, MAX_PMUS};
use crate::books::{Library, Mine};
use crate::cpu::CpuRecord;
use crate::global_mask::GlobalMask;
use crate::magazine::Magazine;
use crate::path::PathTable;
use crate::per_cpu::PerCpu;
use crate::pmu::{AnyPmu, ErasedPmu, PmuHead};
use crate::primitive::plain::{AtomicPtr, AtomicU64};
use crate::primitive::{Arc, Mutex, Ordering, Padded, lock};
use crate::rcu;
use crate::site::{Site, SiteTable};
use crate::task::{OwnedTask, Task, TaskId};
use crate::task_table::{Entry, TaskTable};
use std::ops::Range;
use std::panic::Location;
use std::ptr;

/// PMUs, tasks and CPUs that belong together.
///
/// A program has one, [`System::global`]. Tests and simulations make their own. A system is never freed.
pub struct System {
    /// Which PMUs have events: the one word that a switch loads while nothing is attached.
    active: ActivePmus,
    /// INVARIANT: each is null, or a registered PMU. PMUs are never freed.
    pmus: [AtomicPtr<PmuHead>; MAX_PMUS],
    /// Which PMUs have a global event; forks read it.
    global: GlobalMask,
    tasks: TaskTable<Task>,
    library: Library,
    /// Free entries of the table, by the number of the books that have them at hand.
    entries: PerCpu<FreeEntries>,
    sites: SiteTable,
    paths: PathTable,
    cpus: Mutex<Cpus>,
    /// On cache lines of its own: forks write it now and then, and every switch reads `active`.
    last_task: Padded<AtomicU64>,
}

#[derive(Default)]
#[repr(align(128))]
struct FreeEntries(Magazine<Entry<Task>>);

// SAFETY: used only with the books of its number, which one thread has at a time.
#[allow(unsafe_code)]
unsafe impl Sync for FreeEntries {}

/// INVARIANT: each record has data for each registered PMU.
struct Cpus {
    records: Vec<&'static CpuRecord>,
    /// The index of the next record.
    next: u32,
    /// Which places for PMUs are taken.
    places: u32,
    /// The serial number of the last PMU.
    serial: u32,
    /// Grows whenever a PMU is registered or unregistered.
    changes: u64,
}

impl System {
    /// The program's system.
    #[cfg(not(any(pertask_loom, pertask_shuttle)))]
    pub fn global() -> &'static Self {
        static GLOBAL: std::sync::OnceLock<&'static System> = std::sync::OnceLock::new();
        GLOBAL.get_or_init(Self::leak)
    }

    /// A new system, which is never freed.
    #[must_use]
    pub fn leak() -> &'static Self {
        Box::leak(Box::new(Self::new()))
    }

    pub(crate) fn new() -> Self {
        Self {
            active: ActivePmus::new(),
            pmus: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            global: GlobalMask::new(),
            tasks: TaskTable::new(),
            library: Library::new(),
            entries: PerCpu::new(),
            sites: SiteTable::new(),
            paths: PathTable::new(),
            cpus: Mutex::new(Cpus {
                records: Vec::new(),
                next: 0,
                places: 0,
                serial: 0,
                changes: 0,
            }),
            last_task: Padded(AtomicU64::new(0)),
        }
    }

    /// The PMU in that place. A PMU that is found in a section counts as registered until the section ends.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) fn pmu(&self, index: u32) -> Option<ErasedPmu> {
        // Acquire: pairs with the Release in `publish`, so that we see the whole PMU.
        let head = self.pmus[index as usize].load(Ordering::Acquire);
        // SAFETY: null, or the head of a PMU, and PMUs are never freed.
        unsafe { ErasedPmu::new(head) }
    }

    /// The site of that name and location.
    ///
    /// [`Cpu::site`](crate::Cpu::site) is faster.
    #[must_use]
    pub fn site(&self, name: Option<&str>, location: &'static Location<'static>) -> &'static Site {
        self.sites.intern(name, location)
    }

    /// How many tasks have no site of their own, because there are [`MAX_SITES`](crate::MAX_SITES) already.
    #[must_use]
    pub fn tasks_without_site(&self) -> u64 {
        self.sites.overflowed()
    }

    /// How many tasks have no spawn path of their own, because there are [`MAX_PATHS`](crate::MAX_PATHS) already, or because
    /// the path would be longer than [`MAX_DEPTH`](crate::MAX_DEPTH).
    ///
    /// Each is counted at its site's root.
    #[must_use]
    pub fn tasks_without_path(&self) -> u64 {
        self.paths.overflowed()
    }

    /// The spawn path with that [`id`](crate::SpawnPath::id).
    #[must_use]
    pub fn path(&self, id: u32) -> Option<&'static crate::SpawnPath> {
        self.paths.get(id)
    }

    /// Makes a task (the kernel's `perf_event_fork`).
    ///
    /// Before `fork` returns, the task has data of every globally attached PMU, and its parent's inherited events.
    /// [`Cpu::fork`](crate::Cpu::fork) makes a child of the current task, and is faster. Threads that are no CPUs and fork at
    /// the same time should pass different `hint`s, so that they seldom touch the same words.
    pub fn fork(
        &'static self,
        site: &'static Site,
        parent: Option<&Task>,
        hint: usize,
    ) -> OwnedTask {
        let claimed = self.library.claim_for_now(hint);
        self.fork_as(self.task_numbers(1).start, site, parent, claimed.mine())
    }

    /// Makes a task with a number from [`task_numbers`](Self::task_numbers).
    #[allow(unsafe_code)]
    #[inline]
    pub(crate) fn fork_as(
        &'static self,
        number: u64,
        site: &'static Site,
        parent: Option<&Task>,
        mine: Mine<'_>,
    ) -> OwnedTask {
        let id = TaskId::new(number).unwrap_or_else(|| unreachable!("2^64 tasks"));
        let parent = parent.filter(|parent| ptr::eq(parent.system(), self));
        let path = self.paths.of(parent.map(Task::path), self.sites.own(site));
        // From here on the task's drop ends it properly, even if something below panics.
        let task = OwnedTask(Arc::new(Task::new(id, parent.map(Task::id), path, self)));
        mine.task_made();
        task.set_tag(parent.map_or(0, Task::tag));
        {
            let section = rcu::enter();
            // In the section, so that a global attach waits for these allocations and for nothing else of a fork. The kernel's
            // fork also allocates inside the read side of its rwsem.
            self.for_each_pmu(self.global.read(&section), |pmu| pmu.state().fork(&task, mine));
            let at_hand = &self.entries.of(mine.number()).0;
            // SAFETY: the `OwnedTask` keeps its strong count until its drop has called `exit`, in which the task leaves.
            task.set_entry(unsafe { self.tasks.enter(at_hand, &task.0) });
        }
        if let Some(parent) = parent {
            parent.links.fork(&task.0);
        }
        task
    }

    /// Reserves `count` task numbers.
    pub(crate) fn task_numbers(&self, count: u64) -> Range<u64> {
        // Relaxed: the numbers need only be different.
        let first = self.last_task.0.fetch_add(count, Ordering::Relaxed) + 1;
        first..first + count
    }

    /// How many tasks are alive.
    #[must_use]
    pub fn live_tasks(&self) -> usize {
        self.library.live()
    }

    /// Calls `f` with each live task.
    ///
    /// It may or may not see a task that is made or ends meanwhile.
    pub fn for_each_task(&self, f: impl FnMut(&Arc<Task>)) {
        self.tasks.for_each(f);
    }

    /// The live task with that number.
    ///
    /// The search looks at all live tasks.
    #[must_use]
    pub fn find_task(&self, id: TaskId) -> Option<Arc<Task>> {
        let found = self.tasks.try_for_each(|task| match task.id() == id {
            true => Err(Arc::clone(task)),
            false => Ok(()),
        });
        found.err()
    }

    /// Calls `f` with each CPU, including CPUs that no thread has at the moment.
    pub fn for_each_cpu(&self, f: impl FnMut(&'static CpuRecord)) {
        let records = lock(&self.cpus).records.clone();
        records.into_iter().for_each(f);
    }

    /// Claims a record for the calling thread, without notifying PMUs: an unused record if there is one, otherwise a new one.
    pub(crate) fn claim_cpu_record(&'static self) -> &'static CpuRecord {
        let free = || lock(&self.cpus).records.iter().copied().find(|record| record.go_online());
        free().unwrap_or_else(|| self.add_cpu_record())
    }

    fn add_cpu_record(&'static self) -> &'static CpuRecord {
        let index = {
            let mut cpus = lock(&self.cpus);
            cpus.next += 1;
            cpus.next - 1
        };
        let record: &'static CpuRecord = Box::leak(Box::new(CpuRecord::new(self, index)));
        let mut changes = None;
        loop {
            let mut cpus = lock(&self.cpus);
            if changes == Some(cpus.changes) {
                record.go_online();
                cpus.records.push(record);
                return record;
            }
            changes = Some(cpus.changes);
            drop(cpus);
            // Not under the lock: foreign code makes the data.
            (0..MAX_PMUS).for_each(|pmu| record.take_data(pmu));
            self.for_each_pmu(u32::MAX, |pmu| {
                pmu.prepare_cpu(index as usize);
                record.set_data(pmu);
            });
        }
    }

    /// Frees a system, with everything that a program's system keeps for good. For models and fuzzers, which make too many
    /// systems to keep.
    ///
    /// # Safety
    /// Nothing of the system is used any more, and nothing that it has released still waits to be freed.
    #[cfg(any(pertask_loom, pertask_shuttle, fuzzing))]
    #[allow(unsafe_code)]
    pub unsafe fn dispose(&'static self) {
        self.paths.for_each(|path| {
            // SAFETY: the path was made by `Box::leak`, and nothing of the system is used any more, by the caller's contract.
            drop(unsafe { Box::from_raw(std::ptr::from_ref(path).cast_mut()) });
        });
        self.sites.for_each(|site| {
            // SAFETY: the site was made by `Box::leak`, and nothing of the system is used any more, by the caller's contract.
            drop(unsafe { Box::from_raw(std::ptr::from_ref(site).cast_mut()) });
        });
        self.for_each_cpu(|cpu| {
            // SAFETY: the record was made by `Box::leak`, and nothing of the system is used any more, by the caller's contract.
            drop(unsafe { Box::from_raw(std::ptr::from_ref(cpu).cast_mut()) });
        });
        self.for_each_pmu(u32::MAX, |pmu| {
            // SAFETY: the PMU was made by `Box::into_raw`, and nothing of the system is used any more, by the caller's
            // contract.
            drop(unsafe { Box::from_raw(std::ptr::from_ref(pmu).cast_mut()) });
        });
        // SAFETY: the system was made by `Box::leak`, and nothing of it is used any more, by the caller's contract.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(self).cast_mut()) });
        // SAFETY: nothing that the system released is used any more, by the caller's contract.
        #[cfg(any(pertask_loom, pertask_shuttle))]
        unsafe {
            crate::quarantine::release();
        }
    }

    pub(crate) fn tasks(&self) -> &TaskTable<Task> {
        &self.tasks
    }

    pub(crate) fn paths(&self) -> &PathTable {
        &self.paths
    }

    pub(crate) fn library(&self) -> &Library {
        &self.library
    }

    pub(crate) fn global_mask(&self) -> &GlobalMask {
        &self.global
    }

    pub(crate) fn active(&self) -> &ActivePmus {
        &self.active
    }

    /// The PMUs that have an event.
    #[inline(always)]
    pub(crate) fn active_mask(&self) -> u32 {
        self.active.mask()
    }

    /// Calls `f` with each PMU of a mask.
    #[inline(always)]
    pub(crate) fn for_each_pmu(&self, mask: u32, mut f: impl FnMut(&'static dyn AnyPmu)) {
        let mut rest = mask & PLACES;
        while rest != 0 {
            let index = rest.trailing_zeros();
            rest &= rest - 1;
            self.pmu(index).into_iter().for_each(|pmu| f(pmu.any()));
        }
    }
}

/// One bit for each place.
const PLACES: u32 = (1 << MAX_PMUS) - 1;
