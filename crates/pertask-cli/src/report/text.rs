//! A profile as text: what it is of, then a table for each thing it is grouped by.

use pertask::profile::{Filter, GroupBy, Profile, SummaryStyle};

/// What is shown: a profile, or the part of it that a filter wants.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// All that was sampled.
    pub whole: &'a Profile,
    /// The part that is wanted, and by what it was chosen.
    pub part: Option<(&'a Profile, &'a Filter)>,
}

impl<'a> Shown<'a> {
    /// The profile that the tables are of.
    pub fn profile(&self) -> &'a Profile {
        self.part.map_or(self.whole, |(part, _)| part)
    }

    /// The text, which ends its last line.
    pub fn text(&self, by: &[GroupBy], style: SummaryStyle) -> String {
        let overview = self.whole.overview(style);
        let overview = match self.part {
            Some((part, filter)) => overview.with_part(part, filter),
            None => overview,
        };
        let tables = by.iter().map(|by| self.profile().summary(by).table(style).to_string());
        let sections: Vec<_> = [overview.to_string()].into_iter().chain(tables).collect();
        sections.join("\n\n") + "\n"
    }
}
