//! Polls that block their worker, as a caller wants them.

use super::asked::{Asked, Parameter, Refusal};
use crate::watch::{Watch, WatchOptions};
use std::time::Duration;

pub(super) const PARAMETER: Parameter = Parameter {
    name: "blocked_ms",
    meaning: "catch polls that last so long, with their stacks: 10 is usual",
};

/// The watch that a request asks for, if it does.
pub(super) fn watch(asked: &Asked<'_>) -> Result<Option<Watch>, Refusal> {
    const MOST_MS: u64 = 3_600_000;
    if asked.text(PARAMETER.name).is_none() {
        return Ok(None);
    }
    let threshold = Duration::from_millis(asked.number(PARAMETER.name, 10, &(1..=MOST_MS))?);
    Ok(Some(Watch::start(WatchOptions { threshold, ..WatchOptions::default() })?))
}
