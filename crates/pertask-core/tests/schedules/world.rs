//! One system with one PMU, for one schedule.

use crate::common::{Balance, Rng, assert_live, assert_nothing_left, site, system_with};
use pertask_core::{Edge, Pmu, PmuHandle, Site, Switch, System, Task, TaskId, rcu};
use shuttle::rand::{RngCore, thread_rng};
use shuttle::sync::atomic::AtomicBool;
use shuttle::thread::JoinHandle;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Counts turns. Its hook takes its time: between its first and its last look at the data, others run.
#[derive(Default)]
pub struct SlowTurns {
    /// Means nothing; an access is a moment at which another thread may go on.
    moment: AtomicBool,
}

impl Pmu for SlowTurns {
    const NAME: &'static str = "slow turns";
    type Data = AtomicU64;
    type CpuData = Balance;
    type Count = u64;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.comes(switch.task);
        if let (Some(turns), Edge::Turn) = (switch.data, switch.edge) {
            let before = turns.load(SeqCst);
            self.moment.load(SeqCst);
            // A task runs on one CPU at a time, so nobody else counts.
            assert_eq!(turns.fetch_add(1, SeqCst), before, "freed under a hook");
        }
    }

    fn sched_out(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.leaves(switch.task);
    }

    fn read(&self, turns: &AtomicU64) -> u64 {
        turns.load(SeqCst)
    }
}

/// One system with one PMU, for one schedule.
#[derive(Clone, Copy)]
pub struct World {
    pub system: &'static System,
    pub turns: PmuHandle<SlowTurns>,
    pub site: &'static Site,
}

impl World {
    pub fn new() -> Self {
        let (system, turns) = system_with(SlowTurns::default());
        Self { system, turns, site: site(system, "scheduled") }
    }

    /// What the PMU counts for each task that lives and has data.
    pub fn living(self) -> BTreeMap<TaskId, u64> {
        let mut living = BTreeMap::new();
        self.turns.snapshot(|live| {
            let twice = living.insert(live.task.id(), live.count);
            assert_eq!(twice, None, "{:?} was seen twice", live.task);
        });
        living
    }

    /// Any task that lives; it may have ended when it is looked at.
    pub fn any_task(self, rng: &mut Rng) -> Option<Arc<Task>> {
        let (mut chosen, mut seen) = (None, 0);
        self.system.for_each_task(|task| {
            seen += 1;
            if rng.below(seen) == 0 {
                chosen = Some(Arc::clone(task));
            }
        });
        chosen
    }

    /// While tasks live and no event is attached: no task has data.
    pub fn assert_no_data(self) {
        assert!(self.living().is_empty(), "data that nobody holds, and nobody frees before exit");
        assert_live(self.turns, 0);
    }

    /// The end of a schedule: nothing is left.
    pub fn finish(self) {
        assert_nothing_left(self.turns);
        assert_eq!(rcu::pending(), 0, "released and never freed");
        // SAFETY: the threads have been joined, the tasks have ended, and nothing waits to be freed.
        unsafe { self.system.dispose() };
    }
}

/// Waits for threads to end.
pub fn join<T, const N: usize>(threads: [JoinHandle<T>; N]) -> [T; N] {
    threads.map(|thread| thread.join().unwrap())
}

/// Numbers that belong to the schedule.
pub fn rng() -> Rng {
    Rng::new(thread_rng().next_u64())
}
