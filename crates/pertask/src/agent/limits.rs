//! How much callers may have at a time, so that no number of them takes more of the program than this.

use super::asked::Refusal;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The longest that a request measures, in seconds: a day.
pub(super) const MOST_SECONDS: f64 = 86_400.0;

/// Something of which there is a number at a time.
pub(super) struct Limit {
    what: &'static str,
    most: usize,
    used: AtomicUsize,
}

/// Leave to have one of it, until this is dropped.
pub(super) struct Permit(&'static Limit);

/// Sessions, each with a reading of all tasks.
pub(super) static SESSIONS: Limit = Limit::of("measuring sessions", 16);

/// Examinations of the machine, which try each way to sample.
pub(super) static EXAMINATIONS: Limit = Limit::of("an examination of the machine", 1);

/// Answers to the program's own server, each with a thread.
#[cfg(feature = "http")]
pub(super) static ANSWERS: Limit = Limit::of("answers through this server", 16);

/// Sampled profiles, each with memory of its own for samples.
pub(super) static PROFILES: Limit = Limit::of("sampled profiles", 4);

impl Limit {
    const fn of(what: &'static str, most: usize) -> Self {
        Self { what, most, used: AtomicUsize::new(0) }
    }

    /// In a forked child, the parent's callers are nobody's.
    fn reset(&self) {
        // Relaxed: the child has one thread.
        self.used.store(0, Ordering::Relaxed);
    }

    pub(super) fn take(&'static self) -> Result<Permit, Refusal> {
        // Relaxed: the number alone counts, and it orders nothing.
        let one_more = |used| (used < self.most).then_some(used + 1);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        match taken {
            Ok(_) => Ok(Permit(self)),
            Err(most) => Err(Refusal::busy(format!(
                "{most} at a time are allowed: {}; try again when one has ended",
                self.what
            ))),
        }
    }
}

/// Forgets the parent's callers, in a forked child.
pub(super) fn reset() {
    [&SESSIONS, &EXAMINATIONS, &PROFILES].iter().for_each(|limit| limit.reset());
    #[cfg(feature = "http")]
    ANSWERS.reset();
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Relaxed: as in `take`.
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}
