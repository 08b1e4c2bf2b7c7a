//! The life PMU: how long each task was in each of its states.
//!
//! A task is polled, or it waits, or it has been woken and is ready to be polled. One moment ends a state and begins the next, so
//! the parts of a life add up to it. A task's data has a word with its state and the time at which that began, so that another
//! thread can say of a task that has waited for a minute that it has.

mod count;
mod state;

pub use self::count::LifeCount;

use self::state::{Moment, State};
use crate::error::Error;
use crate::os::clock::Choice;
use crate::pmus::cpu_time::CpuTime;
use bytemuck::Zeroable;
use pertask_core::{CpuRecord, Edge, Pmu, PmuHandle, Switch, System, Task, TaskId};
use std::collections::HashSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use self::count::Part;
use crate::pmus::stint::Stints;

/// Measures how long each task was in each of its states.
///
/// Users set [`SessionOptions::life`](crate::SessionOptions::life).
#[derive(Debug)]
pub struct Life {
    clock: &'static Choice,
    /// Its hooks come before ours, so that one reading of the clock serves both.
    cpu_time: PmuHandle<CpuTime>,
}

/// What the PMU keeps for a task.
///
/// INVARIANT: whoever switches the task writes `state` and `parts`, and changes `parts` only while `state` is
/// [`State::Changing`]. One exception: any thread may replace the 0 of new data.
#[derive(Debug)]
#[repr(C)]
pub struct LifeData {
    /// A [`Moment`]: the task's state, and since when. 0 where neither is known.
    state: AtomicU64,
    /// When the task was first woken since its last poll began, or 0.
    woken_ns: AtomicU64,
    /// Whether the waker of the poll under way notes wakes.
    notes_wakes: AtomicU32,
    parts: [AtomicU64; Part::COUNT],
}

// SAFETY: all fields are integers, for which zero is a value.
unsafe impl Zeroable for LifeData {}

/// How often a reader tries to read a task between two changes of its state.
const TRIES: usize = 16;

static HANDLE: OnceLock<Result<PmuHandle<Life>, pertask_core::Error>> = OnceLock::new();

impl Pmu for Life {
    const NAME: &'static str = "life";
    type Data = LifeData;
    type CpuData = ();
    type Count = LifeCount;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        let Some(data) = switch.data else { return };
        let now_ns = self.now_ns(switch.cpu);
        // A task that is given its CPU back goes on with its poll, and what woke it meanwhile is for the next one.
        let woken_ns = if switch.edge == Edge::Nested { 0 } else { data.take_wake() };
        data.change(State::Polled, now_ns, woken_ns);
    }

    fn sched_out(&self, switch: Switch<'_, Self>) {
        let Some(data) = switch.data else { return };
        let state = match switch.edge {
            Edge::Turn => data.end_poll(),
            Edge::Nested | Edge::Disorder => State::Inside,
            Edge::Aside => State::Ended,
        };
        data.change(state, self.now_ns(switch.cpu), 0);
    }

    fn read(&self, data: &LifeData) -> LifeCount {
        data.read(self.clock.wall_ns())
    }

    fn fold(&self, ended: &LifeData, totals: &LifeData) -> bool {
        let LifeCount { parts_ns } = ended.read(self.clock.wall_ns());
        for (total, part_ns) in totals.parts.iter().zip(parts_ns) {
            // Relaxed: a figure, which one thread writes at a time.
            total.store(total.load(Ordering::Relaxed) + part_ns, Ordering::Relaxed);
        }
        true
    }
}

/// A reading has a poll under way up to the moment of the reading, so nothing is left to be added.
impl Stints for Life {
    fn adopt_running(&self, _: &CpuRecord, (): &()) {}

    fn running(&self, _: &CpuRecord, (): &(), _: u64) -> Option<LifeCount> {
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
            handle.with_data(task, |data| data.begin(state, now_ns));
        });
    }

    /// Begins the life of a new task.
    pub(crate) fn begin(task: &Task) {
        with_data(task, |life, data| data.begin(State::New, life.clock.wall_ns()));
    }

    /// Says that the task's next poll has a waker that notes wakes. Returns false if no session measures the task's life.
    pub(crate) fn begin_measured_poll(task: &Task) -> bool {
        // Relaxed: the same thread reads it when the poll ends.
        with_data(task, |_, data| data.notes_wakes.store(1, Ordering::Relaxed)).is_some()
    }

    pub(crate) fn note_wake(task: &Task) {
        with_data(task, |life, data| data.note_wake(life.clock.wall_ns()));
    }

    /// The time of the switch that is under way.
    #[inline(always)]
    fn now_ns(&self, cpu: &CpuRecord) -> u64 {
        let told = self.cpu_time.cpu_data(cpu).and_then(|data| data.switch_wall_ns(cpu.switches()));
        told.unwrap_or_else(|| self.clock.wall_ns())
    }
}

fn with_data<R>(task: &Task, f: impl FnOnce(&Life, &LifeData) -> R) -> Option<R> {
    let handle = HANDLE.get()?.ok()?;
    handle.with_data(task, |data| f(handle.pmu(), data))
}

impl LifeData {
    /// Begins the life, unless it has begun.
    fn begin(&self, state: State, now_ns: u64) {
        let moment = Moment { state, since_ns: now_ns }.word();
        // Relaxed: the word stands alone.
        let _ = self.state.compare_exchange(0, moment, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Charges the time since the last change to the state that ends, and begins the next.
    #[inline(always)]
    fn change(&self, state: State, now_ns: u64, woken_ns: u64) {
        // Relaxed: only whoever switches the task writes the word, once it is not 0.
        let mut word = self.state.load(Ordering::Relaxed);
        if word == 0 {
            self.begin(state, now_ns);
            word = self.state.load(Ordering::Relaxed);
        }
        let last = Moment::of(word);
        self.state.store(Moment::CHANGING, Ordering::Relaxed);
        // Release: pairs with the Acquire fence in `read`. A reader that has read one of the parts below finds that the state is
        // changing, or has changed.
        fence(Ordering::Release);
        let add = |part: Part, ns: u64| {
            let part = &self.parts[part as usize];
            // Relaxed: the executor moves a task from one CPU to the next, and so orders their writes.
            part.store(part.load(Ordering::Relaxed) + ns, Ordering::Relaxed);
        };
        // Clocks of two CPUs may be apart by some nanoseconds.
        let now_ns = now_ns.max(last.since_ns);
        last.for_each_part(now_ns, woken_ns, add);
        // Release: pairs with the Acquire in `read`.
        self.state.store(Moment { state, since_ns: now_ns }.word(), Ordering::Release);
    }

    /// The state that begins when a poll ends.
    fn end_poll(&self) -> State {
        // Relaxed, both: the thread that polls the task has written it.
        let notes_wakes = self.notes_wakes.load(Ordering::Relaxed) != 0;
        self.notes_wakes.store(0, Ordering::Relaxed);
        if notes_wakes { State::Waiting } else { State::Unknown }
    }

    fn note_wake(&self, now_ns: u64) {
        let (at, times) = (&self.woken_ns, Ordering::Relaxed);
        // Only the first wake counts. Relaxed: a time.
        let _ = at.compare_exchange(0, now_ns.max(1), times, times);
    }

    /// Takes the time of the wake that led to the poll that begins, or 0.
    #[inline(always)]
    fn take_wake(&self) -> u64 {
        // Relaxed: a time. The executor orders the wake before the poll.
        let woken_ns = self.woken_ns.load(Ordering::Relaxed);
        if woken_ns != 0 {
            // A wake that comes now, as the poll begins, is taken for the one that led to it.
            self.woken_ns.store(0, Ordering::Relaxed);
        }
        woken_ns
    }

    /// The parts so far, with the state that goes on, up to `now_ns`.
    fn read(&self, now_ns: u64) -> LifeCount {
        let mut parts_ns = [0; Part::COUNT];
        for _ in 0..TRIES {
            // Acquire: pairs with the Release in `change`, so that the parts are those of this state's beginning, or later.
            let word = self.state.load(Ordering::Acquire);
            // Relaxed: the fence orders them.
            parts_ns = std::array::from_fn(|part| self.parts[part].load(Ordering::Relaxed));
            let woken_ns = self.woken_ns.load(Ordering::Relaxed);
            // Acquire: pairs with the Release fence in `change`.
            fence(Ordering::Acquire);
            if word == Moment::CHANGING || self.state.load(Ordering::Relaxed) != word {
                continue;
            }
            let moment = Moment::of(word);
            let add = |part: Part, ns: u64| parts_ns[part as usize] += ns;
            moment.for_each_part(now_ns.max(moment.since_ns), woken_ns, add);
            break;
        }
        // A task that changes its state all the time lacks what it did since the last change.
        LifeCount { parts_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> LifeData {
        Zeroable::zeroed()
    }

    fn parts(data: &LifeData, now_ns: u64) -> Vec<(Part, u64)> {
        let LifeCount { parts_ns } = data.read(now_ns);
        Part::ALL.into_iter().zip(parts_ns).filter(|(_, ns)| *ns > 0).collect()
    }

    #[test]
    fn each_moment_of_a_life_is_in_one_part() {
        let data = data();
        data.begin(State::New, 100);
        data.begin(State::Unknown, 700);
        data.change(State::Polled, 110, data.take_wake());
        data.notes_wakes.store(1, Ordering::Relaxed);
        data.change(State::Inside, 130, 0);
        data.change(State::Polled, 135, 0);
        data.change(data.end_poll(), 140, 0);
        data.note_wake(200);
        data.note_wake(210);
        assert_eq!(
            parts(&data, 230),
            [
                (Part::Polled, 25),
                (Part::Ready, 30),
                (Part::Waiting, 60),
                (Part::Inside, 5),
                (Part::New, 10)
            ],
            "also of the state that goes on"
        );
        data.change(State::Polled, 240, data.take_wake());
        data.change(data.end_poll(), 250, 0);
        data.change(State::Polled, 290, data.take_wake());
        assert_eq!(
            parts(&data, 291),
            [
                (Part::Polled, 36),
                (Part::Ready, 40),
                (Part::Waiting, 60),
                (Part::Unknown, 40),
                (Part::Inside, 5),
                (Part::New, 10)
            ],
            "the waker of the second poll noted nothing"
        );
        data.change(State::Ended, 300, 0);
        assert_eq!(data.read(900).life_ns(), 200);
    }

    #[test]
    fn a_task_that_wakes_itself_is_ready_from_the_end_of_its_poll() {
        let data = data();
        data.change(State::Polled, 10, 0);
        data.notes_wakes.store(1, Ordering::Relaxed);
        data.note_wake(15);
        data.change(data.end_poll(), 20, 0);
        data.change(State::Polled, 50, data.take_wake());
        assert_eq!(parts(&data, 50), [(Part::Polled, 10), (Part::Ready, 30)]);
    }

    #[test]
    fn clocks_that_are_apart_take_nothing_away() {
        let data = data();
        data.change(State::Polled, 100, 0);
        data.notes_wakes.store(1, Ordering::Relaxed);
        data.change(data.end_poll(), 90, 0);
        data.note_wake(95);
        data.change(State::Polled, 98, data.take_wake());
        assert_eq!(data.read(97).life_ns(), 0);
        assert_eq!(parts(&data, 101), [(Part::Polled, 1)]);
    }

    /// A reader on another thread sees a life that grows, and is never more than it was at the end of the reading.
    #[test]
    fn a_reader_finds_each_moment_once() {
        let (data, clock, step_ns) = (data(), AtomicU64::new(1_000), 7);
        data.begin(State::New, 1_000);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..50_000 {
                    for state in [State::Polled, State::Inside, State::Polled, State::Unknown] {
                        let now_ns = clock.fetch_add(step_ns, Ordering::SeqCst) + step_ns;
                        data.change(state, now_ns, 0);
                    }
                }
                clock.store(u64::MAX >> 8, Ordering::SeqCst);
            });
            let mut last_ns = 0;
            loop {
                let now_ns = clock.load(Ordering::SeqCst);
                if now_ns == u64::MAX >> 8 {
                    break;
                }
                let life_ns = data.read(now_ns).life_ns();
                let latest_ns = clock.load(Ordering::SeqCst);
                assert!(life_ns + 1_000 <= latest_ns, "{life_ns} at {latest_ns}");
                assert!(life_ns >= last_ns, "{life_ns} after {last_ns}");
                last_ns = life_ns;
            }
        });
        assert_eq!(data.read(0).life_ns(), 200_000 * step_ns);
    }
}
