//! Who asks, as far as an answer that takes its time must know: whether he is still there.

use crate::stream::Stream;
use std::sync::Arc;
use std::time::Duration;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller(pub(crate) Arc<Stream>);

/// How a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The time is over.
    TimeIsUp,
    /// The caller is gone, or the server stops. No answer is wanted any more.
    Gone,
}

impl Caller {
    /// Whether no answer is wanted any more: the caller has closed its connection, or said that it sends nothing more, or the server stops.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.is_closed_within(Duration::ZERO)
    }

    /// Waits for some time, but no longer than an answer is wanted.
    #[must_use]
    pub fn wait(&self, time: Duration) -> Waited {
        match self.0.is_closed_within(time) {
            true => Waited::Gone,
            false => Waited::TimeIsUp,
        }
    }
}
