//! Many live tasks of a core of their own, and a PMU there.

use crate::Turns;
use pertask_core::{Cpu, Event, OwnedTask, PmuHandle, System};
use std::panic::Location;

/// Tasks that live, and do nothing.
///
/// The thread that makes it is a worker of the core, as those are that end most tasks in a program.
pub struct Crowd {
    turns: PmuHandle<Turns>,
    // Before the worker: they end on it.
    tasks: Vec<OwnedTask>,
    _worker: Cpu,
}

impl Crowd {
    /// Room for that many tasks, in a new core.
    #[must_use]
    pub fn with_capacity(tasks: usize) -> Self {
        let system = System::leak();
        let turns = system.register(Turns).expect("a new core has room for a PMU");
        Self { turns, tasks: Vec::with_capacity(tasks), _worker: Cpu::new(system) }
    }

    /// That many tasks, in a new core.
    #[must_use]
    pub fn of(tasks: usize) -> Self {
        let mut crowd = Self::with_capacity(tasks);
        crowd.fill();
        crowd
    }

    /// Makes tasks, as many as there is room for.
    pub fn fill(&mut self) {
        let system = self.turns.system();
        let site = system.site(Some("crowd"), Location::caller());
        self.tasks.resize_with(self.tasks.capacity(), || system.fork(site, None, 0));
    }

    /// Ends all tasks.
    pub fn end(&mut self) {
        self.tasks.clear();
    }

    /// Attaches to all tasks. Dropping the event detaches.
    pub fn attach(&self) -> Event<Turns> {
        self.turns.attach_global().expect("nothing limits the PMU's data")
    }

    /// From now on tasks keep the PMU's data until they end.
    #[cfg(feature = "retain")]
    pub fn retain(&self) {
        self.turns.set_retention(pertask_core::Retention::UntilExit);
    }
}
