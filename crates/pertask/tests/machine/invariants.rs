//! What must hold after each step, named as in ARCHITECTURE.md, and what must hold at the end.

use crate::baton::Point;
use crate::flight::Flight;
use crate::ledger::{CPUS, Held, Ledger, Mark, PMUS, State, Use};
use crate::machine::{Attached, Check, Machine};
use crate::memory;
use crate::operation::Operation;
use pertask::core::rcu;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tasks in the table, and of which PMUs they have data.
pub struct Seen {
    /// By number in the ledger.
    known: BTreeMap<usize, [bool; PMUS]>,
    /// Those whose fork has stopped, and who are not in the ledger.
    newborn: Vec<[bool; PMUS]>,
}

impl Seen {
    pub fn look(machine: &Machine) -> Self {
        let numbers = machine.ledger.live().map(|task| (machine.ledger.tasks[task].id, task));
        let numbers: BTreeMap<_, _> = numbers.collect();
        let mut seen = Self { known: BTreeMap::new(), newborn: Vec::new() };
        machine.system.for_each_task(|task| {
            let has_data = machine.pmus.map(|pmu| pmu.with_data(task, |_| ()).is_some());
            match numbers.get(&task.id()) {
                Some(number) => drop(seen.known.insert(*number, has_data)),
                None => seen.newborn.push(has_data),
            }
        });
        seen
    }

    pub fn learn(&self, ledger: &mut Ledger) {
        for (task, has_data) in &self.known {
            (0..PMUS).for_each(|pmu| ledger.learn(pmu, *task, has_data[pmu]));
        }
    }
}

pub fn check(machine: &Machine, seen: &Seen) -> Check {
    no_fault(machine)?;
    tasks(machine, seen)?;
    whole(machine, seen)?;
    one_owner_per_reference(machine, seen)?;
    counts(machine)?;
    without_data(machine)?;
    exit_wins(machine)?;
    cpus(machine)
}

/// What hooks and the allocator have found.
fn no_fault(machine: &Machine) -> Check {
    let of_pmus = machine.pmus.iter().find_map(|pmu| pmu.pmu().fault());
    match of_pmus.or_else(memory::fault) {
        Some(fault) => Err(fault.to_owned()),
        None => Ok(()),
    }
}

/// The table holds the tasks that live, and those whose forks are under way.
fn tasks(machine: &Machine, seen: &Seen) -> Check {
    if let Some(missing) = machine.ledger.live().find(|task| !seen.known.contains_key(task)) {
        return Err(format!("task {missing} is not in the table"));
    }
    let is_fork = |flight: &&Flight| {
        matches!(flight.operation, Operation::Fork { .. } | Operation::ForkRoot { .. })
    };
    let forks = machine.flights.iter().flatten().filter(is_fork).count();
    // A task enters the table when it has its data.
    if seen.newborn.len() > forks {
        return Err(format!("{} tasks in the table that nobody knows", seen.newborn.len()));
    }
    let live = seen.known.len() + forks;
    same("live tasks", machine.system.live_tasks(), live)
}

/// Who should have data has it, and nobody else.
fn whole(machine: &Machine, seen: &Seen) -> Check {
    for (task, has_data) in &seen.known {
        for (pmu, has_data) in has_data.iter().enumerate() {
            let Held { data, mark, .. } = machine.ledger.tasks[*task].held[pmu];
            match (data, has_data) {
                (Some(_), false) if mark == Mark::Yes => {
                    return Err(format!("Whole: task {task} has no data of pmu {pmu}"));
                }
                (Some(_), false) => {
                    return Err(format!("task {task} has lost its data of pmu {pmu}"));
                }
                (None, true) => {
                    return Err(format!("task {task} has data of pmu {pmu} that nobody holds"));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// There are as many objects as there are tasks with data, and ended ones whose data an event holds.
fn one_owner_per_reference(machine: &Machine, seen: &Seen) -> Check {
    let expected = |pmu: usize| {
        let newborn = seen.newborn.iter().filter(|has_data| has_data[pmu]).count();
        machine.ledger.objects(pmu) + newborn
    };
    // Those on their way into a slot.
    let is_allocating = |flight: &&Flight| flight.at == Some(Point::Allocation);
    let allocating = machine.flights.iter().flatten().filter(is_allocating).count();
    let live = machine.pmus.map(|pmu| pmu.cache().live());
    let mut expected: usize = (0..PMUS).map(expected).sum::<usize>() + allocating;
    let is_fork = |flight: &&Flight| {
        matches!(flight.operation, Operation::Fork { .. } | Operation::ForkRoot { .. })
    };
    let forks = machine.flights.iter().flatten().filter(is_fork);
    // What a child has been given that is not in the table yet, nobody sees: the first PMU's data where it stops at the second's.
    let given = |fork: &Flight| (0..PMUS).filter(|pmu| fork.gives_data_of(*pmu)).count();
    let unseen = match forks.clone().count() == seen.newborn.len() {
        true => 0,
        false => forks.map(|fork| given(fork).saturating_sub(1)).sum(),
    };
    let mut live = live.iter().sum::<usize>();
    let what = "One owner per reference: data objects";
    let mut most = expected + unseen;
    if machine.is_section_held() {
        // Beside data, sums wait to be freed.
        most += rcu::pending();
        // What families have let go that an exit has left: all but the one in whose read it has stopped.
        expected = expected
            .saturating_sub(machine.flights.iter().flatten().map(may_be_gone(machine)).sum());
    } else {
        rcu::barrier().map_err(|error| error.to_string())?;
        same("released objects that wait though no section holds them", rcu::pending(), 0)?;
        live = machine.pmus.iter().map(|pmu| pmu.cache().live()).sum();
    }
    if (expected..=most).contains(&live) {
        return Ok(());
    }
    Err(format!("{what}: {live}, not {expected} to {most}"))
}

/// How many objects an exit that has stopped may have let go, of those that the ledger says families hold.
fn may_be_gone(machine: &Machine) -> impl Fn(&Flight) -> usize {
    |flight| match (flight.operation, flight.at) {
        (Operation::Exit { task, .. }, Some(Point::Read(at))) => {
            let families = &machine.ledger.tasks[task].families;
            (0..PMUS).filter(|pmu| *pmu != at && families.iter().any(|(of, _)| of == pmu)).count()
        }
        _ => 0,
    }
}

/// The figure of tasks that should have data and have none. It is exact, but for a fork that has stopped: a walk may have come
/// to its child.
fn without_data(machine: &Machine) -> Check {
    for (pmu, handle) in machine.pmus.iter().enumerate() {
        let (tasks, ledger) = (&machine.ledger.tasks, &machine.ledger.pmus[pmu]);
        let of_tasks = machine.ledger.live().filter(|task| tasks[*task].held[pmu].counted);
        let of_forks = machine.flights.iter().flatten().filter(|flight| flight.is_without(pmu));
        let least = ledger.stayed_without + of_tasks.count() as u64;
        let most = least + of_forks.count() as u64;
        let found = handle.tasks_without_data();
        if !(least..=most).contains(&found) {
            let what = format!("{found} tasks without data of pmu {pmu}");
            return Err(format!("{what}, not {least} to {most}"));
        }
    }
    Ok(())
}

/// Each turn has been counted once in every event that should see it, and no figure is off.
fn counts(machine: &Machine) -> Check {
    for pmu in (0..PMUS).filter(|pmu| !machine.is_snapshot_stopped(*pmu)) {
        let rows = machine.pmus[pmu].snapshot(|_| {});
        let sum: u64 = rows.iter().map(|row| row.count).sum();
        same(&format!("turns of pmu {pmu}"), sum, machine.ledger.total(pmu))?;
        let exited: u64 = rows.iter().map(|row| row.exited).sum();
        same("ended tasks that had data", exited, machine.ledger.pmus[pmu].ended.1)?;
    }
    for Attached { number, pmu, event, of } in &machine.events {
        if machine.is_being_read(*number) {
            continue;
        }
        if !matches!(of, Use::Global { .. }) || is_its_turn(machine, *number, *pmu) {
            let what = format!("Final counts survive, and live ones are exact: event {number}");
            same(&what, event.read(), machine.ledger.read(*pmu, of))?;
        }
    }
    Ok(())
}

/// Reads of global events are walks, and their sum is the snapshot's: one after the other, where no snapshot is stopped.
fn is_its_turn(machine: &Machine, event: usize, pmu: usize) -> bool {
    !machine.is_snapshot_stopped(pmu) && (machine.trace.steps() + event).is_multiple_of(4)
}

/// Who has ended stays so.
fn exit_wins(machine: &Machine) -> Check {
    for (number, task) in machine.ledger.tasks.iter().enumerate() {
        let Some(handle) = &task.handle else { continue };
        same(
            &format!("Exit wins: task {number}"),
            handle.has_exited(),
            task.state == State::Exited,
        )?;
        if handle.has_exited()
            && machine.pmus.iter().any(|pmu| pmu.with_data(handle, |_| ()).is_some())
        {
            return Err(format!("Dead stays dead: task {number} has ended and has data"));
        }
    }
    Ok(())
}

/// What runs is what should run, and every `sched_in` has its `sched_out`.
fn cpus(machine: &Machine) -> Check {
    let mut result = Ok(());
    machine.system.for_each_cpu(|record| {
        let cpu = record.index() as usize;
        let is_switching =
            machine.flights[cpu].as_ref().is_some_and(|flight| flight.operation.is_switch());
        if is_switching || result.is_err() {
            return;
        }
        let number =
            |task: Option<usize>| task.map_or(0, |task| machine.ledger.tasks[task].id.get());
        let current = number(machine.ledger.current(cpu));
        result = same(
            &format!("the task on cpu {cpu}"),
            record.current_id().map_or(0, |id| id.get()),
            current,
        );
        for (pmu, handle) in machine.pmus.iter().enumerate() {
            let Some(inside) = handle.cpu_data(record) else { continue };
            let expected = number(machine.ledger.cpus[cpu].inside[pmu]);
            let what = format!("Balanced: inside pmu {pmu} on cpu {cpu}");
            result = result.clone().and_then(|()| same(&what, inside.task(), expected));
        }
    });
    result
}

/// At the end: nothing is left.
pub fn check_end(machine: &Machine) -> Check {
    rcu::barrier().map_err(|error| error.to_string())?;
    same("tasks in the table", machine.system.live_tasks(), 0)?;
    same("objects that wait", rcu::pending(), 0)?;
    for pmu in machine.pmus {
        same("data objects", pmu.cache().live(), 0)?;
    }
    // Nobody has kept a task but the machine.
    for (number, task) in machine.ledger.tasks.iter().enumerate() {
        let holders = task.handle.as_ref().map_or(1, Arc::strong_count);
        same(&format!("holders of task {number}"), holders, 1)?;
    }
    let mut cpus = 0;
    machine.system.for_each_cpu(|record| cpus += usize::from(record.thread().is_none()));
    same("CPUs that have gone", cpus, CPUS)?;
    no_fault(machine)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Check {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: {found:?}, not {expected:?}")),
    }
}
