//! `pertask top`: the figures of a program's agent on the screen, or those of samples where there is no agent.

mod functions;
mod reports;

use std::{fs, process::ExitCode};

use clap::Args;

use self::reports::{Reports, Wanted};
use super::Agent;
use crate::{
    blocked::BlockedOption,
    error::Error,
    record::Samples,
    top::{self, TopOptions as Shown},
};

pub use self::functions::hottest;

/// The first line of the help.
pub const ABOUT: &str = "Show on the terminal which tasks of a running program spend the CPU now";

/// The help.
pub const LONG_ABOUT: &str = "\
Show on the terminal which tasks of a running program spend the CPU now.

With an agent in the program (pertask::init() in its main), the figures are exact. Without one, the program is sampled from outside, as \
`pertask record` does it, and its tasks are listed by type. Nothing is measured before you ask, or after you leave.

Keys: arrows select, Enter goes into a row, Esc back; < and > choose the column to sort by, r reverses; / filters; t shows the tree of \
spawns, l labels, w threads; i shows how tasks spend their lives; p pauses; h explains all of them; q leaves.";

/// The end of the help.
pub const HELP: &str = "\
Examples:
  pertask top                     the only process that has an agent
  pertask top --pid 4711
  pertask top --pid 4711 --wake-latency
  pertask top --pid 4711 --life     how many tasks are blocked, ready and waiting at a time
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

    /// Measure how long tasks are on the CPU, blocked in their polls, ready, and waiting. The key i begins and ends it as well
    #[arg(long)]
    pub life: bool,

    #[command(flatten)]
    pub blocked: BlockedOption,

    /// Sample from outside, also if the program has an agent
    #[arg(long)]
    pub outside: bool,
}

/// Shows the figures until the user leaves.
///
/// # Errors
///
/// Returns [`Error::Agent`] if no process is named and not exactly one has an agent, [`Error::Record`] if the process has none and cannot be
/// sampled, and [`Error::Top`] if there is no terminal.
pub fn run(options: &TopOptions) -> Result<ExitCode, Error> {
    top::check_terminal().map_err(Error::Top)?;
    let pid = Agent::named_or_only(options.pid)?;
    let shown = Shown { program: program(pid), pid, lives: options.life };
    let agent = if options.outside { None } else { Agent::find(pid)? };
    let left = match agent {
        Some(agent) => top::run(Reports::begin(agent, pid, options.wanted())?, &shown),
        None => top::run(Samples::start(pid)?, &shown),
    };
    left.map_err(Error::Top)
}

impl TopOptions {
    fn wanted(&self) -> Wanted {
        Wanted {
            interval_ms: self.interval,
            wake_latency: self.wake_latency,
            blocked_ms: self.blocked.milliseconds(),
            lives: self.life,
        }
    }
}

fn program(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}
