//! The PMU: charges to each task what its worker's counters counted while it ran.
//!
//! Where one task leaves and another comes, one reading serves both. Counters are opened for each worker by who begins to
//! use a set, and by workers that begin later; a switch only reads.

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

/// Counts perf events for each task. Users open [`Counters`](super::Counters).
#[derive(Debug, Default)]
pub struct CountersPmu {
    state: Mutex<State>,
    /// Turns of tasks that could not be counted.
    lost_turns: AtomicU64,
}

/// The set in use, if any.
#[derive(Debug, Default)]
struct State {
    set: Option<Arc<Set>>,
    uses: usize,
    /// Why the last worker's counters did not open.
    refused: Option<Refused>,
}

/// What the PMU keeps for a task. Written by the CPU that runs the task, read by all.
#[derive(Debug)]
#[repr(C)]
pub struct CountersData {
    counts: [AtomicU64; MAX_COLUMNS],
    times: [[AtomicU64; 2]; MAX_GROUPS],
    /// Stints that were counted, and that could not be.
    stints: AtomicU64,
    lost: AtomicU64,
}

// SAFETY: all fields are integers, for which zero is a value.
unsafe impl Zeroable for CountersData {}

impl CountersData {
    /// Each of its numbers.
    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        self.counts.iter().chain(self.times.as_flattened()).chain([&self.stints, &self.lost])
    }
}

/// What the PMU keeps for a CPU. Written by the CPU's own thread but for `bank` and `adopted`.
#[derive(Debug, Default)]
pub struct CountersCpu {
    bank: RcuCell<Bank>,
    /// Two readings: that which began the stint under way, and the last one. At a switch the last becomes the first.
    readings: [Reading; 2],
    /// Which of them begins the stint under way.
    start: AtomicU64,
    /// The beginning of a stint that ran already when somebody attached: written by them.
    adopted: Reading,
}

/// A reading of a bank, good for one stint: the time between two switches of a CPU.
#[derive(Debug, Default)]
struct Reading {
    /// The CPU's count of switches during the stint that it begins; 0 for none.
    stint: AtomicU64,
    bank: AtomicU64,
    counts: [AtomicU64; MAX_COLUMNS],
    times: [[AtomicU64; 2]; MAX_GROUPS],
}

/// Sets that can be counted at the same time: each has its own data in each task.
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
            // If it was begun, it is lost now; if not, it was lost then.
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
        // Relaxed: as the rest.
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
        // Refused inside hooks, where no thread ends, or if `membarrier` is: then the counters stay open as long as the process.
        let _ = data.bank.replace(None);
    }
}

impl CountersPmu {
    /// Takes part in what is being counted, if it is these events.
    fn join(&self, events: &[CounterEvent]) -> Option<Arc<Set>> {
        let mut state = self.lock();
        let set = state.set.clone().filter(|set| set.is_of(events))?;
        state.uses += 1;
        Some(set)
    }

    /// Begins to count a set on all workers. False if another is being counted.
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

    /// Ends a use; the last one closes the counters of all workers.
    pub(super) fn end(&self, handle: PmuHandle<Self>) {
        let mut state = self.lock();
        state.uses -= 1;
        if state.uses > 0 {
            return;
        }
        state.set = None;
        System::global().for_each_cpu(|cpu| {
            if let Some(data) = handle.cpu_data(cpu) {
                // Refused inside hooks, where nobody ends a use.
                let _ = data.bank.replace(None);
            }
        });
    }

    /// A PMU that counts these events.
    pub(super) fn claim(events: &[CounterEvent]) -> Result<(PmuHandle<Self>, Arc<Set>), Error> {
        // So that two who want the same set share it.
        static CLAIMING: Mutex<()> = Mutex::new(());
        let _claiming = CLAIMING.lock().unwrap_or_else(PoisonError::into_inner);
        let handles = handles()?;
        if let Some(joined) =
            handles.iter().find_map(|handle| Some((*handle, handle.pmu().join(events)?)))
        {
            return Ok(joined);
        }
        // Tried before any PMU is locked: threads that begin or end wait for that lock.
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

/// Registered at first use, and for ever: as many as there is room for.
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
            // The thread has ended meanwhile.
            Err(Refused(libc::ESRCH)) => None,
            Err(refused) => {
                self.refused = Some(refused);
                None
            }
        };
        // Refused inside hooks, where nobody opens counters.
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
    // Relaxed: a task goes from one CPU to the next by way of its executor, which orders the two; readers see the old or the
    // new.
    sum.store(sum.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

impl CountersCpu {
    /// The reading of that bank that begins the stint of that number. There is none if the stint was begun for somebody
    /// whose counters have been closed since.
    fn stint(&self, stint: u64, bank: u64) -> Option<Counts> {
        let of_bank = |reading: &Reading| reading.get(stint).filter(|(id, _)| *id == bank);
        of_bank(self.started()).or_else(|| of_bank(&self.adopted)).map(|(_, counts)| counts)
    }

    fn has_begun(&self, stint: u64) -> bool {
        self.started().get(stint).is_some() || self.adopted.get(stint).is_some()
    }

    fn started(&self) -> &Reading {
        // Acquire: pairs with the Release in `begin_stint`; the reading was written before.
        &self.readings[self.start.load(Ordering::Acquire) as usize & 1]
    }

    /// A reading for the switch after which the stint of that number begins: the one that was taken for who left, or one
    /// that is taken now.
    fn read(&self, stint: u64) -> Option<(u64, Counts)> {
        // Relaxed: this thread's own.
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
        let start = self.start.load(Ordering::Relaxed);
        // Release: pairs with the Acquire in `started`.
        self.start.store(start ^ 1, Ordering::Release);
        Some(())
    }

    /// Before a stint is charged: from here on nobody adds it as running.
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
        // One that somebody else has adopted keeps its start: sessions take differences.
        if let Some((bank, now)) = data.read_from_outside()
            && data.stint(stint, bank).is_none()
        {
            data.adopted.set(stint, bank, &now);
        }
    }

    fn running(&self, cpu: &CpuRecord, data: &CountersCpu, switches: u64) -> Option<CounterCounts> {
        let (bank, now) = data.read_from_outside()?;
        let start = data.stint(switches, bank)?;
        // Acquire: pairs with the Release in `end_stint`. If it comes after: whoever has read some of what is charged there
        // finds no stint here.
        fence(Ordering::Acquire);
        let still = data.stint(switches, bank).is_some() && cpu.switches() == switches;
        still.then(|| CounterCounts(Counts { stints: 1, ..now.since(&start) }))
    }
}

impl Reading {
    fn set(&self, stint: u64, bank: u64, reading: &Counts) {
        // Nobody takes the new figures for the old stint's. Relaxed: ordered by the fence.
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
        // Acquire: pairs with the Release fence in `set`; had one of these words been of a later reading, so would the
        // number be.
        fence(Ordering::Acquire);
        (self.stint.load(Ordering::Relaxed) == stint).then_some(reading)
    }
}

fn load(counts: &[AtomicU64; MAX_COLUMNS], times: &[[AtomicU64; 2]; MAX_GROUPS]) -> Counts {
    // Relaxed: each is right for itself; together they may be one stint apart, unless the caller sees to it.
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
