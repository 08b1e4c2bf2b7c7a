//! Who asks, as far as an answer that takes its time must know: whether he is still there.

use crate::stream::Stream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller(Who);

#[derive(Clone, Debug)]
enum Who {
    Here(Arc<Stream>),
    Elsewhere(Arc<Elsewhere>),
}

/// A caller whose connection another server has.
#[derive(Debug, Default)]
struct Elsewhere {
    is_gone: Mutex<bool>,
    leaves: Condvar,
}

/// What the other server has as long as its caller is there. When it is dropped, the caller is gone.
#[derive(Debug)]
pub struct Presence(Arc<Elsewhere>);

/// How a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The time is over.
    TimeIsUp,
    /// The caller is gone, or the server stops. No answer is wanted any more.
    Gone,
}

impl Caller {
    pub(crate) fn here(stream: &Arc<Stream>) -> Self {
        Self(Who::Here(Arc::clone(stream)))
    }

    /// Returns a caller of another server, who is there as long as the second value is.
    ///
    /// ```
    /// use pertask_agent::Caller;
    ///
    /// let (caller, presence) = Caller::elsewhere();
    /// assert!(!caller.is_gone());
    /// drop(presence);
    /// assert!(caller.is_gone());
    /// ```
    #[must_use]
    pub fn elsewhere() -> (Self, Presence) {
        let caller = Arc::new(Elsewhere::default());
        (Self(Who::Elsewhere(Arc::clone(&caller))), Presence(caller))
    }

    /// Whether no answer is wanted any more: the caller has closed its connection, or said that it sends nothing more, or the server stops.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.wait(Duration::ZERO) == Waited::Gone
    }

    /// Waits for some time, but no longer than an answer is wanted.
    #[must_use]
    pub fn wait(&self, time: Duration) -> Waited {
        let is_gone = match &self.0 {
            Who::Here(stream) => stream.is_closed_within(time),
            Who::Elsewhere(caller) => caller.is_gone_within(time),
        };
        if is_gone { Waited::Gone } else { Waited::TimeIsUp }
    }
}

impl Elsewhere {
    fn is_gone_within(&self, time: Duration) -> bool {
        let is_gone = self.is_gone.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.leaves.wait_timeout_while(is_gone, time, |is_gone| !*is_gone);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        *self.0.is_gone.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.leaves.notify_all();
    }
}
