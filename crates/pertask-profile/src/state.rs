//! What a task does in the time that samples stand for.

use super::{Profile, Sample};

/// What a task, or a thread, does in the time that samples stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum State {
    /// It is on a CPU.
    #[default]
    OnCpu,
    /// It is polled, and its thread is off the CPU.
    Blocked,
    /// It has been woken, and is not yet polled.
    Ready,
    /// It waits to be woken.
    Waiting,
}

impl State {
    /// All states.
    pub const ALL: [Self; 4] = [Self::OnCpu, Self::Blocked, Self::Ready, Self::Waiting];

    /// The states in which a task is not on a CPU.
    pub const OFF_CPU: [Self; 3] = [Self::Blocked, Self::Ready, Self::Waiting];

    /// Returns the name of the state, in one word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OnCpu => "on-cpu",
            Self::Blocked => "blocked",
            Self::Ready => "ready",
            Self::Waiting => "waiting",
        }
    }

    /// Returns what the time in this state is called.
    #[must_use]
    pub fn time(self) -> &'static str {
        match self {
            Self::OnCpu => "CPU time",
            Self::Blocked => "blocked time",
            Self::Ready => "ready time",
            Self::Waiting => "waiting time",
        }
    }
}

impl Profile {
    /// Returns the profile of one state: its samples alone, in [`samples`](Self::samples).
    ///
    /// Summaries, pictures and texts are of those. A profile of another state than [`State::OnCpu`] has no period, and lacks nothing that
    /// is counted in samples.
    #[must_use]
    pub fn in_state(&self, state: State) -> Self {
        let mut one = Self { off_cpu: Vec::new(), samples: Vec::new(), ..self.clone() };
        if state == self.state {
            one.samples.clone_from(&self.samples);
            return one;
        }
        let of_state = |sample: &&Sample| sample.state == state;
        one.samples = self.off_cpu.iter().filter(of_state).cloned().collect();
        one.has_counts = one.samples.iter().any(|sample| sample.count > 0);
        (one.state, one.period_ns) = (state, 0);
        one.lost = super::Lost::default();
        one
    }

    /// Divides samples by whether they are on a CPU.
    pub(crate) fn by_cpu(samples: Vec<Sample>) -> (Vec<Sample>, Vec<Sample>) {
        samples.into_iter().partition(|sample| sample.state == State::OnCpu)
    }
}
