//! What the tests share: PMUs that check their own hooks while they count, a clock that is set by hand, and the
//! conditions that hold when all is over.

// Each test file is a crate of its own and uses a part.
#![allow(dead_code, reason = "each file of tests uses a part of it")]

use pertask_core::{Count, CpuRecord, Edge, Pmu, PmuHandle, Site, Switch, System, Task};
use std::fs;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A system of its own with one PMU.
///
/// It is never freed, and kept where a leak checker sees that it is not lost: what is lost all the same has leaked.
pub fn system_with<P: Pmu>(pmu: P) -> (&'static System, PmuHandle<P>) {
    static KEPT: Mutex<Vec<&System>> = Mutex::new(Vec::new());
    let system = System::leak();
    KEPT.lock().unwrap().push(system);
    (system, system.register(pmu).unwrap())
}

/// As many as usual, or the percentage that `PERTASK_STRESS` says: more for a soak, less where a tool makes all slow.
pub fn share(usual: u32) -> u32 {
    let percent = std::env::var("PERTASK_STRESS")
        .map_or(100, |percent| percent.parse().expect("PERTASK_STRESS is a percentage"));
    (usual * percent / 100).max(1)
}

/// A spawn site, told apart by its name.
pub fn site(system: &System, name: &str) -> &'static Site {
    system.site(Some(name), Location::caller())
}

/// Lets one test of the file run at a time; one that has failed holds up no other.
///
/// Released data is freed by whichever thread of the process comes by, and not while any is inside a section. Where it
/// matters when that is, no other test may come by.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What must hold when all tasks have ended and all events are dropped.
pub fn assert_nothing_left<P: Pmu<CpuData: Balanced>>(pmu: PmuHandle<P>) {
    assert_eq!(pmu.system().live_tasks(), 0, "a task was left in the table");
    assert_live(pmu, 0);
    assert_hooks_balanced(pmu);
}

/// How many data objects there are, once all that was released has been freed.
#[track_caller]
pub fn assert_live<P: Pmu>(pmu: PmuHandle<P>, expected: usize) {
    pertask_core::rcu::barrier().unwrap();
    assert_eq!(pmu.cache().live(), expected, "live data of {}", P::NAME);
}

/// While no task runs: every `sched_in` was answered, by the same task on the same CPU.
pub fn assert_hooks_balanced<P: Pmu<CpuData: Balanced>>(pmu: PmuHandle<P>) {
    pmu.system().for_each_cpu(|cpu| {
        let balance = pmu.cpu_data(cpu).unwrap().balance();
        assert_eq!(balance.faults.load(SeqCst), 0, "hooks out of turn on CPU {}", cpu.index());
        assert_eq!(balance.inside.load(SeqCst), 0, "a sched_out is owed on CPU {}", cpu.index());
    });
}

/// The `sched_out`s of all CPUs that answered no `sched_in`.
pub fn unanswered<P: Pmu<CpuData: Balanced>>(pmu: PmuHandle<P>) -> u64 {
    let mut sum = 0;
    pmu.system().for_each_cpu(|cpu| {
        sum += pmu.cpu_data(cpu).unwrap().balance().unanswered.load(SeqCst);
    });
    sum
}

/// How often hooks were called, on all CPUs.
pub fn hook_calls<P: Pmu<CpuData: Balanced>>(pmu: PmuHandle<P>) -> u64 {
    let mut sum = 0;
    pmu.system().for_each_cpu(|cpu| {
        sum += pmu.cpu_data(cpu).unwrap().balance().calls.load(SeqCst);
    });
    sum
}

/// What one CPU's hooks have seen. Hooks must not panic, so faults are counted.
#[derive(Debug, Default)]
pub struct Balance {
    calls: AtomicU64,
    /// The task whose `sched_in` came last and has not been answered, or 0.
    inside: AtomicU64,
    unanswered: AtomicU64,
    faults: AtomicU64,
}

impl Balance {
    /// For `sched_in`.
    pub fn comes(&self, task: &Task) {
        self.calls.fetch_add(1, Relaxed);
        if self.inside.swap(task.id().get(), Relaxed) != 0 {
            self.faults.fetch_add(1, Relaxed);
        }
    }

    /// For `sched_out`. Whether it answers a `sched_in`.
    pub fn leaves(&self, task: &Task) -> bool {
        self.calls.fetch_add(1, Relaxed);
        let inside = self.inside.swap(0, Relaxed);
        if inside == 0 {
            self.unanswered.fetch_add(1, Relaxed);
        } else if inside != task.id().get() {
            self.faults.fetch_add(1, Relaxed);
        }
        inside != 0
    }
}

/// CPU data that keeps a balance.
pub trait Balanced {
    /// That balance.
    fn balance(&self) -> &Balance;
}

impl Balanced for Balance {
    fn balance(&self) -> &Balance {
        self
    }
}

/// Counts turns: the dullest of PMUs.
pub struct Turns;

impl Pmu for Turns {
    const NAME: &'static str = "turns";
    type Data = AtomicU64;
    type CpuData = Balance;
    type Count = u64;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.comes(switch.task);
        if let (Some(turns), Edge::Turn) = (switch.data, switch.edge) {
            // Release: pairs with the Acquire in `read`, so that who reads a run's count also sees what came before it.
            turns.fetch_add(1, Release);
        }
    }

    fn sched_out(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.leaves(switch.task);
    }

    fn read(&self, turns: &AtomicU64) -> u64 {
        turns.load(Acquire)
    }
}

/// Time that passes when it is told to.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// Lets time pass.
    pub fn advance(&self, time: u64) {
        self.0.fetch_add(time, Relaxed);
    }

    /// The time since the beginning.
    pub fn now(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counts each kind of hook, and the time between a `sched_in` and its `sched_out`.
pub struct Probe(pub Clock);

/// What a [`Probe`] keeps for a CPU.
#[derive(Debug, Default)]
pub struct ProbeCpu {
    balance: Balance,
    since: AtomicU64,
}

impl Balanced for ProbeCpu {
    fn balance(&self) -> &Balance {
        &self.balance
    }
}

/// What a [`Probe`] counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// `sched_in`s, at turns and where a nested task gives back.
    pub came: [u64; 2],
    /// `sched_out`s, at the end of turns and where a nested task takes over.
    pub left: [u64; 2],
    /// The clock's time on a CPU.
    pub time: u64,
}

/// Where an edge stands in [`Counts`].
pub fn by_edge(edge: Edge) -> usize {
    match edge {
        Edge::Turn => 0,
        Edge::Nested | Edge::Aside | Edge::Disorder => 1,
    }
}

impl Counts {
    fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        let both = |a: [u64; 2], b: [u64; 2]| [f(a[0], b[0]), f(a[1], b[1])];
        Self {
            came: both(self.came, other.came),
            left: both(self.left, other.left),
            time: f(self.time, other.time),
        }
    }
}

impl Count for Counts {
    fn add(&mut self, other: &Self) {
        *self = self.zip(*other, u64::wrapping_add);
    }

    fn since(&self, base: &Self) -> Self {
        self.zip(*base, u64::wrapping_sub)
    }
}

impl Pmu for Probe {
    const NAME: &'static str = "probe";
    type Data = [AtomicU64; 5];
    type CpuData = ProbeCpu;
    type Count = Counts;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.balance.comes(switch.task);
        switch.cpu_data.since.store(self.0.now(), Relaxed);
        if let Some(data) = switch.data {
            data[by_edge(switch.edge)].fetch_add(1, Relaxed);
        }
    }

    fn sched_out(&self, switch: Switch<'_, Self>) {
        let answers = switch.cpu_data.balance.leaves(switch.task);
        let since = switch.cpu_data.since.load(Relaxed);
        let Some(data) = switch.data else { return };
        data[2 + by_edge(switch.edge)].fetch_add(1, Relaxed);
        if answers {
            data[4].fetch_add(self.0.now() - since, Relaxed);
        }
    }

    fn read(&self, data: &Self::Data) -> Counts {
        let [turns, backs, ends, overs, time] = data.each_ref().map(|count| count.load(Relaxed));
        Counts { came: [turns, backs], left: [ends, overs], time }
    }
}

/// A PMU without data: its hooks are called, and are given none.
pub struct Hollow;

/// What a [`Hollow`] keeps for a CPU.
#[derive(Debug, Default)]
pub struct HollowCpu {
    balance: Balance,
    /// How often it was given data all the same.
    pub with_data: AtomicU64,
}

impl Balanced for HollowCpu {
    fn balance(&self) -> &Balance {
        &self.balance
    }
}

impl Pmu for Hollow {
    const NAME: &'static str = "hollow";
    type Data = ();
    type CpuData = HollowCpu;
    type Count = ();

    fn sched_in(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.with_data.fetch_add(u64::from(switch.data.is_some()), Relaxed);
        switch.cpu_data.balance.comes(switch.task);
    }

    fn sched_out(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.with_data.fetch_add(u64::from(switch.data.is_some()), Relaxed);
        switch.cpu_data.balance.leaves(switch.task);
    }

    fn read(&self, (): &()) {}
}

/// Counts the beginnings and ends of CPUs: online is 1, offline 0, anything else a fault.
#[derive(Debug, Default)]
pub struct Online(pub AtomicU64);

/// A PMU that watches CPUs come and go.
pub struct CpuWatch;

impl Pmu for CpuWatch {
    const NAME: &'static str = "cpu-watch";
    type Data = ();
    type CpuData = Online;
    type Count = ();

    fn sched_in(&self, _: Switch<'_, Self>) {}
    fn sched_out(&self, _: Switch<'_, Self>) {}
    fn read(&self, (): &()) {}

    fn cpu_online(&self, _: &CpuRecord, online: &Online) {
        online.0.fetch_add(1, Relaxed);
    }

    fn cpu_offline(&self, _: &CpuRecord, online: &Online) {
        online.0.fetch_sub(1, Relaxed);
    }
}

/// Numbers that look random and are the same in each run.
pub struct Rng(u64);

impl Rng {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// One of `0..end`.
    pub fn below(&mut self, end: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

/// A thread that is about to wait for another one, as seen from there.
#[derive(Debug)]
pub struct Waiter {
    /// Where the kernel tells of it, if it does.
    status: PathBuf,
    switches: Option<u64>,
}

impl Waiter {
    /// The calling thread.
    pub fn here() -> Self {
        let thread = fs::read_link("/proc/thread-self").unwrap_or_default();
        let status = Path::new("/proc").join(thread).join("status");
        Self { switches: switches(&status), status }
    }

    /// Returns when the thread has given its CPU away of its own accord, which is how a wait begins, or has ended. Until then, that
    /// it is not done says nothing: it may not have had a CPU yet.
    pub fn until_it_waits(self) {
        while self.switches.is_some() && switches(&self.status) == self.switches {
            std::thread::yield_now();
        }
    }
}

/// How often a thread has given its CPU away of its own accord. `None`: it has ended, or nobody tells.
fn switches(status: &Path) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}
