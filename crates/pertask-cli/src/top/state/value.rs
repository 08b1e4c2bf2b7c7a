//! What a cell says, before it is text.

use std::cmp::Ordering;

use pertask::SpawnSite;

use super::{history::History, life::Lived};

/// The contents of a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nothing worth a word.
    Nothing,
    /// A number that is not known.
    Unknown,
    /// A percentage.
    Percent(f64),
    /// How often something happens in a second.
    PerSecond(f64),
    /// How many tasks, on average.
    Tasks(f64),
    /// How tasks spent their time, as a picture.
    Life(Lived),
    /// A time in nanoseconds.
    Time(u64),
    /// A time that is a part of another, and its share.
    Share { ns: u64, of_ns: u64 },
    /// A count, which may be shortened.
    Count(u64),
    /// A number that names something, and is never shortened.
    Id(u64),
    /// Text, which may hold anything.
    Text(&'a str),
    /// The name of a site's tasks, or their place if they have no name.
    Task(&'a SpawnSite),
    /// A site's place in the source.
    Place(&'a SpawnSite),
    /// The last values of a percentage.
    History(&'a History),
}

impl Value<'_> {
    /// Returns the percentage, or that it is not known.
    pub fn percent(percent: Option<f64>) -> Self {
        percent.map_or(Self::Unknown, Self::Percent)
    }

    /// Returns the rate, or that it is not known.
    pub fn per_second(rate: Option<f64>) -> Self {
        rate.map_or(Self::Unknown, Self::PerSecond)
    }

    /// Returns the time, or that it is not known.
    pub fn time(ns: Option<u64>) -> Self {
        ns.map_or(Self::Unknown, Self::Time)
    }

    /// Returns whether there is something to compare.
    pub fn is_known(&self) -> bool {
        !matches!(self, Self::Nothing | Self::Unknown)
    }

    /// Compares two values of one column, the smaller first.
    pub fn compare(&self, other: &Self) -> Ordering {
        match (self.number(), other.number()) {
            (Some(one), Some(other)) => one.total_cmp(&other),
            _ => self.text().cmp(&other.text()),
        }
    }

    fn number(&self) -> Option<f64> {
        match *self {
            Self::Percent(number) | Self::PerSecond(number) | Self::Tasks(number) => Some(number),
            Self::Life(lived) => Some(lived.all()),
            Self::Share { ns, .. } => Some(ns as f64),
            Self::Time(number) | Self::Count(number) | Self::Id(number) => Some(number as f64),
            Self::History(history) => Some(history.sum()),
            _ => None,
        }
    }

    /// Returns the text and a number that decides between equal texts.
    fn text(&self) -> (&str, u32) {
        match *self {
            Self::Text(text) => (text, 0),
            Self::Task(site) => (site.name.as_deref().unwrap_or(&site.file), site.line),
            Self::Place(site) => (&site.file, site.line),
            _ => ("", 0),
        }
    }
}
