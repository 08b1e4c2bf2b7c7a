//! The life PMU: how long each task was in each of its states.
//!
//! A task is polled, or it waits, or it has been woken and is ready to be polled. One moment ends a state and begins the next, so
//! the parts of a life add up to it. A task's data has a word with its state and the time at which that began, so that another
//! thread can say of a task that has waited for a minute that it has.

mod books;
mod count;
pub(crate) mod cut;
#[allow(unsafe_code)]
mod data;
mod ended;
mod state;
#[cfg(test)]
mod tests;

pub use self::count::LifeCount;
pub use self::data::LifeData;

use self::books::{Banks, Books};
use self::data::Change;
use self::state::State;
use crate::error::Error;
use crate::os::clock::Choice;
use crate::pmus::cpu_time::{CpuTime, CpuTimeCpu};
use crate::pmus::stint::Stints;
use pertask_core::{Cpu, CpuRecord, Edge, Pmu, PmuHandle, Switch, System, Task, TaskId};
use std::collections::HashSet;
use std::sync::OnceLock;

/// Measures how long each task was in each of its states.
///
/// Users set [`SessionOptions::life`](crate::SessionOptions::life).
#[derive(Debug)]
pub struct Life {
    clock: &'static Choice,
    /// It is registered before this PMU, so it has the lower place unless the program has unregistered a PMU of its own in between. A
    /// switch then calls its hooks first, and ours take the time that those have read. Where there is no such time, ours read the clock.
    cpu_time: PmuHandle<CpuTime>,
}

/// What the PMU keeps for a CPU.
#[derive(Debug, Default)]
pub struct LifeCpu {
    banks: Banks,
    /// The data of the CPU-time PMU for this CPU, which has the time of the switch under way. Found once, because finding it takes 1.5 ns at
    /// each switch.
    times: OnceLock<&'static CpuTimeCpu>,
}

static HANDLE: OnceLock<Result<PmuHandle<Life>, pertask_core::Error>> = OnceLock::new();

impl Pmu for Life {
    const NAME: &'static str = "life";
    type Data = LifeData;
    type CpuData = LifeCpu;
    type Count = LifeCount;

    #[inline(always)]
    fn sched_in(&self, switch: Switch<'_, Self>) {
        let Some(data) = switch.data else { return };
        // A task that is given its CPU back goes on with its poll, and what woke it meanwhile is for the next one.
        let woken_ns = if switch.edge == Edge::Nested { 0 } else { data.woken_ns() };
        self.change(&switch, data, State::Polled, woken_ns);
    }

    #[inline(always)]
    fn sched_out(&self, switch: Switch<'_, Self>) {
        let Some(data) = switch.data else { return };
        let state = match switch.edge {
            Edge::Turn => data.end_poll(),
            Edge::Nested | Edge::Disorder => State::Inside,
            Edge::Aside => State::Ended,
        };
        self.change(&switch, data, state, 0);
    }

    fn cpu_online(&self, _: &CpuRecord, data: &LifeCpu) {
        data.banks.make_all_room();
    }

    fn read(&self, data: &LifeData) -> LifeCount {
        data.read(self.clock.wall_ns())
    }

    fn fold(&self, ended: &LifeData, totals: &LifeData) -> bool {
        let now_ns = self.clock.wall_ns();
        let life = ended.end(now_ns, Books::here(own_banks()));
        match life {
            Some((task, cut, seen)) => {
                totals.add(&seen.count);
                ended::note_end(task, cut, seen);
            }
            // Totals themselves, or a task whose life nobody has begun.
            None => totals.add(&ended.read(now_ns)),
        }
        true
    }
}

/// A reading has a poll under way up to the moment of the reading, so nothing is left to be added.
impl Stints for Life {
    fn adopt_running(&self, _: &CpuRecord, _: &LifeCpu) {}

    fn running(&self, _: &CpuRecord, _: &LifeCpu, _: u64) -> Option<LifeCount> {
        Some(LifeCount::default())
    }
}

impl Life {
    pub(crate) fn handle() -> Result<PmuHandle<Self>, Error> {
        let register = || {
            let cpu_time = CpuTime::handle()?;
            System::global().register(Self { clock: Choice::of_process(), cpu_time })
        };
        HANDLE.get_or_init(register).map_err(Error::from)
    }

    /// Begins the lives of the tasks that have data and no state yet: those that were there before the first session. What they do
    /// until they are next switched is not known, except where they run.
    pub(crate) fn adopt(handle: PmuHandle<Self>) {
        let mut running = HashSet::<TaskId>::new();
        System::global().for_each_cpu(|cpu| running.extend(cpu.current_id()));
        System::global().for_each_task(|task| {
            let is_running = running.contains(&task.id());
            let state = if is_running { State::Polled } else { State::Unknown };
            let now_ns = handle.pmu().clock.wall_ns();
            handle.with_data(task, |data| data.begin(task, state, now_ns));
        });
    }

    /// The handle, if the PMU has been registered.
    fn registered() -> Option<PmuHandle<Self>> {
        HANDLE.get()?.ok()
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.wall_ns()
    }

    /// Begins the life of a new task, which has its labels.
    pub(crate) fn begin(task: &Task) {
        with_data(task, |life, data| data.begin(task, State::New, life.clock.wall_ns()));
    }

    /// Says that the task is polled with wakers that note wakes, from its next poll on. Returns false if no session measures its life.
    pub(crate) fn expect_wakes(task: &Task) -> bool {
        with_data(task, |_, data| data.expect_wakes()).is_some()
    }

    pub(crate) fn note_wake(task: &Task) {
        with_data(task, |life, data| data.note_wake(|| life.clock.wall_ns()));
    }

    /// Gives a task that nobody runs another tag. Its life so far is that of the tag that it has.
    pub(crate) fn set_tag(task: &Task, tag: u32) {
        with_data(task, |life, data| {
            if !data.has_begun() || task.tag() == tag {
                return;
            }
            let now_ns = life.clock.wall_ns();
            data.change_tag(tag, now_ns, Books::here(own_banks()));
        });
        task.set_tag(tag);
    }

    #[inline(always)]
    fn change(&self, switch: &Switch<'_, Self>, data: &LifeData, state: State, woken_ns: u64) {
        let now_ns = self.now_ns(switch);
        if !data.has_begun() {
            data.begin(switch.task, state, now_ns);
        }
        let change = Change { state, now_ns, woken_ns, tag: switch.task.tag() };
        data.change(change, Books::own(&switch.cpu_data.banks));
    }

    /// The time of the switch that is under way.
    #[inline(always)]
    fn now_ns(&self, switch: &Switch<'_, Self>) -> u64 {
        let times = switch.cpu_data.times.get().copied();
        let told = times
            .or_else(|| self.find_times(switch))
            .and_then(|times| times.switch_wall_ns(switch.cpu.switches()));
        told.unwrap_or_else(|| self.clock.wall_ns())
    }

    #[cold]
    fn find_times(&self, switch: &Switch<'_, Self>) -> Option<&'static CpuTimeCpu> {
        let times = self.cpu_time.cpu_data(switch.cpu)?;
        Some(switch.cpu_data.times.get_or_init(|| times))
    }
}

/// The banks of the calling thread's CPU, if it is one.
fn own_banks() -> Option<&'static Banks> {
    Some(&Life::registered()?.cpu_data(Cpu::record_here()?)?.banks)
}

fn with_data<R>(task: &Task, f: impl FnOnce(&Life, &LifeData) -> R) -> Option<R> {
    let handle = HANDLE.get()?.ok()?;
    handle.with_data(task, |data| f(handle.pmu(), data))
}
