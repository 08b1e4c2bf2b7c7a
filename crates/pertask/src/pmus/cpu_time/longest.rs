//! The longest poll since a session began.
//!
//! A maximum has no difference, so each session needs one of its own, and a task cannot keep one for each session. Instead, each
//! session that begins starts a new *epoch* for all tasks. A task keeps its longest poll of the latest epoch in which it was polled,
//! and of the one before. When an epoch ends, the sessions that run already read its maxima and keep them. So a session's longest poll
//! is the longest of what it has kept and of the latest epoch.

use std::sync::atomic::{AtomicU64, Ordering};

/// The latest epoch. Sessions raise it, one at a time.
static EPOCH: AtomicU64 = AtomicU64::new(1);

/// A length and its epoch in one word: the epoch in the upper bits, the length in the lower ones.
const LENGTH_BITS: u32 = 44;
const MOST_NS: u64 = (1 << LENGTH_BITS) - 1;
const EPOCHS: u64 = 1 << (64 - LENGTH_BITS);

/// A task's longest polls. The thread that runs the task writes them; any thread reads them.
#[derive(Debug, Default)]
pub(super) struct Longest {
    latest: AtomicU64,
    before: AtomicU64,
}

/// The longest polls of one task or several, in the latest epoch of any of them, and in the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lengths {
    epoch: u64,
    latest_ns: u64,
    before_ns: u64,
}

/// The number of the latest epoch.
pub(crate) fn epoch() -> u64 {
    // Relaxed: see `begin_epoch`.
    EPOCH.load(Ordering::Relaxed)
}

/// Begins a new epoch. Only one thread at a time may call this.
///
/// A poll that ends at this moment on another thread may still count for the old epoch, so readers take the epoch before with the
/// latest.
pub(crate) fn begin_epoch() {
    EPOCH.store(epoch() + 1, Ordering::SeqCst);
}

impl Longest {
    /// Notes the end of a poll.
    #[inline(always)]
    pub(super) fn note(&self, poll_ns: u64) {
        // Relaxed, here and below: one thread at a time writes, and the executor orders these. See `read`.
        let latest = self.latest.load(Ordering::Relaxed);
        let poll = word(epoch(), poll_ns);
        if (latest ^ poll) >> LENGTH_BITS != 0 {
            self.before.store(latest, Ordering::Relaxed);
        } else if poll <= latest {
            return;
        }
        // Release: pairs with the Acquire in `read`, which then finds what was the latest before.
        self.latest.store(poll, Ordering::Release);
    }

    pub(super) fn read(&self) -> Lengths {
        // Acquire: pairs with the Release in `note`.
        let latest = self.latest.load(Ordering::Acquire);
        let before = self.before.load(Ordering::Relaxed);
        Lengths::of(before).with(Lengths::of(latest))
    }

    /// Adds those of a task that has ended. One thread at a time calls this.
    pub(super) fn add(&self, ended: &Self) {
        let sum = self.read().with(ended.read());
        // Relaxed: see `note`. Before first, as there.
        self.before.store(word(sum.epoch.wrapping_sub(1), sum.before_ns), Ordering::Relaxed);
        self.latest.store(word(sum.epoch, sum.latest_ns), Ordering::Release);
    }
}

fn word(epoch: u64, length_ns: u64) -> u64 {
    epoch << LENGTH_BITS | length_ns.min(MOST_NS)
}

impl Lengths {
    fn of(word: u64) -> Self {
        Self { epoch: word >> LENGTH_BITS, latest_ns: word & MOST_NS, before_ns: 0 }
    }

    /// That of a poll under way.
    pub(super) fn now(length_ns: u64) -> Self {
        Self::of(word(epoch(), length_ns))
    }

    /// Both together. What is older than both epochs is left out.
    #[must_use]
    pub(super) fn with(self, other: Self) -> Self {
        self.with_at(other, epoch())
    }

    /// The same at a time when `now` is the latest epoch, or was since both were read.
    fn with_at(self, other: Self, now: u64) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => return other,
            (_, true) => return self,
            _ => {}
        }
        let (older, newer) = match self.age(now) > other.age(now) {
            true => (self, other),
            false => (other, self),
        };
        let (latest_ns, before_ns) = match older.age(now) - newer.age(now) {
            0 => (older.latest_ns, older.before_ns),
            1 => (0, older.latest_ns),
            _ => (0, 0),
        };
        Self {
            epoch: newer.epoch,
            latest_ns: newer.latest_ns.max(latest_ns),
            before_ns: newer.before_ns.max(before_ns),
        }
    }

    /// The longest poll in the latest epoch and, if a session began in `first` or before, in the epoch before the latest.
    pub(crate) fn since(self, first: u64) -> u64 {
        let latest = epoch();
        let before_ns = if first < latest { self.before_ns } else { 0 };
        match self.age(latest) {
            0 => self.latest_ns.max(before_ns),
            1 if first < latest => self.latest_ns,
            _ => 0,
        }
    }

    fn is_empty(self) -> bool {
        self.latest_ns | self.before_ns == 0
    }

    /// The number of epochs since. Epochs are counted modulo [`EPOCHS`], so this is wrong for a task that was last polled a million
    /// sessions ago.
    fn age(self, now: u64) -> u64 {
        now.wrapping_sub(self.epoch) % EPOCHS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(epoch: u64, latest_ns: u64, before_ns: u64) -> Lengths {
        Lengths { epoch, latest_ns, before_ns }
    }

    #[test]
    fn the_newest_two_epochs_count() {
        let sum = |a: Lengths, b: Lengths| {
            assert_eq!(a.with_at(b, 7), b.with_at(a, 7));
            a.with_at(b, 7)
        };
        assert_eq!(sum(lengths(5, 10, 20), lengths(5, 30, 1)), lengths(5, 30, 20));
        assert_eq!(sum(lengths(5, 10, 20), lengths(4, 30, 99)), lengths(5, 10, 30));
        assert_eq!(sum(lengths(5, 10, 20), lengths(3, 30, 99)), lengths(5, 10, 20));
        assert_eq!(sum(lengths(5, 10, 20), Lengths::default()), lengths(5, 10, 20));
    }

    #[test]
    fn epochs_go_round() {
        let last = EPOCHS - 1;
        assert_eq!(lengths(last, 10, 20).with_at(lengths(0, 1, 0), EPOCHS), lengths(0, 1, 10));
        // Also after more than half of them.
        let (old, new) = (lengths(1, 10, 20), lengths(last, 1, 0));
        assert_eq!(old.with_at(new, last), new);
        assert_eq!(lengths(last, 10, 20).with(Lengths::default()), lengths(last, 10, 20));
        assert_eq!(Lengths::of(word(EPOCHS + 3, 7)), lengths(3, 7, 0));
        assert_eq!(Lengths::of(word(3, u64::MAX)), lengths(3, MOST_NS, 0));
    }

    /// No other test of this program begins epochs.
    #[test]
    fn a_session_has_what_was_longest_since_it_began() {
        let (polls, ended) = (Longest::default(), Longest::default());
        let first = epoch();
        polls.note(30);
        polls.note(10);
        ended.note(40);
        assert_eq!(polls.read().since(first), 30);
        begin_epoch();
        let second = epoch();
        assert_eq!((polls.read().since(first), polls.read().since(second)), (30, 0));
        polls.note(20);
        assert_eq!((polls.read().since(first), polls.read().since(second)), (30, 20));
        polls.add(&ended);
        assert_eq!((polls.read().since(first), polls.read().since(second)), (40, 20));
        begin_epoch();
        begin_epoch();
        // What is older has been kept by who wants it.
        assert_eq!((polls.read().since(first), polls.read().since(epoch())), (0, 0));
        polls.note(5);
        assert_eq!(polls.read().since(epoch()), 5);
    }
}
