//! Models of the protocol: one for each race, named after the race, on the code that ships.
//!
//! ```text
//! RUSTFLAGS="--cfg pertask_loom" cargo test -p pertask-core --lib --release models
//! ```
//!
//! loom runs every interleaving of a model's threads, with every value that a load may return under the C11 memory model, and
//! at most [`PREEMPTIONS`] preemptions; `LOOM_MAX_PREEMPTIONS` sets another bound. A model has one PMU, a table with small
//! blocks, and an RCU that frees as early as it may and detects late uses ([`rcu::stand_in`]). RCU's own algorithm has models
//! of its own.

mod active;
mod books;
mod cell;
mod counts;
mod cpu;
mod deferred_free;
mod events;
mod family;
mod global;
mod history;
mod holes;
mod paths;
mod places;
mod rcu_domain;
mod stand_in;
mod strays;
mod switch;
mod table;
mod triples;

use crate::primitive::{Arc, AtomicU32};
use crate::rcu;
use crate::task::{OwnedTask, Task};
use crate::{Event, Inherit, Pmu, PmuHandle, Switch, System};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};

/// The maximum number of preemptions in a run of a model; `LOOM_MAX_PREEMPTIONS` overrides it. With three, all models together
/// take less than a minute. docs/MUTATIONS.md lists what they catch.
const PREEMPTIONS: usize = 3;

/// A PMU whose data is one number: how often its task was switched in, plus what models add. Its hooks use the data twice, and
/// other threads may run in between.
#[derive(Default)]
struct Plain {
    /// A word that every thread accesses before it uses a number, so that loom tries them in every order.
    door: AtomicU32,
    with_data: AtomicU64,
    without_data: AtomicU64,
}

impl Plain {
    fn pass_the_door(&self) {
        // Relaxed: this access must not order anything that the core is meant to order.
        self.door.fetch_add(1, Ordering::Relaxed);
    }

    /// The part that all hooks share.
    fn look<'d>(&self, data: Option<&'d AtomicU64>) -> Option<&'d AtomicU64> {
        let calls = if data.is_some() { &self.with_data } else { &self.without_data };
        calls.fetch_add(1, Ordering::Relaxed);
        let data = data?;
        crate::quarantine::assert_not_kept(data);
        self.pass_the_door();
        crate::quarantine::assert_not_kept(data);
        Some(data)
    }
}

impl Pmu for Plain {
    const NAME: &'static str = "plain";
    type Data = AtomicU64;
    type CpuData = ();
    type Count = u64;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        if let Some(data) = self.look(switch.data) {
            data.fetch_add(1, Ordering::Relaxed);
        }
    }
    fn sched_out(&self, switch: Switch<'_, Self>) {
        self.look(switch.data);
    }
    fn read(&self, data: &AtomicU64) -> u64 {
        self.pass_the_door();
        crate::quarantine::assert_not_kept(data);
        data.load(Ordering::Relaxed)
    }
}

/// One system with one PMU, for one run of a model.
#[derive(Clone, Copy)]
struct World {
    system: &'static System,
    pmu: PmuHandle<Plain>,
}

impl World {
    fn new() -> Self {
        let system = System::leak();
        Self { system, pmu: system.register(Plain::default()).unwrap() }
    }

    fn fork(self) -> OwnedTask {
        self.fork_from(None)
    }

    fn fork_from(self, parent: Option<&Task>) -> OwnedTask {
        self.system.fork(self.system.site(None, Location::caller()), parent, 0)
    }

    fn attach(self, task: &Arc<Task>) -> Option<Event<Plain>> {
        self.pmu.attach_task(task, Inherit::No).ok()
    }

    /// How many references the live data of a task has, and whether one is the global event's. `None` without live data.
    fn references(self, task: &Task) -> Option<(u32, bool)> {
        let guard = rcu::enter();
        let data = task.slot(0).data(guard.token())?;
        let count = data.refcount.read();
        (count != 0).then(|| (count, data.global.load(crate::primitive::Ordering::Relaxed)))
    }

    /// *Whole*: asserts that the task has live data, with one reference of the global event and `events` others.
    fn assert_whole(self, task: &Task, events: u32) {
        assert_eq!(
            self.references(task),
            Some((events + 1, true)),
            "a hole, or a reference too many"
        );
    }

    /// Asserts *Whole* while another thread may be giving its own reference back.
    fn assert_whole_or_shared(self, task: &Task) {
        let (references, global) = self.references(task).expect("a hole");
        assert!(global && references <= 2, "a reference too many, or no mark");
    }

    /// Adds to a task's number, as a hook on its CPU would.
    fn count(self, task: &Task, amount: u64) {
        let guard = rcu::enter();
        if let Some(data) = task.slot(0).data(guard.token()) {
            self.pmu.pmu().pass_the_door();
            let data = self.pmu.0.own_payload(data).expect("the one PMU's data");
            data.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// How many hooks got data, and how many did not.
    fn hooks(self) -> (u64, u64) {
        let pmu = self.pmu.pmu();
        (pmu.with_data.load(Ordering::Relaxed), pmu.without_data.load(Ordering::Relaxed))
    }

    /// Ends a run: asserts that no task, no data and no section is left.
    fn finish(self) {
        assert_eq!(self.system.live_tasks(), 0, "a task is left in the table");
        assert_eq!(self.pmu.cache().live(), 0, "data is left that nobody holds");
        rcu::stand_in::finish();
        // SAFETY: the threads have been joined and the tasks have ended.
        unsafe { self.system.dispose() };
    }
}

/// Runs a model.
fn check(model: impl Fn() + Sync + Send + 'static) {
    check_within(PREEMPTIONS, model);
}

/// Runs a model that is too big for the usual bound.
fn check_within(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(move || {
        rcu::stand_in::begin();
        crate::membarrier::pass_the_door();
        model();
    });
}
