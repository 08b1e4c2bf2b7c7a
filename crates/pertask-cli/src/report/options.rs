//! The options of `pertask report`.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{Args, ValueEnum};
use pertask::profile::{Filter, GroupBy, Profile, ReadLimits, RootBy, State};

use super::{is_stdout, state::StateOption, symbols::SymbolOptions};

/// The options of `pertask report`.
#[derive(Debug, Args)]
pub struct ReportOptions {
    /// The profile, a pprof file or a perf.data; - means stdin (pprof only)
    pub file: PathBuf,

    /// Show what has changed since BEFORE, another profile, and what of that is noise
    #[arg(long, value_name = "BEFORE")]
    pub diff: Option<PathBuf>,

    /// The time that is shown: on-cpu, blocked, ready, waiting, or life, all of them
    /// [default: on-cpu]
    #[arg(long, value_enum, hide_possible_values = true, value_name = "STATE")]
    pub state: Option<StateOption>,

    /// The tables: site, task, function, place, waker, thread, scope, label:KEY; may be repeated or
    /// separated by commas [default: site,function; of waiting and ready time site,place]
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub by: Vec<By>,

    /// The most rows of each table; 0 means all [default: 20; with --json, all]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,

    /// Show whole types, with type arguments, instead of short names
    #[arg(long)]
    pub full_names: bool,

    /// Raise (or lower) a limit on what FILE may hold; may be repeated. NAME is one of bytes,
    /// part_bytes, samples, strings, string_bytes, locations, depth, frames, labels
    #[arg(long, value_name = "NAME=NUMBER")]
    pub limit: Vec<Limit>,

    /// Only the tasks with this name, or the task with this number
    #[arg(long, value_name = "NAME_OR_ID", help_heading = "Filters")]
    pub task: Option<String>,

    /// Only tasks spawned there; the end of the path is enough
    #[arg(long, value_name = "FILE[:LINE]", help_heading = "Filters")]
    pub site: Option<String>,

    /// Only the threads with this name, or the thread with this number
    #[arg(long, value_name = "NAME_OR_TID", help_heading = "Filters")]
    pub thread: Option<String>,

    /// Only samples with this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Filters")]
    pub label: Vec<Label>,

    /// Only stacks with a function whose name contains TEXT; may be repeated
    #[arg(long, value_name = "TEXT", help_heading = "Filters")]
    pub function: Vec<String>,

    /// Where to find names.
    #[command(flatten)]
    pub symbols: SymbolOptions,

    /// Draw a flamegraph
    #[arg(long, value_name = "FILE.svg", help_heading = "Output")]
    pub flamegraph: Option<PathBuf>,

    /// Write folded stacks, weighted by nanoseconds; - means stdout, instead of the tables
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub folded: Option<PathBuf>,

    /// Write for profiler.firefox.com, a track for each task name
    #[arg(long, value_name = "FILE.json", help_heading = "Output")]
    pub firefox: Option<PathBuf>,

    /// Write for speedscope.app, a profile for each task name
    #[arg(long, value_name = "FILE.json", help_heading = "Output")]
    pub speedscope: Option<PathBuf>,

    /// The root of the stacks in --flamegraph, --folded and --speedscope
    #[arg(long, value_enum, default_value_t = Root::Task, help_heading = "Output")]
    pub root: Root,

    /// Write the tables as JSON
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    /// Write the tables to FILE, as JSON if its name ends in .json; - means stdout. A name that ends
    /// in .svg, .folded or .speedscope.json gets the flamegraph, the stacks or speedscope's file
    #[arg(short, long, value_name = "FILE", value_parser = output_path, help_heading = "Output")]
    pub output: Option<PathBuf>,
}

/// What is written to a file that `--output` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The tables.
    Tables,
    /// The flamegraph.
    Flamegraph,
    /// Folded stacks.
    Folded,
    /// speedscope's file.
    Speedscope,
}

impl Written {
    /// Returns what the end of a file's name promises.
    fn of(path: &Path) -> Self {
        let path = path.to_string_lossy().to_ascii_lowercase();
        let of_ending = [
            (".svg", Self::Flamegraph),
            (".folded", Self::Folded),
            (".speedscope.json", Self::Speedscope),
        ];
        let found = of_ending.into_iter().find(|(ending, _)| path.ends_with(ending));
        found.map_or(Self::Tables, |(_, written)| written)
    }
}

impl ReportOptions {
    /// Returns how the options contradict each other, if they do.
    pub fn conflict(&self) -> Option<&'static str> {
        let to_stdout = |path: &Option<PathBuf>| path.as_deref().is_some_and(is_stdout);
        if to_stdout(&self.diff) && is_stdout(&self.file) {
            return Some("stdin has room for one profile: give FILE or --diff a file");
        }
        if to_stdout(&self.folded)
            && (to_stdout(&self.output) || self.json && self.output.is_none())
        {
            return Some("stdout has room for one of them: give --folded or --output a file");
        }
        let pictures = [&self.flamegraph, &self.firefox, &self.speedscope];
        if pictures.into_iter().any(to_stdout) {
            return Some(
                "--flamegraph, --firefox and --speedscope need a file: stdout is for the tables",
            );
        }
        if self.diff.is_some() && self.state == Some(StateOption::Life) {
            return Some("--diff compares one state: on-cpu, blocked, ready or waiting");
        }
        None
    }

    /// Returns the tables, each once, or `None` if the options do not say.
    pub fn groups(&self) -> Option<Vec<GroupBy>> {
        (!self.by.is_empty()).then(|| each_once(&self.by))
    }

    /// Returns the file of `--output` if that gets this.
    pub fn output_of(&self, written: Written) -> Option<&Path> {
        self.output.as_deref().filter(|path| Written::of(path) == written)
    }

    /// Returns the limits on what is read.
    pub fn limits(&self) -> ReadLimits {
        let mut limits = ReadLimits::default();
        for Limit { name, number } in &self.limit {
            if let Some(limit) = limits.by_name(name) {
                *limit = *number;
            }
        }
        limits
    }

    /// Returns the filter.
    pub fn filter(&self) -> Filter {
        Filter {
            task: self.task.clone(),
            site: self.site.clone(),
            thread: self.thread.clone(),
            labels: self.label.iter().map(|it| (it.key.clone(), it.value.clone())).collect(),
            functions: self.function.clone(),
        }
    }

    /// Returns the most rows of each table, which is `default` if the options do not say.
    pub fn most_rows(&self, default: usize) -> usize {
        match self.top {
            Some(0) => usize::MAX,
            top => top.unwrap_or(default),
        }
    }

    /// Returns whether the tables are written as JSON.
    pub fn is_json(&self) -> bool {
        let extension = self.output_of(Written::Tables).and_then(Path::extension);
        self.json || extension.is_some_and(|it| it.eq_ignore_ascii_case("json"))
    }
}

/// Returns the tables, each once. The default is sites and functions, or functions alone if the profile has no tasks. Of time off the
/// CPU it is sites, and the places of what has a stack.
pub fn group_by(wanted: &[By], profile: &Profile) -> Vec<GroupBy> {
    let all = each_once(wanted);
    if !all.is_empty() {
        return all;
    }
    let has_tasks = profile.samples.iter().any(|sample| sample.task.is_some());
    let site = has_tasks.then_some(GroupBy::Site);
    let code = match profile.state {
        State::Waiting | State::Ready => Some(GroupBy::Place),
        State::Blocked => None,
        _ => Some(GroupBy::Function),
    };
    site.into_iter().chain(code).collect()
}

fn each_once(wanted: &[By]) -> Vec<GroupBy> {
    let mut all: Vec<GroupBy> = Vec::new();
    for By(by) in wanted {
        if !all.contains(by) {
            all.push(by.clone());
        }
    }
    all
}

/// The subjects of a table's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By(GroupBy);

impl FromStr for By {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match text {
            "site" => GroupBy::Site,
            "task" => GroupBy::Task,
            "function" => GroupBy::Function,
            "place" => GroupBy::Place,
            "waker" => GroupBy::Waker,
            "thread" => GroupBy::Thread,
            "scope" => GroupBy::Scope,
            _ => match text.strip_prefix("label:") {
                Some(key) if !key.is_empty() => GroupBy::Label(key.into()),
                _ => {
                    return Err(
                        "one of site, task, function, place, waker, thread, scope, label:KEY",
                    );
                }
            },
        }))
    }
}

/// A label that samples must have.
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

/// A limit on what is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    name: String,
    number: u64,
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = text.split_once('=').filter(|(name, _)| ReadLimits::NAMES.contains(name));
        let limit = named.and_then(|(name, number)| Some((name.to_owned(), number.parse().ok()?)));
        limit.map(|(name, number)| Self { name, number }).ok_or_else(|| {
            format!("NAME=NUMBER is needed, with a NAME of {}", ReadLimits::NAMES.join(", "))
        })
    }
}

/// The root of stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Root {
    /// The task's name, or its spawn site if it has no name
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

/// Returns the file for what is written, or an error if its name promises a profile.
fn output_path(path: &str) -> Result<PathBuf, &'static str> {
    let lower = path.to_ascii_lowercase();
    match [".pb.gz", ".pb"].iter().any(|ending| lower.ends_with(ending)) {
        true => Err("--output writes the tables, and must not overwrite a profile"),
        false => Ok(path.into()),
    }
}
