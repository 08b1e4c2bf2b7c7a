//! Ink: the few colours of the report, or none.

/// How a piece of text stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tint {
    /// As the terminal has it.
    Plain,
    /// A title: bold.
    Title,
    /// What matters less: faint.
    Secondary,
    /// What is lost, or odd: yellow.
    Warning,
    /// What cannot be right: red.
    Alarm,
}

/// Colours text, when the reader asked for colour.
#[derive(Clone, Copy, Debug)]
pub struct Ink {
    /// Whether the reader asked for colour.
    pub color: bool,
}

impl Ink {
    /// `text` in the given tint, which ends with it.
    #[must_use]
    pub fn paint(self, text: &str, tint: Tint) -> String {
        match sgr(tint) {
            Some(code) if self.color && !text.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

/// The parameter of "select graphic rendition" (ECMA-48).
fn sgr(tint: Tint) -> Option<u8> {
    match tint {
        Tint::Plain => None,
        Tint::Title => Some(1),
        Tint::Secondary => Some(2),
        Tint::Warning => Some(33),
        Tint::Alarm => Some(31),
    }
}
