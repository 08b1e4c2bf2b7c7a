//! The counters PMU: it charges each task with what its worker's counters counted while the task ran.
//!
//! Where a switch takes one task out and another in, one reading serves both. The thread that begins to use a set opens the
//! counters of all workers, and workers that begin later open their own. A switch only reads.

use super::bank::Bank;
use super::counts::{CounterCounts, CountersLost, Counts, MAX_COLUMNS, MAX_GROUPS};
use super::event::CounterEvent;
use super::set::Set;
use crate::error::Error;
use crate::os::perf::{Refused, Times};
use crate::pmus::stint::Stints;
use bytemuck::Zeroable;
use pertask_core::rcu::RcuCell;
use pertask_core::{CpuRecord, Pmu, PmuHandle, Switch, System};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Counts perf events for each task.
///
/// Users open [`Counters`](super::Counters).
#[derive(Debug, Default)]
pub struct CountersPmu {
    state: Mutex<State>,
    /// The turns of tasks that could not be counted.
    lost_turns: AtomicU64,
}

/// The set in use, if there is one.
#[derive(Debug, Default)]
struct State {
    set: Option<Arc<Set>>,
    uses: usize,
    /// Why counters could not be opened on a worker, the last time that this happened.
    refused: Option<Refused>,
}

/// What the PMU keeps for a task.
///
/// The CPU that runs the task writes it; any thread reads it.
#[derive(Debug)]
#[repr(C)]
pub struct CountersData {
    counts: [AtomicU64; MAX_COLUMNS],
    times: [[AtomicU64; 2]; MAX_GROUPS],
    /// The number of stints that were counted, and of those that could not be.
    stints: AtomicU64,
    lost: AtomicU64,
}

// SAFETY: all fields are integers, for which zero is a value.
unsafe impl Zeroable for CountersData {}

impl CountersData {
    /// All its numbers.
    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        self.counts.iter().chain(self.times.as_flattened()).chain([&self.stints, &self.lost])
    }
}

/// What the PMU keeps for a CPU.
///
/// The CPU's own thread writes all fields except `bank` and `adopted`.
#[derive(Debug, Default)]
pub struct CountersCpu {
    bank: RcuCell<Bank>,
    /// Two readings: the one that began the running stint, and the last one. A switch turns the last one into the first.
    readings: [Reading; 2],
    /// The index of the reading that began the running stint.
    start: AtomicU64,
    /// The start of a stint that ran already when a session attached. The attaching thread writes it.
    adopted: Reading,
}

/// A reading of a bank, valid for one stint: the time between two switches of a CPU.
#[derive(Debug, Default)]
struct Reading {
    /// The CPU's count of switches during the stint that this reading begins; 0 for no stint.
    stint: AtomicU64,
    bank: AtomicU64,
    counts: [AtomicU64; MAX_COLUMNS],
    times: [[AtomicU64; 2]; MAX_GROUPS],
}

/// The number of sets that can be counted at the same time. Each has its own data in each task.
const SETS: usize = 2;

impl Pmu for CountersPmu {
    const NAME: &'static str = "counters";
    type Data = CountersData;
    type CpuData = CountersCpu;
    type Count = CounterCounts;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        let Some(data) = switch.data else { return };
        let next = switch.cpu.switches() + 1;
        if switch.cpu_data.begin_stint(next).is_none() {
            self.lose_stint(data);
        }
    }

    fn sched_out(&self, switch: Switch<'_, Self>) {
        let Some(data) = switch.data else { return };
        let now = switch.cpu.switches();
        let end = switch.cpu_data.read(now + 1);
        let Some((bank, end)) = end else {
            // A stint that was begun is lost now. One that was not begun was counted as lost at its start.
            if switch.cpu_data.has_begun(now) {
                switch.cpu_data.end_stint();
                self.lose_stint(data);
            }
            return;
        };
        let Some(start) = switch.cpu_data.stint(now, bank) else { return };
        switch.cpu_data.end_stint();
        data.charge(&end.since(&start));
    }

    fn read(&self, data: &CountersData) -> CounterCounts {
        let counts = load(&data.counts, &data.times);
        // Relaxed: each number is right by itself; together they may be one stint apart.
        let (stints, lost) =
            (data.stints.load(Ordering::Relaxed), data.lost.load(Ordering::Relaxed));
        CounterCounts(Counts { stints, lost, ..counts })
    }

    fn fold(&self, ended: &CountersData, totals: &CountersData) -> bool {
        // Relaxed: the task has run for the last time, and one thread at a time writes to `totals`.
        let columns = ended.all().zip(totals.all());
        columns.for_each(|(ours, total)| {
            let sum = total.load(Ordering::Relaxed).wrapping_add(ours.load(Ordering::Relaxed));
            total.store(sum, Ordering::Relaxed);
        });
        true
    }

    fn cpu_online(&self, cpu: &CpuRecord, data: &CountersCpu) {
        let mut state = self.lock();
        if let (Some(set), Some(thread)) = (state.set.clone(), cpu.thread()) {
            state.open_bank(&set, thread, data);
        }
    }

    fn cpu_offline(&self, _cpu: &CpuRecord, data: &CountersCpu) {
        let _state = self.lock();
        // `replace` is refused inside hooks, where no thread ends, and where the kernel refuses `membarrier`. Then the counters
        // stay open as long as the process.
        let _ = data.bank.replace(None);
    }
}

impl CountersPmu {
    /// Joins the users of the set in use, if it has these events.
    fn join(&self, events: &[CounterEvent]) -> Option<Arc<Set>> {
        let mut state = self.lock();
        let set = state.set.clone().filter(|set| set.is_of(events))?;
        state.uses += 1;
        Some(set)
    }

    /// Begins to count a set on all workers. Returns false if another set is in use.
    fn begin(&self, handle: PmuHandle<Self>, set: &Arc<Set>) -> bool {
        let mut state = self.lock();
        if state.set.is_some() {
            return false;
        }
        state.refused = None;
        System::global().for_each_cpu(|cpu| {
            if let (Some(data), Some(thread)) = (handle.cpu_data(cpu), cpu.thread()) {
                state.open_bank(set, thread, data);
            }
        });
        state.set = Some(Arc::clone(set));
        state.uses = 1;
        true
    }

    /// Ends a use. The last one closes the counters of all workers.
    pub(super) fn end(&self, handle: PmuHandle<Self>) {
        let mut state = self.lock();
        state.uses -= 1;
        if state.uses > 0 {
            return;
        }
        state.set = None;
        System::global().for_each_cpu(|cpu| {
            if let Some(data) = handle.cpu_data(cpu) {
                // `replace` is refused only inside hooks, and no hook ends a use.
                let _ = data.bank.replace(None);
            }
        });
    }

    /// Finds a PMU to count these events: one that counts them already, or a free one.
    pub(super) fn claim(events: &[CounterEvent]) -> Result<(PmuHandle<Self>, Arc<Set>), Error> {
        // Held from the search to the claim, so that two callers who want the same set share it.
        static CLAIMING: Mutex<()> = Mutex::new(());
        let _claiming = CLAIMING.lock().unwrap_or_else(PoisonError::into_inner);
        let handles = handles()?;
        if let Some(joined) =
            handles.iter().find_map(|handle| Some((*handle, handle.pmu().join(events)?)))
        {
            return Ok(joined);
        }
        // The events are tried before a PMU is locked, because threads that begin or end wait for that lock.
        let set = Arc::new(Set::plan(events)?);
        let free = handles.iter().find(|handle| handle.pmu().begin(**handle, &set));
        free.map(|handle| (*handle, set)).ok_or(Error::CountersBusy { sets: handles.len() })
    }

    pub(super) fn lost(&self, handle: PmuHandle<Self>) -> CountersLost {
        let state = self.lock();
        let mut workers = 0;
        System::global().for_each_cpu(|cpu| {
            if let (Some(data), Some(_)) = (handle.cpu_data(cpu), cpu.thread()) {
                workers += data.bank.with(|bank| u64::from(bank.is_none()));
            }
        });
        let refused = state.refused.filter(|_| workers > 0);
        CountersLost {
            // Relaxed: a figure.
            turns: self.lost_turns.load(Ordering::Relaxed),
            workers,
            reason: refused.map(|refused| refused.to_string()),
        }
    }

    #[cold]
    fn lose_stint(&self, data: &CountersData) {
        add(&data.lost, 1);
        // Relaxed: a figure.
        self.lost_turns.fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The PMUs of this type. The first use registers them, as many as there is room for, and they stay.
fn handles() -> Result<&'static [PmuHandle<CountersPmu>], Error> {
    type Handles = Result<Vec<PmuHandle<CountersPmu>>, pertask_core::Error>;
    static HANDLES: OnceLock<Handles> = OnceLock::new();
    let register = |_| System::global().register(CountersPmu::default());
    let handles = HANDLES.get_or_init(|| {
        let mut tried = (0..SETS).map(register);
        let first = tried.next().unwrap_or(Err(pertask_core::Error::TooManyPmus))?;
        Ok(std::iter::once(first).chain(tried.flatten()).collect())
    });
    handles.as_deref().map_err(|refused| (*refused).into())
}

impl State {
    fn open_bank(&mut self, set: &Set, thread: u32, data: &CountersCpu) {
        let bank = match Bank::open(set, thread) {
            Ok(bank) => Some(Box::new(bank)),
            // The thread has ended in the meantime.
            Err(Refused(libc::ESRCH)) => None,
            Err(refused) => {
                self.refused = Some(refused);
                None
            }
        };
        // `replace` is refused only inside hooks, and no hook opens counters.
        let _ = data.bank.replace(bank);
    }
}

impl CountersData {
    fn charge(&self, stint: &Counts) {
        for (sum, amount) in self.counts.iter().zip(stint.counts) {
            add(sum, amount);
        }
        for (sums, times) in self.times.iter().zip(&stint.times) {
            add(&sums[0], times.enabled_ns);
            add(&sums[1], times.running_ns);
        }
        add(&self.stints, 1);
    }
}

#[inline(always)]
fn add(sum: &AtomicU64, amount: u64) {
    // Relaxed: the executor moves a task from one CPU to the next, and so orders their writes. Readers see the old or the new
    // value.
    sum.store(sum.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

impl CountersCpu {
    /// The reading of this bank that began this stint, or `None` if the stint was begun with a bank that has been closed since.
    fn stint(&self, stint: u64, bank: u64) -> Option<Counts> {
        let of_bank = |reading: &Reading| reading.get(stint).filter(|(id, _)| *id == bank);
        of_bank(self.started()).or_else(|| of_bank(&self.adopted)).map(|(_, counts)| counts)
    }

    fn has_begun(&self, stint: u64) -> bool {
        self.started().get(stint).is_some() || self.adopted.get(stint).is_some()
    }

    fn started(&self) -> &Reading {
        // Acquire: pairs with the Release in `begin_stint`, before which the reading was written.
        &self.readings[self.start.load(Ordering::Acquire) as usize & 1]
    }

    /// The reading at the switch after which this stint begins. It was taken for the task that was switched out, or is taken now.
    fn read(&self, stint: u64) -> Option<(u64, Counts)> {
        // Relaxed: only this thread writes it.
        let last = &self.readings[(self.start.load(Ordering::Relaxed) as usize & 1) ^ 1];
        last.get(stint).or_else(|| {
            let (bank, now) =
                self.bank.with(|bank| bank.and_then(|bank| Some((bank.id, bank.read()?))))?;
            last.set(stint, bank, &now);
            Some((bank, now))
        })
    }

    fn begin_stint(&self, stint: u64) -> Option<()> {
        self.read(stint)?;
        // Relaxed: only this thread writes it.
        let start = self.start.load(Ordering::Relaxed);
        // Release: pairs with the Acquire in `started`, so that a reader finds the reading whole.
        self.start.store(start ^ 1, Ordering::Release);
        Some(())
    }

    /// Ends the stint, before it is charged: from here on, no reader adds it as running.
    fn end_stint(&self) {
        self.started().stint.store(0, Ordering::Relaxed);
        self.adopted.stint.store(0, Ordering::Relaxed);
        // Release: pairs with the Acquire in `running`.
        fence(Ordering::Release);
    }

    fn read_from_outside(&self) -> Option<(u64, Counts)> {
        self.bank.with(|bank| bank.and_then(|bank| Some((bank.id, bank.read_from_outside()?))))
    }
}

impl Stints for CountersPmu {
    fn adopt_running(&self, cpu: &CpuRecord, data: &CountersCpu) {
        let stint = cpu.switches();
        if cpu.current_id().is_none() {
            return;
        }
        // A stint that another session has adopted keeps its start: sessions take differences.
        if let Some((bank, now)) = data.read_from_outside()
            && data.stint(stint, bank).is_none()
        {
            data.adopted.set(stint, bank, &now);
        }
    }

    fn running(&self, cpu: &CpuRecord, data: &CountersCpu, switches: u64) -> Option<CounterCounts> {
        let (bank, now) = data.read_from_outside()?;
        let start = data.stint(switches, bank)?;
        // Acquire: pairs with the Release in `end_stint`. If that fence comes first, and this thread has read some of what was
        // charged after it, then this thread finds no stint below.
        fence(Ordering::Acquire);
        let still = data.stint(switches, bank).is_some() && cpu.switches() == switches;
        still.then(|| CounterCounts(Counts { stints: 1, ..now.since(&start) }))
    }
}

impl Reading {
    fn set(&self, stint: u64, bank: u64, reading: &Counts) {
        // No reader takes the new counts for the old stint's. Relaxed: the fence orders it.
        self.stint.store(0, Ordering::Relaxed);
        // Release: pairs with the Acquire fence in `get`.
        fence(Ordering::Release);
        self.bank.store(bank, Ordering::Relaxed);
        for (word, count) in self.counts.iter().zip(reading.counts) {
            word.store(count, Ordering::Relaxed);
        }
        for (words, times) in self.times.iter().zip(reading.times) {
            words[0].store(times.enabled_ns, Ordering::Relaxed);
            words[1].store(times.running_ns, Ordering::Relaxed);
        }
        // Release: pairs with the Acquire in `get`.
        self.stint.store(stint, Ordering::Release);
    }

    fn get(&self, stint: u64) -> Option<(u64, Counts)> {
        // Acquire: pairs with the Release in `set`.
        if self.stint.load(Ordering::Acquire) != stint {
            return None;
        }
        let reading = (self.bank.load(Ordering::Relaxed), load(&self.counts, &self.times));
        // Acquire: pairs with the Release fence in `set`. If one of these words is of a later reading, the number below is, too.
        fence(Ordering::Acquire);
        (self.stint.load(Ordering::Relaxed) == stint).then_some(reading)
    }
}

fn load(counts: &[AtomicU64; MAX_COLUMNS], times: &[[AtomicU64; 2]; MAX_GROUPS]) -> Counts {
    // Relaxed: each number is right by itself; together they may be one stint apart, unless the caller prevents that.
    let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
    Counts {
        stints: 0,
        lost: 0,
        counts: std::array::from_fn(|place| load(&counts[place])),
        times: std::array::from_fn(|group| Times {
            enabled_ns: load(&times[group][0]),
            running_ns: load(&times[group][1]),
        }),
    }
}
