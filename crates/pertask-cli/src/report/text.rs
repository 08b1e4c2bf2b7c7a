//! A profile as text: an overview, then a table for each group.

use pertask::profile::{Filter, GroupBy, Overview, Profile, SummaryStyle};

use super::state::advice;

/// The profile that is shown, or the part of it that a filter selects.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The whole profile.
    pub whole: &'a Profile,
    /// The selected part, and the filter that selected it.
    pub part: Option<(&'a Profile, &'a Filter)>,
}

impl<'a> Shown<'a> {
    /// Returns the profile that the tables show.
    pub fn profile(&self) -> &'a Profile {
        self.part.map_or(self.whole, |(part, _)| part)
    }

    /// Returns the lines above the tables.
    pub fn overview(&self, style: SummaryStyle) -> Overview<'a> {
        let overview = self.whole.overview(style);
        match self.part {
            Some((part, filter)) => overview.with_part(part, filter),
            None => overview,
        }
    }

    /// Returns the text, which ends with a line break.
    pub fn text(&self, by: &[GroupBy], style: SummaryStyle) -> String {
        let overview = self.overview(style);
        let overview = match advice(self.whole) {
            Some(advice) => overview.with_advice(&advice).to_string(),
            None => overview.to_string(),
        };
        let tables = by.iter().map(|by| self.profile().summary(by).table(style).to_string());
        let sections: Vec<_> = [overview].into_iter().chain(tables).collect();
        sections.join("\n\n") + "\n"
    }
}
