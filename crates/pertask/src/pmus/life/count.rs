//! The parts of tasks' lives, as plain numbers.

use pertask_core::Count;

/// A part of a task's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// In its polls, on the CPU or off it.
    Polled,
    /// Woken, and not yet polled.
    Ready,
    /// Not polled, and not woken.
    Waiting,
    /// Not polled, and nobody knows whether woken.
    Unknown,
    /// In its polls, while a task that it polls had the CPU.
    Inside,
    /// Made, and not yet polled.
    New,
}

impl Part {
    pub(super) const COUNT: usize = 6;

    #[cfg(test)]
    pub(super) const ALL: [Self; Self::COUNT] =
        [Self::Polled, Self::Ready, Self::Waiting, Self::Unknown, Self::Inside, Self::New];
}

/// The count that an event of [`Life`](super::Life) reads: how long tasks were in each state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LifeCount {
    pub(super) parts_ns: [u64; Part::COUNT],
}

impl LifeCount {
    /// Each part.
    #[cfg(test)]
    pub(crate) fn parts_ns(&self) -> [u64; Part::COUNT] {
        self.parts_ns
    }

    fn part_ns(&self, part: Part) -> u64 {
        self.parts_ns[part as usize]
    }

    /// The time in polls, on the CPU or off it, without that of tasks which the task itself polled.
    #[must_use]
    pub fn polled_ns(&self) -> u64 {
        self.part_ns(Part::Polled)
    }

    /// The time from being woken to being polled.
    #[must_use]
    pub fn ready_ns(&self) -> u64 {
        self.part_ns(Part::Ready)
    }

    /// The time from the end of a poll to the wake, or to the next poll where no wake came.
    #[must_use]
    pub fn waiting_ns(&self) -> u64 {
        self.part_ns(Part::Waiting)
    }

    /// The time outside polls of which it is not known whether the task was ready or waiting.
    #[must_use]
    pub fn unknown_ns(&self) -> u64 {
        self.part_ns(Part::Unknown)
    }

    /// The time in polls while a task ran that the task itself polled.
    #[must_use]
    pub fn inside_ns(&self) -> u64 {
        self.part_ns(Part::Inside)
    }

    /// The time from being made to the first poll.
    #[must_use]
    pub fn new_ns(&self) -> u64 {
        self.part_ns(Part::New)
    }

    /// All parts together.
    #[must_use]
    pub fn life_ns(&self) -> u64 {
        self.parts_ns.iter().sum()
    }
}

impl Count for LifeCount {
    fn add(&mut self, other: &Self) {
        self.parts_ns.iter_mut().zip(other.parts_ns).for_each(|(ours, theirs)| *ours += theirs);
    }

    fn since(&self, base: &Self) -> Self {
        let since = |part: usize| self.parts_ns[part].saturating_sub(base.parts_ns[part]);
        Self { parts_ns: std::array::from_fn(since) }
    }
}
