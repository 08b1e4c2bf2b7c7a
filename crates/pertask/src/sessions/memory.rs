//! What was allocated and freed, at one moment and since another: by task, by site, by path, and by the threads outside tasks.

use super::measured::{Selection, Sources};
use super::rows::{self, Rows, Running};
use crate::error::Error;
use crate::pmus::memory::count::MemoryCount;
use crate::pmus::memory::{Memory, ProcessCount, epoch};
use crate::report::{ProcessMemory, Report, SiteReport, TreeReport};
use pertask_core::{Count, PmuHandle, TaskId};
use std::collections::HashMap;

/// Where a session's figures of memory come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MemorySource {
    /// Nobody has asked for them.
    NotAsked,
    /// The program's allocator does not count.
    NoAllocator,
    Counted(PmuHandle<Memory>),
}

/// What was counted until one moment.
#[derive(Debug)]
pub(super) struct MemoryReading {
    rows: Rows<MemoryCount>,
    process: ProcessCount,
    /// Whether the session measures only some tasks.
    selected: bool,
}

/// What was counted between two moments.
pub(super) struct MemorySince<'a> {
    now: &'a MemoryReading,
    base: &'a MemoryReading,
    sites: HashMap<u32, MemoryCount>,
}

impl MemorySource {
    pub(crate) fn open(is_asked: bool) -> Result<Self, Error> {
        match is_asked {
            false => Ok(Self::NotAsked),
            true if !epoch::is_possible() => Ok(Self::NoAllocator),
            true => Ok(Self::Counted(Memory::handle()?)),
        }
    }

    pub(crate) fn handle(self) -> Option<PmuHandle<Memory>> {
        match self {
            Self::Counted(handle) => Some(handle),
            Self::NotAsked | Self::NoAllocator => None,
        }
    }

    /// Why nothing counts, and the remedy, if it was asked for.
    #[cfg(feature = "sampler")]
    pub(crate) fn refused(self) -> Option<String> {
        matches!(self, Self::NoAllocator).then(|| self.text()).flatten()
    }

    /// What counts, or why nothing does, and the remedy. `None` if nobody has asked.
    pub(super) fn text(self) -> Option<String> {
        let text = match self {
            Self::NotAsked => return None,
            Self::Counted(_) => "pertask::Alloc",
            Self::NoAllocator => {
                "the program's global allocator does not count; wrap it: `#[global_allocator] static ALLOC: \
                 pertask::Alloc<std::alloc::System> = pertask::Alloc::new(std::alloc::System);`"
            }
        };
        Some(text.to_owned())
    }
}

impl MemoryReading {
    /// Reads what a session counts. `None` if it does not count memory.
    pub(super) fn take(sources: Sources<'_>, running: &[Running]) -> Option<Self> {
        let handle = sources.measured.memory.handle()?;
        let rows = match sources.of {
            Selection::All => {
                Rows::of_all(handle, running, |count| *count == MemoryCount::default())
            }
            Selection::Tasks(tasks) => {
                let events = tasks.iter().filter_map(|it| Some((&*it.task, it.memory.as_ref()?)));
                Rows::of_some(handle, running, events)
            }
        };
        let selected = matches!(sources.of, Selection::Tasks(_));
        Some(Self { rows, process: Memory::of_process(handle), selected })
    }

    pub(super) fn since<'a>(&'a self, base: &'a Self) -> MemorySince<'a> {
        let sites = rows::since(&self.rows.by_site(), &base.rows.by_site());
        MemorySince { now: self, base, sites }
    }
}

impl MemorySince<'_> {
    pub(super) fn of_site(&self, site: u32) -> MemoryCount {
        self.sites.get(&site).copied().unwrap_or_default()
    }

    pub(super) fn of_task(&self, task: TaskId) -> MemoryCount {
        self.now.rows.task_since(task, &self.base.rows)
    }

    /// What the tasks of each spawn path have counted, by the path's number.
    #[cfg(feature = "sampler")]
    pub(super) fn by_path(&self) -> HashMap<u32, MemoryCount> {
        let paths = self.now.rows.paths.keys();
        paths.map(|path| (*path, self.now.rows.path_since(*path, &self.base.rows))).collect()
    }

    /// Fills in what a report has of the process and of the tree. The report has its sites.
    pub(super) fn complete(&self, report: &mut Report) {
        report.memory = Some(self.process(of_all(&report.sites).unwrap_or_default()));
        let own = |path| self.now.rows.path_since(path, &self.base.rows);
        fill_tree(&mut report.tree, own);
    }

    /// The parts of the process. `tasks` is what the report's sites have.
    fn process(&self, tasks: MemoryCount) -> ProcessMemory {
        let since = |part: fn(&ProcessCount) -> MemoryCount| {
            part(&self.now.process).since(&part(&self.base.process))
        };
        let workers = since(|process| process.workers);
        let (outside, unknown) = match self.now.selected {
            // Tasks that the session does not measure are outside.
            true => (workers.beyond(tasks), MemoryCount::default()),
            false => {
                let outside = since(|process| process.outside_tasks);
                // Its first part may be in `base`, where it was that of a poll under way.
                let most = workers.beyond(outside).beyond(tasks);
                (outside, since(|process| process.unknown).at_most(most))
            }
        };
        let other = since(|process| process.others);
        let process = tasks.plus(unknown).plus(outside).plus(other);
        ProcessMemory { process, tasks, unknown, workers: outside, other }
    }
}

/// What all sites have together, or `None` where memory is not counted.
pub(super) fn of_all(sites: &[SiteReport]) -> Option<MemoryCount> {
    sites.iter().filter_map(|site| site.memory).reduce(MemoryCount::plus)
}

/// Gives each path its own figures, and those with the paths below, which come after it.
fn fill_tree(tree: &mut [TreeReport], own: impl Fn(u32) -> MemoryCount) {
    let mut below: HashMap<u32, MemoryCount> = HashMap::new();
    for row in tree.iter_mut().rev() {
        let memory = own(row.id);
        let inclusive = memory.plus(below.remove(&row.id).unwrap_or_default());
        if let Some(parent) = row.parent {
            below.entry(parent).or_default().add(&inclusive);
        }
        (row.memory, row.inclusive_memory) = (Some(memory), Some(inclusive));
    }
}
