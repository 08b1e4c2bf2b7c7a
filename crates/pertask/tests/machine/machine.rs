//! The machine: a system of the real core, its CPUs, its tasks and events, and the ledger of what should be.
//!
//! The driver gives one CPU after the other the baton; what a CPU has done by then is written into the ledger, in as many
//! steps as the core takes between two points.

use crate::baton::{Answer, Order, Outcome, Plan, Seat};
use crate::cpu;
use crate::flight::{Doing, Flight};
use crate::invariants::{self, Seen};
use crate::ledger::{CPUS, Global, Ledger, PMUS, State, Switch, Use};
use crate::memory;
use crate::operation::Operation;
use crate::pmu::Probe;
use crate::seed::{Rng, Trace};
use pertask::core::{Edge, Error, Event, OwnedTask, PmuHandle, Site, System, Task};
use std::collections::BTreeSet;
use std::panic::Location;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A limit that refuses nothing.
const NO_LIMIT_BYTES: usize = usize::MAX / 2;

/// A check: what was found wrong.
pub type Check = Result<(), String>;

pub struct Machine {
    pub system: &'static System,
    pub pmus: [PmuHandle<Probe>; PMUS],
    sites: [&'static Site; 3],
    seats: [&'static Seat; CPUS],
    threads: Vec<JoinHandle<()>>,
    /// What each CPU was doing when it stopped.
    pub flights: [Option<Flight>; CPUS],
    /// The tasks that do not run.
    pub owned: Vec<Option<OwnedTask>>,
    pub events: Vec<Attached>,
    /// How many there have been.
    attached: usize,
    /// The first so many tasks are a crowd.
    pub crowd: usize,
    pub ledger: Ledger,
    pub rng: Rng,
    pub trace: Trace,
    /// What has happened, in words, for those who ask whether it ever does.
    pub happened: BTreeSet<String>,
}

/// An event. Its number is never used again.
pub struct Attached {
    pub number: usize,
    pub pmu: usize,
    /// Shared while a CPU reads it.
    pub event: Arc<Event<Probe>>,
    pub of: Use,
}

impl Machine {
    pub fn new(seed: u64) -> Self {
        let system = System::leak();
        let pmus: [PmuHandle<Probe>; PMUS] = std::array::from_fn(|number| {
            let folds = (seed >> number) & 1 == 0;
            system.register(Probe::new(number, folds)).unwrap()
        });
        memory::watch(pmus[0].cache().object_bytes());
        // Within a limit a cache keeps nothing: all its objects come from the allocator, and go back to it.
        pmus.iter().for_each(|pmu| pmu.cache().set_limit_bytes(Some(NO_LIMIT_BYTES)));
        let place = Location::caller();
        let mut machine = Self {
            system,
            pmus,
            sites: ["a", "b", "c"].map(|name| system.site(Some(name), place)),
            seats: std::array::from_fn(|_| Seat::new()),
            threads: Vec::new(),
            flights: std::array::from_fn(|_| None),
            owned: Vec::new(),
            events: Vec::new(),
            attached: 0,
            crowd: 0,
            ledger: Ledger::default(),
            rng: Rng::new(seed),
            trace: Trace::default(),
            happened: BTreeSet::new(),
        };
        for seat in machine.seats {
            machine.threads.push(cpu::start(system, seat));
            let _ = seat.answer_of_its_own();
        }
        machine
    }

    /// A crowd of tasks that never run, more than a walk looks at in one piece.
    pub fn add_crowd(&mut self, tasks: usize) {
        self.crowd = tasks;
        for _ in 0..tasks {
            let task = self.system.fork(self.sites[0], None, 0);
            self.enter(task, None);
        }
    }

    /// Has an operation done, up to its end or to where it stops.
    pub fn perform(&mut self, operation: Operation, plan: Plan) -> Check {
        self.trace.step(operation.to_string());
        match operation {
            Operation::GoOn { cpu } => {
                let flight = self.flights[cpu].take().ok_or("it has not stopped")?;
                let answer = self.seats[cpu].go_on(plan);
                self.answered(cpu, flight, answer)?;
            }
            Operation::Wake { task } => self.ledger.tasks[task].state = State::Ready,
            Operation::Reset { event } => self.reset(event)?,
            Operation::Limit { pmu } => self.limit(pmu),
            _ => {
                let cpu = operation.cpu().ok_or("no CPU")?;
                let waits_for = self.waits_for(&operation);
                let (order, doing) = self.begin(operation);
                let flight = Flight::new(operation, doing);
                let answer = match waits_for {
                    None => self.seats[cpu].order(order, plan),
                    Some(other) => self.order_and_see_it_wait(cpu, order, plan, other)?,
                };
                self.answered(cpu, flight, answer)?;
            }
        }
        let seen = Seen::look(self);
        seen.learn(&mut self.ledger);
        invariants::check(self, &seen)
    }

    /// Has a CPU begin what must wait for the section in which `other` has stopped, and `other` go on to its end. Until the
    /// section ends, the first changes nothing that the other looks at.
    fn order_and_see_it_wait(
        &mut self,
        cpu: usize,
        order: Order,
        plan: Plan,
        other: usize,
    ) -> Result<Option<Answer>, String> {
        if !self.seats[cpu].order_and_see_it_wait(order, plan) {
            return Err(format!("it does not wait for the section on cpu {other}"));
        }
        self.happened.insert("a global attach or detach waits for a section".to_owned());
        self.trace.result(&format!("waits for cpu {other}"));
        let flight = self.flights[other].take().ok_or("it has not stopped")?;
        let answer = self.seats[other].go_on(Plan::NONE);
        self.answered(other, flight, answer)?;
        Ok(self.seats[cpu].answer_of_its_own())
    }

    /// What the operation changes before the CPU begins, and what the CPU is told.
    fn begin(&mut self, operation: Operation) -> (Order, Doing) {
        match operation {
            Operation::SwitchIn { cpu, task } => {
                (Order::SwitchIn(self.leaves_queue(cpu, task)), comes(task, Edge::Turn))
            }
            Operation::Run { cpu, task } => {
                let owned = self.leaves_queue(cpu, task);
                (Order::Run(owned, Edge::Turn), comes(task, Edge::Turn))
            }
            Operation::RunAside { cpu, task } => {
                let owned = self.leaves_queue(cpu, task);
                (Order::Run(owned, Edge::Aside), comes(task, Edge::Aside))
            }
            Operation::SwitchOut { cpu, .. } => (Order::SwitchOut, self.gives_back(cpu)),
            Operation::End { cpu } => (Order::End, self.gives_back(cpu)),
            Operation::Panic { cpu } => (Order::Panic, self.gives_back(cpu)),
            Operation::Fork { .. } => (Order::Fork(self.site()), self.forks()),
            Operation::ForkRoot { .. } => (Order::ForkRoot(self.system, self.site()), self.forks()),
            Operation::Exit { task, .. } => {
                self.ledger.tasks[task].state = State::Exiting;
                (Order::Exit(self.take_owned(task)), Doing::Exit { is_out: false })
            }
            Operation::AttachTask { pmu, task, inherit, .. } => {
                self.ledger.pmus[pmu].events += 1;
                let handle = self.handle(task).expect("somebody knows the task");
                let doing = Doing::AttachTask { allocated: false, taken: None };
                (Order::AttachTask(self.pmus[pmu], handle, inherit), doing)
            }
            Operation::AttachGlobal { pmu, .. } => {
                self.ledger.pmus[pmu].events += 1;
                let is_first = self.ledger.pmus[pmu].global == Global::Off;
                let doing = if is_first {
                    self.ledger.begin_attach_global(pmu);
                    Doing::AttachGlobal
                } else {
                    let without = self.ledger.begin_mending(pmu);
                    Doing::Mend { without, was_limited: false }
                };
                (Order::AttachGlobal(self.pmus[pmu]), doing)
            }
            Operation::Detach { event, .. } => self.detaches(event),
            Operation::Snapshot { pmu, .. } => {
                let (total, entry) = (self.ledger.total(pmu), &self.ledger.pmus[pmu]);
                let (vanished, ended) = (entry.vanished, entry.ended.1);
                (Order::Snapshot(self.pmus[pmu]), Doing::Snapshot { total, vanished, ended })
            }
            Operation::Walk { .. } => {
                let (live, tasks) = (self.ledger.live().collect(), self.ledger.tasks.len());
                (Order::Walk(self.system), Doing::Walk { live, tasks })
            }
            Operation::Read { event, .. } => {
                let read = self.events.iter().find(|other| other.number == event);
                let Attached { pmu, event, of, .. } = read.expect("attached");
                let least = self.ledger.read(*pmu, of);
                (Order::Read(Arc::clone(event)), Doing::Read { least, pmu: *pmu, of: *of })
            }
            Operation::Replug { .. } => (Order::Replug, Doing::Whole),
            Operation::GoOn { .. }
            | Operation::Wake { .. }
            | Operation::Reset { .. }
            | Operation::Limit { .. } => unreachable!("begins nothing"),
        }
    }

    fn leaves_queue(&mut self, cpu: usize, task: usize) -> OwnedTask {
        let entry = &mut self.ledger.tasks[task];
        entry.state = State::Running;
        if entry.last_cpu.replace(cpu).is_some_and(|last| last != cpu) {
            self.happened.insert("a task migrates".to_owned());
        }
        self.take_owned(task)
    }

    fn gives_back(&self, cpu: usize) -> Doing {
        let outer = self.ledger.outer(cpu).map(|outer| (outer, Edge::Nested));
        Doing::Switch(Switch::to(outer))
    }

    fn forks(&self) -> Doing {
        let seen = std::array::from_fn(|pmu| self.ledger.pmus[pmu].global);
        Doing::Fork { seen, without: [false; PMUS], lost: Vec::new() }
    }

    fn detaches(&mut self, event: usize) -> (Order, Doing) {
        let place = self.events.iter().position(|other| other.number == event);
        let Attached { pmu, event, of, .. } = self.events.remove(place.expect("attached"));
        if let Use::Global { .. } = of {
            let global = &mut self.ledger.pmus[pmu].global;
            *global = match *global {
                Global::On(users) if users > 1 => Global::On(users - 1),
                _ => Global::Leaving,
            };
        }
        let event = Arc::into_inner(event).expect("nobody reads it");
        (Order::Detach(event), Doing::Detach { pmu, of })
    }

    /// Counts what a CPU has done, once it has answered.
    fn answered(&mut self, cpu: usize, mut flight: Flight, answer: Option<Answer>) -> Check {
        let Answer { outcome, refused } = answer.ok_or("it waits for a CPU that has stopped")?;
        self.count_refusals(&mut flight, refused)?;
        let result = match outcome {
            Outcome::Panicked(message) => return Err(format!("a panic: {message}")),
            Outcome::Stopped(point) => {
                let result = format!("stops at {point:?}");
                self.happened.insert(format!("{} {result}", flight.name()));
                flight.stop(&mut self.ledger, cpu, point);
                self.flights[cpu] = Some(flight);
                result
            }
            outcome => self.end(cpu, flight, outcome)?,
        };
        self.trace.result(&result);
        Ok(())
    }

    /// No refusal is silent: each has raised a figure, or fails the attach.
    fn count_refusals(&mut self, flight: &mut Flight, refused: u64) -> Check {
        flight.begins_step(refused);
        let mut raised = 0;
        for pmu in 0..PMUS {
            let without = self.pmus[pmu].tasks_without_data();
            let before = std::mem::replace(&mut self.ledger.pmus[pmu].without_data, without);
            let more = without.saturating_sub(before);
            raised += more;
            flight.lacks_data(pmu, more)?;
            let fewer = before.saturating_sub(without);
            flight.mends(pmu, fewer)?;
            if fewer != 0 {
                self.happened.insert(format!("{} mends", flight.name()));
            }
        }
        for Attached { pmu, event, of, .. } in &self.events {
            let Use::Family(family) = *of else { continue };
            let lost = &mut self.ledger.pmus[*pmu].families[family].lost;
            let more = event.lost() - std::mem::replace(lost, event.lost());
            raised += more;
            flight.loses(*pmu, family, more)?;
        }
        let is_limited = self.ledger.pmus.iter().any(|pmu| pmu.is_limited);
        match flight.operation {
            Operation::Fork { .. } | Operation::ForkRoot { .. } if raised < refused => {
                // Who has detached meanwhile is told nothing.
                let mut is_told = self.ledger.pmus.iter().flat_map(|pmu| &pmu.families);
                let nobody_asks = is_told.any(|family| family.is_closed);
                match nobody_asks || raised + self.mended_by_families(flight) >= refused {
                    true => Ok(()),
                    false => Err("a refusal was silent".to_owned()),
                }
            }
            _ if raised > refused && !is_limited => Err("nothing was refused".to_owned()),
            _ => Ok(()),
        }
    }

    /// How many PMUs may have been refused data for a child that a family has given some since.
    fn mended_by_families(&self, flight: &Flight) -> u64 {
        let Operation::Fork { cpu } = flight.operation else { return 0 };
        let Some(parent) = self.ledger.current(cpu) else { return 0 };
        let families = &self.ledger.tasks[parent].families;
        let has_family = |pmu: &usize| families.iter().any(|(of, _)| of == pmu);
        (0..PMUS).filter(|pmu| flight.gives_data_of(*pmu)).filter(has_family).count() as u64
    }

    /// Keeps a task that is new. Half of them are known to somebody.
    pub fn enter(&mut self, task: OwnedTask, handle: Option<Arc<Task>>) -> usize {
        let number = self.ledger.fork(task.id(), handle);
        self.owned.push(Some(task));
        number
    }

    /// Keeps an event that is new.
    pub fn keep(&mut self, pmu: usize, event: Event<Probe>, of: Use) -> usize {
        self.attached += 1;
        self.events.push(Attached { number: self.attached, pmu, event: Arc::new(event), of });
        self.attached
    }

    /// A handle to a task that lives, or that somebody knows.
    pub fn handle(&self, task: usize) -> Option<Arc<Task>> {
        let entry = &self.ledger.tasks[task];
        entry.handle.clone().or_else(|| self.system.find_task(entry.id))
    }

    fn take_owned(&mut self, task: usize) -> OwnedTask {
        self.owned[task].take().expect("the task does not run")
    }

    fn site(&mut self) -> &'static Site {
        self.sites[self.rng.below(self.sites.len())]
    }

    fn reset(&mut self, event: usize) -> Check {
        let event = self.events.iter_mut().find(|other| other.number == event);
        let Attached { pmu, event, of, .. } = event.ok_or("it is attached")?;
        let result = Arc::get_mut(event).ok_or("somebody reads it")?.reset();
        let now = match *of {
            Use::Task { data, .. } => self.ledger.pmus[*pmu].data[data].turns,
            Use::Global { .. } => self.ledger.total(*pmu),
            Use::Family(_) if result == Err(Error::Inherited) => return Ok(()),
            Use::Family(_) => return Err("an inherited event has been reset".to_owned()),
        };
        if let Use::Task { base, .. } | Use::Global { base } = of {
            *base = now;
        }
        result.map_err(|error| error.to_string())
    }

    fn limit(&mut self, pmu: usize) {
        let is_limited = &mut self.ledger.pmus[pmu].is_limited;
        *is_limited = !*is_limited;
        let limit_bytes = if *is_limited { 0 } else { NO_LIMIT_BYTES };
        self.pmus[pmu].cache().set_limit_bytes(Some(limit_bytes));
    }

    /// All CPUs go.
    pub fn leave(&mut self) -> Check {
        for (seat, thread) in self.seats.into_iter().zip(self.threads.drain(..)) {
            match seat.order(Order::Leave, Plan::NONE).map(|answer| answer.outcome) {
                Some(Outcome::Nothing) => thread.join().map_err(|_| "a CPU does not leave")?,
                Some(Outcome::Panicked(message)) => return Err(format!("a panic: {message}")),
                _ => return Err("a CPU does not leave".to_owned()),
            }
        }
        Ok(())
    }
}

fn comes(task: usize, edge: Edge) -> Doing {
    Doing::Switch(Switch::to(Some((task, edge))))
}
