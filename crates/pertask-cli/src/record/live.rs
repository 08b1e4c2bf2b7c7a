//! Samples of a program without an agent, again and again, for `pertask top`.

use std::{
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use pertask::profile::{GroupBy, Profile, Subject as Row, SummaryRow};
use pertask_outside::{RecordOptions, Recorder};

use super::{Files, TURN};
use crate::{
    agent::hottest,
    error::Error,
    report::SymbolOptions,
    top::{Request, Sampled, SampledType, Source, Subject, Update, Updates},
};

/// How long each recording takes. Finding names takes a part of a second after each.
const EACH: Duration = Duration::from_secs(2);

/// How many of the last recordings are searched when the user asks for the functions of a type.
const KEPT: usize = 5;

/// A program that is sampled.
pub struct Samples {
    pid: u32,
    first: Recorder,
}

impl Samples {
    /// Begins to sample a process.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Record`] if it cannot be sampled.
    pub fn start(pid: u32) -> Result<Self, Error> {
        Ok(Self { pid, first: attach(pid)? })
    }
}

impl Source for Samples {
    fn run(self, updates: Updates, requests: Receiver<Request>) {
        let Self { pid, first } = self;
        let (files, mut sampled, mut last) = (Files::of(pid), Sampled::default(), Vec::new());
        let mut current = first;
        let why = loop {
            let (profile, is_alive) = record(current);
            let profile = SymbolOptions::default().named_from(profile, files.folders());
            add(&mut sampled, &profile);
            last.push(profile);
            last.drain(..last.len().saturating_sub(KEPT));
            while let Ok(Request::Stacks { of }) = requests.try_recv() {
                let found = Ok(of_last(&last, &of));
                if updates.send(Update::Stacks { of, found }).is_break() {
                    return;
                }
            }
            if updates.send(Update::Sampled(sampled.clone())).is_break() {
                return;
            }
            current = match attach(pid) {
                Ok(next) if is_alive => next,
                Err(why) if is_alive => break why.to_string(),
                _ => break "the process has ended".to_owned(),
            };
        };
        let _ = updates.send(Update::Ended(why));
    }
}

fn attach(pid: u32) -> Result<Recorder, Error> {
    Recorder::attach(pid, &RecordOptions::default()).map_err(Error::Record)
}

/// Records for a while. Returns also whether the process is still there.
fn record(mut recorder: Recorder) -> (Profile, bool) {
    let end = Instant::now() + EACH;
    while recorder.is_alive() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || recorder.turn(left.min(TURN)).is_err() {
            break;
        }
    }
    let is_alive = recorder.is_alive();
    (recorder.finish(), is_alive)
}

/// Adds what was recorded to the figures so far.
fn add(sampled: &mut Sampled, profile: &Profile) {
    let summary = profile.summary(&GroupBy::Site);
    sampled.duration_ns += profile.duration_ns;
    sampled.process_cpu_ns += summary.whole.time_ns;
    sampled.lost += profile.lost.samples_dropped;
    for SummaryRow { subject, own, .. } in summary.rows {
        if let Row::Site { .. } = subject {
            sampled.tasks_cpu_ns += own.time_ns;
        }
        let name = match &subject {
            Row::Site { name: Some(name), .. } => name.to_string(),
            other => other.to_string(),
        };
        let known = sampled.types.iter().position(|known| known.name == name);
        let at = known.unwrap_or_else(|| {
            sampled.types.push(SampledType { name, cpu_ns: 0, samples: 0 });
            sampled.types.len() - 1
        });
        let row = &mut sampled.types[at];
        row.cpu_ns += own.time_ns;
        row.samples += own.samples;
    }
}

/// The functions of a type in the newest recording that has it.
fn of_last(last: &[Profile], of: &Subject) -> Vec<crate::top::HotFunction> {
    let found = last.iter().rev().map(|profile| hottest(profile, of));
    found.into_iter().find(|found| !found.is_empty()).unwrap_or_default()
}
