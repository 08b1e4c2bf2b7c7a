//! A reading of everything at one moment, and the difference of two: a report.

#[cfg(feature = "sampler")]
use super::clocked::{self, Clocked};
use super::labels;
use super::lives::Lives;
use super::longest::LongestPolls;
use super::measured::{Measured, Selection, Sources};
use super::memory::{self, MemoryReading, MemorySince};
use super::rows::{self, LiveTask, Rows, Running, with_running};
use super::site::SiteSince;
use super::threads::{Thread, Threads};
use super::tree::{self, Spawned};
use crate::os::clock::Choice;
use crate::os::threads;
use crate::pmus::counters::{CounterCounts, CounterSource, Counters, CountersLost};
use crate::pmus::cpu_time::ledger::{AccountId, Entries, Used};
use crate::pmus::cpu_time::{CpuTime, CpuTimeCount, CpuTimeCpu};
use crate::pmus::life::LifeCount;
use crate::pmus::wake::Latencies;
use crate::report::{
    LifeReport, Lost, Report, SCHEMA, SiteReport, SpawnSite, TaskReport, ThreadReport, Usage,
    WakeReport,
};
use crate::tasks::accounts::{self, label_sets_without_place};
use crate::tasks::past::Accounted;
use crate::tasks::run;
use crate::tasks::used::ByPlace;
use pertask_core::{CpuRecord, PathCounts, PmuHandle, System, TaskId};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::MutexGuard;

/// A reading of everything at one moment. It costs memory for each live task that has used the CPU.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    wall_ns: u64,
    threads: Threads,
    workers: HashMap<u32, Worker>,
    /// What workers have used since the session began, of those that have ended.
    ended: Used,
    cpu_time: Rows<CpuTimeCount>,
    /// The longest polls since the session began.
    longest: LongestPolls,
    /// Empty where no events are counted.
    counters: Rows<CounterCounts>,
    /// Empty where wakes are not measured.
    wakes: Rows<Latencies>,
    /// Empty where lives are not measured.
    lives: Rows<LifeCount>,
    /// `None` where memory is not counted.
    memory: Option<MemoryReading>,
    /// Empty where only some tasks are measured.
    labels: Accounted,
    lost: Losses,
    /// CPU time in tasks of which it is not known in which task it was.
    unknown_ns: u64,
    /// The time that a hypervisor has stolen from the CPUs, as far as the clock has noticed.
    stolen_ns: u64,
    /// Whether the session measures only some tasks. Then a worker's time in tasks includes tasks that the session does not
    /// measure.
    selected: bool,
}

/// What live tasks have used, without names. Those that were not polled are left out.
#[cfg(feature = "agent")]
pub(crate) struct TaskUsage {
    pub(crate) tasks: HashMap<TaskId, Usage>,
    pub(crate) duration_ns: u64,
    pub(crate) lost: Lost,
}

/// The number of rows that a report has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    pub(crate) tasks: usize,
    pub(crate) label_values: usize,
}

/// What could not be counted since the program began.
#[derive(Debug, Default)]
struct Losses {
    tasks_without_data: u64,
    tasks_without_site: u64,
    tasks_without_path: u64,
    label_sets_without_place: u64,
    polls_untracked: u64,
    polls_out_of_order: u64,
    counters: CountersLost,
}

/// The figures of a thread that is a CPU.
#[derive(Clone, Copy, Debug, Default)]
struct Worker {
    tasks_ns: u64,
    ran_tasks: bool,
}

impl Reading {
    /// Takes the first reading of a session, and opens the session's account in the ledger.
    pub(crate) fn first(sources: Sources<'_>) -> (Self, AccountId) {
        let ledger = sources.measured.cpu_time.pmu().ledger();
        let labels = sources.begin_labels();
        let (mut reading, mut entries, lives) = Self::take(sources);
        // What labels have used is read last here and first later, so that they have no more of it than the tasks.
        let finish =
            |labels: accounts::Reading<'_>| labels.finish(&sources.by_place().with_lives(lives));
        reading.labels = labels.map(finish).unwrap_or_default();
        let account = ledger.open(&mut entries, reading.used());
        (reading, account)
    }

    /// Takes a later reading of a session, whose longest polls so far were these.
    pub(crate) fn next(sources: Sources<'_>, account: &AccountId, longest: LongestPolls) -> Self {
        let labels = sources.begin_labels().map(|labels| (labels, sources.by_place()));
        let (mut reading, entries, lives) = Self::take(sources);
        let finish = |(labels, by_place): (accounts::Reading<'_>, ByPlace)| {
            labels.finish(&by_place.with_lives(lives))
        };
        reading.labels = labels.map(finish).unwrap_or_default();
        reading.ended = entries.ended(account);
        reading.longest = longest;
        reading.longest.add(&reading.cpu_time);
        reading
    }

    /// Reads everything but labels. Returns the reading; the ledger in the state that belongs to it, locked; and lives by the place of a
    /// tag.
    fn take(sources: Sources<'_>) -> (Self, MutexGuard<'static, Entries>, Vec<LifeCount>) {
        let handle = sources.measured.cpu_time;
        let running = Running::everywhere();
        let cpu_time = sources.cpu_time_rows(&running);
        let Lives { rows: lives, by_place } = sources.lives();
        let mut reading = Self {
            cpu_time,
            counters: sources.counter_rows(&running),
            wakes: sources.wake_rows(),
            lives,
            memory: MemoryReading::take(sources, &running),
            selected: matches!(sources.of, Selection::Tasks(_)),
            ..Self::default()
        };
        // Before the ledger is locked, because this takes another lock.
        let counters = sources.measured.counters.as_ref();
        let counters = counters.map(Counters::lost).unwrap_or_default();
        let entries = handle.pmu().ledger().lock();
        reading.take_workers(handle);
        reading.lost = Losses {
            tasks_without_data: handle.tasks_without_data(),
            tasks_without_site: System::global().tasks_without_site(),
            tasks_without_path: System::global().tasks_without_path(),
            label_sets_without_place: label_sets_without_place(),
            polls_untracked: run::untracked_polls(),
            polls_out_of_order: disorders(),
            counters,
        };
        reading.threads = Threads::read(&entries, reading.workers.keys().copied());
        reading.wall_ns = handle.pmu().clock().wall_ns();
        (reading, entries, by_place)
    }

    /// What each live thread has used.
    fn used(&self) -> HashMap<u32, Used> {
        let used = self.threads.live.iter().filter(|thread| !thread.entered).map(|thread| {
            let tasks_ns = self.workers.get(&thread.number).map_or(0, |worker| worker.tasks_ns);
            (thread.number, Used { cpu_ns: thread.cpu_ns, tasks_ns })
        });
        used.collect()
    }

    /// The report of the time since `base`.
    pub(crate) fn since(&self, base: &Self, measured: &Measured, most: Most) -> Report {
        let spawned = self.spawned_since(base, measured.life.is_some());
        let memory = self.memory_since(base);
        let mut sites = self.sites_since(base, &spawned, measured, memory.as_ref());
        sites.retain(|site| {
            let life_ns = site.life.as_ref().map_or(0, LifeReport::life_ns);
            let SiteReport { usage, tasks_live, tasks_started, .. } = site;
            usage.polls | usage.cpu_ns | tasks_live | tasks_started | life_ns != 0
        });
        sites.sort_by(|a, b| {
            b.usage.cpu_ns.cmp(&a.usage.cpu_ns).then_with(|| a.site.file.cmp(&b.site.file))
        });
        let threads = self.threads_since(base);
        let tasks_cpu_ns = sites.iter().map(|site| site.usage.cpu_ns).sum();
        let sum = |worker| {
            let of_kind = threads.iter().filter(|thread| thread.worker == worker);
            of_kind.map(|thread| thread.cpu_ns).sum::<u64>()
        };
        let in_tasks: u64 = threads.iter().map(|thread| thread.tasks_cpu_ns).sum();
        // The threads' own figures, so that the sum shows whether they agree with those of the tasks.
        // Its first part may be in `base`, where it was the time of a poll under way.
        let unknown_ns = self.unknown_ns - base.unknown_ns;
        let unknown_ns = unknown_ns.min(in_tasks.saturating_sub(tasks_cpu_ns));
        let (in_tasks, unknown_ns) =
            if self.selected { (tasks_cpu_ns, 0) } else { (in_tasks, unknown_ns) };
        let whole = labels::Whole {
            cpu_ns: tasks_cpu_ns,
            life: measured.life.map(|_| LifeReport::sum(spawned.iter().filter_map(Spawned::life))),
            memory: memory::of_all(&sites),
        };
        let labels = self.labels.clone().since(&base.labels);
        let labels = labels::rows(labels, &whole, most.label_values);
        let mut report = Report {
            schema: SCHEMA.into(),
            duration_ns: self.wall_ns - base.wall_ns,
            process_cpu_ns: self.threads.process_cpu_ns.saturating_sub(base.threads.process_cpu_ns),
            tasks_cpu_ns,
            unknown_cpu_ns: unknown_ns,
            workers_cpu_ns: sum(true).saturating_sub(in_tasks),
            other_cpu_ns: sum(false),
            clock: self.clock_since(base),
            tree: tree::rows(&spawned),
            sites,
            counters: self.sources(measured),
            tasks: self.tasks_since(base, measured, memory.as_ref(), most.tasks),
            memory: None,
            memory_source: measured.memory.text(),
            labels,
            threads,
            blocked: None,
            lost: self.lost_since(base),
        };
        if let Some(memory) = memory {
            memory.complete(&mut report);
        }
        report
    }

    fn memory_since<'a>(&'a self, base: &'a Self) -> Option<MemorySince<'a>> {
        Some(self.memory.as_ref()?.since(base.memory.as_ref()?))
    }

    /// The CPU time since `base`, of each spawn path's tasks and of the threads outside tasks.
    #[cfg(feature = "sampler")]
    pub(crate) fn clocked_since(&self, base: &Self) -> Clocked {
        let spawned = self.spawned_since(base, true);
        let life = |row: &Spawned| Some((row.path.id(), row.life()?));
        let lives = spawned.iter().filter_map(life).collect();
        let paths = spawned.iter().map(|row| (row.path.id(), row.count.cpu_ns)).collect();
        let labeled = self.labels.clone().since(&base.labels).accounts;
        let outside = |thread: &ThreadReport| thread.cpu_ns.saturating_sub(thread.tasks_cpu_ns);
        // A thread with an entry in the ledger is about to end. Most of its time is in the figure of ended threads.
        let (ending, live): (Vec<_>, Vec<_>) =
            self.threads.live.iter().partition(|thread| thread.entered);
        let rows = |threads: Vec<_>| threads.into_iter().map(|it| self.thread_since(it, base));
        let live = rows(live)
            .filter_map(|thread| Some((thread.tid?, thread.worker.then(|| outside(&thread)))));
        let ended = self.ended_since(base).chain(rows(ending));
        Clocked {
            memory: self.memory_since(base).map(|memory| memory.by_path()).unwrap_or_default(),
            lives,
            labeled_lives: clocked::labeled_lives(&labeled),
            labeled_ns: clocked::labeled(labeled, &paths),
            paths_ns: paths,
            unknown_ns: self.unknown_ns - base.unknown_ns,
            threads_ns: live.collect(),
            ended_ns: ended.map(|thread| outside(&thread)).sum(),
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
            self.unknown_ns += handle.cpu_data(cpu).map_or(0, CpuTimeCpu::unknown_ns);
        });
    }

    /// What each spawn path's own tasks have done since `base`, and their lives if those are wanted.
    fn spawned_since(&self, base: &Self, with_lives: bool) -> Vec<Spawned> {
        let since = |now: &PathCounts<CpuTimeCount>| {
            let before = base.cpu_time.paths.get(&now.path.id());
            let tasks_before = before.map_or(0, |base| base.exited + base.live);
            Spawned {
                path: now.path,
                started: (now.exited + now.live).saturating_sub(tasks_before),
                live: now.live,
                count: self.cpu_time.path_since(now.path.id(), &base.cpu_time),
                max_poll_ns: self.longest.of_path(now.path.id()),
                life: with_lives.then(|| self.lives.path_since(now.path.id(), &base.lives)),
            }
        };
        self.cpu_time.paths.values().map(since).collect()
    }

    /// The rows of the sites. A site's figures are the sums of its paths' figures.
    fn sites_since(
        &self,
        base: &Self,
        spawned: &[Spawned],
        measured: &Measured,
        memory: Option<&MemorySince<'_>>,
    ) -> Vec<SiteReport> {
        let mut sites: HashMap<u32, SiteSince> = HashMap::new();
        for row in spawned {
            let site = row.path.site();
            sites.entry(site.id()).or_insert_with(|| SiteSince::new(site)).add(row);
        }
        let counted = rows::since(&self.counters.by_site(), &base.counters.by_site());
        let woken = rows::since(&self.wakes.by_site(), &base.wakes.by_site());
        let report = |(id, site): (u32, SiteSince)| {
            let counts = counted.get(&id).cloned().unwrap_or_default();
            let latencies = woken.get(&id).cloned().unwrap_or_default();
            SiteReport {
                memory: memory.map(|memory| memory.of_site(id)),
                ..site.report(measured.values(&counts), WakeReport::of(&latencies))
            }
        };
        sites.into_iter().map(report).collect()
    }

    /// The live tasks with the most CPU time since `base`, and then those with the longest lives, if lives are measured. Only those get
    /// rows: there may be many more.
    fn tasks_since(
        &self,
        base: &Self,
        measured: &Measured,
        memory: Option<&MemorySince<'_>>,
        max_tasks: usize,
    ) -> Vec<TaskReport> {
        if max_tasks == 0 {
            return Vec::new();
        }
        let rank = |id: &TaskId| {
            let cpu_ns = self.cpu_time.task_since(*id, &base.cpu_time).cpu_ns;
            let life_ns = self.lives.task_since(*id, &base.lives).life_ns();
            (Reverse((cpu_ns, life_ns)), *id)
        };
        // A task that waits all the time has a life and no CPU time.
        let idle = self.lives.tasks.keys().filter(|id| !self.cpu_time.tasks.contains_key(id));
        let mut ranked: Vec<_> = self.cpu_time.tasks.keys().chain(idle).map(rank).collect();
        if ranked.len() > max_tasks {
            ranked.select_nth_unstable(max_tasks);
            ranked.truncate(max_tasks);
        }
        ranked.sort_unstable();
        let task = |(_, id): (_, TaskId)| {
            let memory = memory.map(|memory| memory.of_task(id));
            Some(TaskReport { memory, ..self.task_since(id, base, measured)? })
        };
        ranked.into_iter().filter_map(task).collect()
    }

    /// What each live task has used since `base`.
    #[cfg(feature = "agent")]
    pub(crate) fn usage_since(&self, base: &Self) -> TaskUsage {
        let usage = |id: &TaskId| {
            let count = self.cpu_time.task_since(*id, &base.cpu_time);
            (*id, Usage::of(&count, self.longest.of_task(*id)))
        };
        TaskUsage {
            tasks: self.cpu_time.tasks.keys().map(usage).collect(),
            duration_ns: self.wall_ns - base.wall_ns,
            lost: self.lost_since(base),
        }
    }

    fn task_since(&self, id: TaskId, base: &Self, measured: &Measured) -> Option<TaskReport> {
        let row = |task: &LiveTask<CpuTimeCount>| (task.site, task.parent);
        let by_life = || self.lives.tasks.get(&id).map(|task| (task.site, task.parent));
        let (site, parent) = self.cpu_time.tasks.get(&id).map(row).or_else(by_life)?;
        let count = self.cpu_time.task_since(id, &base.cpu_time);
        let counts = self.counters.task_since(id, &base.counters);
        let life = || self.lives.task_since(id, &base.lives);
        Some(TaskReport {
            id: id.get(),
            parent: parent.map(TaskId::get),
            site: SpawnSite::of(site),
            usage: Usage::of(&count, self.longest.of_task(id)),
            counters: measured.values(&counts),
            wakes: WakeReport::of(&self.wakes.task_since(id, &base.wakes)),
            life: measured.life.map(|_| LifeReport::of(&life(), count.cpu_ns)),
            memory: None,
        })
    }

    fn threads_since(&self, base: &Self) -> Vec<ThreadReport> {
        let live = self.threads.live.iter().map(|thread| self.thread_since(thread, base));
        let mut threads: Vec<_> = live.chain(self.ended_since(base)).collect();
        threads.sort_by(|a, b| b.cpu_ns.cmp(&a.cpu_ns).then(a.tid.cmp(&b.tid)));
        threads
    }

    fn thread_since(&self, thread: &Thread, base: &Self) -> ThreadReport {
        // A thread with an entry in the ledger is no longer a worker.
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

    /// The rows of ended threads. The ledger has the workers' time. The other threads' time is what the process has used, and
    /// no worker and no live thread has.
    fn ended_since(&self, base: &Self) -> impl Iterator<Item = ThreadReport> {
        let gone = base.threads.live.iter().filter(|was| self.threads.find(was).is_none());
        let before_ns: u64 = gone.map(|was| was.cpu_ns).sum();
        let all_ns = self.threads.ended_cpu_ns()
            - base.threads.ended_cpu_ns()
            - i128::from(before_ns)
            - i128::from(self.ended.cpu_ns);
        let others_ns = u64::try_from(all_ns).unwrap_or(0);
        // A smaller figure cannot be distinguished from the time that the readings took.
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

    /// The clock's name, and how much stolen time the clock first counted for tasks, if that is much.
    fn clock_since(&self, base: &Self) -> String {
        let clock = Choice::of_process();
        let stolen_ns = self.stolen_ns - base.stolen_ns;
        let cpu_ns = self.threads.process_cpu_ns.saturating_sub(base.threads.process_cpu_ns);
        if stolen_ns < cpu_ns / 1_000 {
            return clock.to_string();
        }
        format!("{clock}; corrected for {:.1} ms stolen from the CPUs", stolen_ns as f64 / 1e6)
    }

    /// The source of each event's counts, and why some workers have none, if so.
    fn sources(&self, measured: &Measured) -> Vec<CounterSource> {
        let counters = measured.counters.as_ref();
        let mut sources = counters.map(Counters::sources).unwrap_or_default();
        let CountersLost { workers, reason, .. } = &self.lost.counters;
        if let Some(reason) = reason {
            for source in &mut sources {
                let workers = match workers {
                    1 => "1 worker".to_owned(),
                    workers => format!("{workers} workers"),
                };
                let why = format!("not counted on {workers}: {reason}");
                source.refused = Some(match source.refused.take() {
                    Some(refused) => format!("{refused}; {why}"),
                    None => why,
                });
            }
        }
        sources
    }

    fn lost_since(&self, base: &Self) -> Lost {
        let (now, base) = (&self.lost, &base.lost);
        Lost {
            // Tasks that had no data at `base` may have been given some since.
            tasks_without_data: now.tasks_without_data.saturating_sub(base.tasks_without_data),
            tasks_without_site: now.tasks_without_site - base.tasks_without_site,
            tasks_without_path: now.tasks_without_path - base.tasks_without_path,
            label_sets_without_place: now.label_sets_without_place - base.label_sets_without_place,
            polls_untracked: now.polls_untracked - base.polls_untracked,
            polls_out_of_order: now.polls_out_of_order - base.polls_out_of_order,
            turns_without_counters: now.counters.turns - base.counters.turns,
            workers_without_counters: now.counters.workers,
        }
    }
}

/// The polls that ended out of order, on all CPUs.
fn disorders() -> u64 {
    let mut sum = 0;
    System::global().for_each_cpu(|cpu| sum += cpu.disorders());
    sum
}

/// The CPU time that a worker has spent in tasks, including the running stint.
fn tasks_ns(handle: PmuHandle<CpuTime>, cpu: &CpuRecord, data: &CpuTimeCpu) -> u64 {
    let read = || data.tasks_ns();
    with_running(handle, cpu, cpu.current_id(), &read, |tasks_ns, stint| tasks_ns + stint.cpu_ns)
}
