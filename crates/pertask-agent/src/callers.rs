//! The callers of this moment: there are only so many, and they end when the server does.

use crate::stream::Stream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The callers of a server.
#[derive(Debug)]
pub(crate) struct Callers {
    most: usize,
    now: Mutex<Now>,
    one_less: Condvar,
}

#[derive(Debug, Default)]
struct Now {
    streams: Vec<Arc<Stream>>,
    has_ended: bool,
}

/// The right to be served, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    callers: Arc<Callers>,
    pub(crate) stream: Arc<Stream>,
}

/// What has become of a caller.
#[must_use]
pub(crate) enum Entered {
    Place(Place),
    /// There are as many as there may be.
    Full(Stream),
    /// The server stops, and the connection has ended.
    Ended,
}

impl Callers {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, now: Mutex::default(), one_less: Condvar::new() })
    }

    /// Gives a caller a place, if there is one.
    pub(crate) fn enter(self: &Arc<Self>, stream: Stream) -> Entered {
        let mut now = self.now();
        if now.has_ended {
            return Entered::Ended;
        }
        if now.streams.len() >= self.most {
            return Entered::Full(stream);
        }
        let stream = Arc::new(stream);
        now.streams.push(Arc::clone(&stream));
        Entered::Place(Place { callers: Arc::clone(self), stream })
    }

    /// Ends all connections, and lets nobody in any more.
    pub(crate) fn end(&self) {
        let mut now = self.now();
        now.has_ended = true;
        now.streams.iter().for_each(|stream| stream.end());
    }

    /// Waits until there are none.
    pub(crate) fn wait_until_none(&self, time: Duration) {
        let some = |now: &mut Now| !now.streams.is_empty();
        // If they are still there, their threads end by themselves.
        drop(self.one_less.wait_timeout_while(self.now(), time, some));
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut now = self.callers.now();
        now.streams.retain(|stream| !Arc::ptr_eq(stream, &self.stream));
        self.callers.one_less.notify_all();
    }
}
