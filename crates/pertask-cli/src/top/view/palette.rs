//! The few colours and attributes, which are those of every terminal.
//!
//! Nothing is told by colour alone, so all of it is there without colour. Only the sixteen colours of ANSI are used, as foregrounds,
//! because the user has chosen these to be readable on their background.

use ratatui::style::{Color, Modifier, Style};

use crate::top::state::Part;

/// The looks of the screen.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    /// Whether the user wants colours.
    pub color: bool,
}

impl Palette {
    /// A title, or what is important.
    pub fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What is selected, or not to be overlooked.
    pub fn marked(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Something lost or odd.
    pub fn warning(self) -> Style {
        self.colored(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// Something that cannot be right.
    pub fn alarm(self) -> Style {
        self.colored(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Time inside tasks.
    pub fn in_tasks(self) -> Style {
        self.colored(Color::Green)
    }

    /// Time of workers outside tasks.
    pub fn outside_tasks(self) -> Style {
        self.colored(Color::Cyan)
    }

    /// Time in a state.
    pub fn part(self, part: Part) -> Style {
        match part {
            Part::OnCpu => self.colored(Color::Green),
            Part::Blocked => self.colored(Color::Red),
            Part::Ready => self.colored(Color::Yellow),
            Part::Waiting => self.colored(Color::Blue),
            Part::Inside | Part::New | Part::Unknown => Style::new(),
        }
    }

    fn colored(self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }
}
