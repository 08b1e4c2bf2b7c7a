//! The few colours of the report.

/// The meaning of a piece of text, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tint {
    /// Ordinary text, in the terminal's own colour.
    Plain,
    /// A title, in bold.
    Title,
    /// Less important text, faint.
    Secondary,
    /// Something lost or odd, in yellow.
    Warning,
    /// Something that cannot be right, in red.
    Alarm,
    /// Something that makes progress, in green.
    Running,
    /// Something that waits, in blue.
    Waiting,
}

/// Colours text if the reader asked for colour.
#[derive(Clone, Copy, Debug)]
pub struct Ink {
    /// Whether the reader asked for colour.
    pub color: bool,
}

impl Ink {
    /// Returns `text` in the given tint. Text that follows is plain again.
    #[must_use]
    pub fn paint(self, text: &str, tint: Tint) -> String {
        match sgr(tint) {
            Some(code) if self.color && !text.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

/// Returns the parameter of "select graphic rendition" (ECMA-48).
fn sgr(tint: Tint) -> Option<u8> {
    match tint {
        Tint::Plain => None,
        Tint::Title => Some(1),
        Tint::Secondary => Some(2),
        Tint::Warning => Some(33),
        Tint::Alarm => Some(31),
        Tint::Running => Some(32),
        Tint::Waiting => Some(34),
    }
}
