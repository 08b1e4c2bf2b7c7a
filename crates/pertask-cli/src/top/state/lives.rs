//! Whether the lives of tasks are measured, and the key that changes it.

use crate::top::source::Request;

use super::{State, commands::Action, page::Page};

/// Whether the source measures lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lives {
    #[default]
    No,
    Yes,
    /// The source has been asked to begin, or to end it.
    Asked,
}

/// What is said where nobody can measure them any more.
const ENDED: &str = "there is nobody to ask for lives any more";

/// What is said where the figures on the screen do not change.
const PAUSED: &str = "p goes on, and then lives come or go";

impl State {
    /// Asks the source to measure lives, or to leave that.
    pub(super) fn toggle_lives(&mut self) -> Option<Action> {
        let is_asked = self.lives == Lives::Asked;
        if self.home() == Page::Types {
            self.note = Some(super::commands::NEEDS_AGENT.into());
        } else if self.ended.is_some() {
            self.note = Some(ENDED.into());
        } else if !is_asked {
            self.note = self.is_paused().then(|| PAUSED.into());
            let measured = self.lives == Lives::No;
            self.lives = Lives::Asked;
            return Some(Action::Ask(Request::Lives { measured }));
        }
        None
    }

    /// Takes notice of a new session of the source. The figures of the last one stay until the new one has some.
    pub(super) fn begin_session(&mut self, lives: bool) {
        self.lives = if lives { Lives::Yes } else { Lives::No };
        self.next_session = Some(lives);
    }

    /// Says why the source goes on as before.
    pub(super) fn refuse_lives(&mut self, reason: &str) {
        let had_lives = self.next_session.unwrap_or(self.figures.asks_for_lives());
        self.lives = if had_lives { Lives::Yes } else { Lives::No };
        self.note = Some(format!("lives: {reason}").into());
    }
}
