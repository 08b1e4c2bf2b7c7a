//! What a session saw: plain data, and its two renderings.
//!
//! A [`Report`] is made by a `Session` and is never changed by rendering. Its fields *are* the JSON schema: a field
//! added is a minor change, a field renamed or removed raises [`SCHEMA`].

pub(crate) mod derived;
#[cfg(feature = "json")]
mod json;
#[cfg(feature = "table")]
mod table;

use crate::pmus::counters::{Counter, CounterSource};
use crate::pmus::wake::Latencies;
use pertask_core::Site;

#[cfg(feature = "table")]
pub use table::{Table, TableStyle};

/// The name and version of the report's JSON schema.
pub const SCHEMA: &str = "pertask.report/1";

/// What was seen between two moments: which tasks, threads and spawn sites spent the process's CPU time.
///
/// `tasks_cpu_ns + workers_cpu_ns + other_cpu_ns` is `process_cpu_ns`, up to the time it takes to read the clocks.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Wall time from the start of the session to this report.
    pub duration_ns: u64,
    /// CPU time of the whole process, user and system, by the kernel's process clock.
    pub process_cpu_ns: u64,
    /// CPU time inside tasks.
    pub tasks_cpu_ns: u64,
    /// CPU time of the threads that run tasks, outside any task: scheduler, I/O driver, untracked futures.
    pub workers_cpu_ns: u64,
    /// CPU time of the threads that ran no task.
    pub other_cpu_ns: u64,
    /// Which clock measured the tasks, and why when a better one was refused.
    pub clock: String,
    /// Where the counts of each event come from, in the order of the columns. Empty where none are counted.
    pub counters: Vec<CounterSource>,
    /// One row for each spawn site and name, most CPU time first.
    pub sites: Vec<SiteReport>,
    /// The tree of spawns: one row for each spawn path of which, or of one below which, anything was seen. Depth first:
    /// each is followed by what was spawned from it, most inclusive CPU time first.
    pub tree: Vec<TreeReport>,
    /// The live tasks with the most CPU time, most first. How many is the session's choice.
    pub tasks: Vec<TaskReport>,
    /// One row for each thread of the process, most CPU time first.
    pub threads: Vec<ThreadReport>,
    /// What could not be counted.
    pub lost: Lost,
}

/// The tasks of one spawn site and name, taken together.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
pub struct SiteReport {
    /// The tasks' name, or `None` where the site alone names them.
    pub name: Option<String>,
    /// Source file of the spawn site.
    pub file: String,
    /// Line of the spawn site.
    pub line: u32,
    /// Tasks born during the session.
    pub tasks_started: u64,
    /// Tasks alive at the end.
    pub tasks_live: u64,
    /// Times that such a task was polled.
    pub polls: u64,
    /// CPU time inside these tasks.
    pub cpu_ns: u64,
    /// Wall time inside their polls.
    pub wall_ns: u64,
    /// Wall time of their longest poll, or `None` where it may date from before the session.
    pub max_poll_ns: Option<u64>,
    /// How often each event happened in them, in the order of the report's.
    pub counters: Vec<Counter>,
    /// How long they waited between being woken and being polled. `None` where that was not measured.
    pub wakes: Option<WakeReport>,
}

/// The tasks of one spawn path, taken together: of one site, spawned from one path.
///
/// Where a task spawns its own site again, directly or through others, its descendant is counted with it. In a session on
/// some tasks, what an event has counted of a task's descendants is the task's own.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
pub struct TreeReport {
    /// The path's number, unique in the process.
    pub id: u32,
    /// The path from which they were spawned, or `None` where no task spawned them.
    pub parent: Option<u32>,
    /// How many ancestors the path has.
    pub depth: u32,
    /// The tasks' name, or `None` where the site alone names them.
    pub name: Option<String>,
    /// Source file of the spawn site.
    pub file: String,
    /// Line of the spawn site.
    pub line: u32,
    /// Tasks born during the session.
    pub tasks_started: u64,
    /// Tasks alive at the end.
    pub tasks_live: u64,
    /// Times that such a task was polled.
    pub polls: u64,
    /// CPU time inside these tasks.
    pub cpu_ns: u64,
    /// The same and that of all paths below: of these tasks and their descendants, ended ones included.
    pub inclusive_cpu_ns: u64,
}

/// One live task.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
pub struct TaskReport {
    /// The task's number, unique in the process.
    pub id: u64,
    /// Its name, or `None` where the site alone names it.
    pub name: Option<String>,
    /// The task that spawned it.
    pub parent: Option<u64>,
    /// Source file of its spawn site.
    pub file: String,
    /// Line of its spawn site.
    pub line: u32,
    /// Times it was polled.
    pub polls: u64,
    /// CPU time inside it.
    pub cpu_ns: u64,
    /// Wall time inside its polls.
    pub wall_ns: u64,
    /// Wall time of its longest poll, or `None` where it may date from before the session.
    pub max_poll_ns: Option<u64>,
    /// How often each event happened in it, in the order of the report's.
    pub counters: Vec<Counter>,
    /// How long they waited between being woken and being polled. `None` where that was not measured.
    pub wakes: Option<WakeReport>,
}

/// How long tasks waited between being woken and being polled.
///
/// Of a percentile only the bucket is known in which it lies; what is given is the bucket's bound, at most a quarter too
/// much.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
pub struct WakeReport {
    /// How often they were woken and then polled.
    pub count: u64,
    /// Half of the waits were no longer. `None` where there were none, or where it is beyond the histogram's end, at 17 s;
    /// so with the others.
    pub p50_ns: Option<u64>,
    /// Nine of ten were no longer.
    pub p90_ns: Option<u64>,
    /// 99 of 100 were no longer.
    pub p99_ns: Option<u64>,
    /// None was longer.
    pub max_ns: Option<u64>,
    /// The histogram, without its empty buckets.
    pub histogram: Vec<WakeBucket>,
}

/// A bucket of a histogram.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
pub struct WakeBucket {
    /// The waits in it were no longer, and longer than the bound of the bucket before. `None`: it has no bound.
    pub most_ns: Option<u64>,
    /// How many they were.
    pub count: u64,
}

impl WakeReport {
    pub(crate) fn of(latencies: &Latencies) -> Self {
        let bucket = |(most_ns, count)| WakeBucket { most_ns, count };
        Self {
            count: latencies.len(),
            p50_ns: latencies.permille_ns(500),
            p90_ns: latencies.permille_ns(900),
            p99_ns: latencies.permille_ns(990),
            max_ns: latencies.permille_ns(1_000),
            histogram: latencies.buckets().map(bucket).collect(),
        }
    }
}

/// One thread of the process.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
pub struct ThreadReport {
    /// The thread's name, as the kernel knows it.
    pub name: String,
    /// Its kernel id, or `None` for the row that gathers the threads which ended during the session.
    pub tid: Option<u32>,
    /// Whether it runs tasks.
    pub worker: bool,
    /// Its CPU time during the session.
    pub cpu_ns: u64,
    /// The part of it spent inside tasks.
    pub tasks_cpu_ns: u64,
}

/// What could not be counted. All zero in a healthy session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
pub struct Lost {
    /// Tasks born during the session that could be given no data; their time is in `workers_cpu_ns`.
    pub tasks_without_data: u64,
    /// Tasks whose spawn site found no place in the bounded table of sites; they share the row `(other)`.
    pub tasks_without_site: u64,
    /// Tasks whose spawn path found no place in the bounded tree; they are counted as if no task had spawned them.
    pub tasks_without_path: u64,
    /// Polls that could not be followed, because tokio polled the task before its last poll was seen to end; their time is in
    /// `workers_cpu_ns`.
    pub polls_untracked: u64,
    /// Polls that ended in another order than they began, as those of coroutines may that are suspended in a poll. What such
    /// a coroutine did while another poll was on top of it is counted for that one's task.
    pub polls_out_of_order: u64,
    /// Turns of tasks that were not counted: on workers whose counters could not be opened.
    pub turns_without_counters: u64,
    /// Workers whose counters could not be opened, at the end.
    pub workers_without_counters: u64,
}

impl Lost {
    /// Whether nothing was lost.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Where tasks of a site are made. The site that stands for all others has no place.
pub(crate) fn place(site: &Site) -> (String, u32) {
    if site.is_other() {
        return (String::new(), 0);
    }
    (site.location().file().to_owned(), site.location().line())
}
