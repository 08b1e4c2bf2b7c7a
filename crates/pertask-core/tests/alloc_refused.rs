//! An allocation that is refused, at each step at which one can be: the attach fails and leaves nothing behind, or, at
//! fork, one task lacks data and is counted. Never in silence, never for others.

#![cfg(not(any(pertask_loom, pertask_shuttle)))]

mod common;

use common::{Turns, assert_live, assert_nothing_left, hook_calls, site, system_with};
use pertask_core::{Cpu, Error, Inherit, OwnedTask, Pmu, PmuHandle, System, TaskId};

/// More than one block of the table.
const TASKS: usize = 70;

/// Lets the PMU have that many objects.
fn allow(turns: PmuHandle<Turns>, objects: usize) -> Error {
    let cache = turns.cache();
    let limit_bytes = objects * cache.object_bytes();
    cache.set_limit_bytes(Some(limit_bytes));
    Error::CacheLimit { pmu: Turns::NAME, limit_bytes }
}

fn forks(system: &'static System, count: usize) -> Vec<OwnedTask> {
    (0..count).map(|_| system.fork(site(system, "forked"), None, 0)).collect()
}

/// The tasks that have data.
fn with_data(turns: PmuHandle<Turns>) -> Vec<TaskId> {
    let mut tasks = Vec::new();
    turns.snapshot(|live| tasks.push(live.task.id()));
    tasks
}

#[test]
fn global_attach_refused_at_each_step() {
    let (system, turns) = system_with(Turns);
    let tasks = forks(system, TASKS);
    for step in 0..TASKS {
        let refused = allow(turns, step);
        assert_eq!(turns.attach_global().err(), Some(refused), "step {step}");
        assert_live(turns, 0);
        // The system is as before: no global event that a fork would find, no hook.
        drop(forks(system, 1));
        assert_eq!(with_data(turns), []);
        assert_eq!(turns.tasks_without_data(), 0);
    }
    allow(turns, TASKS);
    let event = turns.attach_global().unwrap();
    assert_eq!(with_data(turns).len(), TASKS);
    drop((event, tasks));
    assert_nothing_left(turns);
}

#[test]
fn refused_global_attach_leaves_task_events_as_they_were() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let mut tasks = forks(system, 6);
    let events: Vec<_> = tasks[2..4]
        .iter()
        .map(|task| turns.attach_task(&task.handle(), Inherit::No).unwrap())
        .collect();
    for step in 2..6 {
        let refused = allow(turns, step);
        assert_eq!(turns.attach_global().err(), Some(refused));
        assert_live(turns, 2);
    }
    tasks.iter_mut().for_each(|task| cpu.run(task, || {}));
    assert!(events.iter().all(|event| event.read() == 1));
    // Each holds its own reference and no other.
    drop(events);
    assert_live(turns, 0);
    drop((tasks, cpu));
    assert_nothing_left(turns);
}

#[test]
fn refused_global_attach_calls_no_hook_afterwards() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let mut tasks = forks(system, 2);
    let refused = allow(turns, 1);
    assert_eq!(turns.attach_global().err(), Some(refused));
    tasks.iter_mut().for_each(|task| cpu.run(task, || {}));
    assert_eq!(hook_calls(turns), 0);
    drop((tasks, cpu));
    assert_nothing_left(turns);
}

#[test]
fn limit_does_not_concern_those_who_share() {
    let (system, turns) = system_with(Turns);
    let tasks = forks(system, 3);
    let events: Vec<_> =
        tasks.iter().map(|task| turns.attach_task(&task.handle(), Inherit::No).unwrap()).collect();
    allow(turns, 0);
    let shared = turns.attach_task(&tasks[0].handle(), Inherit::Children).unwrap();
    let global = turns.attach_global().unwrap();
    drop((events, shared));
    // The global event's own.
    assert_live(turns, 3);
    drop((global, tasks));
    assert_nothing_left(turns);
}

#[test]
fn refused_at_fork_is_counted_and_only_that_task_lacks_data() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let event = turns.attach_global().unwrap();
    let mut before = cpu.fork(site(system, "before"));
    allow(turns, 1);
    let mut lacks = cpu.fork(site(system, "lacks"));
    assert_eq!(turns.tasks_without_data(), 1);
    turns.cache().set_limit_bytes(None);
    let mut after = cpu.fork(site(system, "after"));
    for task in [&mut before, &mut lacks, &mut after] {
        cpu.run(task, || {});
    }
    assert_eq!(with_data(turns), [before.id(), after.id()]);
    assert_eq!(event.read(), 2);
    assert_eq!(turns.tasks_without_data(), 1);
    drop((before, lacks, after));
    assert_eq!(event.read(), 2);
    drop((event, cpu));
    assert_nothing_left(turns);
}

/// A task that lacks the global event's data can still be given its own, and the global event then owns nothing of it.
#[test]
fn task_event_on_a_task_refused_at_fork() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let global = turns.attach_global().unwrap();
    allow(turns, 0);
    let mut lacks = cpu.fork(site(system, "lacks"));
    turns.cache().set_limit_bytes(None);
    let event = turns.attach_task(&lacks.handle(), Inherit::No).unwrap();
    cpu.run(&mut lacks, || {});
    assert_eq!(event.read(), 1);
    drop(global);
    assert_live(turns, 1);
    drop(event);
    assert_live(turns, 0);
    drop((lacks, cpu));
    assert_nothing_left(turns);
}

#[test]
fn refused_for_an_inherited_child_is_lost_and_its_own_children_with_it() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let place = site(system, "family");
    let mut root = cpu.fork(place);
    let event = turns.attach_task(&root.handle(), Inherit::Children).unwrap();
    let mut child = cpu.run(&mut root, || cpu.fork(place));
    allow(turns, 2);
    let mut lost = cpu.run(&mut root, || cpu.fork(place));
    assert_eq!(event.lost(), 1);
    turns.cache().set_limit_bytes(None);
    let mut grandchild = cpu.run(&mut child, || cpu.fork(place));
    let mut orphan = cpu.run(&mut lost, || cpu.fork(place));
    for task in [&mut grandchild, &mut orphan] {
        cpu.run(task, || {});
    }
    // Root twice, child once, grandchild once.
    assert_eq!(event.read(), 4);
    assert_eq!(event.lost(), 1);
    // Nobody else's figure.
    assert_eq!(turns.tasks_without_data(), 0);
    drop((root, child, lost, grandchild, orphan, cpu));
    assert_eq!(event.read(), 4);
    drop(event);
    assert_nothing_left(turns);
}

#[test]
fn refused_for_a_task_event() {
    let (system, turns) = system_with(Turns);
    let tasks = forks(system, 2);
    let kept = turns.attach_task(&tasks[0].handle(), Inherit::No).unwrap();
    let refused = allow(turns, 1);
    for inherit in [Inherit::No, Inherit::Children] {
        assert_eq!(turns.attach_task(&tasks[1].handle(), inherit).err(), Some(refused));
    }
    assert_live(turns, 1);
    turns.cache().set_limit_bytes(None);
    let lifted = turns.attach_task(&tasks[1].handle(), Inherit::No).unwrap();
    assert_live(turns, 2);
    drop((kept, lifted, tasks));
    assert_nothing_left(turns);
}

/// An exit is stronger than a refusal: there is nothing to allocate for.
#[test]
fn exited_task_is_not_refused_for_memory() {
    let (system, turns) = system_with(Turns);
    let task = forks(system, 1).remove(0);
    let handle = task.handle();
    drop(task);
    allow(turns, 0);
    for inherit in [Inherit::No, Inherit::Children] {
        assert_eq!(turns.attach_task(&handle, inherit).err(), Some(Error::TaskExited));
    }
    assert_nothing_left(turns);
}

#[test]
fn cache_tells_what_it_holds() {
    let (system, turns) = system_with(Turns);
    let tasks = forks(system, 3);
    let event = turns.attach_global().unwrap();
    let cache = turns.cache();
    assert_eq!((cache.live(), cache.bytes()), (3, 3 * cache.object_bytes()));
    drop((event, tasks));
    assert_nothing_left(turns);
    assert_eq!(cache.bytes(), 0);
}
