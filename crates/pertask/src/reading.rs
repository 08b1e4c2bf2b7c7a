//! A reading of everything at one moment, and the difference of two: a report.

use crate::clock;
use crate::cpu_time::{CpuTime, CpuTimeCount};
use crate::report::{Lost, Report, SCHEMA, SiteReport, TaskReport, ThreadReport};
use crate::threads::{self, Threads};
use crate::tracked;
use pertask_core::{Count, CpuRecord, PmuHandle, Site, SiteCounts, System, Task, TaskId};
use std::collections::HashMap;

/// Everything, at one moment. Costs memory for each live task that has used the CPU.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    wall_ns: u64,
    threads: Threads,
    workers: HashMap<u32, Worker>,
    ended: Ended,
    sites: HashMap<u32, SiteCounts<CpuTimeCount>>,
    tasks: HashMap<TaskId, LiveTask>,
    lost: Lost,
    /// Whether only some tasks are measured: then a worker's time in tasks may be in tasks that are not.
    selected: bool,
}

/// Whose counts are read.
pub(crate) enum Selection<'a> {
    All,
    Tasks(&'a [(&'a Task, CpuTimeCount)]),
}

/// A thread that has been a CPU.
#[derive(Clone, Copy, Debug, Default)]
struct Worker {
    tasks_ns: u64,
    ran_tasks: bool,
}

/// Workers that have ended, since the program began.
#[derive(Clone, Copy, Debug, Default)]
struct Ended {
    cpu_ns: u64,
    tasks_ns: u64,
}

#[derive(Clone, Debug)]
struct LiveTask {
    site: &'static Site,
    parent: Option<TaskId>,
    count: CpuTimeCount,
}

/// A CPU on which a task runs while the reading is taken.
struct Running {
    cpu: &'static CpuRecord,
    task: TaskId,
    switches: u64,
}

impl Reading {
    pub(crate) fn take(selection: Selection<'_>) -> Self {
        let mut reading = Self::default();
        let Ok(handle) = CpuTime::handle() else { return reading };
        let running = running();
        let ids: Vec<TaskId> = running.iter().map(|running| running.task).collect();
        match selection {
            Selection::All => reading.take_all(handle, &ids),
            Selection::Tasks(tasks) => reading.take_some(tasks),
        }
        reading.take_workers(handle);
        for running in running {
            reading.add_running(handle, &running);
        }
        let (cpu_ns, tasks_ns) = handle.pmu().ended_workers();
        reading.ended = Ended { cpu_ns, tasks_ns };
        reading.lost = Lost {
            tasks_without_data: handle.tasks_without_data(),
            tasks_without_site: System::global().tasks_without_site(),
            polls_untracked: tracked::untracked_polls(),
        };
        reading.threads = Threads::read();
        reading.wall_ns = clock::wall_ns();
        reading
    }

    /// The report of what has come since `base`.
    pub(crate) fn since(&self, base: &Self, max_tasks: usize) -> Report {
        let mut sites: Vec<_> =
            self.sites.values().map(|site| self.site_since(site, base)).collect();
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
            clock: clock::DESCRIPTION.to_owned(),
            sites,
            tasks: self.tasks_since(base, max_tasks),
            threads,
            lost: self.lost_since(base),
        }
    }

    fn take_all(&mut self, handle: PmuHandle<CpuTime>, running: &[TaskId]) {
        let sites = handle.snapshot(|task, count| {
            if count.cpu_ns != 0 || count.polls != 0 || running.contains(&task.id()) {
                self.tasks.insert(task.id(), LiveTask::new(task, count));
            }
        });
        self.sites = sites.into_iter().map(|site| (site.site.id(), site)).collect();
    }

    fn take_some(&mut self, tasks: &[(&Task, CpuTimeCount)]) {
        self.selected = true;
        for (task, count) in tasks {
            let site = task.site();
            let row = self.sites.entry(site.id()).or_insert_with(|| SiteCounts {
                site,
                exited: 0,
                live: 0,
                count: CpuTimeCount::default(),
            });
            row.count.add(count);
            if task.has_exited() {
                row.exited += 1;
            } else {
                row.live += 1;
                self.tasks.insert(task.id(), LiveTask::new(task, count));
            }
        }
    }

    fn take_workers(&mut self, handle: PmuHandle<CpuTime>) {
        System::global().for_each_cpu(|cpu| {
            if let (Some(data), Some(thread)) = (handle.cpu_data(cpu), cpu.thread()) {
                let worker = Worker { tasks_ns: data.tasks_ns(), ran_tasks: data.ran_tasks(cpu) };
                self.workers.insert(thread, worker);
            }
        });
    }

    /// Adds what a task has used since it was last switched in, if it has run for the whole of the reading. Otherwise
    /// the part that is missing is no longer than the reading took.
    fn add_running(&mut self, handle: PmuHandle<CpuTime>, running: &Running) {
        let Some(task) = self.tasks.get_mut(&running.task) else { return };
        let Some(data) = handle.cpu_data(running.cpu) else { return };
        let Some((cpu_ns, wall_ns)) = data.running_since(running.cpu, running.switches) else {
            return;
        };
        let more = CpuTimeCount { cpu_ns, wall_ns, ..CpuTimeCount::default() };
        task.count.add(&more);
        if let Some(site) = self.sites.get_mut(&task.site.id()) {
            site.count.add(&more);
        }
        if let Some(worker) = running.cpu.thread().and_then(|t| self.workers.get_mut(&t)) {
            worker.tasks_ns += cpu_ns;
        }
    }

    fn site_since(&self, now: &SiteCounts<CpuTimeCount>, base: &Self) -> SiteReport {
        let before = base.sites.get(&now.site.id());
        let count = before.map_or_else(|| now.count.clone(), |base| now.count.since(&base.count));
        let tasks_before = before.map_or(0, |base| base.exited + base.live);
        let (file, line) = place(now.site);
        SiteReport {
            name: now.site.name().map(str::to_owned),
            file,
            line,
            tasks_started: (now.exited + now.live).saturating_sub(tasks_before),
            tasks_live: now.live,
            polls: count.polls,
            cpu_ns: count.cpu_ns,
            wall_ns: count.wall_ns,
            max_poll_ns: count.longest_poll_ns,
        }
    }

    fn tasks_since(&self, base: &Self, max_tasks: usize) -> Vec<TaskReport> {
        let mut tasks: Vec<_> = self.tasks.iter().map(|(id, task)| task.since(*id, base)).collect();
        tasks.sort_by(|a, b| b.cpu_ns.cmp(&a.cpu_ns).then(a.id.cmp(&b.id)));
        tasks.truncate(max_tasks);
        tasks
    }

    fn threads_since(&self, base: &Self) -> Vec<ThreadReport> {
        let live = self.threads.live.iter().map(|thread| {
            let worker = self.workers.get(&thread.number).copied().unwrap_or_default();
            let before = base.workers.get(&thread.number).copied().unwrap_or_default();
            let base_ns = base.threads.cpu_ns_of(thread.number).unwrap_or(0);
            ThreadReport {
                name: threads::name(thread.number),
                tid: Some(thread.number),
                worker: worker.ran_tasks,
                cpu_ns: thread.cpu_ns.saturating_sub(base_ns),
                tasks_cpu_ns: worker.tasks_ns.saturating_sub(before.tasks_ns),
            }
        });
        let mut threads: Vec<_> = live.chain(self.ended_since(base)).collect();
        threads.sort_by(|a, b| b.cpu_ns.cmp(&a.cpu_ns).then(a.tid.cmp(&b.tid)));
        threads
    }

    /// The threads that have ended, workers and others: what the process has used and no live thread has.
    fn ended_since(&self, base: &Self) -> impl Iterator<Item = ThreadReport> {
        let gone =
            || base.threads.live.iter().filter(|was| self.threads.cpu_ns_of(was.number).is_none());
        let workers_before: u64 =
            gone().filter(|was| base.workers.contains_key(&was.number)).map(|was| was.cpu_ns).sum();
        let before: u64 = gone().map(|was| was.cpu_ns).sum();
        let tasks_before: u64 =
            gone().filter_map(|was| base.workers.get(&was.number)).map(|was| was.tasks_ns).sum();
        let since = |now: u64, then: u64, before: u64| now.saturating_sub(then + before);
        let workers = since(self.ended.cpu_ns, base.ended.cpu_ns, workers_before);
        let in_tasks = since(self.ended.tasks_ns, base.ended.tasks_ns, tasks_before);
        let all = self.threads.ended_cpu_ns() - base.threads.ended_cpu_ns() - i128::from(before);
        let others = u64::try_from(all - i128::from(workers)).unwrap_or(0);
        // Less than that cannot be told from the time that the readings took.
        let uncertain = self.threads.uncertain_ns + base.threads.uncertain_ns;
        let row = |worker, cpu_ns, tasks_cpu_ns| ThreadReport {
            name: "(ended threads)".to_owned(),
            tid: None,
            worker,
            cpu_ns,
            tasks_cpu_ns,
        };
        let workers = (workers > 0).then(|| row(true, workers, in_tasks));
        let others = (others > uncertain).then(|| row(false, others, 0));
        workers.into_iter().chain(others)
    }

    fn lost_since(&self, base: &Self) -> Lost {
        Lost {
            tasks_without_data: self.lost.tasks_without_data - base.lost.tasks_without_data,
            tasks_without_site: self.lost.tasks_without_site - base.lost.tasks_without_site,
            polls_untracked: self.lost.polls_untracked - base.lost.polls_untracked,
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

fn running() -> Vec<Running> {
    let mut running = Vec::new();
    System::global().for_each_cpu(|cpu| {
        let switches = cpu.switches();
        if let Some(task) = cpu.current_id()
            && cpu.switches() == switches
        {
            running.push(Running { cpu, task, switches });
        }
    });
    running
}

/// Where tasks of a site are made. The site that stands for all others has no place.
fn place(site: &Site) -> (String, u32) {
    if site.is_other() {
        return (String::new(), 0);
    }
    (site.location().file().to_owned(), site.location().line())
}
