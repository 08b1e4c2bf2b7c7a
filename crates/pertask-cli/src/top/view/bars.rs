//! Pictures that are one line high.

use ratatui::text::Span;

use crate::top::state::{Busy, History, Lived, Part};

use super::palette::Palette;

/// The heights of a character, from nothing to all.
const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The least percentage that a full height stands for: the noise of an idle task is no mountain.
const LEAST_SCALE: f32 = 10.0;

/// Returns a worker's bar: its time in tasks, outside tasks, and idle.
pub fn worker(busy: Busy, width: usize, palette: Palette) -> [Span<'static>; 3] {
    let cells = |part: f64| ((part * width as f64).round() as usize).min(width);
    let filled = cells(busy.in_tasks + busy.outside);
    let in_tasks = cells(busy.in_tasks).min(filled);
    [
        Span::styled("█".repeat(in_tasks), palette.in_tasks()),
        Span::styled("▒".repeat(filled - in_tasks), palette.outside_tasks()),
        Span::raw("·".repeat(width - filled)),
    ]
}

/// Returns a worker as one character.
pub fn small_worker(busy: Busy, palette: Palette) -> Span<'static> {
    let part = busy.in_tasks + busy.outside;
    let style =
        if busy.in_tasks >= busy.outside { palette.in_tasks() } else { palette.outside_tasks() };
    match level(part as f32) {
        ' ' => Span::raw("·"),
        level => Span::styled(level.to_string(), style),
    }
}

/// Returns how tasks spent their time: each state has as many marks as its share, rounded so that they fill the width.
pub fn life(lived: Lived, width: usize, palette: Palette) -> Vec<Span<'static>> {
    let (all, mut so_far, mut drawn) = (lived.all(), 0.0, 0);
    if all <= 0.0 {
        return vec![Span::raw(" ".repeat(width))];
    }
    let piece = |part: Part| {
        so_far += lived.of(part);
        let end = ((so_far / all * width as f64).round() as usize).clamp(drawn, width);
        let marks = mark(part).to_string().repeat(end - drawn);
        drawn = end;
        Span::styled(marks, palette.part(part))
    };
    Part::ALL.into_iter().map(piece).collect()
}

/// Returns what the marks of such bars stand for, after a gap: all of them, or those of the usual states, or none, as there is room.
pub fn legend(room: usize, palette: Palette) -> Vec<Span<'static>> {
    const USUAL: usize = 4;
    let of = |parts: &[Part]| -> Vec<Span<'static>> {
        let named = |part: &Part| {
            [
                Span::raw(" "),
                Span::styled(mark(*part).to_string(), palette.part(*part)),
                Span::raw(part.words()),
            ]
        };
        [Span::raw(" ")].into_iter().chain(parts.iter().flat_map(named)).collect()
    };
    let fits = |spans: &Vec<Span<'_>>| spans.iter().map(Span::width).sum::<usize>() <= room;
    [of(&Part::ALL), of(&Part::ALL[..USUAL])].into_iter().find(fits).unwrap_or_default()
}

/// Those that the report's table has, too.
fn mark(part: Part) -> char {
    match part {
        Part::OnCpu => '█',
        Part::Blocked => '▓',
        Part::Ready => '▒',
        Part::Waiting => '░',
        Part::Inside => '=',
        Part::New => '-',
        Part::Unknown => '·',
    }
}

/// Returns the last values of a percentage, the newest at the right end. The highest is as high as a line, if it is not too low.
pub fn history(history: &History, width: usize) -> String {
    let scale = history.last(width).fold(LEAST_SCALE, f32::max);
    let levels: String = history.last(width).map(|percent| level(percent / scale)).collect();
    format!("{levels:>width$}")
}

/// What is not nothing is not shown as nothing.
fn level(part: f32) -> char {
    let top = LEVELS.len() - 1;
    let least = usize::from(part > 0.005);
    LEVELS[((part * top as f32).round() as usize).clamp(least, top)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(spans: &[Span<'_>]) -> String {
        spans.iter().map(|span| &*span.content).collect()
    }

    #[test]
    fn a_bar_has_its_parts_and_its_width() {
        let plain = Palette { color: false };
        let bar = |in_tasks, outside| text(&worker(Busy { in_tasks, outside }, 8, plain));
        assert_eq!(bar(0.5, 0.25), "████▒▒··");
        assert_eq!(bar(0.0, 0.0), "········");
        assert_eq!(bar(1.0, 0.0), "████████");
        assert_eq!(bar(0.06, 0.06), "▒·······");
        assert_eq!(bar(f64::NAN, 9.0), "········");
    }

    #[test]
    fn a_history_grows_from_the_right() {
        let mut values = History::default();
        assert_eq!(history(&values, 4), "    ");
        for percent in [0.0, 50.0, 100.0] {
            values.push(percent);
        }
        assert_eq!(history(&values, 4), "  ▄█");
        assert_eq!(history(&values, 2), "▄█");
        assert_eq!(history(&values, 0), "");
    }

    #[test]
    fn little_is_low_and_not_nothing() {
        let mut values = History::default();
        [0.0, 0.2, 1.0].into_iter().for_each(|percent| values.push(percent));
        assert_eq!(history(&values, 3), " ▁▁");
    }
}
