//! Text made fit for a terminal: it steers nothing, and is as narrow as asked.
//!
//! Names and paths come from the program under measurement; nothing is known about them.

use std::mem;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// `text` with everything escaped that could steer a terminal or reorder what it shows.
#[must_use]
pub fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match steers(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// Columns that `text` takes on a terminal.
#[must_use]
pub fn width(text: &str) -> usize {
    text.width()
}

/// The beginning of `text`, at most `max` columns wide.
#[must_use]
pub fn cut_end(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let mut kept: String = fitting(text.chars(), max).collect();
    // A sequence can be wider than its characters: an emoji with its selector, for one.
    while width(&kept) >= max && kept.pop().is_some() {}
    kept + ellipsis(max)
}

/// The end of the path `text`, at most `max` columns wide: whole components where one fits.
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

/// `text` broken at spaces into lines at most `max` columns wide, `indent` spaces before all but
/// the first.
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

/// Controls, line and paragraph separators, bidirectional overrides, and invisible characters.
/// The two joiners stay: emoji and several scripts need them.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}'..='\u{200f}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// What stands for the text cut off: nothing, where not even that fits.
fn ellipsis(max: usize) -> &'static str {
    if max > 0 { "…" } else { "" }
}

/// As many characters as fit beside the ellipsis, judged one by one.
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
