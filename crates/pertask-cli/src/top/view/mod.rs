//! The state, drawn.
//!
//! The view changes nothing. What it needs to know of the past is in the state.

mod bars;
mod caption;
mod cell;
mod columns;
mod footer;
mod header;
mod help;
mod message;
mod palette;
mod table;
#[cfg(test)]
mod tests;

use pertask_text::text::{cut_end, wrap};
use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use super::{
    TopOptions,
    state::{Column, State},
};

use self::table::Table;

pub use self::palette::Palette;

/// The width of the bar of one subject, where there is room.
const MOST_BAR: usize = 40;

/// What there is room for.
struct Layout {
    header: Vec<Line<'static>>,
    /// An empty line below the header.
    gap: bool,
    /// What the page is, and the facts of its subject.
    caption: Vec<Line<'static>>,
    titles: bool,
    footer: bool,
    /// The number of rows.
    rows: usize,
}

/// Returns how many rows of the open page a terminal of this size has room for.
pub fn rows(state: &State, options: &TopOptions, size: (u16, u16)) -> usize {
    Layout::new(state, options, size, Palette { color: false }).rows
}

/// Draws the state.
pub fn draw(frame: &mut Frame<'_>, state: &State, options: &TopOptions, palette: Palette) {
    let area = frame.area();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let lines = match state.is_help() {
        true => help::lines(width, palette),
        false => page(state, options, area, palette),
    };
    for (y, line) in lines.iter().take(height).enumerate() {
        let row = Rect { y: area.y + y as u16, height: 1, ..area };
        frame.render_widget(line, row);
    }
}

/// The lines of the screen, from the first to the last.
fn page(state: &State, options: &TopOptions, area: Rect, palette: Palette) -> Vec<Line<'static>> {
    let layout = Layout::new(state, options, (area.width, area.height), palette);
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let mut lines = layout.header;
    lines.extend(layout.gap.then(Line::default));
    lines.extend(layout.caption);
    lines.extend(body(state, (width, layout.rows), layout.titles, palette));
    if layout.footer {
        lines.resize(height - 1, Line::default());
        lines.push(footer::line(state, width, palette));
    }
    lines
}

/// The rows with their titles, or why there are none.
fn body(
    state: &State,
    (width, rows): (usize, usize),
    has_titles: bool,
    palette: Palette,
) -> Vec<Line<'static>> {
    if state.rows_matching() == 0 {
        let lines = wrap(&message::text(state), width, 0);
        return lines.into_iter().take(rows).map(Line::raw).collect();
    }
    let table = Table::new(state, width, palette);
    let titles = has_titles.then(|| table.titles());
    let rows = state.window().take(rows).map(|(row, selected)| table.row(row, selected));
    titles.into_iter().chain(rows).collect()
}

impl Layout {
    fn new(
        state: &State,
        options: &TopOptions,
        (width, height): (u16, u16),
        palette: Palette,
    ) -> Self {
        let (width, height) = (usize::from(width), usize::from(height));
        let header = header::lines(state, options, (width, most_header(height)), palette);
        let caption = match height {
            0..=7 => Vec::new(),
            _ => caption(state, width, height.saturating_sub(16), palette),
        };
        let (gap, titles, footer) = (height >= 20, height >= 3, height >= 6);
        let others: usize = [gap, titles, footer].map(usize::from).iter().sum();
        let rows = height.saturating_sub(header.len() + caption.len() + others);
        Self { header, gap, caption, titles, footer, rows }
    }
}

/// The most lines above the page. The rows matter more.
fn most_header(height: usize) -> usize {
    match height {
        0..=3 => 0,
        4..=7 => 1,
        8..=11 => 2,
        12..=15 => 3,
        _ => 7,
    }
}

/// What the page shows, and so many lines of what is known of its subject at most.
fn caption(state: &State, width: usize, most: usize, palette: Palette) -> Vec<Line<'static>> {
    let sort = state.sort().column;
    let mut text = caption::text(state);
    if !columns::fit(state, width).iter().any(|(column, _)| *column == sort) {
        text += &format!("  by {}", columns::title(sort));
    }
    let title = Span::styled(cut_end(&text, width), palette.title());
    let facts = caption::facts(state, width).into_iter();
    let facts = facts.map(|line| Line::raw(cut_end(&line, width)));
    let below = facts.chain(last_interval(state, width, palette)).take(most);
    [with_legend(state, title, width, palette)].into_iter().chain(below).collect()
}

/// The title of the page, and what the marks of lives stand for if there is room for it.
fn with_legend(
    state: &State,
    title: Span<'static>,
    width: usize,
    palette: Palette,
) -> Line<'static> {
    let room = width.saturating_sub(title.width());
    let legend = match state.columns().contains(&Column::Life) {
        true => bars::legend(room, palette),
        false => Vec::new(),
    };
    Line::from_iter([title].into_iter().chain(legend))
}

/// How the page's subject spent the last interval, as a bar.
fn last_interval(state: &State, width: usize, palette: Palette) -> Option<Line<'static>> {
    const WORDS: &str = "last interval ";
    let room = width.checked_sub(WORDS.len())?;
    let bar = (room * 2 / 5).min(MOST_BAR);
    let spans = [Span::raw(WORDS)].into_iter().chain(bars::life(state.lived()?, bar, palette));
    Some(Line::from_iter(spans.chain(bars::legend(room - bar, palette))))
}
