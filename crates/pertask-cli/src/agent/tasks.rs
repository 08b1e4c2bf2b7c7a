//! `pertask tasks`: the live tasks of a process.

use std::time::Duration;

use clap::Args;
use pertask::agent::{LiveTask, LiveTasks};
use pertask_text::{
    grid::{Cell, Column, Grid},
    human,
    ink::{Ink, Tint},
};

use super::{Agent, Question};
use crate::{
    duration,
    error::Error,
    lost,
    output::{harmless_json, print, stdout_style},
};

/// The first line of the help.
pub const ABOUT: &str = "List the live tasks of a running program";

/// The help.
pub const LONG_ABOUT: &str = "\
List the live tasks of a running program that has an agent.

With --duration, what each task uses is measured for that time, and those that use most CPU time come first. Without it nothing is measured, and the \
list comes at once, by number.";

/// The end of the help.
pub const HELP: &str = "\
Examples:
  pertask tasks --pid 4711
  pertask tasks --pid 4711 -d 2s               those that use most CPU time first
  pertask tasks --pid 4711 --site src/main.rs:42 --limit 1000
  pertask tasks --pid 4711 --label tenant=acme
  pertask tasks --pid 4711 --parent 17         what task 17 has spawned
  pertask tasks --pid 4711 --json | jq '.tasks[] | {id, name, labels}'";

/// The options of `pertask tasks`.
#[derive(Debug, Args)]
pub struct TasksOptions {
    /// The process [default: the only one that has an agent]
    #[arg(short, long, value_name = "PID")]
    pub pid: Option<u32>,

    /// Measure for this long what they use: 500ms, 5s, 1m; a plain number means seconds
    #[arg(short, long, value_name = "TIME", value_parser = duration::parse)]
    pub duration: Option<Duration>,

    /// Only those with this name, or spawned at this place (FILE:LINE)
    #[arg(long, value_name = "NAME|FILE:LINE")]
    pub site: Option<String>,

    /// Only those with this label
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Option<String>,

    /// Only the task with this number
    #[arg(long, value_name = "NUMBER")]
    pub task: Option<u64>,

    /// Only those that this task has spawned
    #[arg(long, value_name = "NUMBER")]
    pub parent: Option<u64>,

    /// Only those that are being polled
    #[arg(long)]
    pub running: bool,

    /// The most tasks to list
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,

    /// Only those with a greater number: the next page of a list by number
    #[arg(long, value_name = "NUMBER", conflicts_with = "duration")]
    pub after: Option<u64>,

    /// Write the list as JSON
    #[arg(long)]
    pub json: bool,
}

/// Lists the tasks.
///
/// # Errors
///
/// Returns [`Error::Agent`] if the process has no agent or refuses, and [`Error::Write`] if stdout does not take the list.
pub fn run(options: &TasksOptions) -> Result<(), Error> {
    let agent = Agent::of(Agent::named_or_only(options.pid)?)?;
    let (question, takes) = (options.question(), options.duration.unwrap_or_default());
    if options.json {
        let json = agent.bytes(&question, takes)?;
        return print(&harmless_json(&String::from_utf8_lossy(&json)));
    }
    print(&text(&agent.json(&question, takes)?))
}

impl TasksOptions {
    fn question(&self) -> Question {
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let seconds = self.duration.map(|time| time.as_secs_f64().to_string());
        Question::new("/v1/tasks")
            .with_some("seconds", seconds.as_deref())
            .with_some("sort", seconds.is_some().then_some("cpu"))
            .with_some("site", self.site.as_deref())
            .with_some("label", self.label.as_deref())
            .with_some("task", number(self.task).as_deref())
            .with_some("parent", number(self.parent).as_deref())
            .with_some("after", number(self.after).as_deref())
            .with_flag("running", self.running)
            .with("limit", &self.limit.to_string())
    }
}

fn text(tasks: &LiveTasks) -> String {
    let style = stdout_style();
    let columns = columns(tasks.duration_ns > 0);
    let rows = tasks.tasks.iter().map(|task| cells(task, tasks.duration_ns)).collect();
    let lines =
        Grid::new(&columns, rows).lines(style.width.map(usize::from), Ink { color: style.color });
    let mut text = format!("{}\n", head(tasks));
    if !tasks.tasks.is_empty() {
        text += &(lines.join("\n") + "\n");
    }
    if let Some(lost) = lost::in_few_words(&tasks.lost) {
        text += &(lost + "\n");
    }
    if let Some(after) = tasks.next_after {
        text += &format!("… and more: --after {after}, or a greater --limit\n");
    }
    text
}

fn head(tasks: &LiveTasks) -> String {
    let alive = human::counted(tasks.live, "live task");
    let those = match tasks.matching == tasks.live {
        true => alive,
        false => format!("{} of {alive}", human::count(tasks.matching)),
    };
    match tasks.duration_ns {
        0 => those,
        time => format!("{those}; CPU% is of one CPU, over {}", human::duration_ns(time)),
    }
}

fn columns(measured: bool) -> Vec<Column<'static>> {
    let number = |title, rank| Column::Number { title, rank };
    let used = [
        number("CPU%", None),
        number("CPU", Some(3)),
        number("POLLS", Some(2)),
        number("MAX POLL", Some(1)),
    ];
    let subject = [
        number("ID", None),
        number("PARENT", Some(0)),
        number("AGE", Some(4)),
        Column::Text { title: "STATE", least: 7, most: 7 },
        Column::Text { title: "TASK", least: 14, most: 40 },
        Column::Text { title: "SITE", least: 20, most: 56 },
        Column::Text { title: "LABELS", least: 6, most: 60 },
    ];
    used.into_iter().filter(|_| measured).chain(subject).collect()
}

fn cells(task: &LiveTask, duration_ns: u64) -> Vec<Cell> {
    let used = task.usage.iter().flat_map(|usage| {
        [
            Cell::new(&human::percent(usage.cpu_ns, duration_ns)),
            Cell::new(&human::duration_ns(usage.cpu_ns)),
            Cell::new(&human::count(usage.polls)),
            Cell::new(&human::duration_ns(usage.max_poll_ns)),
        ]
    });
    let labels: Vec<_> = task.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let parent = task.parent.map_or_else(|| human::NONE.to_owned(), |parent| parent.to_string());
    let subject = [
        Cell::new(&task.id.to_string()),
        Cell::new(&parent),
        Cell::new(&task.age_ns.map_or_else(|| human::NONE.to_owned(), human::duration_ns)),
        Cell::new(if task.running { "running" } else { "-" }),
        Cell::new(task.site.name.as_deref().unwrap_or(human::NONE)),
        Cell::path(&format!("{}:{}", task.site.file, task.site.line)).tint(Tint::Secondary),
        Cell::new(&labels.join(" ")),
    ];
    used.chain(subject).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_counted_is_said() {
        let lost = pertask::Lost { tasks_without_data: 2, ..Default::default() };
        let tasks = serde_json::json!({
            "live": 3, "matching": 3, "next_after": null, "duration_ns": 1_000_000_000, "lost": lost, "tasks": [],
        });
        let text = text(&serde_json::from_value(tasks).expect("an answer"));
        assert!(text.ends_with("\nlost: 2 tasks without data\n"), "{text}");
    }
}
