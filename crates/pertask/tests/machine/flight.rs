//! An operation under way: how far it has come, and what that means for the ledger.

use crate::baton::{Outcome, Point};
use crate::ledger::{Frame, Global, Held, Ledger, Mark, PMUS, State, Switch, Use};
use crate::machine::{Check, Machine};
use crate::operation::{Operation, Then};
use crate::pmu::Probe;
use pertask::core::{Edge, Error, Event, OwnedTask, Pmu, TaskId};
use std::collections::BTreeSet;

/// An operation that a CPU has begun.
pub struct Flight {
    pub operation: Operation,
    /// Where it has stopped.
    pub at: Option<Point>,
    doing: Doing,
    /// Allocations that it was refused.
    pub refused: u64,
    /// Tasks without data to which a global attach has given some since it last stopped.
    mended: u64,
}

/// How far an operation has come.
pub enum Doing {
    /// It has no middle.
    Whole,
    Switch(Switch),
    /// How the PMUs' global events stood when it began; those that counted the child as one without data; the families
    /// that have lost it.
    Fork {
        seen: [Global; PMUS],
        without: [bool; PMUS],
        lost: Vec<(usize, usize)>,
    },
    /// Whether it has left the table, its slots are closed and its counts folded: it leaves its families.
    Exit {
        is_out: bool,
    },
    /// Whether it has its allocation; the data to which it has a reference.
    AttachTask {
        allocated: bool,
        taken: Option<usize>,
    },
    /// The first.
    AttachGlobal,
    /// Another one: who was without data when it began, and whether there was a limit at any time.
    Mend {
        without: Vec<usize>,
        was_limited: bool,
    },
    Detach {
        pmu: usize,
        of: Use,
    },
    /// What had been counted, what had vanished, and how many had ended, when it began.
    Snapshot {
        total: u64,
        vanished: u64,
        ended: u64,
    },
    /// What the event counted when it began.
    Read {
        least: u64,
        pmu: usize,
        of: Use,
    },
    /// Who lived when it began, and how many tasks there had been.
    Walk {
        live: Vec<usize>,
        tasks: usize,
    },
}

impl Flight {
    pub fn new(operation: Operation, doing: Doing) -> Self {
        Self { operation, at: None, doing, refused: 0, mended: 0 }
    }

    /// Whether others that wait for the end of all sections wait for it.
    pub fn is_in_section(&self) -> bool {
        self.at.is_some() && self.operation.stops_in_section()
    }

    /// What it is called where it is told what has happened.
    pub fn name(&self) -> &'static str {
        match self.doing {
            Doing::Mend { .. } => "attach globally again",
            _ => self.operation.name(),
        }
    }

    /// The PMU of which it is the first global attach: one that is undone if it is refused.
    pub fn is_first_of(&self) -> Option<usize> {
        match (&self.doing, self.operation) {
            (Doing::AttachGlobal, Operation::AttachGlobal { pmu, .. }) => Some(pmu),
            _ => None,
        }
    }

    /// The PMU of which it is a further global attach.
    pub fn mends_of(&self) -> Option<usize> {
        match (&self.doing, self.operation) {
            (Doing::Mend { .. }, Operation::AttachGlobal { pmu, .. }) => Some(pmu),
            _ => None,
        }
    }

    /// Whether it is a fork whose child should have data of that PMU and has none.
    pub fn is_without(&self, pmu: usize) -> bool {
        matches!(self.doing, Doing::Fork { without, .. } if without[pmu])
    }

    /// Whether it is a fork whose child has data of that PMU because of a global event.
    pub fn gives_data_of(&self, pmu: usize) -> bool {
        matches!(self.doing, Doing::Fork { seen, without, .. }
            if seen[pmu].is_seen_by_forks() && !without[pmu])
    }

    /// Writes down what it has done by `point`.
    pub fn stop(&mut self, ledger: &mut Ledger, cpu: usize, point: Point) {
        self.at = Some(point);
        match (&mut self.doing, self.operation, point) {
            (Doing::Switch(switch), ..) => ledger.switch(cpu, switch, Some(point)),
            (Doing::Exit { is_out: true }, ..) => {}
            (Doing::Exit { is_out }, Operation::Exit { task, .. }, _) => {
                *is_out = true;
                ledger.leave(task);
            }
            (Doing::Mend { was_limited, .. }, Operation::AttachGlobal { pmu, .. }, _) => {
                *was_limited |= ledger.pmus[pmu].is_limited;
            }
            (Doing::AttachTask { allocated, .. }, _, Point::Allocation) => *allocated = true,
            (
                Doing::AttachTask { taken, .. },
                Operation::AttachTask { pmu, task, .. },
                Point::Read(_) | Point::ReadNew(_),
            ) => *taken = Some(ledger.take(pmu, task)),
            _ => {}
        }
    }

    /// Its CPU had the baton, and has been refused so much.
    pub fn begins_step(&mut self, refused: u64) {
        self.refused += refused;
        self.mended = 0;
    }

    /// The PMU has counted so many tasks more that are without data.
    pub fn lacks_data(&mut self, pmu: usize, more: u64) -> Check {
        match (&mut self.doing, more) {
            (_, 0) => Ok(()),
            (Doing::Fork { without, .. }, 1) if !without[pmu] => {
                without[pmu] = true;
                Ok(())
            }
            _ => Err(format!("{more} tasks more without data of pmu {pmu}")),
        }
    }

    /// The PMU has counted so many tasks less that are without data: who attaches to one gives it some.
    pub fn mends(&mut self, pmu: usize, less: u64) -> Check {
        match (&mut self.doing, self.operation, less) {
            (_, _, 0) => Ok(()),
            // A family has come to the child.
            (Doing::Fork { without, .. }, _, 1) if without[pmu] => {
                without[pmu] = false;
                Ok(())
            }
            (_, Operation::AttachTask { pmu: of, .. }, 1) if of == pmu => Ok(()),
            (_, Operation::AttachGlobal { pmu: of, .. }, _) if of == pmu => {
                self.mended = less;
                Ok(())
            }
            _ => Err(format!("{less} tasks less without data of pmu {pmu}")),
        }
    }

    /// The family has counted so many tasks more that it has lost.
    pub fn loses(&mut self, pmu: usize, family: usize, more: u64) -> Check {
        match (&mut self.doing, more) {
            (_, 0) => Ok(()),
            (Doing::Fork { lost, .. }, 1) if !lost.contains(&(pmu, family)) => {
                lost.push((pmu, family));
                Ok(())
            }
            _ => Err(format!("family {family} of pmu {pmu} has lost {more} tasks more")),
        }
    }
}

impl Machine {
    /// Writes down the rest of an operation. Returns what came of it, in words.
    pub fn end(&mut self, cpu: usize, flight: Flight, outcome: Outcome) -> Result<String, String> {
        let Flight { operation, mut doing, refused, mended, .. } = flight;
        if let Doing::Switch(switch) = &mut doing
            && !matches!(operation, Operation::End { .. } | Operation::Panic { .. })
        {
            self.ledger.switch(cpu, switch, None);
        }
        match (operation, doing, outcome) {
            (Operation::SwitchIn { task, .. }, _, Outcome::Nothing) => {
                self.ledger.cpus[cpu].stack.push(Frame { task, is_run: false });
            }
            (
                Operation::Run { task, .. } | Operation::RunAside { task, .. },
                _,
                Outcome::Nothing,
            ) => {
                self.ledger.cpus[cpu].stack.push(Frame { task, is_run: true });
            }
            (Operation::SwitchOut { then, .. }, _, Outcome::Switched(Some(task))) => {
                self.switched_out(cpu, task, then)?;
            }
            (
                Operation::End { .. } | Operation::Panic { .. },
                Doing::Switch(switch),
                Outcome::Ended(task),
            ) => {
                self.end_left_behind(cpu, |frame| frame.is_run);
                let mut switch = self.ends_now(cpu, switch);
                self.ledger.switch(cpu, &mut switch, None);
                self.switched_out(cpu, task, Then::Ready)?;
            }
            (Operation::Replug { .. }, _, Outcome::Nothing) => {
                self.end_left_behind(cpu, |_| false);
            }
            (_, Doing::Fork { seen, without, lost }, Outcome::Forked(task)) => {
                return Ok(self.forked(cpu, operation, task, seen, without, &lost));
            }
            (Operation::Exit { task, .. }, Doing::Exit { is_out }, Outcome::Nothing) => {
                if !is_out {
                    self.ledger.leave(task);
                }
                self.ledger.leave_families(task);
            }
            (
                Operation::AttachTask { pmu, task, inherit, .. },
                Doing::AttachTask { allocated, taken },
                Outcome::Attached(result),
            ) => {
                let expected = self.may_attach(pmu, task, refused, allocated, taken);
                return self.attached(pmu, result, expected, |ledger| {
                    let data = taken.unwrap_or_else(|| ledger.take(pmu, task));
                    ledger.attached(pmu, task, data, inherit)
                });
            }
            (
                Operation::AttachGlobal { pmu, .. },
                Doing::AttachGlobal,
                Outcome::Attached(result),
            ) => return self.attached_globally(pmu, result, refused, mended),
            (
                Operation::AttachGlobal { pmu, .. },
                Doing::Mend { without, was_limited },
                Outcome::Attached(result),
            ) => {
                let is_refused = was_limited || self.ledger.pmus[pmu].is_limited || refused != 0;
                self.mended(pmu, &without, is_refused);
                return self.attached(pmu, result, Ok(()), |_| Use::Global { base: 0 });
            }
            (_, Doing::Detach { pmu, of }, Outcome::Nothing) => self.detached(pmu, of),
            (
                Operation::Snapshot { pmu, .. },
                Doing::Snapshot { total, vanished, ended },
                Outcome::Snapshot(sum, exited),
            ) => {
                let now = self.ledger.pmus[pmu].ended.1;
                if !(ended..=now).contains(&exited) {
                    return Err(format!(
                        "Once: a snapshot of {exited} ended, not {ended} to {now}"
                    ));
                }
                let gone = self.ledger.pmus[pmu].vanished - vanished;
                let (least, most) = (total.saturating_sub(gone), self.ledger.total(pmu) + gone);
                if !(least..=most).contains(&sum) {
                    return Err(format!("Once: a snapshot of {sum}, not {least} to {most}"));
                }
            }
            (Operation::Read { event, .. }, Doing::Read { least, pmu, of }, Outcome::Read(sum)) => {
                let most = self.ledger.read(pmu, &of);
                if !(least..=most).contains(&sum) {
                    return Err(format!("event {event} reads {sum}, not {least} to {most}"));
                }
            }
            (_, Doing::Walk { live, tasks }, Outcome::Walked(shown)) => {
                self.walked(&live, tasks, &shown)?;
            }
            (operation, ..) => return Err(format!("{operation} ends as it should not")),
        }
        Ok("done".to_owned())
    }

    /// A task has come off a CPU.
    fn switched_out(&mut self, cpu: usize, task: OwnedTask, then: Then) -> Check {
        let frame = self.ledger.cpus[cpu].stack.pop().ok_or("no task ran")?;
        if self.ledger.tasks[frame.task].id != task.id() {
            return Err(format!("task {} ran, not {}", frame.task, task.id()));
        }
        self.owned[frame.task] = Some(task);
        self.ledger.tasks[frame.task].state = match then {
            Then::Ready => State::Ready,
            Then::Blocked => State::Blocked,
        };
        Ok(())
    }

    /// What was switched in and left there has been switched out and ended, down to the frame that `stays`.
    fn end_left_behind(&mut self, cpu: usize, stays: fn(&Frame) -> bool) {
        while let Some(frame) = self.ledger.cpus[cpu].stack.last().copied()
            && !stays(&frame)
        {
            let mut switch = self.ends_now(cpu, Switch::to(None));
            self.ledger.switch(cpu, &mut switch, None);
            self.ledger.cpus[cpu].stack.pop();
            self.ledger.leave(frame.task);
            self.ledger.leave_families(frame.task);
            self.happened.insert("a task is left on a CPU and ends".to_owned());
        }
    }

    /// The switch that ends the current task's turn, unless some of its hooks have been called already.
    fn ends_now(&self, cpu: usize, begun: Switch) -> Switch {
        match begun.has_begun() {
            false => Switch::to(self.ledger.outer(cpu).map(|outer| (outer, Edge::Nested))),
            true => begun,
        }
    }

    fn forked(
        &mut self,
        cpu: usize,
        operation: Operation,
        task: OwnedTask,
        seen: [Global; PMUS],
        without: [bool; PMUS],
        lost: &[(usize, usize)],
    ) -> String {
        let handle = self.rng.once_in(2).then(|| task.handle());
        let child = self.enter(task, handle);
        for pmu in (0..PMUS).filter(|pmu| seen[*pmu].is_seen_by_forks()) {
            if !without[pmu] {
                self.ledger.mark(pmu, child);
                continue;
            }
            let is_walked = seen[pmu] == Global::Attaching || self.is_mending(pmu);
            let mark = if is_walked { Mark::Unknown } else { Mark::No };
            self.ledger.tasks[child].held[pmu] = Held { mark, counted: true, ..Held::default() };
            self.happened.insert("a fork is counted as one without data".to_owned());
        }
        // Those whose attach has waited for this fork come to the child.
        for pmu in (0..PMUS).filter(|pmu| !seen[*pmu].is_seen_by_forks()) {
            if self.ledger.pmus[pmu].global == Global::Attaching {
                self.ledger.tasks[child].held[pmu].mark = Mark::Unknown;
            }
        }
        let parent = match operation {
            Operation::Fork { .. } => self.ledger.current(cpu),
            _ => None,
        };
        let families =
            parent.map_or(Vec::new(), |parent| self.ledger.tasks[parent].families.clone());
        for (pmu, family) in families {
            if lost.contains(&(pmu, family)) {
                self.happened.insert("a family loses a child".to_owned());
            } else if !self.ledger.pmus[pmu].families[family].is_closed {
                self.ledger.join(pmu, family, child);
                self.happened.insert("a child joins a family".to_owned());
            }
        }
        format!("task {child}")
    }

    /// Whether an attach to a task should succeed, and if not, why not.
    fn may_attach(
        &self,
        pmu: usize,
        task: usize,
        refused: u64,
        allocated: bool,
        taken: Option<usize>,
    ) -> Result<(), Error> {
        let entry = &self.ledger.tasks[task];
        let has_data = taken.or(entry.held[pmu].data).is_some();
        match () {
            () if refused != 0 => Err(self.out_of_memory(pmu)),
            () if taken.is_none() && entry.state == State::Exited => Err(Error::TaskExited),
            () if has_data || allocated || !self.ledger.pmus[pmu].is_limited => Ok(()),
            () => Err(limited()),
        }
    }

    fn out_of_memory(&self, pmu: usize) -> Error {
        Error::OutOfMemory { pmu: Probe::NAME, bytes: self.pmus[pmu].cache().object_bytes() }
    }

    fn attached(
        &mut self,
        pmu: usize,
        result: Result<Event<Probe>, Error>,
        expected: Result<(), Error>,
        enter: impl FnOnce(&mut Ledger) -> Use,
    ) -> Result<String, String> {
        if result.as_ref().map(drop).map_err(|error| *error) != expected {
            return Err(format!("an attach ends with {result:?}, not {expected:?}"));
        }
        match result {
            Ok(event) => {
                let of = enter(&mut self.ledger);
                Ok(format!("event {}", self.keep(pmu, event, of)))
            }
            Err(error) => {
                self.ledger.pmus[pmu].events -= 1;
                self.happened.insert(format!("an attach is refused: {}", reason(error)));
                Ok(error.to_string())
            }
        }
    }

    fn attached_globally(
        &mut self,
        pmu: usize,
        result: Result<Event<Probe>, Error>,
        refused: u64,
        mended: u64,
    ) -> Result<String, String> {
        let expected = match (&result, refused) {
            (_, 1..) => Err(self.out_of_memory(pmu)),
            // Whether the walk found a task that lacked data is known when one has been looked for: see `Whole`.
            (Err(_), 0) if self.ledger.pmus[pmu].is_limited => Err(limited()),
            _ => Ok(()),
        };
        match expected {
            Ok(()) => self.ledger.end_attach_global(pmu),
            Err(_) => {
                self.ledger.end_detach_global(pmu);
                // It had come to so many before it was refused data for another. Nobody has looked meanwhile.
                let stayed_without = &mut self.ledger.pmus[pmu].stayed_without;
                *stayed_without = stayed_without.checked_sub(mended).ok_or("nobody was without")?;
            }
        }
        self.attached(pmu, result, expected, |_| Use::Global { base: 0 })
    }

    /// A further global attach has come to its end. Those that were without data when it began have some, unless it was
    /// refused; of others it is looked at.
    fn mended(&mut self, pmu: usize, without: &[usize], is_refused: bool) {
        for task in self.ledger.live().collect::<Vec<_>>() {
            if self.ledger.tasks[task].held[pmu].mark != Mark::Unknown {
                continue;
            }
            let must_be = !is_refused && without.contains(&task);
            let has_data = || {
                let handle = self.handle(task);
                handle.is_some_and(|task| self.pmus[pmu].with_data(&task, |_| ()).is_some())
            };
            let has_data = must_be || has_data();
            self.ledger.end_mending(pmu, task, has_data);
        }
    }

    /// Whether a further global attach has stopped in its walk.
    pub fn is_mending(&self, pmu: usize) -> bool {
        self.flights.iter().flatten().any(|flight| flight.mends_of() == Some(pmu))
    }

    fn detached(&mut self, pmu: usize, of: Use) {
        match of {
            Use::Task { task, data, .. } => self.ledger.put(pmu, task, data),
            Use::Family(family) => self.ledger.close(pmu, family),
            Use::Global { .. } if self.ledger.pmus[pmu].global == Global::Leaving => {
                self.ledger.end_detach_global(pmu);
            }
            Use::Global { .. } => {}
        }
        self.ledger.pmus[pmu].events -= 1;
    }

    /// A walk shows each task once that lives throughout, and none that had ended before.
    fn walked(&self, live: &[usize], tasks: usize, shown: &[TaskId]) -> Check {
        let once: BTreeSet<_> = shown.iter().collect();
        if once.len() != shown.len() {
            return Err("a walk has shown a task twice".to_owned());
        }
        for (number, task) in self.ledger.tasks.iter().enumerate() {
            let is_shown = once.contains(&task.id);
            let may_be = live.contains(&number) || number >= tasks;
            if is_shown && !may_be {
                return Err(format!("a walk has shown task {number}, which had ended"));
            }
            if !is_shown && live.contains(&number) && task.state != State::Exited {
                return Err(format!("a walk has missed task {number}"));
            }
        }
        Ok(())
    }
}

fn limited() -> Error {
    Error::CacheLimit { pmu: Probe::NAME, limit_bytes: 0 }
}

fn reason(error: Error) -> &'static str {
    match error {
        Error::CacheLimit { .. } => "the limit",
        Error::OutOfMemory { .. } => "no memory",
        Error::TaskExited => "the task has ended",
        _ => "another reason",
    }
}
