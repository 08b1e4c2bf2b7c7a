//! The places where tasks wait, and who wakes them, as tables.

use pertask::profile::{GroupBy, Profile, State, SummaryStyle};

/// Returns the tables of the places where tasks wait and of who wakes them, the longest waits first, or `None` if the profile has no
/// waits.
pub fn of_waits(profile: &Profile, style: SummaryStyle) -> Option<String> {
    let waiting = profile.in_state(State::Waiting);
    let table = |by| waiting.summary(&by).table(style).to_string();
    (!waiting.samples.is_empty()).then(|| [GroupBy::Place, GroupBy::Waker].map(table).join("\n\n"))
}
