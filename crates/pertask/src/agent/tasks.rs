//! The live tasks, page by page.

use super::asked::{Asked, Parameter, Refusal};
use super::limits::{self, MOST_SECONDS};
use super::measure::is_at;
use super::stops::Stop;
use crate::report::{SpawnSite, Usage};
use crate::tasks::accounts;
use crate::{SessionOptions, TaskId};
use pertask_agent::Answer;
use pertask_core::{System, Task};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "seconds",
        meaning: "how long to measure what they use [default: 0, not at all]",
    },
    Parameter { name: "site", meaning: "only those with this name or spawn site (FILE:LINE)" },
    Parameter { name: "label", meaning: "only those with this label (KEY=VALUE)" },
    Parameter { name: "task", meaning: "only the task with this number" },
    Parameter { name: "parent", meaning: "only those that the task with this number has spawned" },
    Parameter { name: "running", meaning: "true: only those that are being polled" },
    Parameter { name: "sort", meaning: "id, or cpu, which needs seconds [default: id]" },
    Parameter { name: "limit", meaning: "the most tasks to list [default: 100]" },
    Parameter {
        name: "after",
        meaning: "with sort=id: only those with a greater number, for the next page",
    },
];

const MOST_ROWS: usize = 10_000;

/// Some of the live tasks: the answer of `/v1/tasks`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[non_exhaustive]
pub struct LiveTasks {
    /// The number of all live tasks.
    pub live: u64,
    /// The number of those among them that were asked for.
    pub matching: u64,
    /// The number of the last one listed, if there are more: the parameter `after` of the next page.
    pub next_after: Option<u64>,
    /// How long was measured what they use. Zero if it was not.
    pub duration_ns: u64,
    /// The tasks.
    pub tasks: Vec<LiveTask>,
}

/// One live task.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[non_exhaustive]
pub struct LiveTask {
    /// The task's number, unique in the process.
    pub id: u64,
    /// The number of the task that spawned it, or `None` where no task did.
    pub parent: Option<u64>,
    /// Its site. Its fields are the object's own in JSON.
    #[serde(flatten)]
    pub site: SpawnSite,
    /// Whether it was being polled at that moment.
    pub running: bool,
    /// The labels that it had.
    pub labels: BTreeMap<String, String>,
    /// What it has used, if that was measured. Its fields are the object's own in JSON.
    #[serde(flatten)]
    pub usage: Option<Usage>,
}

/// The order of the tasks.
enum Sort {
    Id,
    Cpu,
}

/// Which tasks are asked for.
struct Wanted<'a> {
    site: Option<&'a str>,
    label: Option<(&'a str, &'a str)>,
    task: Option<u64>,
    parent: Option<u64>,
    running: bool,
    sort: Sort,
    limit: usize,
    after: u64,
}

/// Lists live tasks.
pub(super) fn list(asked: &Asked<'_>) -> Result<Answer, Refusal> {
    let time = asked.seconds(0.0, &(0.0..=MOST_SECONDS))?;
    let wanted = Wanted::of(asked, time)?;
    let (used, duration_ns) = match time.is_zero() {
        true => (None, 0),
        false => {
            let (used, duration_ns) = used_in(asked, time)?;
            (Some(used), duration_ns)
        }
    };
    let tasks = LiveTasks { duration_ns, ..wanted.find(used.as_ref()) };
    let json =
        serde_json::to_string_pretty(&tasks).map_err(|why| Refusal::new(500, why.to_string()))?;
    Ok(Answer::json(json + "\n"))
}

/// What all tasks use in some time.
fn used_in(asked: &Asked<'_>, time: Duration) -> Result<(HashMap<u64, Usage>, u64), Refusal> {
    let stop = Stop::of(asked)?;
    let _permit = limits::SESSIONS.take()?;
    let session = SessionOptions { max_tasks: usize::MAX, ..SessionOptions::default() }.start()?;
    asked.wait(time, &stop);
    let report = session.stop();
    let used = report.tasks.into_iter().map(|task| (task.id, task.usage)).collect();
    Ok((used, report.duration_ns))
}

impl<'a> Wanted<'a> {
    fn of(asked: &'a Asked<'_>, time: Duration) -> Result<Self, Refusal> {
        let label = asked.text("label").map(|label| {
            let why = || Refusal::bad(format!("label is {label:?}, and not KEY=VALUE"));
            label.split_once('=').ok_or_else(why)
        });
        let sort = match asked.text("sort") {
            None | Some("id") => Sort::Id,
            Some("cpu") if !time.is_zero() => Sort::Cpu,
            Some("cpu") => return Err(Refusal::bad("sort=cpu needs seconds, to measure it")),
            Some(other) => {
                return Err(Refusal::bad(format!("sort is {other:?}, and not id or cpu")));
            }
        };
        Ok(Self {
            site: asked.text("site"),
            label: label.transpose()?,
            task: asked.parsed("task", "the number of a task")?,
            parent: asked.parsed("parent", "the number of a task")?,
            running: asked.flag("running", false)?,
            sort,
            limit: asked.number("limit", 100, &(1..=MOST_ROWS))?,
            after: asked.parsed("after", "the number of a task")?.unwrap_or(0),
        })
    }

    fn find(&self, used: Option<&HashMap<u64, Usage>>) -> LiveTasks {
        let running = running();
        let (mut live, mut all) = (0, Vec::new());
        System::global().for_each_task(|task| {
            live += 1;
            let is_running = running.contains(&task.id());
            if self.may_be(task, is_running) {
                let row = LiveTask::of(task, is_running, used);
                all.extend(self.is_wanted(&row).then_some(row));
            }
        });
        match self.sort {
            Sort::Id => all.sort_unstable_by_key(|row| row.id),
            Sort::Cpu => all.sort_unstable_by_key(|row| {
                (std::cmp::Reverse(row.usage.as_ref().map(|usage| usage.cpu_ns)), row.id)
            }),
        }
        let matching = all.len() as u64;
        let more = matches!(self.sort, Sort::Id) && all.len() > self.limit;
        all.truncate(self.limit);
        let next_after = all.last().filter(|_| more).map(|row| row.id);
        LiveTasks { live, matching, next_after, duration_ns: 0, tasks: all }
    }

    /// What can be said of a task without its names.
    fn may_be(&self, task: &Task, is_running: bool) -> bool {
        let is = |wanted: Option<u64>, found: Option<TaskId>| {
            wanted.is_none_or(|wanted| found.map(TaskId::get) == Some(wanted))
        };
        is(self.task, Some(task.id()))
            && is(self.parent, task.parent())
            && (is_running || !self.running)
            && task.id().get() > self.after
    }

    fn is_wanted(&self, row: &LiveTask) -> bool {
        self.site.is_none_or(|site| is_at(&row.site, site))
            && self
                .label
                .is_none_or(|(key, value)| row.labels.get(key).map(|it| &**it) == Some(value))
    }
}

impl LiveTask {
    fn of(task: &Task, running: bool, used: Option<&HashMap<u64, Usage>>) -> Self {
        let id = task.id().get();
        let labels = accounts::labels_of(task.tag());
        let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Self {
            id,
            parent: task.parent().map(TaskId::get),
            site: SpawnSite::of(task.site()),
            running,
            labels: labels.iter().map(own).collect(),
            // A task that was not polled meanwhile has used nothing.
            usage: used.map(|used| used.get(&id).cloned().unwrap_or_default()),
        }
    }
}

/// The tasks that are being polled.
fn running() -> HashSet<TaskId> {
    let mut running = HashSet::new();
    System::global().for_each_cpu(|cpu| running.extend(cpu.current_id()));
    running
}
