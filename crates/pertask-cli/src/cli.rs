//! The command line: what can be typed, and the help that teaches it.

use std::{str::FromStr, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};
use pertask::{CounterEvent, UnknownEvent, sampler::SamplerOptions};

use crate::{
    duration,
    profile_file::ProfilePath,
    report::{self, ReportOptions},
};

const ABOUT: &str = "See which async task spends the CPU";

const LONG_ABOUT: &str = "\
See which async task spends the CPU.

The kernel accounts CPU time to threads, but an async service runs thousands of tasks on a few of them. \
pertask keeps one account per task, switched at every poll, and reports where the CPU time of the process went: \
by spawn site, by task and by thread.

The measuring is done by the library of the same name, inside the service. \
`pertask demo` shows the result on a real web service.";

const TOP_HELP: &str = "\
Examples:
  pertask demo                      five seconds of a demo web service, then its report
  pertask doctor                    what this machine offers to measure with
  pertask demo -o profile.pb.gz     the same, and a profile of where in the code its tasks are busy
  pertask report profile.pb.gz      that profile's tasks and functions; --flamegraph draws it
  pertask demo --help               what the demo does, and how to read the report
  pertask report --help             how to read a profile

In your own service:
  use pertask::TaskExt;                         // 1. wrap any future; any executor may run it
  handle(request).task(\"GET /users\").await;
  let session = pertask::Session::start()?;     // 2. measure every task of the process
  println!(\"{}\", session.stop());               // 3. print the report

Exit status:
  0  the report is complete
  1  something failed; stderr says what, and what to do about it
  2  the command line was not understood";

const DEMO_ABOUT: &str =
    "Serve real HTTP requests for a while and report which tasks spent the CPU";

const DOCTOR_ABOUT: &str = "Say what this machine offers to measure with, and how to get more";

const DOCTOR_LONG_ABOUT: &str = "\
Say what this machine offers to measure with, and how to get more.

Everything is tried, as the user who asks: the clocks that tell a task's CPU time, the ways to sample, \
each of perf's events, and the limits that a session may meet. What is refused is shown with the kernel's errno and the remedy.";

const DEMO_LONG_ABOUT: &str = "\
Serve real HTTP requests for a while and report which tasks spent the CPU.

The demo is an axum service on 127.0.0.1 and, in the same process, HTTP clients that call it over TCP. \
Its routes differ in how they use a CPU:

  GET /hash      computes for a millisecond or more
  GET /render    builds and drops thousands of strings
  GET /wait      waits for a timer, nearly without CPU
  GET /fanout    shares its work among four child tasks
  GET /blocking  blocks its thread inside async code, which is a mistake: look at its longest poll";

const DEMO_HELP: &str = "\
Reading the report:
  The first lines divide the CPU time of the whole process: in tasks; in worker threads outside
  any task (the scheduler, I/O, and futures that are no tasks to pertask, such as the connections
  of axum's server here); in other threads.
  Then one row for each task name and spawn site:
    CPU, CPU%  CPU time inside these tasks, without that of tasks they spawned or awaited
    WALL       time inside their polls: far above CPU, they block their thread or CPUs are short
    POLLS      how often they were polled, and CPU/POLL at what price
    MAX POLL   their longest poll: all other tasks of that thread waited as long
    STARTED    tasks born while measuring; LIVE, alive at the end
    TASK       the name given with .task(\"...\"), or - where the spawn site alone names the task
    SITE       the line of code that made it a task
  With --event, a list of how often each event happened in these tasks, by perf's names:
    cycles, instructions, branches, branch-misses, cache-references, cache-misses, LLC-loads, ...
    page-faults, context-switches, cpu-migrations, task-clock, ...; raw codes such as r00c0;
    :u or :k behind a name for user or kernel mode alone. IPC is instructions per cycle, MPKI
    misses per thousand instructions, ~ an estimate. Below stands what counts each event here, or
    why nothing can; `pertask doctor` tells more.
  With --output or --frequency, threads are sampled where they are in the code, and each sample
    knows its task. FILE's ending says for whom the profile is:
    .pb.gz            pprof: `pertask report`, `go tool pprof`, Pyroscope, Parca
    .svg              a flamegraph for a browser, each task's functions below its name
    .folded           one line for each stack, for scripts
    .speedscope.json  speedscope.app, a profile for each task name
    .json             profiler.firefox.com, a track for each task name

Examples:
  pertask demo
  pertask demo --duration 30s --clients 8
  pertask demo --tree
  pertask demo -e cycles,instructions,page-faults
  pertask demo --json | jq '.sites[] | {name, cpu_ns, max_poll_ns}'
  pertask demo -o profile.pb.gz -o profile.svg  sample too; then: pertask report profile.pb.gz
  pertask demo --json > report.json
  pertask demo --port 8080                      call it yourself: curl http://127.0.0.1:8080/hash

Exit status:
  0  the report is complete, also where Ctrl-C or SIGTERM ended the run early
  1  something failed (port in use, measuring refused, output not writable, wrong answers);
     stderr says what, and what to do about it
  2  the command line was not understood
  130, 143  a second Ctrl-C or SIGTERM: quit at once, without a report";

/// What was typed.
#[derive(Debug, Parser)]
#[command(name = "pertask", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = TOP_HELP)]
#[command(max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// What was typed. Ends the process, with status 2, where it cannot be meant.
    pub fn parse_or_exit() -> Self {
        let cli = Self::parse();
        if let Command::Report(options) = &cli.command
            && let Some(conflict) = options.conflict()
        {
            Self::command().error(ErrorKind::ArgumentConflict, conflict).exit();
        }
        cli
    }
}

/// What `pertask` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the demo service.
    #[command(about = DEMO_ABOUT, long_about = DEMO_LONG_ABOUT, after_long_help = DEMO_HELP)]
    Demo(DemoOptions),
    /// Says what this machine offers to measure with.
    #[command(about = DOCTOR_ABOUT, long_about = DOCTOR_LONG_ABOUT)]
    Doctor(DoctorOptions),
    /// Reads a sampled profile.
    #[command(about = report::ABOUT, long_about = report::LONG_ABOUT, after_long_help = report::HELP)]
    Report(Box<ReportOptions>),
}

/// The options of `pertask doctor`.
#[derive(Debug, Args)]
pub struct DoctorOptions {
    /// Write it as JSON
    #[arg(long)]
    pub json: bool,
}

/// The options of `pertask demo`.
#[derive(Debug, Args)]
pub struct DemoOptions {
    /// How long to measure: 500ms, 5s, 2.5s, 1m; a plain number means seconds
    // Hyphens are let through so that "-5s" meets the parser, whose error names the accepted forms.
    #[arg(short, long, value_name = "TIME", default_value = "5s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub duration: Duration,

    /// What to count beside CPU time: perf's events; may be repeated or separated by commas
    #[arg(
        short,
        long = "event",
        value_name = "EVENT",
        value_delimiter = ',',
        default_value = "cpu-time"
    )]
    pub events: Vec<Event>,

    /// Show the tasks as a tree: which were spawned by which, with own and inclusive CPU time
    #[arg(long)]
    pub tree: bool,

    /// Measure how long tasks wait between being woken and being polled
    #[arg(long)]
    pub wake_latency: bool,

    /// HTTP clients for each route
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub clients: u16,

    /// Port to serve on, at 127.0.0.1; 0 means any free one
    #[arg(long, default_value_t = 0)]
    pub port: u16,

    /// Write the report as JSON
    #[arg(long)]
    pub json: bool,

    /// Sample too, and write the profile to FILE: .pb.gz, .svg, .folded, .speedscope.json or
    /// .json; may be repeated
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<ProfilePath>,

    /// Sample where in the code each task spends its CPU time, so often in a second of CPU time
    /// [default: 199 with --output, else off]
    #[arg(short = 'F', long, value_name = "HZ", value_parser = clap::value_parser!(u32).range(1..=SamplerOptions::HIGHEST_HZ as i64))]
    pub frequency: Option<u32>,
}

/// Something that can be counted for each task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// CPU time, in user mode and in the kernel. Always counted.
    CpuTime,
    /// One of perf's.
    Counter(CounterEvent),
}

impl Event {
    /// The name that selects it.
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
