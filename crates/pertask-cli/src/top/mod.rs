//! `pertask top`: which tasks spend the CPU right now, on a terminal.
//!
//! ```text
//!   Source ──Update──▶ ┌───────┐            ┌───────┐  reads  ┌──────┐
//!   input ────Key────▶ │ Inbox │ ─▶ loop ─▶ │ State │ ◀────── │ view │ ─▶ Screen
//!   signals ─────────▶ └───────┘            └───────┘         └──────┘
//! ```
//!
//! What happens comes from three threads and waits in the inbox ([`inbox`]), which never holds much. The main thread takes it out,
//! changes the state ([`state`]), and draws it ([`view`]) if it has changed, at most ten times a second ([`event_loop`]). Only
//! [`screen`], [`input`] and [`signals`] know that there is a real terminal.

mod error;
mod event_loop;
mod inbox;
mod input;
mod screen;
mod signals;
mod source;
mod state;
mod view;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    sync::{Arc, mpsc},
    thread,
};

use crate::output::{is_dumb_terminal, stdout_style};

use self::{event_loop::EventLoop, screen::Screen, state::State, view::Palette};

pub use self::{
    error::Error,
    inbox::{Happening, Inbox},
    source::{HotFunction, Request, Sampled, SampledType, Source, Subject, Update, Updates},
};

/// What is shown of a program beside its figures.
#[derive(Clone, Debug)]
pub struct TopOptions {
    /// The program's name.
    pub program: String,
    /// The number of its process.
    pub pid: u32,
    /// Whether the user has asked for the lives of tasks from the start.
    pub lives: bool,
}

/// The most requests that wait for the source.
const MOST_REQUESTS: usize = 8;

/// Shows what the source tells until the user leaves, or a signal comes. Returns the exit status that says which of these it was.
///
/// The terminal is left as it was, whatever happens.
///
/// # Errors
///
/// Returns an [`Error`] if there is no terminal, or it cannot be used, or a part of the command panics.
pub fn run(source: impl Source, options: &TopOptions) -> Result<ExitCode, Error> {
    check_terminal()?;
    let inbox = Arc::new(Inbox::default());
    signals::listen(&inbox).map_err(Error::Signals)?;
    let screen = Screen::enter().map_err(Error::Terminal)?;
    input::listen(&inbox).map_err(Error::Terminal)?;
    let requests = start(source, &inbox).map_err(Error::Terminal)?;
    let palette = Palette { color: stdout_style().color };
    let left = EventLoop {
        state: State::default(),
        screen,
        inbox: Arc::clone(&inbox),
        requests,
        options: options.clone(),
        palette,
    }
    .run();
    inbox.close();
    left
}

/// Finds out whether there is a terminal that can be used.
///
/// # Errors
///
/// Returns an [`Error`] if there is none.
pub fn check_terminal() -> Result<(), Error> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Error::NoTerminal);
    }
    match is_dumb_terminal() {
        true => Err(Error::DumbTerminal),
        false => Ok(()),
    }
}

/// Starts the source's thread.
fn start(source: impl Source, inbox: &Arc<Inbox>) -> io::Result<mpsc::SyncSender<Request>> {
    let (requests, asked) = mpsc::sync_channel(MOST_REQUESTS);
    let inbox = Arc::clone(inbox);
    thread::Builder::new().name("top-source".to_owned()).spawn(move || {
        let farewell = Farewell(inbox);
        source.run(Updates::new(Arc::clone(&farewell.0)), asked);
    })?;
    Ok(requests)
}

/// Says that no more figures come when it is dropped, even if the source panics.
struct Farewell(Arc<Inbox>);

impl Drop for Farewell {
    fn drop(&mut self) {
        // Only the first reason is shown, so this one is if the source has not given one.
        let ended = Update::Ended("no more figures come".to_owned());
        let _ = self.0.push(Happening::Update(ended));
    }
}
