//! What a task does in the time that samples stand for.

use super::{Amount, Profile, Sample};

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

    /// Returns what is counted in this state, in the singular: samples on the CPU, and waits. Being ready and being blocked are measured
    /// and not counted.
    #[must_use]
    pub fn counted(self) -> Option<&'static str> {
        match self {
            Self::OnCpu => Some("sample"),
            Self::Waiting => Some("wait"),
            Self::Blocked | Self::Ready => None,
        }
    }
}

impl Profile {
    /// Returns the profile of one state: its samples alone, in [`samples`](Self::samples).
    ///
    /// Summaries, pictures and texts are of those. A profile of another state than [`State::OnCpu`] was not sampled: it has no mechanism
    /// and no period, and lacks nothing that is counted in samples.
    #[must_use]
    pub fn in_state(&self, state: State) -> Self {
        let mut one = self.without_samples();
        if state == self.state {
            one.samples.clone_from(&self.samples);
            one.allocations.clone_from(&self.allocations);
            return one;
        }
        let of_state = |sample: &&Sample| sample.state == state;
        one.samples = self.off_cpu.iter().filter(of_state).cloned().collect();
        let has_some = one.samples.iter().any(|sample| sample.count > 0);
        one.has_counts = state.counted().is_some() && (has_some || one.samples.is_empty());
        (one.state, one.period_ns) = (state, 0);
        one.mechanism.clear();
        one.lost = super::Lost::default();
        one
    }

    /// Returns the profile with all that is not samples.
    pub(crate) fn without_samples(&self) -> Self {
        Self {
            start: self.start,
            duration_ns: self.duration_ns,
            mechanism: self.mechanism.clone(),
            period_ns: self.period_ns,
            samples: Vec::new(),
            state: self.state,
            off_cpu: Vec::new(),
            allocations: Vec::new(),
            has_allocations: self.has_allocations,
            has_counts: self.has_counts,
            locations: self.locations.clone(),
            functions: self.functions.clone(),
            mappings: self.mappings.clone(),
            lost: self.lost,
            remarks: self.remarks.clone(),
            task_root: self.task_root.clone(),
        }
    }

    /// Returns the amount of all samples in a state, be they in [`samples`](Self::samples) or in [`off_cpu`](Self::off_cpu).
    #[must_use]
    pub fn amount_in(&self, state: State) -> Amount {
        let of_state = self.all_samples().filter(|sample| sample.state == state);
        of_state.map(Amount::of).fold(Amount::default(), Amount::plus)
    }

    /// Returns the samples of all states.
    pub(crate) fn all_samples(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().chain(&self.off_cpu)
    }

    /// Returns how the profile was taken and what it lacks, in a few words: `perf cpu-clock; nothing lost`. Time off the CPU is measured.
    #[cfg(any(feature = "firefox", feature = "speedscope"))]
    pub(crate) fn origin(&self) -> String {
        match self.state {
            State::OnCpu => format!("{}; {}", self.mechanism, self.lost),
            state => state.time().to_owned(),
        }
    }

    /// Divides samples by whether they are on a CPU.
    pub(crate) fn by_cpu(samples: Vec<Sample>) -> (Vec<Sample>, Vec<Sample>) {
        samples.into_iter().partition(|sample| sample.state == State::OnCpu)
    }
}
