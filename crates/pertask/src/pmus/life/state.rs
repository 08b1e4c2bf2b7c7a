//! What a task is doing, and since when, in one word.

use super::count::Part;

/// What a task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It was made, and has not been polled.
    New = 1,
    /// It is polled, and the CPU is its own.
    Polled = 2,
    /// It is polled, and a task that it polls has the CPU.
    Inside = 3,
    /// It has been polled. Its waker notes whether it has been woken since.
    Waiting = 4,
    /// It is not known to be polled. If it is not, nothing notes whether it has been woken.
    Unknown = 5,
    /// It has ended.
    Ended = 6,
}

/// A state, and when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) state: State,
    pub(super) since_ns: u64,
}

/// The bits of the state. Those above are the time, which has room for 73 years.
const STATE_BITS: u32 = 3;

impl Moment {
    /// The word in between two states. No moment has it.
    pub(super) const CHANGING: u64 = 7;

    pub(super) fn word(self) -> u64 {
        self.since_ns << STATE_BITS | self.state as u64
    }

    /// The moment of a word. 0 stands for no moment, and is as good as the end of a life: no time belongs to it.
    pub(super) fn of(word: u64) -> Self {
        let state = match word & ((1 << STATE_BITS) - 1) {
            1 => State::New,
            2 => State::Polled,
            3 => State::Inside,
            4 => State::Waiting,
            5 => State::Unknown,
            _ => State::Ended,
        };
        Self { state, since_ns: word >> STATE_BITS }
    }

    /// Whether the task is polled.
    pub(super) fn is_in_a_poll(self) -> bool {
        matches!(self.state, State::Polled | State::Inside)
    }

    /// Calls `add` with the parts of a life to which the time from this moment to `now_ns` belongs. `woken_ns` is the time of the
    /// first wake, or 0.
    #[inline(always)]
    pub(super) fn for_each_part(self, now_ns: u64, woken_ns: u64, mut add: impl FnMut(Part, u64)) {
        let all_ns = now_ns - self.since_ns;
        match self.state {
            State::New => add(Part::New, all_ns),
            State::Polled => add(Part::Polled, all_ns),
            State::Inside => add(Part::Inside, all_ns),
            State::Unknown => add(Part::Unknown, all_ns),
            State::Ended => {}
            State::Waiting if woken_ns == 0 => add(Part::Waiting, all_ns),
            State::Waiting => {
                // A task that was woken while it was polled is ready from the end of that poll on.
                let woken_ns = woken_ns.clamp(self.since_ns, now_ns);
                add(Part::Waiting, woken_ns - self.since_ns);
                add(Part::Ready, now_ns - woken_ns);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_has_the_whole_moment() {
        let states = [
            State::New,
            State::Polled,
            State::Inside,
            State::Waiting,
            State::Unknown,
            State::Ended,
        ];
        for state in states {
            for since_ns in [0, 1, 4_321, u64::MAX >> STATE_BITS] {
                let moment = Moment { state, since_ns };
                assert_eq!(Moment::of(moment.word()), moment);
                assert_ne!(moment.word(), 0);
                assert_ne!(moment.word(), Moment::CHANGING);
            }
        }
        Moment::of(0).for_each_part(5, 0, |part, ns| panic!("{part:?}: {ns}"));
    }
}
