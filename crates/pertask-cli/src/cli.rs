//! The command line and its help.

use std::{str::FromStr, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};
use pertask::{CounterEvent, UnknownEvent, sampler::SamplerOptions};

use crate::{
    agent::{PsOptions, StatOptions, TasksOptions, TopOptions, help},
    blocked::BlockedOption,
    duration,
    profile_file::ProfilePath,
    record::{self, RecordOptions},
    report::{self, ReportOptions},
};

const ABOUT: &str = "See which async task spends the CPU";

const LONG_ABOUT: &str = "\
See which async task spends the CPU.

The kernel accounts CPU time to threads, but an async service runs thousands of tasks on a few threads. \
pertask keeps an account for each task and switches accounts at every poll. \
It reports where the CPU time of the process went: by spawn site, by task and by thread.

`pertask record` samples a program that does nothing for it, and shows its tasks by type. The library of the same \
name measures exactly, inside the service. `pertask demo` shows the result on a real web service.";

const TOP_HELP: &str = "\
Examples:
  pertask record --pid 4711 -d 5s   which tasks of that program spend the CPU
  pertask top --pid 4711            the same now, on the terminal
  pertask ps                        programs that have an agent: exact figures, names, labels
  pertask stat --pid 4711 -I 1000   their tasks, each second
  pertask tasks --pid 4711          their live tasks
  pertask demo                      run a demo web service for five seconds, then report
  pertask doctor                    show what this machine offers for measuring
  pertask demo -o profile.pb.gz     run the demo, and record where in the code its tasks are busy
  pertask report profile.pb.gz      show that profile's tasks and functions
  pertask demo --help               what the demo does, and how to read the report
  pertask report --help             how to read a profile

In your own service:
  use pertask::TaskExt;                         // 1. wrap any future; any executor may run it
  handle(request).task(\"GET /users\").await;
  let session = pertask::Session::start()?;     // 2. measure every task of the process
  println!(\"{}\", session.stop());               // 3. print the report

Exit status:
  0  the report is complete
  1  something failed; stderr says what failed and what to do about it
  2  the command line was not understood";

const DEMO_ABOUT: &str =
    "Serve real HTTP requests for a while and report which tasks spent the CPU";

const DOCTOR_ABOUT: &str = "Show what this machine offers for measuring, and how to get more";

const DOCTOR_LONG_ABOUT: &str = "\
Show what this machine offers for measuring, and how to get more.

The command tries everything as the user who runs it: the clocks for a task's CPU time, the ways to sample, \
each of perf's events, and the limits that a session may meet. \
For what the kernel refuses, it shows the errno and the remedy.";

const DEMO_LONG_ABOUT: &str = "\
Serve real HTTP requests for a while and report which tasks spent the CPU.

The demo is an axum service on 127.0.0.1. HTTP clients in the same process call it over TCP. \
Its routes use a CPU in different ways:

  GET /hash      computes for a millisecond or more
  GET /render    builds and drops thousands of strings
  GET /wait      waits for a timer and uses almost no CPU
  GET /fanout    shares its work among four child tasks
  GET /blocking  blocks its thread inside async code, which is a mistake: see its longest poll";

const DEMO_HELP: &str = "\
Reading the report:
  The first lines divide the CPU time of the whole process: time in tasks; time of worker threads
  outside any task (the scheduler, I/O, and futures that pertask does not track, such as the
  connections of axum's server here); time of other threads.
  Each task name and spawn site has a row:
    CPU, CPU%  CPU time inside these tasks, without the tasks that they spawned or awaited
    WALL       wall time inside their polls; far more than CPU means that they block their thread
               or that the process has too few CPUs
    POLLS      the number of polls; CPU/POLL is the CPU time of an average poll
    MAX POLL   their longest poll; all other tasks of that thread waited as long
    STARTED    tasks that started while measuring; LIVE is how many were alive at the end
    INCL, OWN  CPU time with and without the tasks that they spawned (--tree)
    P50 to MAX waits between being woken and being polled (--wake-latency)
    LIFE       how long these tasks lived while measuring, all together (--life), and its parts:
               ON CPU and BLOCKED in their polls, READY from wake to poll, WAITING for what they
               await, INSIDE while a task ran that they polled themselves, NEW before the first
               poll, UNKNOWN where nothing tells whether they were ready or waiting
    WORKER, AT what a worker did in polls that blocked it, and the line of code (--blocked)
    ALLOCATED  bytes that these tasks allocated, in so many CALLS, of AVERAGE size; FREED and FREES
               are what they freed, whichever task had allocated it (--memory)
    TASK       the name given with .task(\"...\"), or - if there is none
    SITE       the line of code that made the task
  Live tasks are listed with their numbers, and threads with the share of their time IN TASKS; a
  worker is a thread that has run tasks.
  With --event, a list shows how often each event happened in these tasks. Events have perf's names:
    cycles, instructions, branches, branch-misses, cache-references, cache-misses, LLC-loads, ...
    page-faults, context-switches, cpu-migrations, task-clock, ...; raw codes such as r00c0;
    with :u or :k at the end, for user or kernel mode alone. IPC is instructions per cycle, MPKI is
    misses per thousand instructions, and ~ marks an estimate. The lines after the list say what
    counts each event here, or why nothing can; `pertask doctor` says more.
  With --output or --frequency, pertask samples where in the code each thread is, and each sample
    knows its task. The end of FILE's name decides the format of the profile:
    .pb.gz            pprof: `pertask report`, `go tool pprof`, Pyroscope, Parca
    .svg              a flamegraph for a browser, each task's functions below its name
    .folded           a line for each stack, for scripts
    .speedscope.json  speedscope.app, a profile for each task name
    .json             profiler.firefox.com, a track for each task name

Examples:
  pertask demo
  pertask demo --duration 30s --clients 8
  pertask demo --tree
  pertask demo --life                           on the CPU, blocked, ready or waiting
  pertask demo --blocked                        where do polls block their worker?
  pertask demo --memory
  pertask demo -e cycles,instructions,page-faults
  pertask demo --json | jq '.sites[] | {name, cpu_ns, max_poll_ns}'
  pertask demo -o profile.pb.gz -o profile.svg  sample too; then: pertask report profile.pb.gz
  pertask demo -o profile.pb.gz --unresolved    leave the names of functions to pertask report
  pertask demo --plain                          the same service without pertask, from outside
  pertask demo --serve                          serve, for pertask top and others to look at
  pertask demo --json > report.json
  pertask demo --port 8080                      call it yourself: curl http://127.0.0.1:8080/hash

Exit status:
  0  the report is complete, even if Ctrl-C or SIGTERM ended the run early
  1  something failed: the port is in use, measuring is refused, an output is not writable, or
     answers were wrong; stderr says what failed and what to do about it
  2  the command line was not understood
  130, 143  a second Ctrl-C or SIGTERM ended the command at once, without a report";

/// The parsed command line.
#[derive(Debug, Parser)]
#[command(name = "pertask", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = TOP_HELP)]
#[command(max_term_width = 100)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Parses the command line. If it makes no sense, ends the process with status 2.
    pub fn parse_or_exit() -> Self {
        let cli = Self::parse();
        let conflict = match &cli.command {
            Command::Report(options) => options.conflict(),
            Command::Record(options) => options.conflict(),
            Command::Demo(options) => options.conflict(),
            Command::Doctor(_)
            | Command::Ps(_)
            | Command::Stat(_)
            | Command::Tasks(_)
            | Command::Top(_) => None,
        };
        if let Some(conflict) = conflict {
            Self::command().error(ErrorKind::ArgumentConflict, conflict).exit();
        }
        cli
    }
}

/// The commands of `pertask`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the demo service.
    #[command(about = DEMO_ABOUT, long_about = DEMO_LONG_ABOUT, after_long_help = DEMO_HELP)]
    Demo(DemoOptions),
    /// Shows what this machine offers for measuring.
    #[command(about = DOCTOR_ABOUT, long_about = DOCTOR_LONG_ABOUT)]
    Doctor(DoctorOptions),
    /// Lists the processes that have an agent.
    #[command(about = help::PS, long_about = help::PS_LONG)]
    Ps(PsOptions),
    /// Records a program.
    #[command(about = record::ABOUT, long_about = record::LONG_ABOUT, after_long_help = record::HELP)]
    Record(Box<RecordOptions>),
    /// Reads a sampled profile.
    #[command(about = report::ABOUT, long_about = report::LONG_ABOUT, after_long_help = report::HELP)]
    Report(Box<ReportOptions>),
    /// Shows which tasks of a running program spend the CPU.
    #[command(about = help::STAT, long_about = help::STAT_LONG, after_long_help = help::STAT_HELP)]
    Stat(Box<StatOptions>),
    /// Shows on the terminal which tasks spend the CPU now.
    #[command(about = help::TOP, long_about = help::TOP_LONG, after_long_help = help::TOP_HELP)]
    Top(TopOptions),
    /// Lists the live tasks of a running program.
    #[command(about = help::TASKS, long_about = help::TASKS_LONG, after_long_help = help::TASKS_HELP)]
    Tasks(TasksOptions),
}

/// The options of `pertask doctor`.
#[derive(Debug, Args)]
pub struct DoctorOptions {
    /// Ask a running program's agent what the machine offers to it, and whether profilers outside find its tasks
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,

    /// Write the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// The options of `pertask demo`.
#[derive(Debug, Args)]
pub struct DemoOptions {
    /// How long to measure: 500ms, 5s, 2.5s, 1m; a plain number means seconds
    // Hyphens are allowed so that "-5s" reaches the parser, whose error names the accepted forms.
    #[arg(short, long, value_name = "TIME", default_value = "5s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub duration: Duration,

    /// Events of perf to count in addition to CPU time; may be repeated or separated by commas
    #[arg(
        short,
        long = "event",
        value_name = "EVENT",
        value_delimiter = ',',
        default_value = "cpu-time"
    )]
    pub events: Vec<Event>,

    /// Run the same service without pertask, in a process of its own, and record it as
    /// `pertask record` does
    #[arg(long, conflicts_with_all = ["tree", "wake_latency", "life", "memory", "blocked", "json", "events"])]
    pub plain: bool,

    /// Serve until Ctrl-C, with an agent, for `pertask top`, `stat`, `tasks` and `record` in another
    /// terminal
    #[arg(long, conflicts_with_all = ["plain", "tree", "wake_latency", "life", "memory", "blocked", "json", "events", "duration", "output", "frequency"])]
    pub serve: bool,

    /// The process that `--plain` records
    #[arg(long, hide = true)]
    pub serve_plain: bool,

    /// Show the tree of which task spawned which, with own and inclusive CPU time
    #[arg(long)]
    pub tree: bool,

    /// Measure how long tasks wait between being woken and being polled
    #[arg(long)]
    pub wake_latency: bool,

    /// Measure how long tasks are on the CPU, blocked, ready and waiting
    #[arg(long)]
    pub life: bool,

    #[command(flatten)]
    pub blocked: BlockedOption,

    /// Count the memory that tasks allocate and free
    #[arg(long)]
    pub memory: bool,

    /// The number of HTTP clients for each route
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub clients: u16,

    /// The port to serve on at 127.0.0.1; 0 means any free port
    #[arg(long, default_value_t = 0)]
    pub port: u16,

    /// Write the report as JSON
    #[arg(long)]
    pub json: bool,

    /// Sample too, and write the profile to FILE: .pb.gz, .svg, .folded, .speedscope.json or
    /// .json; may be repeated
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<ProfilePath>,

    /// Write the profile without names of functions, which costs this process less memory and time;
    /// `pertask report` finds them. For .pb.gz alone
    #[arg(long, requires = "output")]
    pub unresolved: bool,

    /// Sample where in the code each task is, HZ times in each second of CPU time
    /// [default: 199 with --output, else off]
    #[arg(short = 'F', long, value_name = "HZ", value_parser = clap::value_parser!(u32).range(1..=SamplerOptions::HIGHEST_HZ as i64))]
    pub frequency: Option<u32>,
}

impl DemoOptions {
    /// Returns how the options contradict each other, if they do.
    pub fn conflict(&self) -> Option<&'static str> {
        let has_other = self.output.iter().any(|file| !file.is_pprof());
        (self.unresolved && has_other)
            .then_some("--unresolved writes .pb.gz files alone: viewers need names")
    }
}

/// Something that is counted for each task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// CPU time in user mode and in the kernel, which is always counted.
    CpuTime,
    /// An event of perf.
    Counter(CounterEvent),
}

impl Event {
    /// Returns the name that selects the event.
    pub fn name(&self) -> &str {
        match self {
            Self::CpuTime => CPU_TIME,
            Self::Counter(event) => event.name(),
        }
    }
}

const CPU_TIME: &str = "cpu-time";

impl FromStr for Event {
    type Err = UnknownEvent;

    fn from_str(name: &str) -> Result<Self, UnknownEvent> {
        if name == CPU_TIME { Ok(Self::CpuTime) } else { name.parse().map(Self::Counter) }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_event_is_selected_by_its_name() {
        for name in CounterEvent::known().chain([CPU_TIME]) {
            assert_eq!(name.parse::<Event>().unwrap().name(), name);
        }
    }
}
