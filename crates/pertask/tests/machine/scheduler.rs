//! The scheduler: picks from the seed which CPU does what next, and where it stops.

use crate::baton::{Plan, Point};
use crate::flight::Flight;
use crate::ledger::{CPUS, Global, PMUS, State, Use};
use crate::machine::{Check, Machine};
use crate::operation::{Operation, Then};
use pertask::Inherit;

const STEPS: usize = 60;

/// More tasks or events than that make a run slow, and no more different.
const TASKS: usize = 12;
const EVENTS: usize = 7;

/// How deep runs are nested.
const DEPTH: usize = 4;

/// Kinds of operations, and how likely each is; each run has its own taste beside that.
const KINDS: [(Kind, usize); 17] = [
    (Kind::SwitchIn, 4),
    (Kind::SwitchOut, 4),
    (Kind::Run, 5),
    (Kind::End, 4),
    (Kind::Fork, 4),
    (Kind::ForkRoot, 1),
    (Kind::Exit, 3),
    (Kind::AttachTask, 4),
    (Kind::AttachGlobal, 4),
    (Kind::Detach, 5),
    (Kind::Snapshot, 2),
    (Kind::Walk, 1),
    (Kind::Read, 2),
    (Kind::Replug, 1),
    (Kind::GoOn, 8),
    (Kind::Wake, 2),
    (Kind::Figure, 2),
];

#[derive(Clone, Copy)]
enum Kind {
    SwitchIn,
    SwitchOut,
    Run,
    End,
    Fork,
    ForkRoot,
    Exit,
    AttachTask,
    AttachGlobal,
    Detach,
    Snapshot,
    Walk,
    Read,
    Replug,
    GoOn,
    Wake,
    /// A reset or a limit.
    Figure,
}

/// What is likely in one run.
pub struct Taste {
    weights: [usize; KINDS.len()],
    /// One in so many operations stops, or is refused an allocation.
    stops: usize,
    refusals: usize,
}

impl Machine {
    /// One run: some steps, then all comes to its end.
    pub fn run(&mut self) -> Check {
        if self.rng.once_in(16) {
            let crowd = 60 + self.rng.below(80);
            self.add_crowd(crowd);
        }
        let taste = self.taste();
        for _ in 0..STEPS {
            let operation = self.choose(&taste);
            let plan = self.plan(&taste, &operation);
            self.perform(operation, plan)?;
        }
        self.wind_up()
    }

    fn taste(&mut self) -> Taste {
        Taste {
            weights: KINDS.map(|(_, weight)| weight * (1 + self.rng.below(4))),
            stops: 1 + self.rng.below(4),
            refusals: 2 + self.rng.below(14),
        }
    }

    /// Something that can be done now.
    fn choose(&mut self, taste: &Taste) -> Operation {
        loop {
            let mut at = self.rng.below(taste.weights.iter().sum());
            let is_there = |(_, weight): &(Kind, usize)| match at.checked_sub(*weight) {
                Some(rest) => {
                    at = rest;
                    false
                }
                None => true,
            };
            let kinds = KINDS.iter().map(|(kind, _)| *kind).zip(taste.weights);
            let Some((kind, _)) = kinds.into_iter().find(is_there) else { continue };
            let cpu = self.rng.below(CPUS);
            if let Some(operation) = self.propose(kind, cpu)
                && !self.waits(&operation)
            {
                return operation;
            }
        }
    }

    fn propose(&mut self, kind: Kind, cpu: usize) -> Option<Operation> {
        if self.flights[cpu].is_some() != matches!(kind, Kind::GoOn) {
            return None;
        }
        let pmu = self.rng.below(PMUS);
        let stack = &self.ledger.cpus[cpu].stack;
        let is_room = stack.len() < DEPTH;
        let is_run = stack.last().map(|frame| frame.is_run);
        Some(match kind {
            Kind::SwitchIn if is_room => Operation::SwitchIn { cpu, task: self.ready()? },
            Kind::Run if is_room => match self.rng.below(6) {
                0 => Operation::RunAside { cpu, task: self.ready()? },
                _ => Operation::Run { cpu, task: self.ready()? },
            },
            Kind::SwitchOut if is_run == Some(false) => match self.rng.below(2) {
                0 => Operation::SwitchOut { cpu, then: Then::Ready },
                _ => Operation::SwitchOut { cpu, then: Then::Blocked },
            },
            Kind::End if stack.iter().any(|frame| frame.is_run) => match self.rng.below(8) {
                0 => Operation::Panic { cpu },
                _ => Operation::End { cpu },
            },
            Kind::Replug if is_run != Some(true) && !stack.iter().any(|frame| frame.is_run) => {
                Operation::Replug { cpu }
            }
            Kind::Fork if self.live_few() => Operation::Fork { cpu },
            Kind::ForkRoot if self.live_few() => Operation::ForkRoot { cpu },
            Kind::Exit => Operation::Exit { cpu, task: self.idle()? },
            Kind::AttachTask if self.events.len() < EVENTS => {
                let inherit = if self.rng.once_in(2) { Inherit::No } else { Inherit::Children };
                Operation::AttachTask { cpu, pmu, task: self.known()?, inherit }
            }
            Kind::AttachGlobal if self.events.len() < EVENTS => {
                Operation::AttachGlobal { cpu, pmu }
            }
            Kind::Detach => Operation::Detach { cpu, event: self.any_event()? },
            Kind::Snapshot => Operation::Snapshot { cpu, pmu },
            Kind::Walk => Operation::Walk { cpu },
            Kind::Read => Operation::Read { cpu, event: self.inherited_event()? },
            Kind::GoOn => Operation::GoOn { cpu },
            Kind::Wake => {
                let blocked = self.ledger.in_state(State::Blocked);
                Operation::Wake { task: self.rng.pick(&blocked)? }
            }
            Kind::Figure => match self.rng.below(2) {
                0 => Operation::Reset { event: self.any_event()? },
                _ => Operation::Limit { pmu },
            },
            _ => return None,
        })
    }

    fn live_few(&self) -> bool {
        let idle = self.ledger.live().filter(|task| *task >= self.crowd).count();
        idle < TASKS
    }

    fn ready(&mut self) -> Option<usize> {
        let ready = self.ledger.in_state(State::Ready);
        // Those of a crowd are many; they have their turn now and then.
        let few = ready.iter().copied().filter(|task| *task >= self.crowd).collect::<Vec<_>>();
        let crowded = self.rng.once_in(8);
        self.rng.pick(if crowded { &ready } else { &few })
    }

    /// A task that does not run.
    fn idle(&mut self) -> Option<usize> {
        let ready = self.ledger.in_state(State::Ready);
        let blocked = self.ledger.in_state(State::Blocked);
        self.rng.pick(&[ready, blocked].concat())
    }

    /// A task that can be attached to: it lives, or somebody has a handle.
    fn known(&mut self) -> Option<usize> {
        let tasks = self.ledger.tasks.iter().enumerate();
        let known = tasks.filter(|(number, task)| {
            *number >= self.crowd && (task.state != State::Exited || task.handle.is_some())
        });
        let known: Vec<_> = known.map(|(number, _)| number).collect();
        self.rng.pick(&known)
    }

    fn any_event(&mut self) -> Option<usize> {
        let events: Vec<_> = self.events.iter().map(|event| event.number).collect();
        self.rng.pick(&events)
    }

    fn inherited_event(&mut self) -> Option<usize> {
        let inherited = self.events.iter().filter(|event| matches!(event.of, Use::Family(_)));
        let inherited: Vec<_> = inherited.map(|event| event.number).collect();
        self.rng.pick(&inherited)
    }

    /// Where the operation is to stop, and what it is refused.
    fn plan(&mut self, taste: &Taste, operation: &Operation) -> Plan {
        let Some(of) = self.stops_as(operation) else { return Plan::NONE };
        let mut once_in = |times| self.rng.once_in(times).then(|| self.rng.below(4));
        let (mut stop_at, refuse_at) = (once_in(taste.stops), once_in(taste.refusals));
        if let Operation::Exit { .. } = of {
            // Few tasks have more families.
            stop_at = stop_at.map(|at| at / 2);
        }
        let number = |at: Option<usize>| at.map(|at| u32::try_from(at).unwrap_or(0));
        match of {
            _ if self.waits_for(operation).is_some() => {
                Plan { points: of.points(), stop_at: Some(0), refuse_at: None }
            }
            _ => {
                let refuse_at = refuse_at.filter(|_| !self.waits_if_refused(operation));
                Plan { points: of.points(), stop_at: number(stop_at), refuse_at: number(refuse_at) }
            }
        }
    }

    /// The operation whose points count: what goes on is what has been begun. `None`: it is done in one piece.
    fn stops_as(&self, operation: &Operation) -> Option<Operation> {
        match *operation {
            Operation::GoOn { cpu } => self.flights[cpu].as_ref().map(|flight| flight.operation),
            // What is left behind is switched out and ended one after the other.
            Operation::End { cpu } | Operation::Panic { cpu } => {
                let is_run = self.ledger.cpus[cpu].stack.last().is_some_and(|frame| frame.is_run);
                is_run.then_some(*operation)
            }
            // Nothing in it calls anything; or, of a family, a part of it is under its lock.
            Operation::Detach { .. } => None,
            operation => operation.cpu().map(|_| operation),
        }
    }

    fn is_last_global(&self, event: usize) -> bool {
        let event = self.events.iter().find(|other| other.number == event);
        event.is_some_and(|event| {
            matches!(event.of, Use::Global { .. })
                && self.ledger.pmus[event.pmu].global == Global::On(1)
        })
    }

    /// Whether the operation would wait for a CPU that has stopped: for the end of its section, or for a lock.
    fn waits(&self, operation: &Operation) -> bool {
        match *operation {
            Operation::AttachGlobal { pmu, .. } => match self.ledger.pmus[pmu].global {
                // Both would hold the lock of those that attach globally.
                Global::On(_) => self.is_mending(pmu) || self.is_fork_without(pmu),
                Global::Off => self.is_section_held() && self.waits_for(operation).is_none(),
                Global::Attaching | Global::Leaving => true,
            },
            // The event is whoever reads it's, too.
            Operation::Detach { event, .. } | Operation::Read { event, .. }
                if self.is_being_read(event) =>
            {
                true
            }
            Operation::Detach { event, .. } if self.is_last_global(event) => {
                self.is_section_held() && self.waits_for(operation).is_none()
            }
            Operation::Snapshot { pmu, .. } => self.is_snapshot_stopped(pmu),
            Operation::Reset { event } => {
                let event = self.events.iter().find(|other| other.number == event);
                event.is_some_and(|event| {
                    self.is_snapshot_stopped(event.pmu) || self.is_being_read(event.number)
                })
            }
            // An inherited attach in mid-fork: whether the child joins depends on what the fork has done.
            Operation::AttachTask { task, inherit: Inherit::Children, .. } => self.is_forking(task),
            // The limit may be met, and what is undone waits.
            Operation::GoOn { cpu } => {
                let mends = self.flights[cpu].as_ref().and_then(Flight::mends_of);
                if self.joins_mid_fork(cpu) || mends.is_some_and(|pmu| self.is_fork_without(pmu)) {
                    return true;
                }
                let pmu = self.attaches_globally(operation);
                pmu.is_some_and(|pmu| self.ledger.pmus[pmu].is_limited) && self.is_section_held()
            }
            _ => false,
        }
    }

    /// The one CPU in whose section a global attach or detach is to be begun, to see that it waits for its end. What that CPU
    /// still does must not depend on what the other has done by then.
    pub fn waits_for(&self, operation: &Operation) -> Option<usize> {
        let is_first_or_last = match *operation {
            Operation::AttachGlobal { pmu, .. } => self.ledger.pmus[pmu].global == Global::Off,
            Operation::Detach { event, .. } => self.is_last_global(event),
            _ => false,
        };
        let is_in_section =
            |cpu: &usize| self.flights[*cpu].as_ref().is_some_and(Flight::is_in_section);
        let mut in_section = (0..CPUS).filter(is_in_section);
        let (cpu, None) = (in_section.next()?, in_section.next()) else { return None };
        let flight = self.flights[cpu].as_ref()?;
        let is_certain = match flight.operation {
            Operation::Exit { .. } | Operation::Read { .. } | Operation::ForkRoot { .. } => true,
            // It has a section for each task: a detach goes on after the first, and takes away what a later one would find.
            Operation::Snapshot { .. } => !matches!(operation, Operation::Detach { .. }),
            // Where families have it allocate, it is in no section.
            Operation::Fork { .. } => {
                let parent = self.ledger.current(cpu);
                flight.at == Some(Point::Allocation)
                    && parent.is_none_or(|parent| self.ledger.tasks[parent].families.is_empty())
            }
            _ => false,
        };
        (is_first_or_last && is_certain).then_some(cpu)
    }

    /// Whether a refused allocation would have it wait: a global attach is undone.
    fn waits_if_refused(&self, operation: &Operation) -> bool {
        self.attaches_globally(operation).is_some() && self.is_section_held()
    }

    /// The PMU of a first global attach that goes on.
    fn attaches_globally(&self, operation: &Operation) -> Option<usize> {
        let Operation::GoOn { cpu } = *operation else { return None };
        self.flights[cpu].as_ref()?.is_first_of()
    }

    /// Whether a fork has stopped whose child is without data: who mends may come to it, which nobody could tell.
    fn is_fork_without(&self, pmu: usize) -> bool {
        self.flights.iter().flatten().any(|flight| flight.is_without(pmu))
    }

    /// Whether what has stopped there is an inherited attach to a task in mid-fork: as where it begins.
    fn joins_mid_fork(&self, cpu: usize) -> bool {
        let operation = self.flights[cpu].as_ref().map(|flight| flight.operation);
        match operation {
            Some(Operation::AttachTask { task, inherit: Inherit::Children, .. }) => {
                self.is_forking(task)
            }
            _ => false,
        }
    }

    /// Whether the task is stopped in the middle of a fork.
    fn is_forking(&self, task: usize) -> bool {
        (0..CPUS).any(|cpu| {
            let is_fork = |flight: &Flight| matches!(flight.operation, Operation::Fork { .. });
            self.ledger.current(cpu) == Some(task)
                && self.flights[cpu].as_ref().is_some_and(is_fork)
        })
    }

    pub fn is_section_held(&self) -> bool {
        self.flights.iter().flatten().any(Flight::is_in_section)
    }

    pub fn is_snapshot_stopped(&self, pmu: usize) -> bool {
        let is_it = |flight: &Flight| matches!(flight.operation, Operation::Snapshot { pmu: of, .. } if of == pmu);
        self.flights.iter().flatten().any(is_it)
    }

    /// Whether a read of the event has stopped.
    pub fn is_being_read(&self, event: usize) -> bool {
        let is_it = |flight: &Flight| matches!(flight.operation, Operation::Read { event: of, .. } if of == event);
        self.flights.iter().flatten().any(is_it)
    }

    /// What has stopped goes on; runs end; then tasks end and events detach in any order, and the CPUs go.
    fn wind_up(&mut self) -> Check {
        while self.flights.iter().any(Option::is_some) {
            let cpu = self.rng.below(CPUS);
            let go_on = Operation::GoOn { cpu };
            if self.flights[cpu].is_some() && !self.waits(&go_on) {
                self.perform(go_on, Plan::NONE)?;
            }
        }
        for cpu in 0..CPUS {
            while let Some(frame) = self.ledger.cpus[cpu].stack.last() {
                let operation = match frame.is_run {
                    true => Operation::End { cpu },
                    false => Operation::SwitchOut { cpu, then: Then::Ready },
                };
                self.perform(operation, Plan::NONE)?;
            }
        }
        loop {
            let cpu = self.rng.below(CPUS);
            let operation = match self.rng.below(2) {
                0 => self.idle().map(|task| Operation::Exit { cpu, task }),
                _ => self.any_event().map(|event| Operation::Detach { cpu, event }),
            };
            match operation {
                Some(operation) => self.perform(operation, Plan::NONE)?,
                None if self.events.is_empty() && self.ledger.live().next().is_none() => break,
                None => {}
            }
        }
        self.leave()?;
        crate::invariants::check_end(self)
    }
}
