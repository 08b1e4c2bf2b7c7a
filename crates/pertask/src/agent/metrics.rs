//! What is counted since the first scrape.

use super::asked::{Asked, Refusal};
use crate::metrics::{Metrics, MetricsAnswer};
use pertask_agent::Answer;
use std::sync::OnceLock;

/// The answer to a scrape. The first one begins to measure, and nothing ends that: counters must not begin again.
pub(super) fn scrape(asked: &Asked<'_>) -> Result<Answer, Refusal> {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    let metrics = match METRICS.get() {
        Some(metrics) => metrics,
        None => {
            let started = Metrics::start()?;
            METRICS.get_or_init(|| started)
        }
    };
    let MetricsAnswer { content_type, body } = metrics.answer(asked.accept());
    Ok(Answer::bytes(content_type, body.into_bytes()))
}
