//! The memory PMU: for each task what it has allocated and freed.
//!
//! Each thread counts in a meter of its own, by the allocator in `alloc.rs`, and knows of no tasks. The hooks read the meter of their
//! CPU when a task comes and when it leaves, and charge the difference to the task. The meter only grows, and any thread can read
//! it. So a poll under way is known to the byte.

#[allow(unsafe_code)]
pub(crate) mod alloc;
pub(crate) mod count;
pub(crate) mod epoch;
mod meter;
mod place;
#[cfg(feature = "sampler")]
pub(crate) mod sampling;
#[cfg(all(test, feature = "sampler"))]
mod sampling_tests;
pub(crate) mod tag_counts;

use self::count::MemoryCount;
use self::meter::{Meter, Sums};
use crate::pmus::by_tag::{self, ByTag};
use crate::pmus::stint::Stints;
use pertask_core::{Cpu, CpuRecord, Edge, Error, Pmu, PmuHandle, Switch, System, Task};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Counts what each task allocates and frees.
#[derive(Debug)]
pub(crate) struct Memory;

/// What the PMU keeps for a CPU.
///
/// The CPU's own thread writes all fields except `adopted`.
#[derive(Debug, Default)]
pub(crate) struct MemoryCpu {
    /// What the threads that were this CPU have allocated and freed, in tasks and outside. It stays for good, because a thread may
    /// use it at any time.
    meter: OnceLock<&'static Meter>,
    /// The meter at the beginning of the running stint, if its task has data.
    start: Stamp,
    /// The meter when the running stint was adopted, if its task ran already as the PMU was attached. The attaching thread writes it.
    adopted: Stamp,
    /// What all stints that have ended have counted.
    tasks: Sums,
    /// The part of that of which it is not known in which task it was.
    unknown: Sums,
    /// The tag that the task has in the running stint. Unknown in a stint that was adopted.
    tag: AtomicU32,
    /// What stints that have ended have counted, by the tag that the tasks had.
    by_tag: ByTag<{ tag_counts::AMOUNTS }>,
    /// The CPU's count of switches when the thread became this CPU.
    online_at: AtomicU64,
}

/// A reading of the meter, valid for one stint: the time between two switches of a CPU.
#[derive(Debug, Default)]
struct Stamp {
    /// The CPU's count of switches during the stint, plus one; 0 for no stint.
    stint: AtomicU64,
    meter: Sums,
}

/// What the whole process has allocated and freed since it began to count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessCount {
    /// The workers, in tasks and outside.
    pub(crate) workers: MemoryCount,
    /// The part of that which is outside tasks.
    pub(crate) outside_tasks: MemoryCount,
    /// The part in tasks of which it is not known in which task it was.
    pub(crate) unknown: MemoryCount,
    /// The threads that are no workers.
    pub(crate) others: MemoryCount,
}

static HANDLE: OnceLock<Result<PmuHandle<Memory>, Error>> = OnceLock::new();

/// How often a reading tries to read a CPU without a switch in between.
const TRIES: usize = 16;

impl Pmu for Memory {
    const NAME: &'static str = "memory";
    type Data = Sums;
    type CpuData = MemoryCpu;
    type Count = MemoryCount;

    #[inline]
    fn sched_in(&self, switch: Switch<'_, Self>) {
        let Some(meter) = switch.cpu_data.meter() else { return };
        // A thread is a worker from its first task on.
        place::move_to(meter, epoch::now());
        if switch.data.is_some() {
            switch.cpu_data.begin_stint(switch.cpu.switches() + 1, meter, switch.task.tag());
        }
    }

    #[inline]
    fn sched_out(&self, switch: Switch<'_, Self>) {
        if let (Some(data), Some(meter)) = (switch.data, switch.cpu_data.meter()) {
            let switches = switch.cpu.switches();
            switch.cpu_data.end_stint(switches, meter, switch.task, data, switch.edge);
        }
    }

    fn read(&self, data: &Sums) -> MemoryCount {
        data.read()
    }

    fn fold(&self, ended: &Sums, totals: &Sums) -> bool {
        totals.add(ended.read());
        true
    }

    fn cpu_online(&self, cpu: &CpuRecord, data: &MemoryCpu) {
        data.meter.get_or_init(|| Box::leak(Box::default()));
        data.by_tag.make_all_room();
        // While the PMU is being registered, the CPU may be one that has run tasks already.
        let switches = if HANDLE.get().is_some() { cpu.switches() } else { 0 };
        // Relaxed: a figure, for the CPU's own thread.
        data.online_at.store(switches, Ordering::Relaxed);
    }

    fn cpu_offline(&self, _: &CpuRecord, _: &MemoryCpu) {
        // The next thread may get this CPU while this one still runs its last destructors.
        place::leave();
    }
}

impl Stints for Memory {
    fn adopt_running(&self, cpu: &CpuRecord, data: &MemoryCpu) {
        let switches = cpu.switches();
        // A stint that another session has adopted keeps its start: sessions take differences.
        if cpu.current_id().is_none() || data.stint(switches).is_some() {
            return;
        }
        if let Some(meter) = data.meter() {
            data.adopted.set(switches + 1, meter.read());
        }
    }

    fn running(&self, cpu: &CpuRecord, data: &MemoryCpu, switches: u64) -> Option<MemoryCount> {
        // If the run has ended elsewhere, it is not known what was counted since.
        let start = data.stint(switches).filter(|_| !cpu.has_strays())?;
        let now = data.meter()?.read();
        // Acquire: pairs with the Release in `end_stint`. If that fence comes first, and this thread has read something that was
        // counted or charged after it, then this thread finds no stint below.
        fence(Ordering::Acquire);
        let goes_on = data.stint(switches).is_some() && cpu.switches() == switches;
        goes_on.then(|| now.beyond(start))
    }
}

impl Memory {
    /// The handle of this PMU in the program's system.
    ///
    /// The first call registers the PMU.
    pub(crate) fn handle() -> Result<PmuHandle<Self>, Error> {
        *HANDLE.get_or_init(|| System::global().register(Self))
    }

    /// The handle, if the PMU has been registered.
    fn registered() -> Option<PmuHandle<Self>> {
        HANDLE.get()?.ok()
    }

    /// The meter of the calling thread's CPU, if the thread has run a task.
    ///
    /// The allocator calls this, perhaps in the middle of anything.
    fn meter_of_worker() -> Option<&'static Meter> {
        let cpu = Cpu::record_here()?;
        let data = Self::registered()?.cpu_data(cpu)?;
        // Relaxed: this thread has written it, or its former owner and whoever registered the PMU, before they let it go.
        let ran_tasks = cpu.switches() > data.online_at.load(Ordering::Relaxed);
        data.meter().filter(|_| ran_tasks)
    }

    /// Calls `f` with the meter of each CPU.
    #[cfg(feature = "sampler")]
    fn for_each_meter(mut f: impl FnMut(&Meter)) {
        let Some(handle) = Self::registered() else { return };
        System::global().for_each_cpu(|cpu| {
            if let Some(meter) = handle.cpu_data(cpu).and_then(MemoryCpu::meter) {
                f(meter);
            }
        });
    }

    /// What the whole process has allocated and freed.
    pub(crate) fn of_process(handle: PmuHandle<Self>) -> ProcessCount {
        let mut sum = ProcessCount { others: place::of_all_others(), ..ProcessCount::default() };
        System::global().for_each_cpu(|cpu| {
            let Some(data) = handle.cpu_data(cpu) else { return };
            let Some(meter) = data.meter() else { return };
            sum.outside_tasks = sum.outside_tasks.plus(data.outside_tasks(cpu, meter));
            sum.unknown = sum.unknown.plus(data.unknown.read());
            sum.workers = sum.workers.plus(meter.read());
        });
        sum
    }
}

impl MemoryCpu {
    #[inline(always)]
    fn meter(&self) -> Option<&'static Meter> {
        self.meter.get().copied()
    }

    /// The meter at the beginning of a stint. `switches` is the CPU's count of switches during the stint.
    #[inline(always)]
    fn stint(&self, switches: u64) -> Option<MemoryCount> {
        self.start.get(switches + 1).or_else(|| self.adopted.get(switches + 1))
    }

    /// The tag of the stint that runs now, with what it has counted so far. `None` for an adopted stint, and between stints.
    fn running_tag(&self, cpu: &CpuRecord, switches: u64) -> Option<(u32, MemoryCount)> {
        let start = self.start.get(switches + 1).filter(|_| !cpu.has_strays())?;
        // Relaxed: the Acquire in `get` orders it, and the check below finds a change.
        let tag = self.tag.load(Ordering::Relaxed);
        let now = self.meter()?.read();
        // Acquire: pairs with the Release in `end_stint`, as in `running`.
        fence(Ordering::Acquire);
        let goes_on = self.start.get(switches + 1).is_some() && cpu.switches() == switches;
        goes_on.then(|| (tag, now.beyond(start)))
    }

    /// Whether the running stint was adopted.
    fn is_adopted(&self, switches: u64) -> bool {
        self.adopted.get(switches + 1).is_some()
    }

    #[inline(always)]
    fn begin_stint(&self, switches: u64, meter: &Meter, tag: u32) {
        // Relaxed: the Release in `set` orders it.
        self.tag.store(tag, Ordering::Relaxed);
        self.start.set(switches + 1, meter.read());
        // Release: pairs with the Acquire in `outside_tasks`. Whoever reads something that the task has counted finds its stint.
        fence(Ordering::Release);
    }

    /// Charges a task for its stint if the start is known. `switches` is the CPU's count of switches up to now.
    #[inline(always)]
    fn end_stint(&self, switches: u64, meter: &Meter, task: &Task, data: &Sums, edge: Edge) {
        let Some(start) = self.stint(switches) else { return };
        // From here on, no reader adds the stint as running. Relaxed: the fence orders it.
        self.start.stint.store(0, Ordering::Relaxed);
        // Few stints are adopted. Relaxed: the fence orders it.
        if self.adopted.stint.load(Ordering::Relaxed) != 0 {
            self.adopted.stint.store(0, Ordering::Relaxed);
            // Relaxed: only this thread reads it before the next stint begins.
            self.tag.store(task.tag(), Ordering::Relaxed);
        }
        // Release: pairs with the Acquire in `running` and in `outside_tasks`.
        fence(Ordering::Release);
        let stint = meter.read().beyond(start);
        self.tasks.add(stint);
        match edge {
            Edge::Disorder => self.unknown.add(stint),
            Edge::Turn | Edge::Nested | Edge::Aside => {
                self.charge_tag(stint);
                data.add(stint);
            }
        }
    }

    #[inline(always)]
    fn charge_tag(&self, stint: MemoryCount) {
        // Relaxed: only this thread writes it.
        let tag = self.tag.load(Ordering::Relaxed);
        if tag != 0
            && let Some(of_tag) = self.by_tag.of(tag)
        {
            let amounts = tag_counts::amounts(stint);
            of_tag.iter().zip(amounts).for_each(|(sum, more)| by_tag::add(sum, more));
        }
    }

    /// What the CPU's threads have counted outside tasks: all that the meter has but what ended stints have counted, and without the
    /// running stint.
    fn outside_tasks(&self, cpu: &CpuRecord, meter: &Meter) -> MemoryCount {
        let mut tries = TRIES;
        loop {
            tries -= 1;
            let (switches, settled) = (cpu.switches(), self.tasks.read());
            // Acquire: pairs with the Release in `end_stint`. If `settled` has something of a stint, that stint is not found below.
            fence(Ordering::Acquire);
            let numbers = self.numbers();
            let start = self.stint(switches).filter(|_| !cpu.has_strays());
            let outside = start.unwrap_or_else(|| meter.read()).beyond(settled);
            // Acquire: pairs with the Release in `begin_stint` and `end_stint`. If the meter was read after a stint has begun or
            // ended, its number is another one now.
            fence(Ordering::Acquire);
            // Without a stint, one may just be ending: then it has been charged by the next try. Or the task has no data.
            let is_ending = start.is_none() && cpu.current_id().is_some();
            let is_settled = self.numbers() == numbers && self.tasks.read() == settled;
            if tries == 0 || (is_settled && !is_ending) {
                return outside;
            }
        }
    }

    /// The numbers of the stints that run or were adopted.
    fn numbers(&self) -> [u64; 2] {
        // Relaxed: the callers' fences order it.
        [&self.start, &self.adopted].map(|stamp| stamp.stint.load(Ordering::Relaxed))
    }
}

impl Stamp {
    #[inline(always)]
    fn set(&self, stint: u64, meter: MemoryCount) {
        self.meter.set(meter);
        // Release: pairs with the Acquire in `get`. A reader has read the meter of a stint if it finds the stint's number, and the
        // stint still runs after it has read it.
        self.stint.store(stint, Ordering::Release);
    }

    #[inline(always)]
    fn get(&self, stint: u64) -> Option<MemoryCount> {
        // Acquire: pairs with the Release in `set`.
        (self.stint.load(Ordering::Acquire) == stint).then(|| self.meter.read())
    }
}
