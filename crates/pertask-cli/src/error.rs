//! The error of a command. Each says what was tried, what was found, and what to do.

use std::{fmt, io, net::SocketAddr, path::PathBuf};

use pertask::profile::ReadError;
use pertask_text::{human::counted, text::harmless};

/// A failure that ends the command with status 1.
///
/// `Display` shows the whole message with its causes, because the command prints nothing else about it.
#[derive(Debug)]
pub enum Error {
    /// The async runtime did not start.
    Runtime(io::Error),
    /// The handlers for SIGINT and SIGTERM could not be installed.
    Signals(io::Error),
    /// The demo's service could not listen on its address.
    Listen { address: SocketAddr, cause: io::Error },
    /// The library refused to measure.
    Measure(pertask::Error),
    /// The demo's service did not answer its first requests.
    NotReady { first: String },
    /// The demo's service did not start in a process of its own.
    Serve(io::Error),
    /// A program cannot be started.
    Start { program: String, cause: io::Error },
    /// The demo's endpoints could not listen.
    Endpoints(io::Error),
    /// The screen cannot be used.
    Top(crate::top::Error),
    /// A process has no agent, or its agent refuses.
    Agent(String),
    /// A program cannot be recorded.
    Record(pertask_outside::Error),
    /// A file of `perf record` cannot be used.
    PerfData { place: String, cause: pertask_outside::Error },
    /// It is not known how the program ended.
    Wait(io::Error),
    /// A signal came before measuring began.
    StoppedTooSoon,
    /// A file for a profile cannot be written, as a trial before measuring showed.
    Open { path: PathBuf, cause: io::Error },
    /// The report cannot be written to stdout.
    Write { place: String, cause: io::Error },
    /// A file cannot be written as a whole. An old file is unchanged.
    Replace { path: PathBuf, cause: io::Error },
    /// A profile cannot be opened.
    Profile { place: String, why: String, remedy: &'static str },
    /// A file is not a profile, or is damaged or too large.
    Damaged { place: String, cause: ReadError },
    /// Of two profiles that are to be compared, one is not of CPU time.
    Incomparable { cpu: String, other: String, found: Vec<String> },
    /// One of two profiles that are to be compared is the difference of two.
    IsDifference { place: String },
    /// A profile has no time in a state.
    NoState { place: String, time: &'static str, has: String, has_waits: bool },
    /// Whole lives of a difference were asked for.
    LivesCompared { place: String },
    /// No sample of a profile meets the filters.
    NothingMatched { place: String, why: String },
    /// The demo's service gave wrong answers or none.
    Requests { failed: u64, total: u64, first: String },
}

/// The advice where requests fail.
const LOAD_REMEDY: &str =
    "The machine may be overloaded, or short of open files (ulimit -n): try fewer --clients.";

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime(cause) => write!(
                f,
                "cannot start the async runtime: {cause}. Check the limits on threads and open files (ulimit -u, ulimit -n)."
            ),
            Self::Signals(cause) => write!(
                f,
                "cannot listen for Ctrl-C: {cause}. Check the limit on open files (ulimit -n)."
            ),
            Self::Listen { address, cause } => write!(
                f,
                "cannot listen on {address}: {cause}. Choose another port with --port, or any free one with --port 0."
            ),
            Self::Measure(cause) => write!(f, "{cause}"),
            Self::Serve(cause) => write!(f, "the demo's service did not start: {cause}"),
            Self::Start { program, cause } => write!(f, "cannot start {program}: {cause}"),
            Self::Endpoints(cause) => write!(f, "cannot listen on 127.0.0.1: {cause}"),
            Self::Top(why) => write!(f, "{why}"),
            // It has names that another program has chosen.
            Self::Agent(why) => write!(f, "{}", harmless(why)),
            Self::Record(cause) => write!(f, "{cause}"),
            Self::PerfData { place, cause } => write!(f, "cannot read {place}: {cause}"),
            Self::Wait(cause) => write!(f, "it is not known how the program ended: {cause}"),
            Self::NotReady { first } => write!(
                f,
                "the service does not answer, so nothing was measured: {first}. {LOAD_REMEDY}"
            ),
            Self::StoppedTooSoon => write!(
                f,
                "stopped before measuring began, so there is no report. Press Ctrl-C after the line 'measuring ...' appears."
            ),
            Self::Open { path, cause } => write!(
                f,
                "cannot write {}: {cause}. Nothing was measured. Name a file in a writable folder.",
                path.display()
            ),
            Self::Write { place, cause } => write!(
                f,
                "cannot write to {place}: {cause}. What was written may be incomplete. Write the report elsewhere."
            ),
            Self::Replace { path, cause } => write!(
                f,
                "cannot write {}: {cause}. An older file of this name is as it was. {}",
                path.display(),
                match cause.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded =>
                        "Free some space, or name a file on another disk.",
                    _ => "Name a file in a folder where you may create files.",
                }
            ),
            Self::Profile { place, why, remedy } => {
                write!(f, "cannot read {place}: {why}. {remedy}")
            }
            Self::Damaged { place, cause: ReadError::TooLarge { what, name, limit } } => write!(
                f,
                "cannot read {place}: it has too many {what}, more than {limit}. If you trust the file, and have the memory, raise the limit: --limit {name}=NUMBER"
            ),
            Self::Damaged { place, cause } => write!(f, "{place}: {cause}"),
            Self::Incomparable { cpu, other, found } => write!(
                f,
                "cannot compare {cpu}, which is of CPU time, with {other}, whose sample types ({}) do not include CPU time. Name two CPU profiles.",
                printable(found)
            ),
            Self::IsDifference { place } => write!(
                f,
                "cannot compare {place}: it is the difference of two profiles itself. Name two profiles, or look at it alone: pertask report {place}"
            ),
            Self::NoState { place, time, has, has_waits: true } => {
                write!(f, "{place} has no {time}: it has {has}")
            }
            Self::NoState { place, time, has, has_waits: false } => write!(
                f,
                "{place} has no {time}: it has {has}. Programs record where their tasks wait with SamplerOptions {{ waits: true, .. }}."
            ),
            Self::LivesCompared { place } => write!(
                f,
                "cannot compare whole lives: {place} is the difference of two profiles. Choose one state: --state on-cpu, blocked, ready or waiting"
            ),
            Self::NothingMatched { place, why } => write!(f, "nothing in {place} matched: {why}"),
            Self::Requests { failed, total, first } => write!(
                f,
                "{failed} of {} failed, so the report may mislead. The first: {first}. {LOAD_REMEDY}",
                counted(*total, "request")
            ),
        }
    }
}

/// Returns names from a file in one short line.
fn printable(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let some: String = names.join(", ").chars().take(200).collect();
    harmless(&some)
}

impl std::error::Error for Error {}
