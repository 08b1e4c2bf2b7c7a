//! What tasks have used while they had a tag, as far as sessions measure it.

use crate::pmus::by_tag::{place_of, want_room};
use crate::pmus::cpu_time::tag_times;
use crate::pmus::life::{LifeCount, cut};
use pertask_core::Count;

/// What tasks have used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) cpu_ns: u64,
    /// Zero where lives are not measured.
    pub(crate) life: LifeCount,
}

/// What tasks have used at one moment, by the place of their tag.
#[derive(Debug, Default)]
pub(crate) struct ByPlace {
    cpu_ns: Vec<u64>,
    lives: Vec<LifeCount>,
}

impl Used {
    /// Whether it is nothing at all.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl Count for Used {
    fn add(&mut self, other: &Self) {
        self.cpu_ns += other.cpu_ns;
        self.life.add(&other.life);
    }

    fn since(&self, base: &Self) -> Self {
        Self { cpu_ns: self.cpu_ns.saturating_sub(base.cpu_ns), life: self.life.since(&base.life) }
    }
}

impl ByPlace {
    /// Reads the CPU time, with the polls under way.
    pub(crate) fn read_cpu_time() -> Self {
        Self { cpu_ns: tag_times::read(), lives: Vec::new() }
    }

    /// Adds lives, which a [cut](cut::Cut) has read.
    pub(crate) fn with_lives(self, lives: Vec<LifeCount>) -> Self {
        Self { lives, ..self }
    }

    #[cfg(test)]
    pub(crate) fn of_one(place: usize, Used { cpu_ns, life }: Used) -> Self {
        let mut all = Self { cpu_ns: vec![0; place], lives: vec![LifeCount::default(); place] };
        all.cpu_ns.push(cpu_ns);
        all.lives.push(life);
        all
    }

    /// What is known of one place.
    pub(crate) fn of(&self, place: usize) -> Used {
        Used {
            cpu_ns: self.cpu_ns.get(place).copied().unwrap_or(0),
            life: self.lives.get(place).cloned().unwrap_or_default(),
        }
    }
}

/// What was used at one place, without polls and states under way.
pub(crate) fn at(place: usize) -> Used {
    Used { cpu_ns: tag_times::of_place(place), life: cut::of_place(place) }
}

/// Makes room for the place of a tag on each CPU, and on those that come. Call this before a task has the tag.
pub(crate) fn make_room(tag: u32) {
    if want_room(place_of(tag)) {
        make_all_room();
    }
}

/// Makes the wanted room on each CPU. CPUs that a PMU was told of before it was registered may lack it.
pub(crate) fn make_all_room() {
    tag_times::make_all_room();
    cut::make_all_room();
}
