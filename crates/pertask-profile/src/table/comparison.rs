//! Two profiles described in a few lines: each of them, what both say of rates, and what noise is.

use std::fmt;

use super::super::{Comparison, State};
use super::difference::signed_difference;
use super::overview::Overview;
use super::{SummaryStyle, signed_percent};
use pertask_text::ink::Tint;

/// A [`Comparison`] described in a few lines, made by [`Comparison::overview`].
#[derive(Clone, Copy, Debug)]
pub struct ComparisonOverview<'a> {
    comparison: &'a Comparison<'a>,
    names: [&'a str; 2],
    style: SummaryStyle,
}

impl Comparison<'_> {
    /// Returns a description of both profiles, and of how they are compared. The names are those of their files.
    #[must_use]
    pub fn overview<'a>(
        &'a self,
        before: &'a str,
        after: &'a str,
        style: SummaryStyle,
    ) -> ComparisonOverview<'a> {
        ComparisonOverview { comparison: self, names: [before, after], style }
    }
}

impl fmt::Display for ComparisonOverview<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Comparison { before, after, is_net, .. } = self.comparison;
        let mut lines = Vec::new();
        if *is_net {
            lines.extend(self.style.prose(&self.net(), Tint::Title));
            lines.extend(after.whole.overview(self.style).notes());
        } else {
            for (side, what, name) in
                [(before, "before", self.names[0]), (after, "after", self.names[1])]
            {
                let overview: Overview<'_> = side.whole.overview(self.style);
                let overview = match side.part {
                    Some((part, filter)) => overview.with_part(part, filter),
                    None => overview,
                };
                lines.extend(overview.facts(&format!("{what}: {name}: ")));
            }
            lines.extend(self.style.prose(&self.rates(), Tint::Title));
        }
        let (noise, tint) = self.noise();
        lines.extend(self.style.prose(&noise, tint));
        f.write_str(&lines.join("\n"))
    }
}

impl ComparisonOverview<'_> {
    fn net(&self) -> String {
        let Comparison { before, after, measure, .. } = self.comparison;
        let [less, more] = [before, after].map(|side| measure.of(side.compared().whole()));
        let mut text = format!(
            "{}: the difference of two profiles: {} more in some stacks, {} less in others: {} of {} in all",
            self.names[1],
            measure.shown(more),
            measure.shown(less),
            signed_difference([less, more], |value| measure.shown(value)),
            measure.name(),
        );
        if let Some((_, filter)) = after.part {
            text += &format!("; matched: {filter}");
        }
        text
    }

    /// Compares the amounts per second of both.
    fn rates(&self) -> String {
        let Comparison { before, after, measure, .. } = self.comparison;
        let unknown = [(before, "before"), (after, "after")]
            .into_iter()
            .filter(|(side, _)| side.whole.duration_ns == 0)
            .map(|(_, what)| what)
            .collect::<Vec<_>>();
        if !unknown.is_empty() {
            return format!(
                "how long it was recorded is not known {}, so that {} cannot be compared per second; shares can",
                unknown.join(" and "),
                measure.name()
            );
        }
        let [from, to] = [before, after].map(|side| {
            measure.of(side.compared().whole()) as f64 / side.whole.duration_ns as f64 * 1e9
        });
        let change = match from > 0.0 {
            true => format!(": {}", signed_percent(from, to)),
            false => String::new(),
        };
        format!(
            "{} per second of recording: {} before, {} after{change}",
            measure.name(),
            measure.shown(from as u64),
            measure.shown(to as u64),
        )
    }

    /// Says what marks noise, or why it cannot be judged.
    fn noise(&self) -> (String, Tint) {
        let Comparison { before, after, is_net, .. } = self.comparison;
        let Some(noun) = self.comparison.measure.state().counted() else {
            let time = self.comparison.measure.name();
            return (
                format!("noise cannot be judged: {time} is measured, and not counted"),
                Tint::Warning,
            );
        };
        let text = match (before.whole.has_counts, after.whole.has_counts) {
            _ if *is_net => {
                "it has differences alone, so shares are not known and noise cannot be judged; -diff_base keeps both profiles in such a file, and -base does not"
            }
            (true, true) => {
                let noise = match self.comparison.measure.state() {
                    State::OnCpu => "within the noise of sampling",
                    _ => "that chance explains, by the numbers of waits",
                };
                return (
                    format!(
                        "~ marks changes {noise}; of the others, one in 100 is expected to be noise after all"
                    ),
                    Tint::Secondary,
                );
            }
            (false, true) => {
                &format!("noise cannot be judged: before does not say how many {noun}s it has")
            }
            (true, false) => {
                &format!("noise cannot be judged: after does not say how many {noun}s it has")
            }
            (false, false) => {
                &format!("noise cannot be judged: neither says how many {noun}s it has")
            }
        };
        (text.to_owned(), Tint::Warning)
    }
}
