//! The counts of one PMU at one moment, spawn path by spawn path and task by task.

use crate::pmus::stint::Stints;
use pertask_core::{Count, CpuRecord, Event, PathCounts, PmuHandle, Site, System, Task, TaskId};
use std::collections::HashMap;

/// The counts of all tasks, or of some.
#[derive(Debug)]
pub(crate) struct Rows<C> {
    /// By the path's number.
    pub(crate) paths: HashMap<u32, PathCounts<C>>,
    pub(crate) tasks: HashMap<TaskId, LiveTask<C>>,
}

#[derive(Clone, Debug)]
pub(crate) struct LiveTask<C> {
    pub(crate) site: &'static Site,
    pub(crate) parent: Option<TaskId>,
    pub(crate) count: C,
}

/// A CPU on which a task ran when a reading began.
pub(crate) struct Running {
    cpu: &'static CpuRecord,
    task: TaskId,
}

/// Tries to read a task's data and its running stint without one ending in between.
const TRIES: usize = 16;

impl<C> Default for Rows<C> {
    fn default() -> Self {
        Self { paths: HashMap::new(), tasks: HashMap::new() }
    }
}

impl<C: Count + PartialEq> Rows<C> {
    /// Those of all tasks. `is_idle` tells which live tasks need not be remembered.
    pub(crate) fn of_all<P: Stints<Count = C>>(
        handle: PmuHandle<P>,
        running: &[Running],
        is_idle: impl Fn(&C) -> bool,
    ) -> Self {
        let mut tasks = HashMap::new();
        let paths = handle.snapshot(|live| {
            let id = live.task.id();
            if let Some(running) = running.iter().find(|running| running.task == id) {
                live.count = running.count(handle, || live.read());
            }
            if !is_idle(&live.count) {
                tasks.insert(id, LiveTask::new(live.task, &live.count));
            }
        });
        let paths = paths.into_iter().map(|row| (row.path.id(), row)).collect();
        Self { paths, tasks }
    }

    /// Those of the tasks that have these events.
    pub(crate) fn of_some<'a, P: Stints<Count = C>>(
        handle: PmuHandle<P>,
        running: &[Running],
        tasks: impl Iterator<Item = (&'a Task, &'a Event<P>)>,
    ) -> Self {
        let mut rows = Self::default();
        for (task, event) in tasks {
            let running = running.iter().find(|running| running.task == task.id());
            let read = || event.read();
            let count = running.map_or_else(read, |running| running.count(handle, read));
            rows.add(task, &count);
        }
        rows
    }

    fn add(&mut self, task: &Task, count: &C) {
        // What its descendants have used, inherited and ended ones included, is in the event's count, so in this row.
        let path = task.path();
        let new = || PathCounts { path, exited: 0, live: 0, count: C::default() };
        let row = self.paths.entry(path.id()).or_insert_with(new);
        row.count.add(count);
        if task.has_exited() {
            row.exited += 1;
        } else {
            row.live += 1;
            self.tasks.insert(task.id(), LiveTask::new(task, count));
        }
    }

    /// What a path's tasks have had since `base`.
    pub(crate) fn path_since(&self, path: u32, base: &Self) -> C {
        let count = |rows: &Self| rows.paths.get(&path).map(|row| row.count.clone());
        difference(count(self), count(base))
    }

    /// The counts of each site's tasks, whoever spawned them, by the site's number.
    pub(crate) fn by_site(&self) -> HashMap<u32, C> {
        let mut sites: HashMap<u32, C> = HashMap::new();
        for row in self.paths.values() {
            sites.entry(row.path.site().id()).or_default().add(&row.count);
        }
        sites
    }

    /// What a live task has had since `base`.
    pub(crate) fn task_since(&self, task: TaskId, base: &Self) -> C {
        let count = |rows: &Self| rows.tasks.get(&task).map(|row| row.count.clone());
        difference(count(self), count(base))
    }
}

/// The differences of each number's counts.
pub(crate) fn since<C: Count>(now: &HashMap<u32, C>, base: &HashMap<u32, C>) -> HashMap<u32, C> {
    let since = |(id, now): (&u32, &C)| (*id, difference(Some(now.clone()), base.get(id).cloned()));
    now.iter().map(since).collect()
}

fn difference<C: Count>(now: Option<C>, base: Option<C>) -> C {
    match (now, base) {
        (Some(now), Some(base)) => now.since(&base),
        (now, _) => now.unwrap_or_default(),
    }
}

impl<C: Clone> LiveTask<C> {
    fn new(task: &Task, count: &C) -> Self {
        Self { site: task.site(), parent: task.parent(), count: count.clone() }
    }
}

impl Running {
    pub(crate) fn everywhere() -> Vec<Self> {
        let mut running = Vec::new();
        System::global().for_each_cpu(|cpu| {
            if let Some(task) = cpu.current_id() {
                running.push(Self { cpu, task });
            }
        });
        running
    }

    /// The count of the task's data, which `read` reads, and of the stint that it runs here, if it still does.
    fn count<P: Stints>(&self, handle: PmuHandle<P>, read: impl Fn() -> P::Count) -> P::Count {
        with_running(handle, self.cpu, Some(self.task), &read, |mut count, stint| {
            count.add(&stint);
            count
        })
    }
}

/// What `read` reads of what is charged at the end of a stint, and the stint that runs on `cpu` now if it is `task`'s; the
/// same stint neither twice nor not at all.
pub(crate) fn with_running<P: Stints, T>(
    handle: PmuHandle<P>,
    cpu: &CpuRecord,
    task: Option<TaskId>,
    read: &impl Fn() -> T,
    add: impl FnOnce(T, P::Count) -> T,
) -> T {
    let Some(data) = handle.cpu_data(cpu) else { return read() };
    for _ in 0..TRIES {
        let switches = cpu.switches();
        let settled = read();
        if task.is_none() || cpu.current_id() != task {
            // Read again: it was charged before the task was seen to be gone.
            return read();
        }
        if let Some(stint) = handle.pmu().running(cpu, data, switches) {
            return add(settled, stint);
        }
    }
    read()
}
