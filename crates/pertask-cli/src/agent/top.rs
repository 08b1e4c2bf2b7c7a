//! `pertask top`: the figures of a program's agent on the screen, or those of samples where there is no agent.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::ExitCode,
    sync::mpsc::Receiver,
    thread,
    time::Duration,
};

use clap::Args;
use pertask::{
    Report,
    profile::{Filter, GroupBy, Profile, Subject as Row},
};

use super::{Agent, Question};
use crate::{
    blocked::BlockedOption,
    error::Error,
    record::{Files, Samples},
    report::SymbolOptions,
    top::{self, HotFunction, Request, Source, Subject, TopOptions as Shown, Update, Updates},
};

/// The first line of the help.
pub const ABOUT: &str = "Show on the terminal which tasks of a running program spend the CPU now";

/// The help.
pub const LONG_ABOUT: &str = "\
Show on the terminal which tasks of a running program spend the CPU now.

With an agent in the program (pertask::init() in its main), the figures are exact. Without one, the program is sampled from outside, as \
`pertask record` does it, and its tasks are listed by type. Nothing is measured before you ask, or after you leave.

Keys: arrows select, Enter goes into a row, Esc back; < and > choose the column to sort by, r reverses; / filters; t shows the tree of \
spawns, l labels, w threads; p pauses; h explains all of them; q leaves.";

/// The end of the help.
pub const HELP: &str = "\
Examples:
  pertask top                     the only process that has an agent
  pertask top --pid 4711
  pertask top --pid 4711 --wake-latency
  pertask top --pid 4711 --blocked  which polls block their worker, and where
  pertask top --pid 4711 --outside";

/// The options of `pertask top`.
#[derive(Debug, Args)]
pub struct TopOptions {
    /// The process [default: the only one that has an agent]
    #[arg(short, long, value_name = "PID")]
    pub pid: Option<u32>,

    /// The time between two updates, in milliseconds (100 to 60000)
    #[arg(short = 'I', long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(100..=60_000))]
    pub interval: u32,

    /// Measure how long tasks wait between being woken and being polled
    #[arg(long)]
    pub wake_latency: bool,

    #[command(flatten)]
    pub blocked: BlockedOption,

    /// Sample from outside, also if the program has an agent
    #[arg(long)]
    pub outside: bool,
}

/// The most live tasks in a report, those with the most CPU time.
const MOST_TASKS: &str = "500";

/// How long and how often the stacks of one task are sampled when the user asks.
const STACKS: (Duration, &str) = (Duration::from_secs(2), "499");

/// The most functions that are shown of a task.
const MOST_FUNCTIONS: usize = 50;

/// Shows the figures until the user leaves.
///
/// # Errors
///
/// Returns [`Error::Agent`] if no process is named and not exactly one has an agent, [`Error::Record`] if the process has none and cannot be
/// sampled, and [`Error::Top`] if there is no terminal.
pub fn run(options: &TopOptions) -> Result<ExitCode, Error> {
    top::check_terminal().map_err(Error::Top)?;
    let pid = Agent::named_or_only(options.pid)?;
    let shown = Shown { program: program(pid), pid };
    let agent = if options.outside { None } else { Agent::find(pid)? };
    let left = match agent {
        Some(agent) => {
            let question = options.question();
            let reply = agent.ask(&question, Duration::ZERO)?;
            let least_ns = u64::from(options.interval) * 500_000;
            top::run(Reports { pid, agent, question, reply, least_ns }, &shown)
        }
        None => top::run(Samples::start(pid)?, &shown),
    };
    left.map_err(Error::Top)
}

impl TopOptions {
    fn question(&self) -> Question {
        Question::new("/v1/live")
            .with("interval_ms", &self.interval.to_string())
            .with("max_tasks", MOST_TASKS)
            .with_flag("wake_latency", self.wake_latency)
            .with_some("blocked_ms", self.blocked.milliseconds().as_deref())
    }
}

fn program(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// The reports of an agent.
struct Reports {
    pid: u32,
    agent: Agent,
    question: Question,
    reply: pertask_agent::Reply,
    /// The least time of which a report is shown.
    least_ns: u64,
}

impl Source for Reports {
    fn run(self, updates: Updates, requests: Receiver<Request>) {
        let Self { pid, agent, question, reply, least_ns } = self;
        let for_stacks = updates.clone();
        // It ends when the screen does, which drops the other end of `requests`.
        thread::spawn(move || answer(pid, &requests, &for_stacks));
        for line in BufReader::new(reply.body).lines().map_while(Result::ok) {
            let update = match Report::from_json(&line) {
                // The first comes at once, and of no time there are no rates.
                Ok(report) if report.duration_ns < least_ns => continue,
                Ok(report) => Update::Report(Box::new(report)),
                Err(why) => Update::Ended(agent.nonsense(&question, &why).to_string()),
            };
            if updates.send(update).is_break() {
                return;
            }
        }
        let why = match agent.is_alive() {
            true => "the agent has ended the connection",
            false => "the process has ended",
        };
        let _ = updates.send(Update::Ended(why.to_owned()));
    }
}

/// Answers requests for stacks by sampling.
fn answer(pid: u32, requests: &Receiver<Request>, updates: &Updates) {
    while let Ok(Request::Stacks { of }) = requests.recv() {
        let found = functions(pid, &of).map_err(|why| why.to_string());
        if updates.send(Update::Stacks { of, found }).is_break() {
            return;
        }
    }
}

fn functions(pid: u32, of: &Subject) -> Result<Vec<HotFunction>, Error> {
    let (time, hz) = STACKS;
    let question = Question::new("/v1/profile")
        .with("seconds", &time.as_secs_f64().to_string())
        .with("hz", hz);
    let bytes = Agent::of(pid)?.bytes(&question, time)?;
    let place = "the agent's profile".to_owned();
    let profile = Profile::from_pprof(&*bytes).map_err(|cause| Error::Damaged { place, cause })?;
    let files = Files::of(pid);
    Ok(hottest(&SymbolOptions::default().named_from(profile, files.folders()), of))
}

/// The functions in which a part of a profile was, with their own CPU time.
pub fn hottest(profile: &Profile, of: &Subject) -> Vec<HotFunction> {
    let part = profile.filtered(&filter(of));
    let summary = part.summary(&GroupBy::Function);
    let whole = summary.whole.time_ns.max(1) as f64;
    let rows = summary.rows.into_iter().filter(|row| row.own.time_ns > 0).take(MOST_FUNCTIONS);
    let function = |row: Row| match row {
        Row::Function { name, .. } => name.to_string(),
        other => other.to_string(),
    };
    rows.map(|row| HotFunction {
        share: row.own.time_ns as f64 / whole,
        function: function(row.subject),
    })
    .collect()
}

fn filter(of: &Subject) -> Filter {
    match of {
        Subject::Site(site) => {
            let place = (!site.file.is_empty()).then(|| format!("{}:{}", site.file, site.line));
            Filter { task: site.name.clone(), site: place, ..Filter::default() }
        }
        Subject::Task(id) => Filter { task: Some(id.to_string()), ..Filter::default() },
        Subject::Type(name) => Filter { task: Some(name.clone()), ..Filter::default() },
    }
}
