//! `pertask doctor`: shows what this machine offers for measuring.

use std::{collections::BTreeMap, fmt::Write as _, io, time::Duration};

use pertask::{CounterSource, Machine, Offer};
use pertask_agent::{Directory, DirectoryError};
use pertask_outside::Allowed;
use pertask_text::human::counted;
use rustix::{
    fs::{Access, access},
    process::geteuid,
};
use serde::Serialize;

use crate::{
    agent::{Agent, Question},
    cli::DoctorOptions,
    error::Error,
    output::print,
};

/// Examines the machine and prints the result.
///
/// # Errors
///
/// Returns [`Error::Write`] if stdout does not take the whole text.
/// Returns [`Error::Agent`] if the process that was asked for has no agent, or does not answer.
pub fn run(options: &DoctorOptions) -> Result<(), Error> {
    if let Some(pid) = options.pid {
        return of_process(pid, options);
    }
    let machine = Machine::examine();
    let (recording, agent) = (recording(Allowed::examine()), agent());
    print(&match options.json {
        true => json(&machine, &recording, &agent),
        false => text(&machine, &recording, &agent),
    })
}

/// Prints what the machine offers to a program that has an agent: it may have other rights, or be in a container.
fn of_process(pid: u32, options: &DoctorOptions) -> Result<(), Error> {
    let machine: Machine =
        Agent::of(pid)?.json(&Question::new("/v1/machine"), Duration::from_secs(10))?;
    if options.json {
        return print(&machine.to_json());
    }
    let mut text = String::new();
    line(&mut text, &format!("process {pid}: {}", whole(&machine)));
    measuring(&mut text, &machine);
    line(&mut text, "");
    line(&mut text, "Profilers outside (OpenTelemetry's thread context, pertask::otel)");
    match &machine.thread_context {
        Some(symbol) => wide_offer(&mut text, symbol),
        None => line(&mut text, "  the program is built without the feature `otel` of pertask"),
    }
    line(&mut text, "");
    counting(&mut text, &machine);
    print(&text)
}

/// Whether this user's programs can have an agent that this user's commands find.
fn agent() -> Offer {
    let path = Directory::default_path();
    let name = format!("sockets in {}", path.display());
    let refused = match Directory::open(&path, geteuid().as_raw()) {
        Ok(_) => None,
        // The first program that has an agent makes it.
        Err(DirectoryError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(&path);
            let may_make = access(folder, Access::WRITE_OK | Access::EXEC_OK);
            may_make.err().map(|why| {
                format!("cannot be made: {}: {why}; set PERTASK_DIR to a directory of this user's alone", folder.display())
            })
        }
        Err(why) => Some(why.to_string()),
    };
    Offer { name, refused }
}

/// What can be had of other programs.
fn recording(allowed: Allowed) -> [Offer; 3] {
    let Allowed { samples, kernel, memory, .. } = allowed;
    [("samples", samples), ("kernel time", kernel), ("individual tasks", memory)]
        .map(|(name, offer)| Offer { name: name.to_owned(), refused: offer.err() })
}

fn json(machine: &Machine, recording: &[Offer], agent: &Offer) -> String {
    #[derive(Serialize)]
    struct All<'a> {
        #[serde(flatten)]
        machine: &'a Machine,
        recording: &'a [Offer],
        agent: &'a Offer,
    }
    let all = All { machine, recording, agent };
    // Serialisation cannot fail: it is plain data, and it is written to memory.
    serde_json::to_string_pretty(&all).expect("plain data") + "\n"
}

fn text(machine: &Machine, recording: &[Offer], agent: &Offer) -> String {
    let mut text = String::new();
    line(&mut text, &whole(machine));
    measuring(&mut text, machine);
    line(&mut text, "");
    line(&mut text, "Recording other programs of this user (pertask record)");
    recording.iter().for_each(|way| offer(&mut text, way));
    line(&mut text, "");
    line(&mut text, "Agents of this user's programs (pertask::init(), pertask ps)");
    wide_offer(&mut text, agent);
    line(&mut text, "");
    counting(&mut text, machine);
    text
}

/// The machine in a line.
fn whole(machine: &Machine) -> String {
    let tick = machine
        .tick_hz
        .map_or(String::new(), |hz| format!(", {} a second", counted(u64::from(hz), "timer tick")));
    let user = if machine.user == 0 { "root".to_owned() } else { format!("user {}", machine.user) };
    let cpus = counted(machine.cpus as u64, "CPU");
    format!("{}, {cpus}{tick}, as {user}", machine.kernel)
}

/// Writes the clocks, and the mechanisms that sample.
fn measuring(text: &mut String, machine: &Machine) {
    line(text, "");
    line(text, "CPU time of tasks");
    row(text, "in use", &machine.clock);
    machine.clocks.iter().for_each(|clock| offer(text, clock));
    row(text, "", "to choose another clock, set PERTASK_CLOCK to rseq, perf-page or thread");
    offer(text, &machine.membarrier);
    line(text, "");
    line(text, "Sampling (the timer up to the tick's rate, above it the first that works)");
    machine.sampling.iter().for_each(|way| wide_offer(text, way));
}

/// Writes the events and the limits.
fn counting(text: &mut String, machine: &Machine) {
    events(text, machine);
    line(text, "");
    limits(text, machine);
}

/// Writes the events. Those that are counted in the same way share a paragraph.
fn events(text: &mut String, machine: &Machine) {
    let level = match machine.perf_event_paranoid {
        Some(level) => format!("kernel.perf_event_paranoid is {level}"),
        None => "kernel.perf_event_paranoid is unknown: /proc/sys/kernel/perf_event_paranoid cannot be read"
            .to_owned(),
    };
    line(text, &format!("Events ({level})"));
    let mut alike: BTreeMap<(bool, String), Vec<&str>> = BTreeMap::new();
    for event in &machine.events {
        alike.entry((event.source.is_none(), verdict(event))).or_default().push(&event.event);
    }
    for ((_, verdict), names) in alike {
        line(text, &format!("  {verdict}"));
        for names in wrapped(&names) {
            line(text, &format!("      {names}"));
        }
    }
}

fn verdict(event: &CounterSource) -> String {
    match (&event.source, &event.refused) {
        (Some(source), None) => format!("counted by {source}"),
        (Some(source), Some(refused)) => format!("counted by {source} ({refused})"),
        (None, refused) => {
            format!("not counted: {}", refused.as_deref().unwrap_or("no reason known"))
        }
    }
}

fn limits(text: &mut String, machine: &Machine) {
    line(text, "Limits");
    let files = machine.open_files.map_or("none".to_owned(), |files| {
        format!(
            "{files}; counters take one for each event and worker, up to three quarters of them"
        )
    });
    row(text, "open files", &files);
    let memory = machine.locked_memory_bytes.map_or("none".to_owned(), |bytes| {
        format!(
            "{} KiB; counters that are read in user space take a page for each event and worker",
            bytes / 1024
        )
    });
    row(text, "locked memory", &memory);
}

fn offer(text: &mut String, offer: &Offer) {
    let verdict =
        offer.refused.as_ref().map_or("works".to_owned(), |why| format!("refused: {why}"));
    row(text, &offer.name, &verdict);
}

/// Writes an offer whose name is too long for the column.
fn wide_offer(text: &mut String, offer: &Offer) {
    let verdict =
        offer.refused.as_ref().map_or("works".to_owned(), |why| format!("refused: {why}"));
    line(text, &format!("  {}: {verdict}", offer.name));
}

fn row(text: &mut String, name: &str, value: &str) {
    line(text, &format!("  {name:<13}  {value}"));
}

fn line(text: &mut String, line: &str) {
    // Writing to memory does not fail.
    let _ = writeln!(text, "{line}");
}

/// Returns the names in lines of a readable width.
fn wrapped(names: &[&str]) -> Vec<String> {
    const WIDTH: usize = 84;
    let mut lines: Vec<String> = Vec::new();
    let last = names.len().saturating_sub(1);
    for (place, name) in names.iter().enumerate() {
        let name = if place < last { format!("{name},") } else { (*name).to_owned() };
        match lines.last_mut() {
            Some(line) if line.len() + name.len() < WIDTH => {
                line.push(' ');
                line.push_str(&name);
            }
            _ => lines.push(name),
        }
    }
    lines
}
