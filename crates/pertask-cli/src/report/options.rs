//! The options of `pertask report`, and its help.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};
use pertask::profile::{Filter, GroupBy, Profile, ReadLimits, RootBy};

use super::{is_stdout, symbols::SymbolOptions};

/// The first line of the help.
pub const ABOUT: &str = "Read a sampled profile: which tasks and functions spent the CPU";

/// The first paragraphs of the help.
pub const LONG_ABOUT: &str = "\
Read a sampled profile: which tasks and functions spent the CPU.

FILE is a pprof file, gzip'd or not, as `pertask record -o profile.pb.gz` writes it, or a perf.data of `perf record`, whose tasks \
are listed by type. The command also reads profiles of other programs, such as Go's. Those have functions, threads and labels, but \
no tasks: what other programs call a task or a site is a label of theirs, for --by label:KEY and --label KEY=VALUE.

Untrusted pprof files are safe to read. Names that are too long and stacks that are too deep are cut, and counted as lost; a file \
with too much of anything else is refused, and says which --limit to raise. FILE chooses which paths are opened to look for \
symbols; with --no-symbols none are.";

/// The last paragraphs of the help.
pub const HELP: &str = "\
Reading the tables:
  The first lines say how much CPU time the samples stand for, when and how they were
  taken, how many stacks reach their root, and what was lost. With a filter, they also
  say how much of the profile matched. Percentages are of the CPU time in a table's title.
    SELF     CPU time in the function itself
    TOTAL    CPU time in the function and all that it called; recursion is counted once
    CPU      CPU time of a task, a site, a thread or a label's value; each sample is in
             one row, that of its first value if a label has several
    SAMPLES  the number of samples behind SELF or CPU. Chance changes n samples by about
             the square root of n: 4 are a hint, 400 are accurate to a twentieth.
             It is - if the file does not say how many there were.
             If the first lines say that times are by the clock, a site's CPU is
             measured, and the function (no sample) has the part without samples
    TASK     the task's name, or - if it has none. ~ marks the type of tasks without a name,
             read from their stacks; their CPU is estimated from samples
    SITE     the line of code that made the task; for ~, the line where its code begins
    FILE     the function's source file, shown where names alone are ambiguous
  SELF and CPU add up to the whole. Samples in no task, in no scope or without the label
  have a row of their own, such as (outside tasks) or (tokio scheduler). Functions that only
  called others have rows with --top 0.

Two profiles (--diff BEFORE, and files of `go tool pprof -diff_base`):
    BEFORE, AFTER    CPU time per second of recording
    CHANGE           how much more that is than before; new or gone if it is in one alone
    BEFORE%, AFTER%  the share of all CPU time, or of what the filters selected
    POINTS           by how many percentage points the share has grown
    ~                marks a change that chance in sampling explains; rows with no other
                     change are counted, and listed with --top 0
  CHANGE is right if both had the same load, POINTS if not. Filters apply to both profiles.
  Functions and scopes have a table of their own time, and one of all that they called.
  Pictures and stacks show growth alone. How noise is judged: docs/SAMPLING.md.

Groups (--by, separated by commas):
  site         spawn sites, with the names of their tasks
  task         individual tasks, with their number and their parent's; in a recording of another
               program the number is tokio's ID, where it is known
  function     functions, by name and source file
  thread       threads
  scope        scopes opened with scope!(\"...\"); SELF is its time as the innermost
  label:KEY    the values of the label KEY

Symbols:
  A profile that was written without names (`pertask demo --unresolved`, or
  RawProfile::write_pprof_unresolved) has addresses and build ids. The names come from the
  files that were mapped, which must be here or in --symbols DIR. A file with another build
  id is not believed. Remarks below the first lines say what was not found.
  FILE chooses which paths are opened: regular files only, by absolute paths outside /dev,
  /proc and /sys. With --no-symbols, none are.

Filters (a sample must meet all of them):
  --task 'GET /hash'  --task 4711  --task '(outside tasks)'  --site routes.rs:73
  --task axum::serve::handle_connection  --task '(tokio scheduler)'
  --thread worker  --label tenant=acme  --function render

Examples:
  pertask report profile.pb.gz
  pertask report profile.pb.gz --by task,thread --top 5
  pertask report profile.pb.gz --task 'GET /hash' --by function
  pertask report profile.pb.gz --task 'GET /hash' --flamegraph hash.svg
  pertask report profile.pb.gz --folded - --root site | grep render
  pertask report huge.pb.gz --limit bytes=1000000000 --limit samples=10000000
  pertask report profile.pb.gz --json | jq '.tables[].rows[] | {name, self_cpu_ns}'
  pertask report profile.pb.gz --symbols target/release
  pertask report --diff before.pb.gz after.pb.gz --by site,function
  curl -s localhost:6060/debug/pprof/profile | pertask report -
  perf record -F 999 --call-graph dwarf,16384 -p 4711 -- sleep 5; pertask report perf.data

Exit status:
  0  the report is complete
  1  something failed: FILE is not a profile, nothing matched the filters, or an output
     is not writable; stderr says what failed and what to do about it
  2  the command line was not understood";

/// The options of `pertask report`.
#[derive(Debug, Args)]
pub struct ReportOptions {
    /// The profile, a pprof file or a perf.data; - means stdin (pprof only)
    pub file: PathBuf,

    /// Show what has changed since BEFORE, another profile, and what of that is noise
    #[arg(long, value_name = "BEFORE")]
    pub diff: Option<PathBuf>,

    /// The tables: site, task, function, thread, scope, label:KEY; may be repeated or separated
    /// by commas [default: site,function]
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

    /// Write the tables to FILE, as JSON if its name ends in .json; - means stdout
    #[arg(short, long, value_name = "FILE", value_parser = tables_path, help_heading = "Output")]
    pub output: Option<PathBuf>,
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
        None
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
        let extension = self.output.as_deref().and_then(|path| path.extension());
        self.json || extension.is_some_and(|it| it.eq_ignore_ascii_case("json"))
    }
}

/// Returns the tables, each once. The default is sites and functions, or functions alone if the profile has no tasks.
pub fn group_by(wanted: &[By], profile: &Profile) -> Vec<GroupBy> {
    let mut all: Vec<GroupBy> = Vec::new();
    for By(by) in wanted {
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
            "thread" => GroupBy::Thread,
            "scope" => GroupBy::Scope,
            _ => match text.strip_prefix("label:") {
                Some(key) if !key.is_empty() => GroupBy::Label(key.into()),
                _ => return Err("one of site, task, function, thread, scope, label:KEY"),
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

/// Returns the file for tables, or an error if its name promises another format.
fn tables_path(path: &str) -> Result<PathBuf, &'static str> {
    let lower = path.to_ascii_lowercase();
    let promises = |ending: &&str| lower.ends_with(ending);
    match [".svg", ".folded", ".speedscope.json", ".pb.gz", ".pb"]
        .iter()
        .find(|ending| promises(ending))
    {
        Some(&".svg") => Err("--output writes the tables; --flamegraph FILE.svg draws a picture"),
        Some(&".folded") => Err("--output writes the tables; --folded FILE writes stacks"),
        Some(&".speedscope.json") => {
            Err("--output writes the tables; --speedscope FILE writes for speedscope")
        }
        Some(_) => Err("--output writes the tables, and must not overwrite a profile"),
        None => Ok(path.into()),
    }
}
