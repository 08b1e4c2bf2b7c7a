//! A profile as text: an overview, then a table for each group.

use pertask::profile::{Filter, GroupBy, Profile, SummaryStyle};

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

    /// Returns the text, which ends with a line break.
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
