//! Prepares text for a terminal, so that it cannot control the terminal and is no wider than asked.
//!
//! Names and paths come from the program under measurement or from a file, and may contain anything.

use std::mem;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Returns `text` with all characters escaped that could control a terminal or reorder what it shows.
#[must_use]
pub fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match is_harmful(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// Returns the number of columns that `text` takes on a terminal.
#[must_use]
pub fn width(text: &str) -> usize {
    text.width()
}

/// Returns the beginning of `text`, at most `max` columns wide.
#[must_use]
pub fn cut_end(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let mut kept: String = fitting(text.chars(), max).collect();
    // A sequence, such as an emoji with its selector, can be wider than its characters.
    while width(&kept) >= max && kept.pop().is_some() {}
    kept + ellipsis(max)
}

/// Returns the end of the path `text`, at most `max` columns wide.
///
/// If the last component fits, only whole components are shown.
#[must_use]
pub fn cut_path(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let tail: String = fitting(text.chars().rev(), max).collect();
    let tail: String = tail.chars().rev().collect();
    let mut kept = tail.find('/').map_or(&*tail, |slash| &tail[slash..]);
    while width(kept) >= max && !kept.is_empty() {
        kept = kept.split_at(kept.chars().next().map_or(0, char::len_utf8)).1;
    }
    ellipsis(max).to_owned() + kept
}

/// Returns `text` broken at spaces into lines at most `max` columns wide.
///
/// All lines but the first are indented by `indent` spaces.
#[must_use]
pub fn wrap(text: &str, max: usize, indent: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.trim().is_empty() && width(&line) + 1 + width(word) > max {
            lines.push(mem::replace(&mut line, " ".repeat(indent)));
        } else if !line.trim().is_empty() {
            line.push(' ');
        }
        line += &cut_end(word, max.saturating_sub(width(&line)));
    }
    lines.push(line);
    lines
}

/// Returns whether the character is a control, a separator of lines or paragraphs, a bidirectional
/// override, or invisible. The two joiners are not: emoji and several scripts need them.
#[must_use]
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}'..='\u{200f}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Returns the sign for text that is cut off, or nothing if not even that fits.
fn ellipsis(max: usize) -> &'static str {
    if max > 0 { "…" } else { "" }
}

/// Returns as many characters as fit beside the ellipsis, each measured alone.
fn fitting(chars: impl Iterator<Item = char>, max: usize) -> impl Iterator<Item = char> {
    chars.scan(1, move |used, c| {
        *used += c.width().unwrap_or(0);
        (*used <= max).then_some(c)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: [&str; 8] = [
        "",
        "plain_ascii_name_of_some_length",
        "画像処理ワーカー",
        "❤️❤️❤️❤️❤️❤️",
        "👨‍👩‍👧‍👦 family 👨‍👩‍👧‍👦",
        "e\u{301}e\u{301}e\u{301}e\u{301}",
        "/画像/処理/ワーカー/❤️/main.rs:12",
        "////////////////",
    ];

    #[test]
    fn what_steers_a_terminal_is_spelled_out() {
        assert_eq!(harmless("a\nb\r\tc"), r"a\nb\r\tc");
        assert_eq!(harmless("\x1b[31mred\u{9b}0m"), r"\u{1b}[31mred\u{9b}0m");
        assert_eq!(harmless("\u{202e}lru\u{200b}\u{feff}"), r"\u{202e}lru\u{200b}\u{feff}");
        assert_eq!(harmless("it's 画像 👨‍👩‍👧 é"), "it's 画像 👨‍👩‍👧 é");
    }

    #[test]
    fn cut_text_is_never_wider_than_asked() {
        for text in NASTY {
            for max in 0..40 {
                assert!(width(&cut_end(text, max)) <= max, "{text:?} at {max}");
                assert!(width(&cut_path(text, max)) <= max, "{text:?} at {max}");
            }
        }
    }

    #[test]
    fn text_that_fits_is_not_cut() {
        for text in NASTY {
            assert_eq!(cut_end(text, width(text)), text);
            assert_eq!(cut_path(text, width(text)), text);
        }
    }

    #[test]
    fn names_keep_their_beginning() {
        assert_eq!(cut_end("resize_images", 8), "resize_…");
        assert_eq!(cut_end("画像処理", 6), "画像…");
        assert_eq!(cut_end("画像処理", 1), "…");
    }

    #[test]
    fn paths_keep_their_last_components() {
        let path = "/build/service/src/handlers/image.rs:88";
        assert_eq!(cut_path(path, 30), "…/src/handlers/image.rs:88");
        assert_eq!(cut_path(path, 14), "…/image.rs:88");
        assert_eq!(cut_path(path, 8), "…e.rs:88");
    }

    #[test]
    fn wrapped_lines_fit_and_lose_no_word() {
        let text = "clock: the thread clock, because perf events were refused";
        let lines = wrap(text, 24, 4);
        assert_eq!(
            lines,
            ["clock: the thread clock,", "    because perf events", "    were refused"]
        );
        assert_eq!(wrap("a incomprehensibilities b", 8, 2), ["a", "  incom…", "  b"]);
    }
}
