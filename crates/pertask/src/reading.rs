//! A reading of everything at one moment, and the difference of two: a report.

use crate::clock::Choice;
use crate::cpu_time::{CpuTime, CpuTimeCount, CpuTimeCpu};
use crate::ledger::{AccountId, Entries, Used};
use crate::report::{Lost, Report, SCHEMA, SiteReport, TaskReport, ThreadReport};
use crate::threads::{self, Thread, Threads};
use crate::tracked;
use crate::tree::{self, Spawned};
use pertask_core::{Count, CpuRecord, Event, PathCounts, PmuHandle, Site, System, Task, TaskId};
use std::collections::HashMap;
use std::sync::MutexGuard;

/// Everything, at one moment. Costs memory for each live task that has used the CPU.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    wall_ns: u64,
    threads: Threads,
    workers: HashMap<u32, Worker>,
    /// What the workers have used that have ended since the session began.
    ended: Used,
    /// By the spawn path's number.
    paths: HashMap<u32, PathCounts<CpuTimeCount>>,
    tasks: HashMap<TaskId, LiveTask>,
    lost: Lost,
    /// Time stolen from the CPUs by a hypervisor, as far as the clock has noticed.
    stolen_ns: u64,
    /// Whether only some tasks are measured: then a worker's time in tasks may be in tasks that are not.
    selected: bool,
}

/// Whose counts are read.
pub(crate) enum Selection<'a> {
    All,
    Tasks(&'a [(&'a Task, &'a Event<CpuTime>)]),
}

/// A thread that has been a CPU.
#[derive(Clone, Copy, Debug, Default)]
struct Worker {
    tasks_ns: u64,
    ran_tasks: bool,
}

#[derive(Clone, Debug)]
struct LiveTask {
    site: &'static Site,
    parent: Option<TaskId>,
    count: CpuTimeCount,
}

/// What the tasks of one site did during a session, whoever spawned them.
struct SiteSince {
    site: &'static Site,
    started: u64,
    live: u64,
    count: CpuTimeCount,
}

/// A CPU on which a task ran when the reading began.
struct Running {
    cpu: &'static CpuRecord,
    task: TaskId,
}

/// Tries to read a task's data and its running stint without one ending in between.
const TRIES: usize = 16;

impl Reading {
    /// The first reading of a session, and its account in the ledger.
    pub(crate) fn first(handle: PmuHandle<CpuTime>, selection: Selection<'_>) -> (Self, AccountId) {
        let ledger = handle.pmu().ledger();
        let (reading, mut entries) = Self::take(handle, selection);
        let account = ledger.open(&mut entries, reading.used());
        (reading, account)
    }

    /// A later reading.
    pub(crate) fn next(
        handle: PmuHandle<CpuTime>,
        selection: Selection<'_>,
        account: &AccountId,
    ) -> Self {
        let (mut reading, entries) = Self::take(handle, selection);
        reading.ended = entries.ended(account);
        reading
    }

    /// Everything, with the ledger locked in the state that belongs to it.
    fn take(
        handle: PmuHandle<CpuTime>,
        selection: Selection<'_>,
    ) -> (Self, MutexGuard<'static, Entries>) {
        let mut reading = Self::default();
        let running = Running::everywhere();
        match selection {
            Selection::All => reading.take_all(handle, &running),
            Selection::Tasks(tasks) => reading.take_some(handle, tasks, &running),
        }
        let entries = handle.pmu().ledger().lock();
        reading.take_workers(handle);
        reading.lost = Lost {
            tasks_without_data: handle.tasks_without_data(),
            tasks_without_site: System::global().tasks_without_site(),
            tasks_without_path: System::global().tasks_without_path(),
            polls_untracked: tracked::untracked_polls(),
        };
        reading.threads = Threads::read(&entries, reading.workers.keys().copied());
        reading.wall_ns = handle.pmu().clock().wall_ns();
        (reading, entries)
    }

    /// What each thread has used.
    fn used(&self) -> HashMap<u32, Used> {
        let used = self.threads.live.iter().filter(|thread| !thread.entered).map(|thread| {
            let tasks_ns = self.workers.get(&thread.number).map_or(0, |worker| worker.tasks_ns);
            (thread.number, Used { cpu_ns: thread.cpu_ns, tasks_ns })
        });
        used.collect()
    }

    /// The report of what has come since `base`.
    pub(crate) fn since(&self, base: &Self, max_tasks: usize) -> Report {
        let spawned = self.spawned_since(base);
        let mut sites = self.sites_since(base, &spawned);
        sites.retain(|site| site.polls | site.cpu_ns | site.tasks_live | site.tasks_started != 0);
        sites.sort_by(|a, b| b.cpu_ns.cmp(&a.cpu_ns).then_with(|| a.file.cmp(&b.file)));
        let threads = self.threads_since(base);
        let tasks_cpu_ns = sites.iter().map(|site| site.cpu_ns).sum();
        let sum = |worker| {
            let of_kind = threads.iter().filter(|thread| thread.worker == worker);
            of_kind.map(|thread| thread.cpu_ns).sum::<u64>()
        };
        let in_tasks: u64 = threads.iter().map(|thread| thread.tasks_cpu_ns).sum();
        // From the threads' own books, so that the sum shows whether the two agree.
        let in_tasks = if self.selected { tasks_cpu_ns } else { in_tasks };
        Report {
            schema: SCHEMA,
            duration_ns: self.wall_ns - base.wall_ns,
            process_cpu_ns: self.threads.process_cpu_ns.saturating_sub(base.threads.process_cpu_ns),
            tasks_cpu_ns,
            workers_cpu_ns: sum(true).saturating_sub(in_tasks),
            other_cpu_ns: sum(false),
            clock: self.clock_since(base),
            sites,
            tree: tree::rows(&spawned),
            tasks: self.tasks_since(base, max_tasks),
            threads,
            lost: self.lost_since(base),
        }
    }

    fn take_all(&mut self, handle: PmuHandle<CpuTime>, running: &[Running]) {
        let paths = handle.snapshot(|live| {
            let id = live.task.id();
            if let Some(running) = running.iter().find(|running| running.task == id) {
                live.count = running.count(handle, || live.read());
            }
            if live.count.cpu_ns != 0 || live.count.polls != 0 {
                self.tasks.insert(id, LiveTask::new(live.task, &live.count));
            }
        });
        self.paths = paths.into_iter().map(|row| (row.path.id(), row)).collect();
    }

    fn take_some(
        &mut self,
        handle: PmuHandle<CpuTime>,
        tasks: &[(&Task, &Event<CpuTime>)],
        running: &[Running],
    ) {
        self.selected = true;
        for (task, event) in tasks {
            let running = running.iter().find(|running| running.task == task.id());
            let read = || event.read();
            let count = running.map_or_else(read, |running| running.count(handle, read));
            // What its descendants have used, inherited and ended ones included, is in the event's count, so in this row.
            let path = task.path();
            let row = self.paths.entry(path.id()).or_insert_with(|| PathCounts {
                path,
                exited: 0,
                live: 0,
                count: CpuTimeCount::default(),
            });
            row.count.add(&count);
            if task.has_exited() {
                row.exited += 1;
            } else {
                row.live += 1;
                self.tasks.insert(task.id(), LiveTask::new(task, &count));
            }
        }
    }

    fn take_workers(&mut self, handle: PmuHandle<CpuTime>) {
        System::global().for_each_cpu(|cpu| {
            if let (Some(data), Some(thread)) = (handle.cpu_data(cpu), cpu.thread()) {
                let worker = Worker {
                    tasks_ns: tasks_ns(handle, cpu, data),
                    ran_tasks: data.ran_tasks(cpu),
                };
                self.workers.insert(thread, worker);
            }
            self.stolen_ns += handle.cpu_data(cpu).map_or(0, CpuTimeCpu::stolen_ns);
        });
    }

    /// What each spawn path's own tasks have done.
    fn spawned_since(&self, base: &Self) -> Vec<Spawned> {
        let since = |now: &PathCounts<CpuTimeCount>| {
            let before = base.paths.get(&now.path.id());
            let tasks_before = before.map_or(0, |base| base.exited + base.live);
            Spawned {
                path: now.path,
                started: (now.exited + now.live).saturating_sub(tasks_before),
                live: now.live,
                count: before
                    .map_or_else(|| now.count.clone(), |base| now.count.since(&base.count)),
            }
        };
        self.paths.values().map(since).collect()
    }

    /// A site's figures are the sums of its paths'; but whether its longest poll is new is known of the site as a whole.
    fn sites_since(&self, base: &Self, spawned: &[Spawned]) -> Vec<SiteReport> {
        let mut sites: HashMap<u32, SiteSince> = HashMap::new();
        for row in spawned {
            let site = row.path.site();
            sites.entry(site.id()).or_insert_with(|| SiteSince::new(site)).add(row);
        }
        let (now, before) = (self.counts_by_site(), base.counts_by_site());
        let report = |(id, mut site): (u32, SiteSince)| {
            let [now, before] = [&now, &before].map(|counts| counts.get(&id).cloned());
            let whole = now.unwrap_or_default().since(&before.unwrap_or_default());
            site.count.longest_poll_ns = whole.longest_poll_ns;
            site.report()
        };
        sites.into_iter().map(report).collect()
    }

    fn counts_by_site(&self) -> HashMap<u32, CpuTimeCount> {
        let mut sites: HashMap<u32, CpuTimeCount> = HashMap::new();
        for row in self.paths.values() {
            sites.entry(row.path.site().id()).or_default().add(&row.count);
        }
        sites
    }

    fn tasks_since(&self, base: &Self, max_tasks: usize) -> Vec<TaskReport> {
        let mut tasks: Vec<_> = self.tasks.iter().map(|(id, task)| task.since(*id, base)).collect();
        tasks.sort_by(|a, b| b.cpu_ns.cmp(&a.cpu_ns).then(a.id.cmp(&b.id)));
        tasks.truncate(max_tasks);
        tasks
    }

    fn threads_since(&self, base: &Self) -> Vec<ThreadReport> {
        let live = self.threads.live.iter().map(|thread| self.thread_since(thread, base));
        let mut threads: Vec<_> = live.chain(self.ended_since(base)).collect();
        threads.sort_by(|a, b| b.cpu_ns.cmp(&a.cpu_ns).then(a.tid.cmp(&b.tid)));
        threads
    }

    fn thread_since(&self, thread: &Thread, base: &Self) -> ThreadReport {
        // One that has entered the ledger is no worker any more, whatever it was.
        let worker_in = |reading: &Self| match thread.entered {
            false => reading.workers.get(&thread.number).copied().unwrap_or_default(),
            true => Worker::default(),
        };
        let worker = worker_in(self);
        let base_ns = base.threads.find(thread).map_or(0, |thread| thread.cpu_ns);
        ThreadReport {
            name: threads::name(thread.number),
            tid: Some(thread.number),
            worker: worker.ran_tasks,
            cpu_ns: thread.cpu_ns.saturating_sub(base_ns),
            tasks_cpu_ns: worker.tasks_ns.saturating_sub(worker_in(base).tasks_ns),
        }
    }

    /// The threads that have ended: workers by the ledger; others by what the process has used and no live thread has.
    fn ended_since(&self, base: &Self) -> impl Iterator<Item = ThreadReport> {
        let gone = base.threads.live.iter().filter(|was| self.threads.find(was).is_none());
        let before_ns: u64 = gone.map(|was| was.cpu_ns).sum();
        let all_ns = self.threads.ended_cpu_ns()
            - base.threads.ended_cpu_ns()
            - i128::from(before_ns)
            - i128::from(self.ended.cpu_ns);
        let others_ns = u64::try_from(all_ns).unwrap_or(0);
        // Less than that cannot be told from the time that the readings took.
        let uncertain_ns = self.threads.uncertain_ns + base.threads.uncertain_ns;
        let row = |worker, cpu_ns, tasks_cpu_ns| ThreadReport {
            name: "(ended threads)".to_owned(),
            tid: None,
            worker,
            cpu_ns,
            tasks_cpu_ns,
        };
        let workers =
            (self.ended.cpu_ns > 0).then(|| row(true, self.ended.cpu_ns, self.ended.tasks_ns));
        let others = (others_ns > uncertain_ns).then(|| row(false, others_ns, 0));
        workers.into_iter().chain(others)
    }

    /// Which clock, and how much time it took for tasks' for a while that was stolen from the CPUs, if that is much.
    fn clock_since(&self, base: &Self) -> String {
        let clock = Choice::of_process();
        let stolen_ns = self.stolen_ns - base.stolen_ns;
        let cpu_ns = self.threads.process_cpu_ns.saturating_sub(base.threads.process_cpu_ns);
        if stolen_ns < cpu_ns / 1_000 {
            return clock.to_string();
        }
        format!("{clock}; {:.1} ms stolen from the CPUs, made good", stolen_ns as f64 / 1e6)
    }

    fn lost_since(&self, base: &Self) -> Lost {
        Lost {
            tasks_without_data: self.lost.tasks_without_data - base.lost.tasks_without_data,
            tasks_without_site: self.lost.tasks_without_site - base.lost.tasks_without_site,
            tasks_without_path: self.lost.tasks_without_path - base.lost.tasks_without_path,
            polls_untracked: self.lost.polls_untracked - base.lost.polls_untracked,
        }
    }
}

impl SiteSince {
    fn new(site: &'static Site) -> Self {
        Self { site, started: 0, live: 0, count: CpuTimeCount::default() }
    }

    fn add(&mut self, row: &Spawned) {
        self.started += row.started;
        self.live += row.live;
        self.count.add(&row.count);
    }

    fn report(self) -> SiteReport {
        let (file, line) = place(self.site);
        SiteReport {
            name: self.site.name().map(str::to_owned),
            file,
            line,
            tasks_started: self.started,
            tasks_live: self.live,
            polls: self.count.polls,
            cpu_ns: self.count.cpu_ns,
            wall_ns: self.count.wall_ns,
            max_poll_ns: self.count.longest_poll_ns,
        }
    }
}

impl LiveTask {
    fn new(task: &Task, count: &CpuTimeCount) -> Self {
        Self { site: task.site(), parent: task.parent(), count: count.clone() }
    }

    fn since(&self, id: TaskId, base: &Reading) -> TaskReport {
        let before = base.tasks.get(&id);
        let count = before.map_or_else(|| self.count.clone(), |base| self.count.since(&base.count));
        let (file, line) = place(self.site);
        TaskReport {
            id: id.get(),
            name: self.site.name().map(str::to_owned),
            parent: self.parent.map(TaskId::get),
            file,
            line,
            polls: count.polls,
            cpu_ns: count.cpu_ns,
            wall_ns: count.wall_ns,
            max_poll_ns: count.longest_poll_ns,
        }
    }
}

impl Running {
    fn everywhere() -> Vec<Self> {
        let mut running = Vec::new();
        System::global().for_each_cpu(|cpu| {
            if let Some(task) = cpu.current_id() {
                running.push(Self { cpu, task });
            }
        });
        running
    }

    /// The count of the task's data, which `read` reads, and of the stint that it runs here, if it still does.
    fn count(&self, handle: PmuHandle<CpuTime>, read: impl Fn() -> CpuTimeCount) -> CpuTimeCount {
        with_running(handle, self.cpu, Some(self.task), &read, |mut count, stint| {
            count.add(&stint);
            count
        })
    }
}

/// CPU time that a worker has spent in tasks, the running stint included.
fn tasks_ns(handle: PmuHandle<CpuTime>, cpu: &CpuRecord, data: &CpuTimeCpu) -> u64 {
    let read = || data.tasks_ns();
    with_running(handle, cpu, cpu.current_id(), &read, |tasks_ns, stint| tasks_ns + stint.cpu_ns)
}

/// What `read` reads of what is charged at the end of a stint, and the stint that runs on `cpu` now if it is `task`'s; the
/// same stint neither twice nor not at all.
fn with_running<T>(
    handle: PmuHandle<CpuTime>,
    cpu: &CpuRecord,
    task: Option<TaskId>,
    read: &impl Fn() -> T,
    add: impl FnOnce(T, CpuTimeCount) -> T,
) -> T {
    let Some(data) = handle.cpu_data(cpu) else { return read() };
    for _ in 0..TRIES {
        let switches = cpu.switches();
        let settled = read();
        if task.is_none() || cpu.current_id() != task {
            // Read again: it was charged before the task was seen to be gone.
            return read();
        }
        if let Some(stint) = data.running(cpu, switches, handle.pmu().clock()) {
            return add(settled, stint);
        }
    }
    read()
}

/// Where tasks of a site are made. The site that stands for all others has no place.
pub(crate) fn place(site: &Site) -> (String, u32) {
    if site.is_other() {
        return (String::new(), 0);
    }
    (site.location().file().to_owned(), site.location().line())
}
