//! The counts of one PMU at one moment, for each spawn path and each task.

use crate::pmus::stint::Stints;
use pertask_core::{Count, CpuRecord, Event, PathCounts, PmuHandle, Site, System, Task, TaskId};
use std::collections::HashMap;

/// The counts of all tasks, or of some.
#[derive(Debug)]
pub(crate) struct Rows<C> {
    /// The counts of each spawn path, by the path's number.
    pub(crate) paths: HashMap<u32, PathCounts<C>>,
    pub(crate) tasks: HashMap<TaskId, LiveTask<C>>,
}

#[derive(Clone, Debug)]
pub(crate) struct LiveTask<C> {
    pub(crate) site: &'static Site,
    pub(crate) parent: Option<TaskId>,
    pub(crate) count: C,
}

/// A CPU on which a task ran when the reading began.
pub(crate) struct Running {
    cpu: &'static CpuRecord,
    task: TaskId,
}

/// How often a reading tries to read a task's data and its running stint without a switch in between.
const TRIES: usize = 16;

impl<C> Default for Rows<C> {
    fn default() -> Self {
        Self { paths: HashMap::new(), tasks: HashMap::new() }
    }
}

impl<C: Count + PartialEq> Rows<C> {
    /// Reads the counts of all tasks. Live tasks whose count `is_idle` have no row of their own.
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

    /// Reads the counts of the tasks that have these events.
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
        // The event's count includes what the task's descendants have used, so this row does, too.
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

    /// The count of a path's tasks since `base`.
    pub(crate) fn path_since(&self, path: u32, base: &Self) -> C {
        let count = |rows: &Self| rows.paths.get(&path).map(|row| row.count.clone());
        difference(count(self), count(base))
    }

    /// The counts of each site's tasks, on whatever path, by the site's number.
    pub(crate) fn by_site(&self) -> HashMap<u32, C> {
        let mut sites: HashMap<u32, C> = HashMap::new();
        for row in self.paths.values() {
            sites.entry(row.path.site().id()).or_default().add(&row.count);
        }
        sites
    }

    /// The count of a live task since `base`.
    pub(crate) fn task_since(&self, task: TaskId, base: &Self) -> C {
        let count = |rows: &Self| rows.tasks.get(&task).map(|row| row.count.clone());
        difference(count(self), count(base))
    }
}

/// The difference of the counts for each number.
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
    pub(super) fn new(task: &Task, count: &C) -> Self {
        Self { site: task.site(), parent: task.parent(), count: count.clone() }
    }
}

impl Running {
    /// The CPUs that run a task at this moment.
    pub(crate) fn everywhere() -> Vec<Self> {
        let mut running = Vec::new();
        System::global().for_each_cpu(|cpu| {
            if let Some(task) = cpu.current_id() {
                running.push(Self { cpu, task });
            }
        });
        running
    }

    /// The count of the task's data, which `read` reads, plus the running stint if the task still runs on this CPU.
    fn count<P: Stints>(&self, handle: PmuHandle<P>, read: impl Fn() -> P::Count) -> P::Count {
        with_running(handle, self.cpu, Some(self.task), &read, |mut count, stint| {
            P::with_stint(&mut count, &stint);
            count
        })
    }
}

/// Reads, with `read`, the counts to which a stint is charged at its end, and adds the stint that runs on `cpu` if it is
/// `task`'s. The stint is counted once, even if it ends meanwhile.
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
            // Read again: if the stint has ended, it was charged before this thread saw that the task no longer runs.
            return read();
        }
        if let Some(stint) = handle.pmu().running(cpu, data, switches) {
            return add(settled, stint);
        }
    }
    read()
}
