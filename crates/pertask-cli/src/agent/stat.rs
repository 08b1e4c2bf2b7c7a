//! `pertask stat`: what a program's tasks use, as `perf stat` does it for threads.

mod program;

use std::{
    io::{BufRead as _, BufReader},
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use pertask::{CounterEvent, Report, TableStyle};
use tokio::runtime::Runtime;

use super::{Agent, Question};
use crate::{
    duration,
    error::Error,
    output::{note, print, stdout_style},
    record::{NOT_ASKED, stopped},
};
use program::Program;

/// The first line of the help.
pub const ABOUT: &str = "Show which tasks of a running program spend the CPU, exactly";

/// The help.
pub const LONG_ABOUT: &str = "\
Show which tasks of a running program spend the CPU, exactly.

The program needs an agent: one line in its main, pertask::init(), and tasks with names or spawn sites. Nothing is measured until you ask. \
The report is that of the library: CPU time, polls, longest polls, by spawn site, by task, by thread. With -I there is one for each interval.

Ctrl-C ends the measurement, and prints the report. The program goes on.";

/// The end of the help.
pub const HELP: &str = "\
Examples:
  pertask stat --pid 4711                      until Ctrl-C
  pertask stat --pid 4711 -d 10s
  pertask stat --pid 4711 -I 1000              a report each second
  pertask stat --pid 4711 -e instructions,cycles,page-faults -d 5s
  pertask stat --pid 4711 --tree -d 5s         which task spawned which
  pertask stat --pid 4711 --task 17 --descendants -d 5s
  pertask stat --pid 4711 -I 1000 --json | jq -c '.sites[0] | {name, cpu_ns}'
  pertask stat -- ./target/release/server --port 80";

/// The options of `pertask stat`.
#[derive(Debug, Args)]
pub struct StatOptions {
    /// The process
    #[arg(short, long, value_name = "PID", required_unless_present = "program")]
    pub pid: Option<u32>,

    /// How long to measure: 500ms, 5s, 1m [default: until Ctrl-C, or the program's end]
    #[arg(short, long, value_name = "TIME", value_parser = duration::parse)]
    pub duration: Option<Duration>,

    /// Print a report each so many milliseconds, of that time alone
    #[arg(short = 'I', long, value_name = "MS", value_parser = clap::value_parser!(u32).range(10..=60_000))]
    pub interval: Option<u32>,

    /// Events of perf to count in addition to CPU time; may be repeated or separated by commas
    #[arg(short, long = "event", value_name = "EVENT", value_delimiter = ',')]
    pub events: Vec<CounterEvent>,

    /// Show the tree of which task spawned which, with own and inclusive CPU time
    #[arg(long)]
    pub tree: bool,

    /// Measure how long tasks wait between being woken and being polled
    #[arg(long)]
    pub wake_latency: bool,

    /// Only tasks with this name, or spawned at this place (FILE:LINE)
    #[arg(long, value_name = "NAME|FILE:LINE")]
    pub site: Option<String>,

    /// Only the task with this number
    #[arg(long, value_name = "NUMBER")]
    pub task: Option<u64>,

    /// With --task, what it spawns from now on, too
    #[arg(long, requires = "task")]
    pub descendants: bool,

    /// The most rows of each table; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub top: usize,

    /// Write reports as JSON, with --interval one a line
    #[arg(long)]
    pub json: bool,

    /// The program to start, with its arguments
    #[arg(last = true, value_name = "PROGRAM", conflicts_with = "pid")]
    pub program: Vec<std::ffi::OsString>,
}

/// The time between two reports where only the last one is shown: if the process ends, what it did since is missing.
const TURN: Duration = Duration::from_millis(500);

/// How often somebody looks whether the measurement is to end.
const LOOK: Duration = Duration::from_millis(20);

/// Measures a program, and shows its tasks.
///
/// # Errors
///
/// Returns [`Error::Agent`] if the program has no agent or refuses, and [`Error::Write`] if stdout does not take the report.
pub fn run(options: &StatOptions) -> Result<ExitCode, Error> {
    let runtime = Runtime::new().map_err(Error::Runtime)?;
    let asked = stopped(&runtime)?;
    let Some(program) = Program::start(&options.program)? else {
        let agent = Agent::of(options.pid.unwrap_or(0))?;
        measure(options, &agent, &asked)?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut program = program;
    let agent = program.agent(&asked)?;
    measure(options, &agent, &asked)?;
    program.status(&asked)
}

/// Shows reports until the time is over, the process has ended, or the user asks to stop.
fn measure(options: &StatOptions, agent: &Agent, asked: &AtomicI32) -> Result<(), Error> {
    let id = format!("stat-{}", std::process::id());
    let question = options.question(&id);
    let reply = agent.ask(&question, Duration::ZERO)?;
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| end_in_time(options.duration, &ended, asked, agent, &id));
        let mut last = None;
        let shown = BufReader::new(reply.body).lines().map_while(Result::ok).try_for_each(|line| {
            if options.interval.is_some() {
                return options.show(agent, &question, &line);
            }
            // From here on, there is something to show whatever happens.
            if last.replace(line).is_none() && options.duration.is_none() {
                note(format_args!("measuring (Ctrl-C ends it)"));
            }
            Ok(())
        });
        // Relaxed: nothing else depends on when it is seen.
        let is_early = !ended.swap(true, Ordering::Relaxed);
        shown?;
        if is_early {
            note(format_args!(
                "the process has ended, or its agent; what it did in its last {} ms is missing",
                options.turn().as_millis()
            ));
        }
        match last {
            Some(line) => options.show(agent, &question, &line),
            None if options.interval.is_some() => Ok(()),
            None => Err(Error::Agent("there was no report before the process ended".to_owned())),
        }
    })
}

/// Ends the question when its time is over, or when the user asks to stop, unless it has `ended` before.
fn end_in_time(
    most: Option<Duration>,
    ended: &AtomicBool,
    asked: &AtomicI32,
    agent: &Agent,
    id: &str,
) {
    let began = Instant::now();
    // Relaxed: nothing else depends on when they are seen.
    while !ended.load(Ordering::Relaxed) {
        let is_over = most.is_some_and(|most| began.elapsed() >= most);
        if is_over || asked.load(Ordering::Relaxed) != NOT_ASKED {
            ended.store(true, Ordering::Relaxed);
            // If the agent is gone, the stream of reports has ended, too.
            let _ = agent.stop(id);
            return;
        }
        thread::sleep(LOOK);
    }
}

impl StatOptions {
    fn turn(&self) -> Duration {
        self.interval.map_or(TURN, |interval| Duration::from_millis(interval.into()))
    }

    fn question(&self, id: &str) -> Question {
        let events: Vec<_> = self.events.iter().map(CounterEvent::name).collect();
        let task = self.task.map(|task| task.to_string());
        Question::new("/v1/live")
            .with("id", id)
            .with("interval_ms", &self.turn().as_millis().to_string())
            .with_flag("each", self.interval.is_some())
            .with_some("events", Some(&*events.join(",")).filter(|events| !events.is_empty()))
            .with_flag("wake_latency", self.wake_latency)
            .with_some("site", self.site.as_deref())
            .with_some("task", task.as_deref())
            .with_flag("descendants", self.descendants)
    }

    /// Shows a report.
    fn show(&self, agent: &Agent, question: &Question, line: &str) -> Result<(), Error> {
        let report = Report::from_json(line).map_err(|why| agent.nonsense(question, &why))?;
        if self.json {
            let whole = if self.interval.is_some() { line.to_owned() } else { report.to_json() };
            return print(&(whole + "\n"));
        }
        let max_rows = if self.top == 0 { usize::MAX } else { self.top };
        let style = TableStyle {
            tree: self.tree,
            max_sites: max_rows,
            max_label_values: max_rows,
            ..stdout_style()
        };
        let between = if self.interval.is_some() { "\n" } else { "" };
        print(&format!("{}{between}", report.table(style)))
    }
}
