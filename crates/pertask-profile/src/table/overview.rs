//! A profile described in a few lines: its time and duration, when and how it was sampled, and what was lost.

use std::fmt;
use std::time::UNIX_EPOCH;

use super::super::{Amount, Filter, Lost, Profile, Sample, State};
use super::SummaryStyle;
use pertask_text::human::{self, counted};
use pertask_text::ink::Tint;

/// The most remarks that are shown.
const MAX_REMARKS: usize = 5;
/// The most label keys that are shown.
const MAX_KEYS: usize = 8;

/// A [`Profile`] described in a few lines, made by [`Profile::overview`].
#[derive(Clone, Copy, Debug)]
pub struct Overview<'a> {
    whole: &'a Profile,
    part: Option<(&'a Profile, &'a Filter)>,
    advice: Option<&'a str>,
    is_of_life: bool,
    style: SummaryStyle,
}

impl Profile {
    /// Returns a description of this profile: its time and duration, when and how it was sampled, and what was lost.
    #[must_use]
    pub fn overview(&self, style: SummaryStyle) -> Overview<'_> {
        Overview { whole: self, part: None, advice: None, is_of_life: false, style }
    }
}

impl<'a> Overview<'a> {
    /// Adds how much of the profile `filter` selects, where `part` is what it selects.
    #[must_use]
    pub fn with_part(self, part: &'a Profile, filter: &'a Filter) -> Self {
        Self { part: Some((part, filter)), ..self }
    }

    /// Describes the time in all states, and not that of one.
    #[must_use]
    pub fn of_whole_life(self) -> Self {
        Self { is_of_life: true, ..self }
    }

    /// Adds a line of advice, such as which option shows what is not shown.
    #[must_use]
    pub fn with_advice(self, advice: &'a str) -> Self {
        Self { advice: Some(advice), ..self }
    }
}

impl fmt::Display for Overview<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.style.prose(&self.totals(), Tint::Title);
        lines.extend(self.notes());
        lines.extend(self.hints().iter().flat_map(|hint| self.style.prose(hint, Tint::Secondary)));
        lines.extend(self.match_lines());
        f.write_str(&lines.join("\n"))
    }
}

impl<'a> Overview<'a> {
    /// Returns what there is to say of one of two profiles, after a heading.
    pub(super) fn facts(&self, heading: &str) -> Vec<String> {
        let totals = format!("{heading}{}", self.totals());
        let mut lines = self.style.prose(&totals, Tint::Title);
        lines.extend(self.notes());
        lines.extend(self.match_lines());
        lines
    }

    /// Returns how the profile was sampled, what was lost, and its remarks.
    pub(super) fn notes(&self) -> Vec<String> {
        let origin = self.origin();
        let mut lines = self.style.prose(&origin, Tint::Secondary);
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
        lines
    }

    fn match_lines(&self) -> Vec<String> {
        let matched = self.part.map(|(part, filter)| self.matched(part, filter));
        matched.map_or_else(Vec::new, |matched| self.style.prose(&matched, Tint::Title))
    }

    fn totals(&self) -> String {
        if self.is_of_life {
            return self.life();
        }
        let Amount { time_ns, samples } = self.whole.whole();
        let duration_ns = self.whole.duration_ns;
        let mut sampled = format!("{} of {}", human::duration_ns(time_ns), self.whole.state.time());
        sampled += &self.in_samples(samples);
        sampled += &self.unsampled("");
        match duration_ns {
            0 => sampled,
            _ => format!(
                "{sampled} over {}: {:.2} {}",
                human::duration_ns(duration_ns),
                time_ns as f64 / duration_ns as f64,
                on_average(self.whole.state)
            ),
        }
    }

    fn life(&self) -> String {
        let times = self.whole.times();
        let over = match self.whole.duration_ns {
            0 => String::new(),
            ns => format!(" over {}", human::duration_ns(ns)),
        };
        let unsampled = self.unsampled(" of CPU time");
        format!("{} in all states{unsampled}{over}: {times}", human::duration_ns(times.sum()))
    }

    /// Returns ` (and 3.00 ms not in the profile)`, with what that is time of, or nothing if there is none.
    fn unsampled(&self, of: &str) -> String {
        match self.whole.lost.unsampled_cpu_ns {
            0 => String::new(),
            ns => format!(" (and {}{of} not in the profile)", human::duration_ns(ns)),
        }
    }

    /// Returns the samples of the time that is described.
    fn samples(&self) -> impl Iterator<Item = &'a Sample> {
        let off_cpu = if self.is_of_life { &self.whole.off_cpu[..] } else { &[] };
        self.whole.samples.iter().chain(off_cpu)
    }

    /// Returns what is counted, in the singular. Samples and waits are no sum, so of whole lives nothing is.
    fn counted(&self) -> Option<&'static str> {
        self.whole.state.counted().filter(|_| !self.is_of_life)
    }

    /// Returns ` in 12 samples`, or nothing if the number is not known.
    fn in_samples(&self, samples: u64) -> String {
        match self.counted().filter(|_| self.whole.has_counts) {
            Some(noun) => format!(" in {}", counted(samples, noun)),
            None => String::new(),
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
        if matches!(self.whole.state, State::Ready | State::Blocked) {
            return None;
        }
        let sum = |amount: Amount, sample| amount.plus(Amount::of(sample));
        let is_whole = |sample: &&Sample| sample.complete && !sample.stack.is_empty();
        let whole = self.samples().filter(is_whole).fold(Amount::default(), sum);
        let all = self.samples().fold(Amount::default(), sum);
        let (part, all, what) = match self.whole.has_counts && self.counted().is_some() {
            true => (whole.samples, all.samples, "the stacks whole"),
            false => (whole.time_ns, all.time_ns, "the time in whole stacks"),
        };
        (all > 0).then(|| match part == all {
            true => "all stacks whole".to_owned(),
            false => format!("{} of {what}", human::percent(part, all)),
        })
    }

    /// Says which tasks and labels there are to ask for.
    fn hints(&self) -> Vec<String> {
        let mut hints = Vec::new();
        let has_samples = self.samples().next().is_some();
        if has_samples && self.samples().all(|sample| sample.task.is_none()) {
            hints.push(
                "tasks: the profile names none; its recorder knew none, or no task ran".to_owned(),
            );
        }
        let by_type =
            |sample: &Sample| sample.task.as_ref().is_some_and(|task| task.future.is_some());
        if self.samples().any(by_type) {
            hints.push(
                "~ marks the type of tasks without a name, read from their stacks; their CPU time is estimated from samples"
                    .to_owned(),
            );
        }
        hints.extend(self.advice.map(str::to_owned));
        if self.counted().is_some() && !self.whole.has_counts && has_samples {
            hints.push("samples: the profile does not say how many there are".to_owned());
        }
        let keys = match self.is_of_life {
            true => self.whole.label_keys_of_lives(),
            false => self.whole.label_keys(),
        };
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
        if self.is_of_life {
            let (part, whole) = (part.times(), self.whole.times().sum());
            let sum = human::duration_ns(part.sum());
            let share = human::percent(part.sum(), whole);
            return format!("matched: {sum} ({share}): {filter}: {part}");
        }
        let (part, whole) = (part.whole(), self.whole.whole());
        format!(
            "matched: {} ({}){}: {filter}",
            human::duration_ns(part.time_ns),
            human::percent(part.time_ns, whole.time_ns),
            self.in_samples(part.samples),
        )
    }
}

/// What there were so many of at a time, on average.
fn on_average(state: State) -> &'static str {
    match state {
        State::OnCpu => "CPUs busy",
        State::Blocked => "tasks blocked on average",
        State::Ready => "tasks ready on average",
        State::Waiting => "tasks waiting on average",
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
