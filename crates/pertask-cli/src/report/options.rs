//! What can be typed behind `pertask report`, and the help that teaches to read what it prints.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};
use pertask::profile::{Filter, GroupBy, Profile, RootBy};

use super::is_stdout;

/// One line about the command.
pub const ABOUT: &str = "Read a sampled profile: which tasks and functions spent the CPU";

/// What `--help` says first.
pub const LONG_ABOUT: &str = "\
Read a sampled profile: which tasks and functions spent the CPU.

FILE is pprof, gzip'd or not, as `pertask demo -o profile.pb.gz` writes it. Profiles of other \
programs, such as Go's, are read too; they name no tasks, but functions, threads and labels.";

/// What `--help` says last.
pub const HELP: &str = "\
Reading the tables:
  First: how much CPU time the samples stand for, when and how they were taken,
  how many stacks go all the way to their root, and what was lost. With a filter,
  how much of it matched. Percentages are of the CPU time in the table's title.
    SELF     CPU time in the function itself
    TOTAL    CPU time in it and all that it called; recursion is counted once
    CPU      of a task, a site, a thread, a label's value; each sample is in one row
    SAMPLES  how many samples SELF or CPU stands on. Chance alone changes n samples
             by about the square root of n: 4 are a hint, 400 good to a twentieth.
             Where times are by the clock, as said above, a site's CPU is measured;
             what no sample has met of it is in the function (no sample)
    TASK     the task's name, or - where its spawn site alone names it
    SITE     the line of code that made it a task
    FILE     of a function, where names alone do not tell which it is
  SELF and CPU add up to the whole: what is in no task, no scope, or without the
  label has a row of its own, such as (outside tasks).

Groups (--by, several by commas):
  site         spawn sites, and the tasks' names there
  task         tasks one by one, with their number and their parent's
  function     functions, by name and source file
  thread       threads
  scope        scopes opened with scope!(\"...\"), SELF being the innermost
  label:KEY    the values of the label KEY

Filters (a sample must meet all of them):
  --task 'GET /hash'  --task 4711  --task '(outside tasks)'  --site routes.rs:73
  --thread worker  --label tenant=acme  --function render

Examples:
  pertask report profile.pb.gz
  pertask report profile.pb.gz --by task,thread --top 5
  pertask report profile.pb.gz --task 'GET /hash' --by function
  pertask report profile.pb.gz --task 'GET /hash' --flamegraph hash.svg
  pertask report profile.pb.gz --folded - --root site | grep render
  pertask report profile.pb.gz --json | jq '.tables[].rows[] | {name, self_cpu_ns}'
  curl -s localhost:6060/debug/pprof/profile | pertask report -

Exit status:
  0  the report is complete
  1  something failed: FILE is no profile, nothing matched the filters, an output
     is not writable; stderr says what, and what to do about it
  2  the command line was not understood";

/// The options of `pertask report`.
#[derive(Debug, Args)]
pub struct ReportOptions {
    /// The profile: pprof, gzip'd or not; - means stdin
    pub file: PathBuf,

    /// Tables: site, task, function, thread, scope, label:KEY; may be repeated or separated by
    /// commas [default: site,function]
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub by: Vec<By>,

    /// Rows of each table, 0 for all [default: 20; with --json, all]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,

    /// Only the tasks of this name, or the one of this number
    #[arg(long, value_name = "NAME_OR_ID", help_heading = "Filters")]
    pub task: Option<String>,

    /// Only tasks spawned there; the end of the path will do
    #[arg(long, value_name = "FILE[:LINE]", help_heading = "Filters")]
    pub site: Option<String>,

    /// Only this thread, by name or number
    #[arg(long, value_name = "NAME_OR_TID", help_heading = "Filters")]
    pub thread: Option<String>,

    /// Only samples with this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Filters")]
    pub label: Vec<Label>,

    /// Only stacks with a function that has TEXT in its name; may be repeated
    #[arg(long, value_name = "TEXT", help_heading = "Filters")]
    pub function: Vec<String>,

    /// Draw a flamegraph
    #[arg(long, value_name = "FILE.svg", help_heading = "Output")]
    pub flamegraph: Option<PathBuf>,

    /// Write folded stacks, weighed in nanoseconds; - means stdout, in place of the tables
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub folded: Option<PathBuf>,

    /// Write for profiler.firefox.com, a track for each task name
    #[arg(long, value_name = "FILE.json", help_heading = "Output")]
    pub firefox: Option<PathBuf>,

    /// Write for speedscope.app, a profile for each task name
    #[arg(long, value_name = "FILE.json", help_heading = "Output")]
    pub speedscope: Option<PathBuf>,

    /// What the stacks of --flamegraph, --folded and --speedscope grow from
    #[arg(long, value_enum, default_value_t = Root::Task, help_heading = "Output")]
    pub root: Root,

    /// Write the tables as JSON
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    /// Write the tables to FILE (as JSON where its name ends in .json); - means stdout
    #[arg(short, long, value_name = "FILE", value_parser = tables_path, help_heading = "Output")]
    pub output: Option<PathBuf>,
}

impl ReportOptions {
    /// How the options contradict each other, if they do.
    pub fn conflict(&self) -> Option<&'static str> {
        let to_stdout = |path: &Option<PathBuf>| path.as_deref().is_some_and(is_stdout);
        if to_stdout(&self.folded)
            && (to_stdout(&self.output) || self.json && self.output.is_none())
        {
            return Some("stdout has room for one: give --folded or --output a file");
        }
        let pictures = [&self.flamegraph, &self.firefox, &self.speedscope];
        if pictures.into_iter().any(to_stdout) {
            return Some(
                "--flamegraph, --firefox and --speedscope need a file: stdout is for the tables",
            );
        }
        None
    }

    /// The filter that was typed.
    pub fn filter(&self) -> Filter {
        Filter {
            task: self.task.clone(),
            site: self.site.clone(),
            thread: self.thread.clone(),
            labels: self.label.iter().map(|it| (it.key.clone(), it.value.clone())).collect(),
            functions: self.function.clone(),
        }
    }

    /// The tables, each once. By default sites and functions; functions alone where there are no tasks.
    pub fn group_by(&self, profile: &Profile) -> Vec<GroupBy> {
        let mut all: Vec<GroupBy> = Vec::new();
        for By(by) in &self.by {
            if !all.contains(by) {
                all.push(by.clone());
            }
        }
        if all.is_empty() {
            let has_tasks = profile.samples.iter().any(|sample| sample.task.is_some());
            all.extend(has_tasks.then_some(GroupBy::Site));
            all.push(GroupBy::Function);
        }
        all
    }

    /// Rows of each table: what was typed, or so many, or all.
    pub fn most_rows(&self, default: usize) -> usize {
        match self.top {
            Some(0) => usize::MAX,
            top => top.unwrap_or(default),
        }
    }

    /// Whether the tables are wanted as JSON.
    pub fn is_json(&self) -> bool {
        let extension = self.output.as_deref().and_then(|path| path.extension());
        self.json || extension.is_some_and(|it| it.eq_ignore_ascii_case("json"))
    }
}

/// What a table's rows are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By(GroupBy);

impl FromStr for By {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match text {
            "site" => GroupBy::Site,
            "task" => GroupBy::Task,
            "function" => GroupBy::Function,
            "thread" => GroupBy::Thread,
            "scope" => GroupBy::Scope,
            _ => match text.strip_prefix("label:") {
                Some(key) if !key.is_empty() => GroupBy::Label(key.into()),
                _ => return Err("one of site, task, function, thread, scope, label:KEY"),
            },
        }))
    }
}

/// A label that a sample must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    key: String,
    value: String,
}

impl FromStr for Label {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err("a key and a value are needed, as in tenant=acme"),
        }
    }
}

/// What stacks grow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Root {
    /// The task's name, or its spawn site where it has none
    Task,
    /// The task's spawn site
    Site,
    /// The thread
    Thread,
}

impl From<Root> for RootBy {
    fn from(root: Root) -> Self {
        match root {
            Root::Task => Self::TaskName,
            Root::Site => Self::Site,
            Root::Thread => Self::Thread,
        }
    }
}

/// A file for tables: not one whose name promises something else.
fn tables_path(path: &str) -> Result<PathBuf, &'static str> {
    let lower = path.to_ascii_lowercase();
    let promises = |ending: &&str| lower.ends_with(ending);
    match [".svg", ".folded", ".speedscope.json", ".pb.gz", ".pb"]
        .iter()
        .find(|ending| promises(ending))
    {
        Some(&".svg") => {
            Err("--output writes the tables; a picture is drawn by --flamegraph FILE.svg")
        }
        Some(&".folded") => Err("--output writes the tables; stacks are written by --folded FILE"),
        Some(&".speedscope.json") => {
            Err("--output writes the tables; --speedscope FILE writes for speedscope")
        }
        Some(_) => Err("--output writes the tables; no profile is overwritten with them"),
        None => Ok(path.into()),
    }
}
