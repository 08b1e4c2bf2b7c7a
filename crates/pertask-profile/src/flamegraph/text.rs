//! Text for the picture: harmless in XML whatever it holds, cut to a length, and amounts in units for people.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Characters of a name in the tooltip. What is longer is cut.
pub(super) const NAME_CHARS: usize = 1_000;

/// Characters of a source file's path.
pub(super) const SOURCE_CHARS: usize = 300;

/// A text that can stand between tags and in a quoted attribute.
///
/// Characters that XML has no place for, that would break a line, or that would turn the direction of what follows are spelled
/// out, as `\u{202e}`.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| escape(c, f))
    }
}

fn escape(c: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match c {
        '&' => f.write_str("&amp;"),
        '<' => f.write_str("&lt;"),
        '>' => f.write_str("&gt;"),
        '"' => f.write_str("&quot;"),
        '\'' => f.write_str("&#39;"),
        c if is_spelled_out(c) => write!(f, "{}", c.escape_default()),
        c => f.write_char(c),
    }
}

fn is_spelled_out(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Marks and controls of the writing direction.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Ends of lines and paragraphs, the byte order mark, and what is no character.
            | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// The beginning of a text, of that many characters at most.
pub(super) fn beginning(text: &str, chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars) {
        None => text.into(),
        Some(_) => {
            let kept = text.chars().take(chars.saturating_sub(1));
            kept.chain(['…']).collect::<String>().into()
        }
    }
}

/// The end of a text, of that many characters at most: what tells one path from another.
pub(super) fn end(text: &str, chars: usize) -> Cow<'_, str> {
    if chars == 0 || text.char_indices().nth_back(chars - 1).is_none_or(|(at, _)| at == 0) {
        return if chars == 0 { "".into() } else { text.into() };
    }
    let from = text.char_indices().nth_back(chars.saturating_sub(2)).map_or(0, |(at, _)| at);
    format!("…{}", &text[from..]).into()
}

/// How much a part is of the whole: `12.34 %`.
pub(super) fn percent(part: u128, whole: u128) -> String {
    let whole = if whole == 0 { 1.0 } else { whole as f64 };
    format!("{:.2} %", part as f64 / whole * 100.0)
}

/// A text in lines of that many characters at most, broken at blanks where there are some.
pub(super) fn wrapped(text: &str, chars: usize, most_lines: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let word = beginning(word, chars);
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > chars {
            if lines.len() + 1 == most_lines {
                line.push('…');
                break;
            }
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    lines.push(line);
    lines
}
