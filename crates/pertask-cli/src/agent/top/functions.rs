//! The hottest functions of what the user has asked about: a short profile by the agent.

use std::{sync::mpsc::Receiver, time::Duration};

use pertask::profile::{Filter, GroupBy, Profile, Subject as Row};

use crate::{
    agent::{Agent, Question},
    error::Error,
    record::Files,
    report::SymbolOptions,
    top::{HotFunction, Subject, Update, Updates},
};

/// How long and how often the stacks of one task are sampled when the user asks.
const STACKS: (Duration, &str) = (Duration::from_secs(2), "499");

/// The most functions that are shown of a task.
const MOST_FUNCTIONS: usize = 50;

/// Answers requests for stacks by sampling, until nobody can ask any more.
pub fn answer(pid: u32, asked: &Receiver<Subject>, updates: &Updates) {
    while let Ok(of) = asked.recv() {
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
