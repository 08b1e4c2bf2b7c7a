//! What is compared: one of the amounts that samples stand for. It is chosen here and nowhere else.

use super::super::{Amount, Sample, State};

/// An amount that samples stand for, by which profiles are compared: the time in a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Measure {
    /// CPU time, in nanoseconds.
    #[default]
    Cpu,
    /// Time in polls off the CPU, in nanoseconds.
    Blocked,
    /// Time between wake and poll, in nanoseconds.
    Ready,
    /// Waiting time, in nanoseconds.
    Waiting,
}

impl From<State> for Measure {
    /// Returns the time in a state.
    fn from(state: State) -> Self {
        match state {
            State::OnCpu => Self::Cpu,
            State::Blocked => Self::Blocked,
            State::Ready => Self::Ready,
            State::Waiting => Self::Waiting,
        }
    }
}

impl Measure {
    /// Returns the state of whose samples it is an amount.
    #[must_use]
    pub fn state(self) -> State {
        match self {
            Self::Cpu => State::OnCpu,
            Self::Blocked => State::Blocked,
            Self::Ready => State::Ready,
            Self::Waiting => State::Waiting,
        }
    }

    /// Returns this one of the amounts.
    #[must_use]
    pub fn of(self, amount: Amount) -> u64 {
        match self {
            Self::Cpu | Self::Blocked | Self::Ready | Self::Waiting => amount.time_ns,
        }
    }

    /// Sets a sample's amount.
    pub(super) fn set(self, sample: &mut Sample, value: u64) {
        match self {
            Self::Cpu | Self::Blocked | Self::Ready | Self::Waiting => sample.time_ns = value,
        }
    }

    /// Returns what it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.state().time()
    }

    /// Returns an amount in words, such as `1.50 ms`.
    #[must_use]
    pub fn shown(self, value: u64) -> String {
        match self {
            Self::Cpu | Self::Blocked | Self::Ready | Self::Waiting => {
                pertask_text::human::duration_ns(value)
            }
        }
    }
}
