//! The PMU of the machine: counts turns, and checks what its hooks are given.

use crate::baton::{self, Point};
use crate::memory::FREED;
use pertask::core::{Edge, Pmu, Switch};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts the turns of each task. Hooks must not panic, so what is wrong is kept.
#[derive(Debug)]
pub struct Probe {
    /// Which of the machine's PMUs it is.
    pub number: usize,
    /// Whether it adds up the data of tasks that end, or leaves that to the core.
    folds: bool,
    /// The reads to come in which the core does so: whoever reads counts waits for them.
    owed: AtomicU64,
    fault: Mutex<Option<&'static str>>,
}

/// The data of a task. Its size is that of nothing else in the core.
#[repr(C)]
pub struct ProbeData {
    turns: AtomicU64,
    /// The task whose data it is, from its first switch on.
    owner: AtomicU64,
    room: [u64; 89],
}

// SAFETY: integers, for which zero is a value.
unsafe impl bytemuck::Zeroable for ProbeData {}

/// The task whose `sched_in` has not been answered, by number, or 0.
#[derive(Debug, Default)]
pub struct Inside(AtomicU64);

impl Probe {
    pub fn new(number: usize, folds: bool) -> Self {
        Self { number, folds, owed: AtomicU64::new(0), fault: Mutex::new(None) }
    }

    /// The first thing that was wrong.
    pub fn fault(&self) -> Option<&'static str> {
        *self.fault.lock().unwrap()
    }

    fn check(&self, is_right: bool, fault: &'static str) {
        if !is_right {
            self.fault.lock().unwrap().get_or_insert(fault);
        }
    }

    fn check_data(&self, switch: &Switch<'_, Self>) {
        let Some(data) = switch.data else { return };
        self.check_not_freed(data);
        let id = switch.task.id().get();
        let owner = data.owner.swap(id, Relaxed);
        self.check(owner == 0 || owner == id, "a hook was given another task's data");
    }

    fn check_not_freed(&self, data: &ProbeData) {
        let is_freed = data.owner.load(Relaxed) == u64::from_ne_bytes([FREED; 8]);
        self.check(!is_freed, "data is used that was freed");
    }
}

impl Inside {
    pub fn task(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Pmu for Probe {
    const NAME: &'static str = "probe";
    type Data = ProbeData;
    type CpuData = Inside;
    type Count = u64;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        let inside = switch.cpu_data.0.swap(switch.task.id().get(), Relaxed);
        self.check(inside == 0, "Balanced: a sched_in where a sched_out is owed");
        self.check_data(&switch);
        if let (Some(data), Edge::Turn) = (switch.data, switch.edge) {
            data.turns.fetch_add(1, Relaxed);
        }
        baton::point(Point::SchedIn(self.number));
        if let Some(data) = switch.data {
            self.check_not_freed(data);
        }
    }

    fn sched_out(&self, switch: Switch<'_, Self>) {
        let inside = switch.cpu_data.0.swap(0, Relaxed);
        let id = switch.task.id().get();
        self.check(inside == 0 || inside == id, "Balanced: a sched_out of another task");
        self.check_data(&switch);
        baton::point(Point::SchedOut(self.number));
        if let Some(data) = switch.data {
            self.check_not_freed(data);
        }
    }

    fn read(&self, data: &ProbeData) -> u64 {
        match (self.owed.load(Relaxed), data.owner.load(Relaxed)) {
            (0, 0) => baton::point(Point::ReadNew(self.number)),
            (0, _) => baton::point(Point::Read(self.number)),
            (owed, _) => self.owed.store(owed - 1, Relaxed),
        }
        self.check_not_freed(data);
        data.turns.load(Relaxed)
    }

    /// No point: whoever reads counts waits for a task's end to come out of this.
    fn fold(&self, ended: &ProbeData, totals: &ProbeData) -> bool {
        self.check_not_freed(ended);
        self.check_not_freed(totals);
        self.check(totals.owner.load(Relaxed) == 0, "a sum is some task's data");
        if self.folds {
            totals.turns.fetch_add(ended.turns.load(Relaxed), Relaxed);
        } else {
            // The sum, and what is added.
            self.owed.store(2, Relaxed);
        }
        self.folds
    }
}
