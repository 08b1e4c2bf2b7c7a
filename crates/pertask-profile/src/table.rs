//! Summaries of a profile as text for a terminal, in the style of the report's tables.
//!
//! Names come from a file that may be hostile, so characters that could control a terminal are escaped.

use std::fmt;
use std::time::UNIX_EPOCH;

use super::{Amount, Filter, GroupBy, Lost, Profile, Sample, Subject, Summary, SummaryRow, frames};
use pertask_text::grid::{Cell, Column, Grid};
use pertask_text::human::{self, counted};
use pertask_text::ink::{Ink, Tint};
use pertask_text::text::{harmless, wrap};

/// How a [`SummaryTable`] or an [`Overview`] looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SummaryStyle {
    /// The width that no line exceeds, at least 60 columns. `None` sets no limit.
    pub width: Option<u16>,
    /// Whether the text has ANSI colours.
    pub color: bool,
    /// The most rows of a table. Functions that only call others, and spent no time themselves, have rows only where this is
    /// [`usize::MAX`].
    pub max_rows: usize,
    /// Whether the names of tasks are shown whole, up to some hundred columns, and not as far as they fit beside the rest.
    pub whole_names: bool,
}

impl Default for SummaryStyle {
    fn default() -> Self {
        Self { width: None, color: false, max_rows: 20, whole_names: false }
    }
}

/// A [`Summary`] that displays as text, made by [`Summary::table`].
#[derive(Clone, Copy, Debug)]
pub struct SummaryTable<'a> {
    summary: &'a Summary,
    style: SummaryStyle,
}

/// A [`Profile`] described in a few lines, made by [`Profile::overview`].
#[derive(Clone, Copy, Debug)]
pub struct Overview<'a> {
    whole: &'a Profile,
    part: Option<(&'a Profile, &'a Filter)>,
    style: SummaryStyle,
}

impl Summary {
    /// Returns this summary as text: a title, a row for each subject, and a line that counts the rows left out.
    #[must_use]
    pub fn table(&self, style: SummaryStyle) -> SummaryTable<'_> {
        SummaryTable { summary: self, style }
    }
}

impl Profile {
    /// Returns a description of this profile: its CPU time and duration, when and how it was sampled, and what was lost.
    #[must_use]
    pub fn overview(&self, style: SummaryStyle) -> Overview<'_> {
        Overview { whole: self, part: None, style }
    }
}

impl<'a> Overview<'a> {
    /// Adds how much of the profile `filter` selects, where `part` is what it selects.
    #[must_use]
    pub fn with_part(self, part: &'a Profile, filter: &'a Filter) -> Self {
        Self { part: Some((part, filter)), ..self }
    }
}

impl fmt::Display for Overview<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.style.prose(&self.totals(), Tint::Title);
        lines.extend(self.style.prose(&self.origin(), Tint::Secondary));
        // The lines before tell of these two.
        let lost = Lost { stacks_incomplete: 0, unsampled_cpu_ns: 0, ..self.whole.lost };
        if !lost.is_empty() {
            lines.extend(self.style.prose(&format!("lost: {lost}"), Tint::Warning));
        }
        let remarks = self.whole.remarks.iter().take(MAX_REMARKS);
        lines.extend(remarks.flat_map(|remark| self.style.prose(remark, Tint::Warning)));
        let more = self.whole.remarks.len().saturating_sub(MAX_REMARKS);
        if more > 0 {
            let more = format!("… and {}", counted(more as u64, "more remark"));
            lines.extend(self.style.prose(&more, Tint::Warning));
        }
        lines.extend(self.hints().iter().flat_map(|hint| self.style.prose(hint, Tint::Secondary)));
        if let Some((part, filter)) = self.part {
            lines.extend(self.style.prose(&self.matched(part, filter), Tint::Title));
        }
        f.write_str(&lines.join("\n"))
    }
}

impl Overview<'_> {
    fn totals(&self) -> String {
        let Amount { cpu_ns, samples } = self.whole.whole();
        let duration_ns = self.whole.duration_ns;
        let mut sampled = format!("{} of CPU time", human::duration_ns(cpu_ns));
        sampled += &self.in_samples(samples);
        let unsampled_ns = self.whole.lost.unsampled_cpu_ns;
        if unsampled_ns > 0 {
            sampled += &format!(" (and {} not in the profile)", human::duration_ns(unsampled_ns));
        }
        match duration_ns {
            0 => sampled,
            _ => format!(
                "{sampled} over {}: {:.2} CPUs busy",
                human::duration_ns(duration_ns),
                cpu_ns as f64 / duration_ns as f64
            ),
        }
    }

    /// Returns ` in 12 samples`, or nothing if the number is not known.
    fn in_samples(&self, samples: u64) -> String {
        match self.whole.has_counts {
            true => format!(" in {}", counted(samples, "sample")),
            false => String::new(),
        }
    }

    fn origin(&self) -> String {
        let Profile { start, mechanism, period_ns, .. } = self.whole;
        let mut parts = Vec::new();
        // Programs that do not know the time write none, or 0.
        match start.duration_since(UNIX_EPOCH) {
            Ok(since) if !since.is_zero() => parts.push(format!("from {}", utc(since.as_secs()))),
            _ => (),
        }
        parts.extend((!mechanism.is_empty()).then(|| mechanism.clone()));
        if *period_ns > 0 {
            parts.push(format!("a sample each {} of CPU time", human::duration_ns(*period_ns)));
        }
        parts.extend(self.complete());
        parts.join("; ")
    }

    fn complete(&self) -> Option<String> {
        let is_whole = |sample: &&Sample| sample.complete && !sample.stack.is_empty();
        let whole = self.whole.samples.iter().filter(is_whole).map(Amount::of);
        let (whole, all) = (whole.fold(Amount::default(), Amount::plus), self.whole.whole());
        let (part, all, what) = match self.whole.has_counts {
            true => (whole.samples, all.samples, "the stacks whole"),
            false => (whole.cpu_ns, all.cpu_ns, "the CPU time in whole stacks"),
        };
        (all > 0).then(|| match part == all {
            true => "all stacks whole".to_owned(),
            false => format!("{} of {what}", human::percent(part, all)),
        })
    }

    /// Says which tasks and labels there are to ask for.
    fn hints(&self) -> Vec<String> {
        let samples = &self.whole.samples;
        let mut hints = Vec::new();
        if !samples.is_empty() && samples.iter().all(|sample| sample.task.is_none()) {
            hints.push(
                "tasks: the profile names none; its recorder knew none, or no task ran".to_owned(),
            );
        }
        let by_type =
            |sample: &Sample| sample.task.as_ref().is_some_and(|task| task.future.is_some());
        if samples.iter().any(by_type) {
            hints.push(
                "~ marks the type of tasks without a name, read from their stacks; their CPU time is estimated from samples"
                    .to_owned(),
            );
        }
        if !self.whole.has_counts && !samples.is_empty() {
            hints.push("samples: the profile does not say how many there are".to_owned());
        }
        let keys = self.whole.label_keys();
        let shown: Vec<_> = keys.iter().take(MAX_KEYS).map(|key| &**key).collect();
        if let Some(more) = keys.len().checked_sub(shown.len())
            && !keys.is_empty()
        {
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            hints.push(format!("labels: {}{more}", shown.join(", ")));
        }
        hints
    }

    fn matched(&self, part: &Profile, filter: &Filter) -> String {
        let (part, whole) = (part.whole(), self.whole.whole());
        format!(
            "matched: {} ({}){}: {filter}",
            human::duration_ns(part.cpu_ns),
            human::percent(part.cpu_ns, whole.cpu_ns),
            self.in_samples(part.samples),
        )
    }
}

impl SummaryTable<'_> {
    fn shown_rows(&self) -> usize {
        let Summary { by, rows, .. } = self.summary;
        let max = self.style.max_rows;
        if *by != GroupBy::Function || max == usize::MAX {
            return max.min(rows.len());
        }
        // The rows are in the order of their own time.
        rows.iter().take(max).take_while(|row| row.own != Amount::default()).count()
    }
}

impl fmt::Display for SummaryTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { by, whole, has_counts, rows } = self.summary;
        let (shown, cut) = rows.split_at(self.shown_rows());
        let of = human::duration_ns(whole.cpu_ns);
        let mut lines = self.style.prose(&format!("{} (% of {of})", title(by)), Tint::Title);
        if rows.is_empty() {
            lines.push(self.style.ink().paint("no samples", Tint::Secondary));
        }
        if !shown.is_empty() {
            let with_files = need_files(shown);
            let cells = |row: &SummaryRow| {
                let samples = has_counts.then_some(row.own.samples);
                cells(by, row, *whole, samples, with_files)
            };
            let cells = shown.iter().map(cells).collect();
            let label = label_title(by);
            let most = if self.style.whole_names { MAX_FUNCTION } else { MAX_NAME };
            let grid = Grid::new(&columns(by, &label, with_files, most), cells);
            lines.extend(grid.lines(self.style.max_width(), self.style.ink()));
        }
        if !cut.is_empty() {
            let own = cut.iter().fold(Amount::default(), |sum, row| sum.plus(row.own));
            let what = if is_nested(by) { "self" } else { "CPU" };
            let rows = counted(cut.len() as u64, "more row");
            let more = format!("… and {rows}, {} {what}", human::duration_ns(own.cpu_ns));
            lines.push(self.style.ink().paint(&more, Tint::Secondary));
        }
        f.write_str(&lines.join("\n"))
    }
}

/// The least width: the important columns do not fit into less.
const MIN_WIDTH: u16 = 60;
/// The most columns of a name, even on a wide terminal: one long name would push the other columns apart.
const MAX_NAME: usize = 40;
const MAX_PATH: usize = 56;
/// The most remarks that are shown.
const MAX_REMARKS: usize = 5;
/// The most label keys that are shown.
const MAX_KEYS: usize = 8;
/// The most columns of a function's name, which is the last column.
const MAX_FUNCTION: usize = 240;

impl SummaryStyle {
    /// Wraps running text at spaces.
    fn prose(self, text: &str, tint: Tint) -> Vec<String> {
        let lines = wrap(&harmless(text), self.max_width().unwrap_or(usize::MAX), 4);
        lines.iter().map(|line| self.ink().paint(line, tint)).collect()
    }

    fn max_width(self) -> Option<usize> {
        self.width.map(|width| width.max(MIN_WIDTH).into())
    }

    fn ink(self) -> Ink {
        Ink { color: self.color }
    }
}

fn title(by: &GroupBy) -> String {
    match by {
        GroupBy::Site => "Tasks by site".to_owned(),
        GroupBy::Task => "Tasks".to_owned(),
        GroupBy::Function => "Functions".to_owned(),
        GroupBy::Thread => "Threads".to_owned(),
        GroupBy::Scope => "Scopes".to_owned(),
        GroupBy::Label(key) => format!("Label {key}"),
    }
}

/// Returns whether a sample can be in several rows, so that own and total amounts differ.
fn is_nested(by: &GroupBy) -> bool {
    matches!(by, GroupBy::Function | GroupBy::Scope)
}

/// Returns the title of a label's column: its key.
fn label_title(by: &GroupBy) -> String {
    match by {
        GroupBy::Label(key) => harmless(key).to_uppercase(),
        _ => String::new(),
    }
}

/// Returns whether some functions have names without a path, which do not say enough alone.
fn need_files(rows: &[SummaryRow]) -> bool {
    rows.iter().any(|row| match &row.subject {
        Subject::Function { name, file: Some(_) } => !name.contains(['.', ':', '/']),
        _ => false,
    })
}

fn columns<'a>(
    by: &GroupBy,
    label: &'a str,
    with_files: bool,
    most_of_name: usize,
) -> Vec<Column<'a>> {
    let number = |title| Column::Number { title, rank: None };
    let samples = Column::Number { title: "SAMPLES", rank: Some(1) };
    let text = |title, most| Column::Text { title, least: 14, most };
    let path = |title| Column::Text { title, least: 20, most: MAX_PATH };
    let mut columns = match is_nested(by) {
        true => vec![number("SELF%"), number("SELF"), number("TOTAL%"), number("TOTAL"), samples],
        false => vec![number("CPU%"), number("CPU"), samples],
    };
    match by {
        GroupBy::Site => columns.extend([text("TASK", most_of_name), path("SITE")]),
        GroupBy::Task => columns.extend([
            number("ID"),
            Column::Number { title: "PARENT", rank: Some(0) },
            text("TASK", most_of_name),
            path("SITE"),
        ]),
        GroupBy::Function if with_files => {
            columns.extend([text("FUNCTION", MAX_FUNCTION / 3), path("FILE")]);
        }
        GroupBy::Function => columns.push(text("FUNCTION", MAX_FUNCTION)),
        GroupBy::Thread => columns.extend([text("THREAD", MAX_NAME), number("TID")]),
        GroupBy::Scope => columns.push(text("SCOPE", MAX_FUNCTION)),
        GroupBy::Label(_) => columns.push(text(label, MAX_FUNCTION)),
    }
    columns
}

fn cells(
    by: &GroupBy,
    row: &SummaryRow,
    whole: Amount,
    samples: Option<u64>,
    with_files: bool,
) -> Vec<Cell> {
    let amounts = if is_nested(by) { vec![row.own, row.total] } else { vec![row.own] };
    let amounts = amounts.iter().flat_map(|amount| {
        [human::percent(amount.cpu_ns, whole.cpu_ns), human::duration_ns(amount.cpu_ns)]
    });
    let mut cells: Vec<_> = amounts.map(|text| Cell::new(&text)).collect();
    let samples = samples.map_or(human::NONE.to_owned(), human::count);
    cells.push(Cell::new(&samples));
    cells.extend(subject(by, &row.subject, with_files));
    cells
}

/// Returns the cells that name the subject of a row.
fn subject(by: &GroupBy, subject: &Subject, with_files: bool) -> Vec<Cell> {
    let none = || Cell::new(human::NONE);
    // Many rows may have one long name.
    let name =
        |name: Option<&str>| name.map_or_else(none, |name| Cell::new(frames::beginning(name)));
    let site = |site: Option<&super::Site>| {
        let place = |site| Cell::path(frames::end(&frames::place(site)));
        site.map_or_else(none, place).tint(Tint::Secondary)
    };
    let number = |id: Option<u64>| id.map_or_else(none, |id| Cell::new(&id.to_string()));
    match subject {
        Subject::Site { name: of, site: at } => vec![name(of.as_deref()), site(at.as_ref())],
        Subject::Task(task) => vec![
            number(task.id),
            number(task.parent),
            name(task.name.as_deref()),
            site(task.site.as_ref()),
        ],
        Subject::Function { name, file } if with_files => {
            let file = file.as_deref().map_or_else(none, Cell::path);
            vec![Cell::path(name), file.tint(Tint::Secondary)]
        }
        Subject::Function { name, .. } => vec![Cell::path(name)],
        Subject::Thread(Some(thread)) => {
            let tid = (thread.tid != 0).then_some(thread.tid.into());
            let known = (!thread.name.is_empty()).then_some(&*thread.name);
            vec![name(known), number(tid)]
        }
        Subject::Scope(text) | Subject::Label(text) => vec![Cell::new(text)],
        // The rows of samples without a task, a stack and so on.
        rest => {
            let words = Cell::new(&rest.to_string()).tint(Tint::Secondary);
            match by {
                GroupBy::Site => vec![words, none()],
                GroupBy::Task => vec![none(), none(), words, none()],
                GroupBy::Thread => vec![words, none()],
                GroupBy::Function if with_files => vec![words, none()],
                _ => vec![words],
            }
        }
    }
}

/// `2026-02-28 09:05:00 UTC`.
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Returns the year, month and day, `days` after 1 January 1970, in the Gregorian calendar.
fn date(mut days: u64) -> (u64, u64, u64) {
    // Any 400 years have equally many days.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        // The output of `date -u -d @SECONDS`.
        let cases = [
            (1, "1970-01-01 00:00:01 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_700_000_000, "2023-11-14 22:13:20 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (9_223_372_036, "2262-04-11 23:47:16 UTC"),
        ];
        for (seconds, shown) in cases {
            assert_eq!(utc(seconds), shown, "{seconds}");
        }
    }
}
