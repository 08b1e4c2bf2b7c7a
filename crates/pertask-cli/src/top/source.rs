//! Where the figures come from: a program with pertask in it, or samples of a program without.
//!
//! A source has a thread of its own. It sends what it learns, and hears what the user asks for. It never waits for the terminal: of
//! the figures that nobody has looked at yet, only the newest are kept.

use std::{
    ops::ControlFlow,
    sync::{Arc, mpsc::Receiver},
};

use pertask::{Report, SpawnSite};

use super::inbox::{Happening, Inbox};

/// What `pertask top` shows figures of.
pub trait Source: Send + 'static {
    /// Sends updates until the program has ended, or until nobody looks at them any more.
    ///
    /// If it returns without [`Update::Ended`], the user is told that the figures have ended.
    fn run(self, updates: Updates, requests: Receiver<Request>);
}

/// What a source has learnt.
#[derive(Debug)]
pub enum Update {
    /// All figures of one session since its start. Rates are differences of two such reports, over the time between them by their
    /// own [`Report::duration_ns`].
    Report(Box<Report>),
    /// All figures of a program that is only sampled.
    Sampled(Sampled),
    /// The answer to [`Request::Stacks`], or the reason why there is none.
    Stacks {
        /// What was asked about.
        of: Subject,
        /// Its hottest functions, the hottest first.
        found: Result<Vec<HotFunction>, String>,
    },
    /// The next reports are of a new session.
    Session {
        /// Whether it measures the lives of tasks.
        lives: bool,
    },
    /// Why the source does not do what [`Request::Lives`] asks. The session goes on.
    LivesRefused(String),
    /// Nothing more will come. The reason is a part of a sentence: `the program has ended`.
    Ended(String),
}

/// What samples have told of a program since sampling began.
#[derive(Clone, Debug, Default)]
pub struct Sampled {
    /// Wall time since sampling began.
    pub duration_ns: u64,
    /// CPU time of the whole process since then, user and system.
    pub process_cpu_ns: u64,
    /// The estimated part of that inside tasks.
    pub tasks_cpu_ns: u64,
    /// One row for each type of task, and for what is in no task but has a name, as the scheduler.
    pub types: Vec<SampledType>,
    /// The number of samples that were lost.
    pub lost: u64,
}

/// All tasks of one type, as samples know them.
#[derive(Clone, Debug)]
pub struct SampledType {
    /// The type, in words for people.
    pub name: String,
    /// The estimated CPU time since sampling began.
    pub cpu_ns: u64,
    /// The number of samples since then.
    pub samples: u64,
}

/// A function, and its share of the CPU time of what was asked about.
#[derive(Clone, Debug)]
pub struct HotFunction {
    /// The function's name.
    pub function: String,
    /// Its share, from 0 to 1.
    pub share: f64,
}

/// What the user asks a source for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The hottest functions, which are to be sent as [`Update::Stacks`].
    Stacks {
        /// The tasks that they are asked of.
        of: Subject,
    },
    /// Another session, which is to be sent as [`Update::Session`]. Only a source that sends reports is asked for it.
    Lives {
        /// Whether it measures the lives of tasks.
        measured: bool,
    },
}

/// Whose functions are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// All tasks of one spawn site and name.
    Site(SpawnSite),
    /// One task, by its number.
    Task(u64),
    /// All tasks of one [`SampledType`], by its name.
    Type(String),
}

/// The way from a source to the screen.
#[derive(Clone)]
pub struct Updates(Arc<Inbox>);

impl Updates {
    /// Returns the way into `inbox`.
    pub fn new(inbox: Arc<Inbox>) -> Self {
        Self(inbox)
    }

    /// Hands over what was learnt, without waiting. An unread update of the same kind is dropped.
    ///
    /// Returns `Break` if the user has left.
    pub fn send(&self, update: Update) -> ControlFlow<()> {
        self.0.push(Happening::Update(update))
    }
}
