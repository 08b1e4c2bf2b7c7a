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
    blocked::BlockedOption,
    duration,
    error::Error,
    output::{harmless_json, note, print_to_reader, stdout_style},
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

Ctrl-C ends the measurement, and prints the report. The program goes on. With -- PROGRAM, what it used before it had its agent is not measured.";

/// The end of the help.
pub const HELP: &str = "\
Examples:
  pertask stat --pid 4711                      until Ctrl-C
  pertask stat --pid 4711 -d 10s
  pertask stat --pid 4711 -I 1000              a report each second
  pertask stat --pid 4711 -e instructions,cycles,page-faults -d 5s
  pertask stat --pid 4711 --tree -d 5s         which task spawned which
  pertask stat --pid 4711 --life -d 5s         on the CPU, blocked, ready or waiting
  pertask stat --pid 4711 --blocked -d 10s     which polls block their worker, and where
  pertask stat --pid 4711 --memory -d 5s       which tasks allocate
  pertask stat --pid 4711 --task 17 --descendants -d 5s
  pertask stat --pid 4711 -I 1000 --json | jq -c '.sites[0] | {name, cpu_ns}'
  pertask stat -- ./target/release/server --port 80";

/// The options of `pertask stat`.
#[derive(Debug, Args)]
pub struct StatOptions {
    /// The process [default: the only one that has an agent]
    #[arg(short, long, value_name = "PID")]
    pub pid: Option<u32>,

    /// How long to measure: 500ms, 5s, 1m; a plain number means seconds [default: until Ctrl-C, or the program's end]
    #[arg(short, long, value_name = "TIME", value_parser = duration::parse)]
    pub duration: Option<Duration>,

    /// Print a report every MS milliseconds (10 to 60000), covering that interval alone
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

    /// Measure how long tasks are on the CPU, blocked, ready and waiting
    #[arg(long)]
    pub life: bool,

    #[command(flatten)]
    pub blocked: BlockedOption,

    /// Count the memory that tasks allocate and free; the program needs pertask::Alloc
    #[arg(long)]
    pub memory: bool,

    /// Only tasks with this name, or spawned at this place (FILE:LINE)
    #[arg(long, value_name = "NAME|FILE:LINE")]
    pub site: Option<String>,

    /// Only the task with this number
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["interval", "blocked"])]
    pub task: Option<u64>,

    /// With --task, what it spawns from now on, too
    #[arg(long, requires = "task")]
    pub descendants: bool,

    /// The most rows of each table; 0 shows all, up to 10,000
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

/// The most rows of each kind that an agent sends.
const MOST_ROWS: usize = 10_000;

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
        let agent = Agent::of(Agent::named_or_only(options.pid)?)?;
        measure(options, &agent, &asked)?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut program = program;
    let measured = match program.agent(&asked)? {
        Some(agent) => measure(options, &agent, &asked),
        None => Ok(()),
    };
    // It is this command's child, whatever has become of the measurement.
    let status = program.status(&asked)?;
    measured.map(|()| status)
}

/// Shows reports until the time is over, the process has ended, or the user asks to stop.
fn measure(options: &StatOptions, agent: &Agent, asked: &AtomicI32) -> Result<(), Error> {
    let id = Agent::id("stat");
    let question = options.question(&id);
    let reply = agent.ask(&question, Duration::ZERO)?;
    let ended = AtomicBool::new(false);
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| end_in_time(options.duration, &ended, &has_ended, asked, agent, &id));
        let seen = options.watch(agent, &question, reply);
        // Relaxed: nothing else depends on when it is seen.
        has_ended.store(true, Ordering::Relaxed);
        let Seen { last, cut } = seen?;
        let is_early = !ended.load(Ordering::Relaxed);
        match (&cut, agent.is_alive()) {
            (None, _) if !is_early => {}
            (_, false) => note(format_args!(
                "the process has ended; what it did in its last {} ms is missing",
                options.turn().as_millis()
            )),
            (Some(why), true) => note(format_args!("the connection to the agent broke: {why}")),
            (None, true) => note(format_args!("the agent has ended the measurement")),
        }
        match last {
            Some(line) => {
                options.show(agent, &question, &line)?;
                options.advise(&line);
                Ok(())
            }
            None if options.interval.is_some() => Ok(()),
            None => Err(Error::Agent("there was no report before the end".to_owned())),
        }
    })
}

/// What came of a stream of reports.
struct Seen {
    /// The last report, where only that is shown.
    last: Option<String>,
    /// What broke the connection.
    cut: Option<std::io::Error>,
}

/// Ends the question when its time is over, or when the user asks to stop, unless the reports have ended before.
fn end_in_time(
    most: Option<Duration>,
    ended: &AtomicBool,
    has_ended: &AtomicBool,
    asked: &AtomicI32,
    agent: &Agent,
    id: &str,
) {
    let began = Instant::now();
    // Relaxed: nothing else depends on when they are seen.
    while !has_ended.load(Ordering::Relaxed) {
        let is_over = most.is_some_and(|most| began.elapsed() >= most);
        if is_over || asked.load(Ordering::Relaxed) != NOT_ASKED {
            ended.store(true, Ordering::Relaxed);
            // The agent may have no place for this caller: then it is asked again.
            let _ = agent.stop(id);
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
            .with("max_tasks", &self.max_rows().to_string())
            .with("max_label_values", &self.max_rows().to_string())
            .with_flag("each", self.interval.is_some())
            .with_some("events", Some(&*events.join(",")).filter(|events| !events.is_empty()))
            .with_flag("wake_latency", self.wake_latency)
            .with_flag("life", self.life)
            .with_some("blocked_ms", self.blocked.milliseconds().as_deref())
            .with_flag("memory", self.memory)
            .with_some("site", self.site.as_deref())
            .with_some("task", task.as_deref())
            .with_flag("descendants", self.descendants)
    }

    /// Takes reports until they end, and shows each if there is an interval.
    fn watch(
        &self,
        agent: &Agent,
        question: &Question,
        reply: pertask_agent::Reply,
    ) -> Result<Seen, Error> {
        let mut last = None;
        for line in BufReader::new(reply.body).lines() {
            let line = match line {
                Ok(line) => line,
                Err(cut) => return Ok(Seen { last, cut: Some(cut) }),
            };
            if self.interval.is_some() {
                if !self.show(agent, question, &line)? {
                    break;
                }
                continue;
            }
            // From here on, there is something to show whatever happens.
            if last.replace(line).is_none() && self.duration.is_none() {
                note(format_args!("measuring (Ctrl-C ends it)"));
            }
        }
        Ok(Seen { last, cut: None })
    }

    /// Shows a report. Returns whether anybody still reads.
    fn show(&self, agent: &Agent, question: &Question, line: &str) -> Result<bool, Error> {
        let report = agent.report(question, line)?;
        if self.json {
            let whole = if self.interval.is_some() { line.to_owned() } else { report.to_json() };
            return print_to_reader(&(harmless_json(&whole) + "\n"));
        }
        let max = self.max_rows();
        let style = TableStyle {
            tree: self.tree,
            max_sites: max,
            max_tasks: max,
            max_label_values: max,
            max_threads: max,
            ..stdout_style()
        };
        let between = if self.interval.is_some() { "\n\n" } else { "\n" };
        print_to_reader(&format!("{}{between}", report.table(style)))
    }

    /// Says how to see more, where the report shows little.
    fn advise(&self, line: &str) {
        let Ok(report) = Report::from_json(line) else { return };
        let much = |cpu_ns: u64| cpu_ns > report.process_cpu_ns / 4;
        match () {
            () if self.json => {}
            () if self.task.is_some() => note(format_args!(
                "other tasks are not measured with --task: their time is outside tasks above"
            )),
            () if self.site.is_some() && report.sites.is_empty() => note(format_args!(
                "no task has this name or spawn site, or none was polled; `pertask tasks` lists those that are alive"
            )),
            () if much(report.workers_cpu_ns) => note(format_args!(
                "much of the CPU time is in no task that pertask knows; `pertask record` lists those tasks by type. \
                 To measure them exactly, name them with .task(\"...\"), or spawn them with pertask::tokio::spawn"
            )),
            () => {}
        }
    }

    fn max_rows(&self) -> usize {
        if self.top == 0 { MOST_ROWS } else { self.top.min(MOST_ROWS) }
    }
}
