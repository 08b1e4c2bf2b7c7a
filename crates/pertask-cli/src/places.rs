//! The places where tasks wait, as a table.

use pertask::profile::{GroupBy, Profile, State, SummaryStyle};

/// Returns the table of the places where tasks wait, the longest first, or `None` if the profile has no waits.
pub fn of_waits(profile: &Profile, style: SummaryStyle) -> Option<String> {
    let waiting = profile.in_state(State::Waiting);
    let summary = waiting.summary(&GroupBy::Place);
    (!waiting.samples.is_empty()).then(|| summary.table(style).to_string())
}
