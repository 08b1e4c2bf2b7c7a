//! The CPU-time PMU: for each task its CPU time, its polls, their wall time, and the longest poll.
//!
//! Where one task polls another, the time belongs to the inner task, because the outer one is switched out meanwhile. Where one
//! task is switched out and another in, one reading of the clock serves both.

pub(crate) mod ledger;
pub(crate) mod longest;
mod stamp;
pub(crate) mod tag_times;

use self::ledger::{Ledger, Used};
use self::longest::{Lengths, Longest};
use self::stamp::Stamp;
use crate::os::clock::{self, Choice, OnCpuClock, Reading};
use crate::pmus::by_tag::ByTag;
use crate::pmus::stint::Stints;
use bytemuck::Zeroable;
use pertask_core::{Count, CpuRecord, Edge, Error, Pmu, PmuHandle, Switch, System, Task};
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Measures each task's CPU time.
///
/// ```
/// use pertask::{CpuTime, Inherit, TaskExt};
///
/// let work = async { std::hint::black_box((0..100_000).sum::<u64>()) }.task("sum");
/// let event = CpuTime::handle()?.attach_task(work.handle().unwrap(), Inherit::No)?;
/// futures::executor::block_on(work);
///
/// let count = event.read();
/// assert_eq!(count.polls, 1);
/// assert!(count.cpu_ns > 0);
/// # Ok::<(), pertask::Error>(())
/// ```
#[derive(Debug)]
pub struct CpuTime {
    clock: &'static Choice,
    /// What threads used that ran tasks and have ended.
    ledger: Ledger,
}

/// What the PMU keeps for a task.
///
/// The CPU that runs the task writes it; any thread reads it.
#[derive(Debug)]
#[repr(C)]
pub struct CpuTimeData {
    cpu_ns: AtomicU64,
    wall_ns: AtomicU64,
    polls: AtomicU64,
    longest_poll_ns: AtomicU64,
    longest: Longest,
    /// Wall time of the poll under way, up to the last switch.
    this_poll_ns: AtomicU64,
}

// SAFETY: all fields are integers, for which zero is a value.
#[allow(unsafe_code)]
unsafe impl Zeroable for CpuTimeData {}

/// What the PMU keeps for a CPU.
///
/// The CPU's own thread writes all fields except `adopted`.
#[derive(Debug, Default)]
pub struct CpuTimeCpu {
    /// When the running stint began, if its task has data. Between stints, these are the times at which the last one ended. If
    /// one switch ends a stint and begins the next, the next begins at those times.
    start: Stamp,
    /// The switch at which the last stint ended: the CPU's count of switches after it.
    ended_at: AtomicU64,
    /// CPU time in tasks of the thread that is this CPU now.
    tasks_ns: AtomicU64,
    /// CPU time in tasks of all threads that were this CPU, of which it is not known in which task it was.
    unknown_ns: AtomicU64,
    /// The tag that the task has in the running stint. Unknown in a stint that was adopted.
    tag: AtomicU32,
    /// CPU time by the tag that the tasks had.
    by_tag: ByTag<1>,
    clock: OnCpuClock,
    /// When the running stint was adopted, if its task ran already as the PMU was attached. The attaching thread writes it.
    adopted: Stamp,
    /// The CPU's count of switches when the thread became this CPU, or `u64::MAX` while no thread is.
    online_at: AtomicU64,
}

/// The count that an event of [`CpuTime`] reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuTimeCount {
    /// CPU time, user and system.
    pub cpu_ns: u64,
    /// Wall time inside polls.
    pub wall_ns: u64,
    /// The number of polls that have begun.
    pub polls: u64,
    /// Wall time of the longest poll, or `None` where that poll may be older than the start of the count.
    ///
    /// In a report this includes polls that have not ended.
    pub longest_poll_ns: Option<u64>,
    /// The longest polls of the latest epochs, for sessions.
    pub(crate) lengths: Lengths,
    /// Wall time of the task's poll under way up to its last switch. Only that of one task means something.
    under_way_ns: u64,
}

impl Default for CpuTimeCount {
    fn default() -> Self {
        Self {
            cpu_ns: 0,
            wall_ns: 0,
            polls: 0,
            longest_poll_ns: Some(0),
            lengths: Lengths::default(),
            under_way_ns: 0,
        }
    }
}

impl Count for CpuTimeCount {
    fn add(&mut self, other: &Self) {
        self.cpu_ns += other.cpu_ns;
        self.wall_ns += other.wall_ns;
        self.polls += other.polls;
        self.lengths = self.lengths.with(other.lengths);
        self.longest_poll_ns = match (self.longest_poll_ns, other.longest_poll_ns) {
            (Some(ours), Some(theirs)) => Some(ours.max(theirs)),
            _ => None,
        };
    }

    fn since(&self, base: &Self) -> Self {
        // A maximum has no difference. It belongs to the time since `base` only if it is new.
        let is_new = |longest: &u64| *longest == 0 || Some(*longest) > base.longest_poll_ns;
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(base.cpu_ns),
            wall_ns: self.wall_ns.saturating_sub(base.wall_ns),
            polls: self.polls.saturating_sub(base.polls),
            longest_poll_ns: self.longest_poll_ns.filter(is_new),
            lengths: self.lengths,
            under_way_ns: self.under_way_ns,
        }
    }
}

#[cfg(feature = "sampler")]
impl CpuTimeCount {
    /// Wall time of a task's poll under way up to its last switch.
    pub(crate) fn under_way_ns(&self) -> u64 {
        self.under_way_ns
    }
}

static HANDLE: OnceLock<Result<PmuHandle<CpuTime>, Error>> = OnceLock::new();

thread_local! {
    /// What this thread had used when it last made an entry in the ledger.
    static ENTERED: Cell<Option<Used>> = const { Cell::new(None) };
}

impl Pmu for CpuTime {
    const NAME: &'static str = "cpu-time";
    type Data = CpuTimeData;
    type CpuData = CpuTimeCpu;
    type Count = CpuTimeCount;

    #[inline]
    fn sched_in(&self, switch: Switch<'_, Self>) {
        let Some(data) = switch.data else { return };
        if switch.edge == Edge::Turn {
            add(&data.polls, 1);
        }
        switch.cpu_data.begin_stint(switch.cpu.switches() + 1, self.clock, switch.task.tag());
    }

    #[inline]
    fn sched_out(&self, switch: Switch<'_, Self>) {
        let Some(data) = switch.data else { return };
        switch.cpu_data.end_stint(
            switch.cpu.switches(),
            self.clock,
            switch.task,
            data,
            switch.edge,
        );
    }

    fn read(&self, data: &CpuTimeData) -> CpuTimeCount {
        // Relaxed: each number is right by itself; together they may be one stint apart.
        CpuTimeCount {
            cpu_ns: data.cpu_ns.load(Ordering::Relaxed),
            wall_ns: data.wall_ns.load(Ordering::Relaxed),
            polls: data.polls.load(Ordering::Relaxed),
            longest_poll_ns: Some(data.longest_poll_ns.load(Ordering::Relaxed)),
            lengths: data.longest.read(),
            under_way_ns: data.this_poll_ns.load(Ordering::Relaxed),
        }
    }

    fn fold(&self, ended: &CpuTimeData, totals: &CpuTimeData) -> bool {
        // Relaxed: the task has run for the last time, and one thread at a time writes to `totals`.
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        add(&totals.cpu_ns, of(&ended.cpu_ns));
        add(&totals.wall_ns, of(&ended.wall_ns));
        add(&totals.polls, of(&ended.polls));
        let longest_ns = of(&ended.longest_poll_ns);
        if longest_ns > of(&totals.longest_poll_ns) {
            totals.longest_poll_ns.store(longest_ns, Ordering::Relaxed);
        }
        totals.longest.add(&ended.longest);
        true
    }

    fn cpu_online(&self, cpu: &CpuRecord, data: &CpuTimeCpu) {
        // Relaxed: a figure.
        data.online_at.store(cpu.switches(), Ordering::Relaxed);
        data.by_tag.make_all_room();
        // A thread that is ending may become a worker once more. Then its entry in the ledger stays.
        if let (None, Some(thread)) = (ENTERED.get(), cpu.thread()) {
            self.ledger.lock().begin(thread);
        }
    }

    fn cpu_offline(&self, cpu: &CpuRecord, data: &CpuTimeCpu) {
        // The lock makes this one step: a reading finds the thread either among the workers or in the ledger.
        let mut entries = self.ledger.lock();
        if let (true, Some(thread)) = (data.ran_tasks(cpu), cpu.thread()) {
            let last = Used { cpu_ns: clock::thread_cpu_ns(), tasks_ns: data.tasks_ns() };
            // The thread's time in tasks is counted from zero from here on.
            let before = ENTERED.replace(Some(Used { tasks_ns: 0, ..last }));
            entries.enter(thread, last, before);
        }
        data.tasks_ns.store(0, Ordering::Relaxed);
        data.online_at.store(u64::MAX, Ordering::Relaxed);
        data.clock.stop(self.clock);
    }
}

impl CpuTime {
    /// The handle of this PMU in the program's system.
    ///
    /// The first call registers the PMU.
    ///
    /// # Errors
    /// Returns [`Error::TooManyPmus`] if the system has no place left for it.
    pub fn handle() -> Result<PmuHandle<Self>, Error> {
        *HANDLE.get_or_init(|| {
            let ledger = Ledger::default();
            System::global().register(Self { clock: Choice::of_process(), ledger })
        })
    }

    /// The handle, if the PMU has been registered.
    fn registered() -> Option<PmuHandle<Self>> {
        HANDLE.get()?.ok()
    }

    pub(crate) fn clock(&self) -> &'static Choice {
        self.clock
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

impl Stints for CpuTime {
    fn adopt_running(&self, cpu: &CpuRecord, data: &CpuTimeCpu) {
        data.adopt_running(cpu, self.clock);
    }

    fn running(&self, cpu: &CpuRecord, data: &CpuTimeCpu, switches: u64) -> Option<CpuTimeCount> {
        data.running(cpu, switches, self.clock)
    }

    fn with_stint(settled: &mut CpuTimeCount, stint: &CpuTimeCount) {
        settled.add(stint);
        // The poll under way may consist of several stints.
        let poll_ns = settled.under_way_ns + stint.under_way_ns;
        settled.lengths = settled.lengths.with(Lengths::now(poll_ns));
        settled.longest_poll_ns = settled.longest_poll_ns.map(|longest| longest.max(poll_ns));
    }
}

impl CpuTimeData {
    #[inline(always)]
    fn charge(&self, stint: Reading, edge: Edge) {
        add(&self.cpu_ns, stint.cpu_ns);
        add(&self.wall_ns, stint.wall_ns);
        let before_ns = self.this_poll_ns.load(Ordering::Relaxed);
        let this_poll_ns = before_ns + stint.wall_ns;
        if edge != Edge::Turn {
            self.this_poll_ns.store(this_poll_ns, Ordering::Relaxed);
            return;
        }
        // Most polls consist of one stint.
        if before_ns != 0 {
            self.this_poll_ns.store(0, Ordering::Relaxed);
        }
        if this_poll_ns > self.longest_poll_ns.load(Ordering::Relaxed) {
            self.longest_poll_ns.store(this_poll_ns, Ordering::Relaxed);
        }
        self.longest.note(this_poll_ns);
    }
}

impl CpuTimeCpu {
    /// Time stolen from the CPU that the clock counted for tasks until it corrected itself.
    pub(crate) fn stolen_ns(&self) -> u64 {
        self.clock.stolen_ns()
    }

    /// The wall time of the switch that is under way, if this PMU's hooks have been told of it. `switches` is the CPU's count of
    /// switches up to now.
    #[inline(always)]
    pub(crate) fn switch_wall_ns(&self, switches: u64) -> Option<u64> {
        // Relaxed, here and below: only this thread asks.
        let begins = self.start.stint.load(Ordering::Relaxed) == switches + 2;
        let ends = self.ended_at.load(Ordering::Relaxed) == switches + 1;
        (begins || ends).then(|| self.start.wall_ns.load(Ordering::Relaxed))
    }

    /// CPU time in tasks of the thread that is this CPU now.
    pub(crate) fn tasks_ns(&self) -> u64 {
        self.tasks_ns.load(Ordering::Relaxed)
    }

    /// CPU time in tasks of which it is not known in which task it was.
    pub(crate) fn unknown_ns(&self) -> u64 {
        self.unknown_ns.load(Ordering::Relaxed)
    }

    /// Whether the thread that is this CPU now has run a task.
    pub(crate) fn ran_tasks(&self, cpu: &CpuRecord) -> bool {
        cpu.switches() > self.online_at.load(Ordering::Relaxed)
    }

    fn adopt_running(&self, cpu: &CpuRecord, clock: &Choice) {
        let switches = cpu.switches();
        // A stint that another session has adopted keeps its start: sessions take differences.
        if cpu.current_id().is_none() || self.stint(switches).is_some() {
            return;
        }
        let stint = switches + 1;
        if let Some(now) = cpu.thread().and_then(|thread| clock.read_thread(thread)) {
            self.adopted.set(stint, now);
        }
    }

    fn running(&self, cpu: &CpuRecord, switches: u64, clock: &Choice) -> Option<CpuTimeCount> {
        // If the run has ended elsewhere, it is not known how long the task has run.
        let start = self.stint(switches).filter(|_| !cpu.has_strays())?;
        let stint = clock.read_thread(cpu.thread()?)?.since(start);
        // Acquire: pairs with the Release in `end_stint_at`. If that fence comes first, and this thread has read some of what was
        // charged after it, then this thread finds no stint below.
        fence(Ordering::Acquire);
        (self.stint(switches).is_some() && cpu.switches() == switches).then_some(CpuTimeCount {
            cpu_ns: stint.cpu_ns,
            wall_ns: stint.wall_ns,
            polls: 0,
            // The poll has lasted at least this long.
            longest_poll_ns: Some(stint.wall_ns),
            lengths: Lengths::now(stint.wall_ns),
            under_way_ns: stint.wall_ns,
        })
    }

    /// The tag of the stint that runs now, with its time so far. `None` for an adopted stint, and between stints.
    fn running_tag(&self, cpu: &CpuRecord, switches: u64, clock: &Choice) -> Option<(u32, u64)> {
        let start = self.start.get(switches + 1).filter(|_| !cpu.has_strays())?;
        // Relaxed: the Acquire in `get` orders it, and the check below finds a change.
        let tag = self.tag.load(Ordering::Relaxed);
        let stint = clock.read_thread(cpu.thread()?)?.since(start);
        // Acquire: pairs with the Release in `end_stint_at`, as in `running`.
        fence(Ordering::Acquire);
        let goes_on = self.start.get(switches + 1).is_some() && cpu.switches() == switches;
        goes_on.then_some((tag, stint.cpu_ns))
    }

    /// Whether the running stint was adopted.
    fn is_adopted(&self, switches: u64) -> bool {
        self.adopted.get(switches + 1).is_some()
    }

    #[inline(always)]
    fn stint(&self, switches: u64) -> Option<Reading> {
        self.start.get(switches + 1).or_else(|| self.adopted.get(switches + 1))
    }

    /// Starts the clock for a task. `switches` is the CPU's count of switches from now on.
    #[inline(always)]
    fn begin_stint(&self, switches: u64, clock: &Choice, tag: u32) {
        // Relaxed: the Release in `begin` orders it.
        self.tag.store(tag, Ordering::Relaxed);
        // Relaxed: only this thread writes it.
        if self.ended_at.load(Ordering::Relaxed) != switches {
            let Some(now) = self.clock.read(clock) else {
                return self.begin_stint_slowly(switches, clock);
            };
            self.start.set_times(now);
        }
        self.start.begin(switches + 1);
    }

    // The fast path calls this last, so it needs no stack frame.
    #[cold]
    #[inline(never)]
    fn begin_stint_slowly(&self, switches: u64, clock: &Choice) {
        self.start.set(switches + 1, self.clock.read_by_system_call(clock));
    }

    /// Stops the clock, and charges the task for its stint if the start is known. `switches` is the CPU's count of switches up to
    /// now.
    #[inline(always)]
    fn end_stint(
        &self,
        switches: u64,
        clock: &Choice,
        task: &Task,
        data: &CpuTimeData,
        edge: Edge,
    ) {
        match self.clock.read(clock) {
            Some(now) => self.end_stint_at(now, switches, task, data, edge),
            None => self.end_stint_slowly(switches, clock, task, data, edge),
        }
    }

    #[cold]
    #[inline(never)]
    fn end_stint_slowly(
        &self,
        switches: u64,
        clock: &Choice,
        task: &Task,
        data: &CpuTimeData,
        edge: Edge,
    ) {
        self.end_stint_at(self.clock.read_by_system_call(clock), switches, task, data, edge);
    }

    #[inline(always)]
    fn end_stint_at(
        &self,
        now: Reading,
        switches: u64,
        task: &Task,
        data: &CpuTimeData,
        edge: Edge,
    ) {
        let Some(start) = self.stint(switches) else { return };
        // From here on, no reader adds the stint as running.
        self.start.stint.store(0, Ordering::Relaxed);
        // Few stints are adopted.
        if self.adopted.stint.load(Ordering::Relaxed) != 0 {
            self.adopted.stint.store(0, Ordering::Relaxed);
            // Relaxed: only this thread reads it before the next stint begins.
            self.tag.store(task.tag(), Ordering::Relaxed);
        }
        // Release: pairs with the Acquire in `running`.
        fence(Ordering::Release);
        // Relaxed: only this thread reads it.
        self.ended_at.store(switches + 1, Ordering::Relaxed);
        self.start.set_times(now);
        let stint = now.since(start);
        add(&self.tasks_ns, stint.cpu_ns);
        if edge == Edge::Disorder {
            return add(&self.unknown_ns, stint.cpu_ns);
        }
        // Relaxed: only this thread writes it.
        let tag = self.tag.load(Ordering::Relaxed);
        if tag != 0 {
            self.by_tag.add(tag, 0, stint.cpu_ns);
        }
        data.charge(stint, edge);
    }
}

/// Adds to a counter that one thread writes at a time. Readers see the old or the new value.
#[inline(always)]
fn add(counter: &AtomicU64, amount: u64) {
    // Relaxed: the executor moves a task from one CPU to the next, and so orders their writes.
    counter.store(counter.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
}
