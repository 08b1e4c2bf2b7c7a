//! The report of a session: plain data, and its two renderings.
//!
//! A `Session` makes a [`Report`], and rendering never changes it. Its fields *are* the JSON schema: a new field is a minor
//! change; to rename or remove a field raises [`SCHEMA`].

mod blocked;
pub(crate) mod derived;
#[cfg(feature = "json")]
mod json;
mod memory;
#[cfg(feature = "table")]
mod table;

use crate::pmus::counters::{Counter, CounterSource};
use crate::pmus::cpu_time::CpuTimeCount;
use crate::pmus::life::LifeCount;
use crate::pmus::memory::count::MemoryCount;
use crate::pmus::wake::Latencies;
use pertask_core::Site;
use std::borrow::Cow;

pub use blocked::{BlockedLabel, BlockedReport, BlockedRow, BlockedState, StackFrame};
#[cfg(feature = "table")]
pub use table::{Table, TableStyle};

pub use memory::ProcessMemory;

/// The name and version of the report's JSON schema.
pub const SCHEMA: &str = "pertask.report/1";

/// Which tasks, threads and spawn sites spent the process's CPU time during a session.
///
/// `tasks_cpu_ns + unknown_cpu_ns + workers_cpu_ns + other_cpu_ns` equals `process_cpu_ns`, up to the time that it takes to read the clocks.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct Report {
    /// The name and version of the schema: [`SCHEMA`].
    #[cfg_attr(feature = "json", serde(deserialize_with = "json::schema"))]
    pub schema: Cow<'static, str>,
    /// Wall time from the start of the session to this report.
    pub duration_ns: u64,
    /// CPU time of the whole process, user and system, by the kernel's process clock.
    pub process_cpu_ns: u64,
    /// CPU time inside tasks.
    pub tasks_cpu_ns: u64,
    /// CPU time of which it is not known in which task it was, or whether in one, because polls ended in another order than they
    /// began, or on another thread.
    ///
    /// See [`Lost::polls_out_of_order`].
    pub unknown_cpu_ns: u64,
    /// CPU time of the threads that run tasks, outside any task: scheduler, I/O driver, futures that are not tracked.
    pub workers_cpu_ns: u64,
    /// CPU time of the threads that ran no task.
    pub other_cpu_ns: u64,
    /// The clock that measured the tasks, and why no better clock could be used.
    pub clock: String,
    /// The source of each event's counts, in the order of the columns.
    ///
    /// Empty where no events are counted.
    pub counters: Vec<CounterSource>,
    /// What the process has allocated and freed, or `None` where that was not measured.
    pub memory: Option<ProcessMemory>,
    /// What counted the memory, or why nothing could, and the remedy. `None` where the session was not to measure it.
    pub memory_source: Option<String>,
    /// One row for each spawn site and name, most CPU time first.
    pub sites: Vec<SiteReport>,
    /// The tree of spawns: one row for each spawn path that was active, and for each of its ancestors.
    ///
    /// The rows are in depth-first order: the children of a path follow it, most inclusive CPU time first.
    pub tree: Vec<TreeReport>,
    /// The live tasks with the most CPU time, most first.
    ///
    /// [`SessionOptions::max_tasks`](crate::SessionOptions::max_tasks) is their number.
    pub tasks: Vec<TaskReport>,
    /// One row for each key of the labels that tasks had, sorted by key.
    ///
    /// Empty in a session on some tasks only.
    pub labels: Vec<LabelReport>,
    /// One row for each thread of the process, most CPU time first.
    pub threads: Vec<ThreadReport>,
    /// The polls that blocked their worker, or `None` where nobody watched for them.
    ///
    /// A session does not watch. A `pertask::watch::Watch` (feature `sampler`) fills this in.
    pub blocked: Option<BlockedReport>,
    /// What the session could not count.
    pub lost: Lost,
}

impl Default for Report {
    /// A report of nothing, of no time.
    fn default() -> Self {
        Self {
            schema: SCHEMA.into(),
            duration_ns: 0,
            process_cpu_ns: 0,
            tasks_cpu_ns: 0,
            unknown_cpu_ns: 0,
            workers_cpu_ns: 0,
            other_cpu_ns: 0,
            clock: String::new(),
            counters: Vec::new(),
            memory: None,
            memory_source: None,
            sites: Vec::new(),
            tree: Vec::new(),
            tasks: Vec::new(),
            labels: Vec::new(),
            threads: Vec::new(),
            blocked: None,
            lost: Lost::default(),
        }
    }
}

/// Where tasks are spawned, and what they are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct SpawnSite {
    /// The tasks' name, or `None` where the site alone names them.
    pub name: Option<String>,
    /// Source file of the spawn site. Empty for the site that stands for those that found no place.
    pub file: String,
    /// Line of the spawn site.
    pub line: u32,
}

/// What tasks have used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct Usage {
    /// The number of polls.
    pub polls: u64,
    /// CPU time inside the tasks.
    pub cpu_ns: u64,
    /// Wall time inside their polls.
    pub wall_ns: u64,
    /// Wall time of their longest poll that ended during the session, or has not ended yet.
    pub max_poll_ns: u64,
}

/// All tasks of one spawn site and name.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct SiteReport {
    /// The site. Its fields are the object's own in JSON.
    #[cfg_attr(feature = "json", serde(flatten))]
    pub site: SpawnSite,
    /// The number of tasks that were made during the session.
    pub tasks_started: u64,
    /// The number of tasks that were alive at the end.
    pub tasks_live: u64,
    /// What these tasks have used. Its fields are the object's own in JSON.
    #[cfg_attr(feature = "json", serde(flatten))]
    pub usage: Usage,
    /// How often each event happened in these tasks, in the order of [`Report::counters`].
    pub counters: Vec<Counter>,
    /// How long these tasks waited between being woken and being polled, or `None` where that was not measured.
    pub wakes: Option<WakeReport>,
    /// How long these tasks were in each of their states, or `None` where that was not measured.
    pub life: Option<LifeReport>,
    /// What these tasks have allocated and freed, or `None` where that was not measured.
    pub memory: Option<MemoryCount>,
}

/// All tasks of one spawn path: of one site and name, spawned from one path.
///
/// Where a task spawns its own site again, directly or through other tasks, its row includes that descendant. In a session on
/// some tasks, the row of a task includes what its event has counted of the task's descendants.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct TreeReport {
    /// The path's number, unique in the process.
    pub id: u32,
    /// The path from which they were spawned, or `None` where no task spawned them.
    pub parent: Option<u32>,
    /// The number of ancestors that the path has.
    pub depth: u32,
    /// The site. Its fields are the object's own in JSON.
    #[cfg_attr(feature = "json", serde(flatten))]
    pub site: SpawnSite,
    /// The number of tasks that were made during the session.
    pub tasks_started: u64,
    /// The number of tasks that were alive at the end.
    pub tasks_live: u64,
    /// What these tasks have used, without the paths below. Its fields are the object's own in JSON.
    #[cfg_attr(feature = "json", serde(flatten))]
    pub usage: Usage,
    /// CPU time inside these tasks and those of all paths below, ended tasks included.
    pub inclusive_cpu_ns: u64,
    /// How long these tasks, without the paths below, were in each of their states, or `None` where that was not measured.
    pub life: Option<LifeReport>,
    /// What these tasks have allocated and freed, without the paths below, or `None` where that was not measured.
    pub memory: Option<MemoryCount>,
    /// What these tasks and those of all paths below have allocated and freed, or `None` where that was not measured.
    pub inclusive_memory: Option<MemoryCount>,
}

/// One live task.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct TaskReport {
    /// The task's number, unique in the process.
    pub id: u64,
    /// The number of the task that spawned it, or `None` where no task did.
    pub parent: Option<u64>,
    /// Its site. Its fields are the object's own in JSON.
    #[cfg_attr(feature = "json", serde(flatten))]
    pub site: SpawnSite,
    /// What it has used. Its fields are the object's own in JSON.
    #[cfg_attr(feature = "json", serde(flatten))]
    pub usage: Usage,
    /// How often each event happened in it, in the order of [`Report::counters`].
    pub counters: Vec<Counter>,
    /// How long it waited between being woken and being polled, or `None` where that was not measured.
    pub wakes: Option<WakeReport>,
    /// How long it was in each of its states, or `None` where that was not measured.
    pub life: Option<LifeReport>,
    /// What it has allocated and freed, or `None` where that was not measured.
    pub memory: Option<MemoryCount>,
}

/// What tasks did by the value of a label: their CPU time, and their lives where those were measured.
///
/// The time belongs to the labels that held while it passed. The values' CPU times, `others_cpu_ns` and `without_cpu_ns` add up to
/// [`Report::tasks_cpu_ns`]. Their lives, `others_life` and `without_life` add up to those of all tasks, each part by itself.
///
/// Between polls a task has the labels that it was given or has inherited. Those of a [labelled future](crate::LabelExt) hold only
/// while the future is polled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct LabelReport {
    /// The label's key.
    pub key: String,
    /// The values with the most CPU time, most first, and then those with the longest lives.
    ///
    /// [`SessionOptions::max_label_values`](crate::SessionOptions::max_label_values) is their number.
    pub values: Vec<LabelValueReport>,
    /// CPU time of all other values.
    pub others_cpu_ns: u64,
    /// How long tasks were in each of their states while they had another value, or `None` where that was not measured.
    pub others_life: Option<LifeReport>,
    /// What tasks allocated and freed while they had another value, or `None` where that was not counted.
    pub others_memory: Option<MemoryCount>,
    /// CPU time in tasks, while they did not have this label.
    pub without_cpu_ns: u64,
    /// How long tasks were in each of their states while they did not have this label, or `None` where that was not measured.
    pub without_life: Option<LifeReport>,
    /// What tasks allocated and freed while they did not have this label, or `None` where that was not counted.
    pub without_memory: Option<MemoryCount>,
}

/// What tasks did while they had a label with this value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct LabelValueReport {
    /// The label's value.
    pub value: String,
    /// CPU time, user and system.
    pub cpu_ns: u64,
    /// How long tasks were in each of their states, or `None` where that was not measured.
    pub life: Option<LifeReport>,
    /// What tasks allocated and freed, or `None` where that was not counted.
    pub memory: Option<MemoryCount>,
}

/// How long tasks waited between being woken and being polled.
///
/// Each percentile is the upper bound of the bucket in which it lies, so it is at most a quarter too large. A percentile is
/// `None` where there were no waits, or where it lies beyond the end of the histogram, at 17 s.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct WakeReport {
    /// The number of waits: how often a task was woken and then polled.
    pub count: u64,
    /// The median: half of the waits were no longer.
    pub p50_ns: Option<u64>,
    /// The 90th percentile: nine of ten waits were no longer.
    pub p90_ns: Option<u64>,
    /// The 99th percentile: 99 of 100 waits were no longer.
    pub p99_ns: Option<u64>,
    /// The maximum: no wait was longer.
    pub max_ns: Option<u64>,
    /// The histogram, without its empty buckets.
    pub histogram: Vec<WakeBucket>,
}

/// A bucket of a histogram of waits.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct WakeBucket {
    /// The upper bound of the waits in this bucket, or `None` for the last bucket, which has none.
    ///
    /// The waits are longer than the bound of the bucket before.
    pub most_ns: Option<u64>,
    /// The number of waits in this bucket.
    pub count: u64,
}

impl WakeReport {
    /// `None` where nothing was measured.
    pub(crate) fn of(latencies: &Latencies) -> Option<Self> {
        let bucket = |(most_ns, count)| WakeBucket { most_ns, count };
        latencies.were_measured().then(|| Self {
            count: latencies.len(),
            p50_ns: latencies.permille_ns(500),
            p90_ns: latencies.permille_ns(900),
            p99_ns: latencies.permille_ns(990),
            max_ns: latencies.permille_ns(1_000),
            histogram: latencies.buckets().map(bucket).collect(),
        })
    }
}

/// How long tasks were in each of their states, while the session ran.
///
/// A task's parts add up to its life, and those of several tasks to their lives together. The first four are the states that most
/// tasks are in nearly all the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct LifeReport {
    /// In their polls, on a CPU.
    pub on_cpu_ns: u64,
    /// In their polls, off the CPU: in a system call that waits, or because the kernel ran another thread.
    pub blocked_ns: u64,
    /// Woken, and not yet polled: the executor is busy with other tasks.
    pub ready_ns: u64,
    /// Not woken: what they await has not come.
    pub waiting_ns: u64,
    /// Outside polls, where it is not known whether they were ready or waiting: until the first poll that the session sees, and in
    /// tasks that have no waker of pertask's, which are those that only tokio's hooks track and those that are no futures.
    pub unknown_ns: u64,
    /// In their polls, while a task had the CPU that they polled themselves.
    pub inside_ns: u64,
    /// Made, and not yet polled.
    pub new_ns: u64,
}

impl LifeReport {
    /// The life of no task.
    #[cfg(feature = "table")]
    const NONE: Self = Self {
        on_cpu_ns: 0,
        blocked_ns: 0,
        ready_ns: 0,
        waiting_ns: 0,
        unknown_ns: 0,
        inside_ns: 0,
        new_ns: 0,
    };

    /// The parts of the time in polls are divided by the CPU time, which was read a moment earlier.
    pub(crate) fn of(life: &LifeCount, cpu_ns: u64) -> Self {
        let on_cpu_ns = cpu_ns.min(life.polled_ns());
        Self {
            on_cpu_ns,
            blocked_ns: life.polled_ns() - on_cpu_ns,
            ready_ns: life.ready_ns(),
            waiting_ns: life.waiting_ns(),
            unknown_ns: life.unknown_ns(),
            inside_ns: life.inside_ns(),
            new_ns: life.new_ns(),
        }
    }

    /// The sum of several.
    pub(crate) fn sum(lives: impl Iterator<Item = Self>) -> Self {
        lives.fold(Self::default(), |sum, life| Self {
            on_cpu_ns: sum.on_cpu_ns.saturating_add(life.on_cpu_ns),
            blocked_ns: sum.blocked_ns.saturating_add(life.blocked_ns),
            ready_ns: sum.ready_ns.saturating_add(life.ready_ns),
            waiting_ns: sum.waiting_ns.saturating_add(life.waiting_ns),
            unknown_ns: sum.unknown_ns.saturating_add(life.unknown_ns),
            inside_ns: sum.inside_ns.saturating_add(life.inside_ns),
            new_ns: sum.new_ns.saturating_add(life.new_ns),
        })
    }

    /// All parts together, or the greatest number if they are more.
    #[must_use]
    pub fn life_ns(&self) -> u64 {
        let Self { on_cpu_ns, blocked_ns, ready_ns, waiting_ns, unknown_ns, inside_ns, new_ns } =
            self;
        [on_cpu_ns, blocked_ns, ready_ns, waiting_ns, unknown_ns, inside_ns, new_ns]
            .into_iter()
            .fold(0, |sum, ns| sum.saturating_add(*ns))
    }
}

/// One thread of the process.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct ThreadReport {
    /// The thread's name, as the kernel knows it.
    pub name: String,
    /// The thread's kernel id, or `None` for the row of all threads that ended during the session.
    pub tid: Option<u32>,
    /// Whether the thread runs tasks.
    pub worker: bool,
    /// The thread's CPU time during the session.
    pub cpu_ns: u64,
    /// The part of that CPU time inside tasks.
    pub tasks_cpu_ns: u64,
}

/// What a session could not count.
///
/// All fields are zero in a healthy session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct Lost {
    /// Tasks that were made during the session and for which there was no memory.
    ///
    /// Their time is in `workers_cpu_ns`.
    pub tasks_without_data: u64,
    /// Tasks whose spawn site found no place in the bounded table of sites.
    ///
    /// They share the row `(other)`.
    pub tasks_without_site: u64,
    /// Tasks whose spawn path found no place in the bounded tree.
    ///
    /// They are counted as if no task had spawned them.
    pub tasks_without_path: u64,
    /// How often a set of labels found no place in the bounded table of sets, or one of its keys none in what a session keeps of tasks
    /// that have ended: 64 keys.
    ///
    /// The time of such labels is in [`LabelReport::without_cpu_ns`] and [`LabelReport::without_life`].
    pub label_sets_without_place: u64,
    /// Polls that the hooks could not follow, because tokio polled the task again before it called the hook that ends the last
    /// poll.
    ///
    /// Their time is in `workers_cpu_ns`.
    pub polls_untracked: u64,
    /// Polls that did not end in the order in which they began, because a coroutine was suspended in a poll, or that ended on another
    /// thread, because the coroutine was moved there.
    ///
    /// CPU time since the switch before such an end is in [`Report::unknown_cpu_ns`]. Events that were counted meanwhile are those of
    /// the task whose poll began last. Wall time and the longest poll lack that time. A thread learns when it begins its next poll
    /// that one of its polls has ended elsewhere. Until then the task's polls are not seen, and the thread's time is shown as outside
    /// tasks; what a moved poll uses on its last thread is that thread's own time.
    pub polls_out_of_order: u64,
    /// Turns of tasks whose events were not counted, because the worker's counters could not be opened.
    pub turns_without_counters: u64,
    /// Workers that had no counters at the end, because those could not be opened.
    pub workers_without_counters: u64,
}

impl Lost {
    /// Whether nothing was lost.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl SpawnSite {
    pub(crate) fn of(site: &Site) -> Self {
        let name = site.name().map(str::to_owned);
        if site.is_other() {
            return Self { name, ..Self::default() };
        }
        Self { name, file: site.location().file().to_owned(), line: site.location().line() }
    }
}

impl Usage {
    pub(crate) fn of(count: &CpuTimeCount, max_poll_ns: u64) -> Self {
        Self { polls: count.polls, cpu_ns: count.cpu_ns, wall_ns: count.wall_ns, max_poll_ns }
    }
}
