//! What the tests share: a PMU that does as it is told when it is called, one that counts calls, and a system with both.

use crate::common::{Turns, assert_live, assert_nothing_left, site, system_with};
use pertask_core::{Count, Cpu, CpuRecord, Edge, OwnedTask, Pmu, PmuHandle, Switch, System};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

/// A PMU that counts turns, and does what it is told when it is called.
#[derive(Default)]
pub struct Hostile {
    panics_in: AtomicUsize,
}

/// Where it may be told to panic, once.
pub const SCHED_IN: usize = 1;

pub const SCHED_OUT: usize = 2;

pub const READ: usize = 3;

pub const FOLD: usize = 4;

pub const ADD: usize = 5;

thread_local! {
    /// What a hook is to do next on this thread. Called once.
    pub static IN_HOOK: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    /// Where the next `add` is to panic.
    pub static PANICS_IN_ADD: Cell<bool> = const { Cell::new(false) };
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum(pub u64);

impl Count for Sum {
    fn add(&mut self, other: &Self) {
        assert!(!PANICS_IN_ADD.take(), "told to, in add");
        self.0 += other.0;
    }
    fn since(&self, base: &Self) -> Self {
        Self(self.0 - base.0)
    }
}

impl Hostile {
    pub fn panic_in(&self, place: usize) {
        self.panics_in.store(place, SeqCst);
    }

    fn called(&self, place: usize) {
        let told = self.panics_in.compare_exchange(place, 0, SeqCst, SeqCst).is_ok();
        assert!(!told, "told to, in {place}");
    }
}

pub fn in_hook(act: impl FnOnce() + 'static) {
    IN_HOOK.set(Some(Box::new(act)));
}

impl Pmu for Hostile {
    const NAME: &'static str = "hostile";
    type Data = AtomicU64;
    type CpuData = ();
    type Count = Sum;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        if let (Some(turns), Edge::Turn) = (switch.data, switch.edge) {
            turns.fetch_add(1, SeqCst);
        }
        if let Some(act) = IN_HOOK.take() {
            act();
        }
        self.called(SCHED_IN);
    }

    fn sched_out(&self, _: Switch<'_, Self>) {
        if let Some(act) = IN_HOOK.take() {
            act();
        }
        self.called(SCHED_OUT);
    }

    fn read(&self, turns: &AtomicU64) -> Sum {
        self.called(READ);
        Sum(turns.load(SeqCst))
    }

    fn fold(&self, ended: &AtomicU64, totals: &AtomicU64) -> bool {
        self.called(FOLD);
        // Now and then the sum is left to the core.
        let is_even = ended.load(SeqCst).is_multiple_of(2);
        if is_even {
            totals.fetch_add(ended.load(SeqCst), SeqCst);
        }
        is_even
    }
}

pub struct Scene {
    pub system: &'static System,
    pub hostile: PmuHandle<Hostile>,
    /// Beside it, one that checks that each `sched_in` is answered.
    pub turns: PmuHandle<Turns>,
    pub cpu: Rc<Cpu>,
}

impl Scene {
    pub fn new() -> Self {
        let (system, hostile) = system_with(Hostile::default());
        let turns = system.register(Turns).unwrap();
        Self { system, hostile, turns, cpu: Rc::new(Cpu::new(system)) }
    }

    pub fn fork(&self, name: &str) -> OwnedTask {
        self.cpu.fork(site(self.system, name))
    }

    /// That all is as it was in the beginning.
    pub fn assert_nothing_left(self) {
        assert_eq!(self.cpu.record().current_id(), None);
        drop(self.cpu);
        assert_live(self.hostile, 0);
        assert_nothing_left(self.turns);
    }
}

pub fn panics<R>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(|| drop(f()))).is_err()
}

/// A PMU that counts how often it was told of CPUs that came and went.
#[derive(Default)]
pub struct Calls([AtomicU64; 2]);

impl Calls {
    pub fn get(&self) -> [u64; 2] {
        self.0.each_ref().map(|calls| calls.load(SeqCst))
    }
}

impl Pmu for Calls {
    const NAME: &'static str = "calls";
    type Data = ();
    type CpuData = ();
    type Count = ();
    fn sched_in(&self, _: Switch<'_, Self>) {}
    fn sched_out(&self, _: Switch<'_, Self>) {}
    fn read(&self, (): &()) {}
    fn cpu_online(&self, _: &CpuRecord, (): &()) {
        self.0[0].fetch_add(1, SeqCst);
    }
    fn cpu_offline(&self, _: &CpuRecord, (): &()) {
        self.0[1].fetch_add(1, SeqCst);
    }
}
