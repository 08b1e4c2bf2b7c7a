//! The lines above the table: the process, where its CPU time goes, and what is wrong with the figures.

use pertask::Report;
use pertask_text::{
    human::counted,
    text::{cut_end, width, wrap},
};
use ratatui::text::{Line, Span};

use crate::{
    blocked, lost,
    top::{
        TopOptions,
        state::{Busy, Figures, State, Value},
    },
};

use super::{bars, cell, palette::Palette};

/// The width of a worker's bar, and of its bar with the percentage and a gap.
const BAR: usize = 8;
const BAR_AND_PERCENT: usize = BAR + 7;

/// What is lost by sampling alone, and how to have it.
const ESTIMATES: &str = "estimates from samples. One line in main, pertask::init(), gives exact times, polls, waits, labels and individual tasks";

/// What is said where lives were asked for, and figures come without them.
const NO_LIVES_IN_REPORTS: &str =
    "lives: the program's pertask does not measure them, it is too old";
const NO_LIVES_IN_SAMPLES: &str =
    "lives: samples do not tell; the program must call pertask::init()";

/// A line, and how soon it gives way where the terminal is low: the greatest number first.
type Ranked = (u8, Line<'static>);

/// Returns at most so many lines, each as wide as the terminal at most.
pub fn lines(
    state: &State,
    options: &TopOptions,
    (max_width, most): (usize, usize),
    palette: Palette,
) -> Vec<Line<'static>> {
    let header = Header { state, figures: state.shown(), width: max_width, palette };
    let mut lines: Vec<Ranked> = vec![(0, header.process(options))];
    lines.extend(header.shares().map(|line| (3, line)));
    lines.extend(header.workers().map(|line| (4, line)));
    lines.extend(header.ended().map(|line| (1, line)));
    lines.extend(header.blocked().map(|line| (2, line)));
    lines.extend(header.lost().map(|line| (2, line)));
    lines.extend(header.estimates().into_iter().map(|line| (2, line)));
    lines.extend(header.no_lives(options).map(|line| (2, line)));
    lines.extend(header.clock().map(|line| (5, line)));
    while lines.len() > most {
        let Some(last) = lines.iter().map(|(rank, _)| *rank).max() else { break };
        let at = lines.iter().rposition(|(rank, _)| *rank == last).unwrap_or(0);
        lines.remove(at);
    }
    lines.into_iter().map(|(_, line)| line).collect()
}

struct Header<'a> {
    state: &'a State,
    figures: &'a Figures,
    width: usize,
    palette: Palette,
}

impl Header<'_> {
    /// The program, and in what state the figures are.
    fn process(&self, options: &TopOptions) -> Line<'static> {
        let tags: Vec<Span<'_>> = self
            .tags()
            .into_iter()
            .flat_map(|tag| {
                [Span::raw(" "), Span::styled(format!(" {tag} "), self.palette.marked())]
            })
            .collect();
        let tags_width: usize = tags.iter().map(|tag| width(&tag.content)).sum();
        let room = self.width.saturating_sub(tags_width);
        let program = cut_end(&cell::safe(&options.program), room);
        let rest = cut_end(&self.facts(options), room.saturating_sub(width(&program)));
        let blanks = room.saturating_sub(width(&program) + width(&rest));
        let mut spans = vec![Span::styled(program, self.palette.title()), Span::raw(rest)];
        spans.push(Span::raw(" ".repeat(blanks)));
        spans.extend(tags);
        Line::from(spans)
    }

    fn facts(&self, options: &TopOptions) -> String {
        let mut facts = format!("  pid {}", options.pid);
        if let Some(ns) = self.figures.duration_ns() {
            facts += &format!("  {}", clock(ns / 1_000_000_000));
        }
        if let Some(report) = self.figures.report() {
            let live =
                report.sites.iter().fold(0, |sum: u64, it| sum.saturating_add(it.tasks_live));
            facts += &format!("  {}", counted(live, "task"));
        }
        facts
    }

    fn tags(&self) -> Vec<String> {
        let mut tags = Vec::new();
        if let Some(seconds) = self.state.silent_seconds() {
            tags.push(format!("no figures for {seconds} s"));
        }
        if self.state.is_paused() {
            tags.push("PAUSED".to_owned());
        }
        if self.state.ended().is_some() {
            tags.push("ENDED".to_owned());
        }
        tags
    }

    /// Where the CPU time goes.
    fn shares(&self) -> Option<Line<'static>> {
        let totals = self.figures.totals;
        let mut parts = vec![("in tasks", totals.tasks)];
        if self.figures.report().is_some() {
            parts.extend([
                ("workers outside tasks", totals.workers),
                ("other threads", totals.other),
            ]);
        }
        if totals.unknown.grown().is_some_and(|ns| ns > 0) {
            parts.push(("task unknown", totals.unknown));
        }
        let mut text = String::new();
        for (what, part) in parts {
            let percent = Value::percent(totals.percent(part));
            text += &format!("   {} {what}", cell::words(&percent));
        }
        let cpus = format!("{:.2} CPUs", totals.cpus()?);
        let text = cut_end(&text, self.width.saturating_sub(width(&cpus)));
        let cpus = Span::styled(cut_end(&cpus, self.width), self.palette.title());
        Some(Line::from(vec![cpus, Span::raw(text)]))
    }

    /// How busy each worker is: a bar if there is room, or else a character.
    fn workers(&self) -> Option<Line<'static>> {
        let workers = self.figures.threads.workers();
        if workers.is_empty() {
            return None;
        }
        let mut spans = vec![Span::raw(counted(workers.len() as u64, "worker")), Span::raw("  ")];
        let room = self.width.saturating_sub(spans.iter().map(Span::width).sum());
        match workers.len() * BAR_AND_PERCENT <= room + 2 {
            true => spans.extend(workers.iter().flat_map(|busy| self.bar(*busy))),
            false => {
                let fitting = workers.iter().take(room);
                spans.extend(fitting.map(|busy| bars::small_worker(*busy, self.palette)));
            }
        }
        Some(Line::from(spans))
    }

    fn bar(&self, busy: Busy) -> Vec<Span<'static>> {
        let percent = format!(" {:>3.0}%  ", (busy.in_tasks + busy.outside) * 100.0);
        let mut spans = bars::worker(busy, BAR, self.palette).to_vec();
        spans.push(Span::raw(percent));
        spans
    }

    fn ended(&self) -> Option<Line<'static>> {
        let reason = self.state.ended()?;
        let text = format!("{}: these are the last figures. q leaves", cell::safe(reason));
        Some(Line::styled(cut_end(&text, self.width), self.palette.warning()))
    }

    /// The polls that blocked their worker, where those are asked for.
    fn blocked(&self) -> Option<Line<'static>> {
        let text = blocked::in_few_words(self.figures.report()?.blocked.as_ref()?)?;
        Some(Line::styled(cut_end(&cell::safe(&text), self.width), self.palette.warning()))
    }

    fn lost(&self) -> Option<Line<'static>> {
        let text = match (self.figures.report(), self.figures.sampled()) {
            (Some(report), _) => lost::in_few_words(&report.lost)?,
            (None, Some(sampled)) if sampled.lost > 0 => {
                format!("lost: {}", counted(sampled.lost, "sample"))
            }
            _ => return None,
        };
        Some(Line::styled(cut_end(&text, self.width), self.palette.warning()))
    }

    fn estimates(&self) -> Vec<Line<'static>> {
        match self.figures.sampled() {
            Some(_) if self.figures.report().is_none() => {
                wrap(ESTIMATES, self.width, 0).into_iter().map(Line::raw).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Why there are no lives although the user wants them.
    fn no_lives(&self, options: &TopOptions) -> Option<Line<'static>> {
        let is_sampled = self.figures.report().is_none() && self.figures.sampled().is_some();
        let text = match self.figures.lacks_lives() {
            true => NO_LIVES_IN_REPORTS,
            false if options.lives && is_sampled => NO_LIVES_IN_SAMPLES,
            false => return None,
        };
        Some(Line::styled(cut_end(text, self.width), self.palette.warning()))
    }

    /// The clock, if it is not the one that we would like.
    fn clock(&self) -> Option<Line<'static>> {
        let clock = fallback_clock(self.figures.report()?)?;
        let text = format!("clock: {}", cell::safe(clock));
        Some(Line::raw(cut_end(&text, self.width)))
    }
}

/// A clock that asks the kernel at each switch makes tasks seem dearer than they are.
fn fallback_clock(report: &Report) -> Option<&str> {
    report.clock.starts_with("thread CPU clock").then_some(&report.clock)
}

/// Hours, minutes and seconds.
fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}
