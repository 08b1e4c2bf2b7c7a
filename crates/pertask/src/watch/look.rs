//! The looks: at each, a poll that has gone on since the last one becomes older, and is caught if it has lasted longer than the
//! threshold.

use super::allowance::{Allowance, Quota};
use super::caught::{Caught, Place};
use super::kept::Kept;
use super::kernel::{self, Inside};
use super::options::WatchOptions;
use super::verdict::{self, Times};
use crate::os::clock;
use crate::pmus::cpu_time::{CpuTime, CpuTimeCount};
use crate::pmus::stint::Stints;
use crate::sampler::{Asked, Catcher};
use crate::tasks::standing;
use pertask_core::{CpuRecord, PmuHandle, System};
use std::collections::HashMap;
use std::time::Duration;

/// The shortest time between two looks.
const LEAST: Duration = Duration::from_millis(1);

/// The most polls in a second of which more is known than that they were there.
pub(super) const SEARCHES_A_SECOND: usize = 200;

/// How long the program waits to be told of a poll whose stack has not come.
const PATIENCE_NS: u64 = 20_000_000;

/// Looks at the CPUs, one after the other.
pub(super) struct Looks {
    threshold_ns: u64,
    handle: PmuHandle<CpuTime>,
    catcher: Catcher,
    /// The tasks that may be looked for: each search looks at all live tasks.
    searches: Quota,
    /// The threads that may be asked for stacks that may not be needed.
    ahead: Quota,
    stacks: Allowance,
    told: Allowance,
    /// What was seen of each CPU, by its number.
    seen: HashMap<u32, Seen>,
    /// The time until something is due.
    due_ns: u64,
}

/// What was seen of a CPU: the poll that ran there, by the CPU's switches, and how old it was.
struct Seen {
    switches: u64,
    age: Age,
}

enum Age {
    /// It was seen once.
    New,
    /// It was seen to go on. Its times at that look, and its thread, if that was asked for its stack.
    Older(Times, Option<Asked>),
    /// It has lasted too long, and there were too many others to look for its task.
    PassedOver,
    Caught(Box<Caught>),
    /// It may take as long as it likes, or is none of ours.
    Ignored,
}

impl Looks {
    pub(super) fn new(options: &WatchOptions, handle: PmuHandle<CpuTime>) -> Self {
        let mut catcher = Catcher::new();
        if let Err(why) = kernel::tells_of_calls() {
            catcher.remark(format!("no stacks and system calls of blocked threads: {why}"));
        }
        Self {
            threshold_ns: options.threshold_ns(),
            handle,
            catcher,
            searches: Quota::new(SEARCHES_A_SECOND),
            ahead: Quota::new(options.most_stacks_a_second as usize),
            stacks: Allowance::new(options.most_stacks_a_second),
            told: Allowance::new(options.most_told_a_second),
            seen: HashMap::new(),
            due_ns: 0,
        }
    }

    /// Reads what code is mapped, so that the first poll need not wait for it.
    pub(super) fn prepare(&self, kept: &Kept) {
        kept.set_code(&self.catcher);
    }

    /// Looks once. Returns the time until the next look.
    pub(super) fn look(&mut self, kept: &Kept) -> Duration {
        self.due_ns = self.threshold_ns / 2;
        System::global().for_each_cpu(|cpu| {
            self.look_at(cpu, kept);
        });
        kept.set_remarks(self.catcher.remarks());
        Duration::from_nanos(self.due_ns).max(LEAST)
    }

    /// Ends the looks. Polls under way are kept as far as they have come.
    pub(super) fn end(mut self, kept: &Kept) {
        let mut owing = Vec::new();
        for (cpu, seen) in std::mem::take(&mut self.seen) {
            match seen.age {
                Age::Caught(caught) => {
                    owing.extend(caught.owes_answer());
                    kept.set_under_way(cpu, &caught);
                }
                Age::Older(_, Some(asked)) => owing.push(asked.thread()),
                Age::PassedOver => kept.count_passed_over(),
                _ => {}
            }
        }
        self.catcher.end(owing.into_iter());
    }

    fn look_at(&mut self, cpu: &'static CpuRecord, kept: &Kept) {
        let switches = cpu.switches();
        let fresh = Seen { switches, age: Age::New };
        let Some(seen) = self.seen.get_mut(&cpu.index()) else {
            self.seen.insert(cpu.index(), fresh);
            return;
        };
        if seen.switches != switches {
            match std::mem::replace(seen, fresh).age {
                Age::Caught(mut caught) => {
                    caught.end(&self.catcher);
                    kept.end(cpu.index(), &mut caught);
                }
                Age::PassedOver => kept.count_passed_over(),
                _ => {}
            }
            return;
        }
        let Some(thread) = cpu.thread() else { return };
        if matches!(seen.age, Age::Ignored) || cpu.current_id().is_none() {
            return;
        }
        let Some(data) = self.handle.cpu_data(cpu) else { return };
        let Some(stint) = self.handle.pmu().running(cpu, data, switches) else { return };
        let age = std::mem::replace(&mut seen.age, Age::Ignored);
        let age = self.grown(age, &stint, Place { cpu, thread, switches }, kept);
        if let Some(seen) = self.seen.get_mut(&cpu.index()) {
            seen.age = age;
        }
    }

    /// What becomes of a poll that goes on.
    fn grown(&mut self, age: Age, stint: &CpuTimeCount, place: Place, kept: &Kept) -> Age {
        let left_ns = self.threshold_ns.saturating_sub(stint.wall_ns);
        match age {
            Age::New | Age::Older(..) if left_ns > 0 => {
                self.due_ns = self.due_ns.min(left_ns);
                match age {
                    Age::New => Age::Older(times(stint, place), self.ask_ahead(stint, place)),
                    older => older,
                }
            }
            Age::New | Age::PassedOver => self.catch((None, None), stint, place, kept),
            Age::Older(then, asked) => self.catch((Some(then), asked), stint, place, kept),
            Age::Caught(mut caught) => {
                caught.note(stint);
                self.follow(&mut caught, place, kept);
                Age::Caught(caught)
            }
            Age::Ignored => Age::Ignored,
        }
    }

    /// Asks the thread of a poll that may become too long, and computes, for its stack. The answer takes a tick of the kernel's, and by
    /// then many a poll is over.
    fn ask_ahead(&mut self, stint: &CpuTimeCount, place: Place) -> Option<Asked> {
        let computes = stint.cpu_ns > stint.wall_ns / 2;
        let may_ask = computes && self.ahead.take(clock::monotonic_ns());
        may_ask.then(|| self.catcher.ask(place.thread, place.cpu, place.switches)).flatten()
    }

    /// Catches a poll, whose times a while ago were these, and whose thread may have been asked for its stack.
    fn catch(
        &mut self,
        (then, asked): (Option<Times>, Option<Asked>),
        stint: &CpuTimeCount,
        place: Place,
        kept: &Kept,
    ) -> Age {
        let now_ns = clock::monotonic_ns();
        let id = place.cpu.current_id();
        if !self.searches.take(now_ns) {
            // There will be room in another second.
            return Age::PassedOver;
        }
        // If the poll has just ended, another task may run there.
        let id = id.filter(|_| !place.is_over());
        let Some(task) = id.and_then(|id| System::global().find_task(id)) else {
            kept.count_unknown(stint.wall_ns);
            return Age::Ignored;
        };
        if standing::is_standing(task.site()) {
            return Age::Ignored;
        }
        let (may_run, inside) = whereabouts(place);
        let now = times(stint, place);
        let then = then.unwrap_or(Times { waited_ns: now.waited_ns, ..Times::default() });
        let state = verdict::state(now.since(then), may_run);
        let mut caught = Box::new(Caught::new(place, &task, state, stint, self.handle));
        caught.note_call(inside);
        caught.keep(asked);
        let kind = (task.site().id(), state);
        caught.wants_stack = self.stacks.take(now_ns, kind);
        caught.is_told = self.told.take(now_ns, kind);
        if caught.wants_stack && self.catcher.refresh() {
            kept.set_code(&self.catcher);
        }
        self.follow(&mut caught, place, kept);
        Age::Caught(caught)
    }

    /// Follows a poll that was caught: takes its stack, and tells the program of it.
    fn follow(&mut self, caught: &mut Caught, place: Place, kept: &Kept) {
        if caught.wants_stack {
            caught.take_stack(place, &mut self.catcher);
        }
        let is_late = caught.times.wall_ns > self.threshold_ns.saturating_add(PATIENCE_NS);
        if caught.wants_stack && !is_late {
            self.due_ns = self.due_ns.min(LEAST.as_nanos() as u64);
        }
        kept.set_under_way(place.cpu.index(), caught);
        if !caught.wants_stack || is_late {
            kept.tell(caught);
        }
    }
}

/// Whether the poll's thread runs, or could; and where it is in the kernel, if it is blocked there.
fn whereabouts(place: Place) -> (bool, Option<Inside>) {
    let (inside, may_run) = (kernel::inside(place.thread), kernel::may_run(place.thread));
    // If the poll has just ended, the thread is elsewhere.
    let (inside, may_run) = if place.is_over() { (None, None) } else { (inside.ok(), may_run) };
    // A thread may be in the kernel and yet wait for a CPU. Where nothing is known, most of those that use no CPU are blocked.
    (may_run.unwrap_or(inside == Some(None)), inside.flatten())
}

fn times(stint: &CpuTimeCount, place: Place) -> Times {
    let waited_ns = kernel::waited_ns(place.thread).unwrap_or(0);
    Times { wall_ns: stint.wall_ns, cpu_ns: stint.cpu_ns, waited_ns }
}
