//! What tasks have used while they had a tag, as far as sessions measure it.

use crate::pmus::by_tag::{place_of, want_room};
use crate::pmus::cpu_time::tag_times;
use crate::pmus::life::{LifeCount, cut};
use crate::pmus::memory::count::MemoryCount;
use crate::pmus::memory::tag_counts;
use pertask_core::Count;

/// What tasks have used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) cpu_ns: u64,
    /// Zero where lives are not measured.
    pub(crate) life: LifeCount,
    /// Zero where memory is not counted.
    pub(crate) memory: MemoryCount,
}

/// What tasks have used at one moment, by the place of their tag.
#[derive(Debug, Default)]
pub(crate) struct ByPlace {
    cpu_ns: Vec<u64>,
    lives: Vec<LifeCount>,
    memory: Vec<MemoryCount>,
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
        self.memory.add(&other.memory);
    }

    fn since(&self, base: &Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(base.cpu_ns),
            life: self.life.since(&base.life),
            memory: self.memory.since(&base.memory),
        }
    }
}

impl ByPlace {
    /// Reads the CPU time, with the polls under way.
    pub(crate) fn read_cpu_time() -> Self {
        Self { cpu_ns: tag_times::read(), ..Self::default() }
    }

    /// Reads what was allocated and freed as well, with the polls under way.
    pub(crate) fn with_memory(self) -> Self {
        Self { memory: tag_counts::read(), ..self }
    }

    /// Adds lives, which a [cut](cut::Cut) has read.
    pub(crate) fn with_lives(self, lives: Vec<LifeCount>) -> Self {
        Self { lives, ..self }
    }

    #[cfg(test)]
    pub(crate) fn of_one(place: usize, Used { cpu_ns, life, memory }: Used) -> Self {
        let mut all = Self::default();
        all.cpu_ns.resize(place, 0);
        all.lives.resize(place, LifeCount::default());
        all.memory.resize(place, MemoryCount::default());
        all.cpu_ns.push(cpu_ns);
        all.lives.push(life);
        all.memory.push(memory);
        all
    }

    /// What is known of one place.
    pub(crate) fn of(&self, place: usize) -> Used {
        Used {
            cpu_ns: self.cpu_ns.get(place).copied().unwrap_or(0),
            life: self.lives.get(place).cloned().unwrap_or_default(),
            memory: self.memory.get(place).copied().unwrap_or_default(),
        }
    }
}

/// What was used at one place, without polls and states under way.
pub(crate) fn at(place: usize) -> Used {
    Used {
        cpu_ns: tag_times::of_place(place),
        life: cut::of_place(place),
        memory: tag_counts::of_place(place),
    }
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
    tag_counts::make_all_room();
}
