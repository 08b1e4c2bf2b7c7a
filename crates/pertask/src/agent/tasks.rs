//! The live tasks, page by page.

use super::asked::{Asked, Parameter, Refusal};
use super::limits::{self, MOST_SECONDS};
use super::measure::is_at;
use super::running::Running;
use crate::os::clock;
use crate::report::{Lost, SpawnSite, Usage};
use crate::sessions::TaskUsage;
use crate::tasks::accounts;
use crate::{Session, TaskId};
use pertask_agent::Answer;
use pertask_core::{System, Task};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
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
    /// What of their use could not be counted.
    pub lost: Lost,
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
    /// How long ago it was spawned, to a tick of the kernel's timer (some milliseconds). `None` if its agent does not say.
    #[serde(default)]
    pub age_ns: Option<u64>,
    /// Whether it was being polled at that moment. Of tasks that poll each other, only the innermost is.
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
    let running = Running::begin(asked)?;
    let _permit = limits::SESSIONS.take()?;
    let measured = (!time.is_zero()).then(|| used_in(&running, asked, time)).transpose()?;
    let mut tasks = wanted.find(measured.as_ref().map(|measured| &measured.tasks));
    if let Some(TaskUsage { duration_ns, lost, .. }) = measured {
        (tasks.duration_ns, tasks.lost) = (duration_ns, lost);
    }
    let json = serde_json::to_string_pretty(&tasks);
    let json = json.map_err(|why| Refusal::new(500, why.to_string()))?;
    Ok(Answer::json(json + "\n"))
}

/// What all tasks use in some time.
fn used_in(running: &Running, asked: &Asked<'_>, time: Duration) -> Result<TaskUsage, Refusal> {
    let session = Session::start()?;
    running.wait(time, asked.caller());
    Ok(session.usage())
}

impl<'a> Wanted<'a> {
    fn of(asked: &'a Asked<'_>, time: Duration) -> Result<Self, Refusal> {
        let label = asked.text("label").map(|label| {
            let why = || Refusal::bad(format!("label must be KEY=VALUE, not {label:?}"));
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
        let after = asked.parsed("after", "the number of a task")?;
        if after.is_some() && matches!(sort, Sort::Cpu) {
            return Err(Refusal::bad("after is for sort=id alone"));
        }
        Ok(Self {
            site: asked.text("site"),
            label: label.transpose()?,
            task: asked.parsed("task", "the number of a task")?,
            parent: asked.parsed("parent", "the number of a task")?,
            running: asked.flag("running", false)?,
            sort,
            limit: asked.number("limit", 100, &(1..=MOST_ROWS))?,
            after: after.unwrap_or(0),
        })
    }

    /// Only tasks that are listed get rows: there may be many more.
    fn find(&self, used: Option<&HashMap<TaskId, Usage>>) -> LiveTasks {
        let running = running();
        let (mut live, mut matching, mut all) = (0, 0, Vec::new());
        System::global().for_each_task(|task| {
            live += 1;
            if self.is_wanted(task, running.contains(&task.id())) {
                matching += 1;
                let is_on_page = task.id().get() > self.after;
                all.extend(is_on_page.then(|| (self.rank(task, used), Arc::clone(task))));
            }
        });
        all.sort_unstable_by_key(|(rank, _)| *rank);
        let more = matches!(self.sort, Sort::Id) && all.len() > self.limit;
        all.truncate(self.limit);
        let row =
            |(_, task): &(_, Arc<Task>)| LiveTask::of(task, running.contains(&task.id()), used);
        let tasks: Vec<_> = all.iter().map(row).collect();
        let next_after = tasks.last().filter(|_| more).map(|row| row.id);
        LiveTasks { live, matching, next_after, duration_ns: 0, lost: Lost::default(), tasks }
    }

    /// The place of a task in the list: the least comes first.
    fn rank(&self, task: &Task, used: Option<&HashMap<TaskId, Usage>>) -> (Reverse<u64>, u64) {
        let cpu_ns = match self.sort {
            Sort::Id => 0,
            Sort::Cpu => used.and_then(|used| used.get(&task.id())).map_or(0, |it| it.cpu_ns),
        };
        (Reverse(cpu_ns), task.id().get())
    }

    fn is_wanted(&self, task: &Task, is_running: bool) -> bool {
        let is = |wanted: Option<u64>, found: Option<TaskId>| {
            wanted.is_none_or(|wanted| found.map(TaskId::get) == Some(wanted))
        };
        let has =
            |(key, value): (&str, &str)| accounts::labels_of(task.tag()).get(key) == Some(value);
        is(self.task, Some(task.id()))
            && is(self.parent, task.parent())
            && (is_running || !self.running)
            && self.site.is_none_or(|site| is_at(&SpawnSite::of(task.site()), site))
            && self.label.is_none_or(has)
    }
}

impl LiveTask {
    fn of(task: &Task, running: bool, used: Option<&HashMap<TaskId, Usage>>) -> Self {
        let labels = accounts::labels_of(task.tag());
        let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Self {
            id: task.id().get(),
            parent: task.parent().map(TaskId::get),
            site: SpawnSite::of(task.site()),
            age_ns: Some(clock::monotonic_ns().saturating_sub(task.start_time_ns())),
            running,
            labels: labels.iter().map(own).collect(),
            // A task that was not polled meanwhile has used nothing. What was not counted is in `lost`.
            usage: used.map(|used| used.get(&task.id()).cloned().unwrap_or_default()),
        }
    }
}

/// The tasks that are being polled.
fn running() -> HashSet<TaskId> {
    let mut running = HashSet::new();
    System::global().for_each_cpu(|cpu| running.extend(cpu.current_id()));
    running
}
