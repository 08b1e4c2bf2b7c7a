//! Data that is retained until its task ends; and PMUs that are let go.

#![cfg(not(any(pertask_loom, pertask_shuttle)))]

mod common;

use common::{Hollow, Turns, assert_live, assert_nothing_left, hook_calls, site, system_with};
use pertask_core::{Cpu, Error, Inherit, MAX_PMUS, OwnedTask, PmuHandle, Retention, System};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

fn retaining() -> (&'static System, PmuHandle<Turns>, Cpu) {
    let (system, turns) = system_with(Turns);
    turns.set_retention(Retention::UntilExit).unwrap();
    (system, turns, Cpu::new(system))
}

fn forks(cpu: &Cpu, system: &System, count: usize) -> Vec<OwnedTask> {
    (0..count).map(|_| cpu.fork(site(system, "task"))).collect()
}

#[test]
fn retained_data_outlives_its_events_and_ends_with_its_task() {
    let (system, turns, cpu) = retaining();
    let mut tasks = forks(&cpu, system, 5);
    drop(turns.attach_global().unwrap());
    assert_live(turns, 5);
    drop(turns.attach_task(&tasks[0].handle(), Inherit::Children).unwrap());
    assert_live(turns, 5);
    // No event, no hook.
    tasks.iter_mut().for_each(|task| cpu.run(task, || {}));
    assert_eq!(hook_calls(turns), 0);
    tasks.truncate(2);
    assert_live(turns, 2);
    drop((tasks, cpu));
    assert_nothing_left(turns);
}

#[test]
fn an_attach_finds_what_was_retained_and_allocates_for_the_rest() {
    let (system, turns, cpu) = retaining();
    let mut tasks = forks(&cpu, system, 3);
    drop(turns.attach_global().unwrap());
    // Born while nothing is attached: without data.
    tasks.extend(forks(&cpu, system, 2));
    assert_live(turns, 3);
    turns.cache().set_limit_bytes(Some(5 * turns.cache().object_bytes()));
    let event = turns.attach_global().unwrap();
    assert_live(turns, 5);
    tasks.iter_mut().for_each(|task| cpu.run(task, || {}));
    assert_eq!(event.read(), 5);
    drop((event, tasks, cpu));
    assert_nothing_left(turns);
}

/// What data has counted stays with it: a second session takes the difference.
#[test]
fn counts_stay_with_retained_data() {
    let (system, turns, cpu) = retaining();
    let mut task = cpu.fork(site(system, "task"));
    let first = turns.attach_global().unwrap();
    cpu.run(&mut task, || {});
    assert_eq!(first.read(), 1);
    drop(first);
    let mut second = turns.attach_global().unwrap();
    assert_eq!(second.read(), 1);
    second.reset().unwrap();
    cpu.run(&mut task, || {});
    assert_eq!(second.read(), 1);
    let own = turns.attach_task(&task.handle(), Inherit::No).unwrap();
    assert_eq!(own.read(), 0);
    drop((own, second, task, cpu));
    assert_nothing_left(turns);
}

#[test]
fn data_of_a_task_event_is_retained_too() {
    let (system, turns, cpu) = retaining();
    let task = cpu.fork(site(system, "task"));
    let handle = task.handle();
    drop(turns.attach_task(&handle, Inherit::No).unwrap());
    assert_live(turns, 1);
    let event = turns.attach_task(&handle, Inherit::No).unwrap();
    drop(task);
    // The event holds it now.
    assert_live(turns, 1);
    drop((event, cpu));
    assert_nothing_left(turns);
}

#[test]
fn data_that_is_retained_no_more_goes_unless_somebody_uses_it() {
    let (system, turns, cpu) = retaining();
    let tasks = forks(&cpu, system, 4);
    drop(turns.attach_global().unwrap());
    let own = turns.attach_task(&tasks[0].handle(), Inherit::No).unwrap();
    turns.set_retention(Retention::UntilDetached).unwrap();
    assert_live(turns, 1);
    let global = turns.attach_global().unwrap();
    turns.set_retention(Retention::UntilExit).unwrap();
    turns.set_retention(Retention::UntilDetached).unwrap();
    assert_live(turns, 4);
    drop((own, global));
    assert_live(turns, 0);
    drop((tasks, cpu));
    assert_nothing_left(turns);
}

#[test]
fn a_refused_attach_retains_nothing() {
    let (system, turns, cpu) = retaining();
    let tasks = forks(&cpu, system, 4);
    let limit_bytes = 3 * turns.cache().object_bytes();
    turns.cache().set_limit_bytes(Some(limit_bytes));
    assert!(matches!(turns.attach_global(), Err(Error::CacheLimit { .. })));
    assert_live(turns, 0);
    drop((tasks, cpu));
    assert_nothing_left(turns);
}

#[test]
fn a_pmu_that_is_let_go_makes_room_for_another() {
    let system = System::leak();
    let cpu = Cpu::new(system);
    let mut task = cpu.fork(site(system, "task"));
    // Many more than there are places.
    for round in 0..3 * MAX_PMUS as u64 {
        let turns = system.register(Turns).unwrap();
        let event = turns.attach_global().unwrap();
        (0..=round).for_each(|_| cpu.run(&mut task, || {}));
        drop(cpu.fork(site(system, "ended")));
        assert_eq!(event.read(), round + 1);
        assert_eq!(turns.unregister(), Err(Error::InUse { events: 1 }));
        drop(event);
        assert_live(turns, 0);
        turns.unregister().unwrap();
    }
    let all: Vec<_> = (0..MAX_PMUS).map(|_| system.register(Turns).unwrap()).collect();
    assert_eq!(system.register(Turns).err(), Some(Error::TooManyPmus));
    all[0].unregister().unwrap();
    assert!(system.register(Hollow).is_ok());
}

/// A handle of a PMU that is gone reaches nothing of its successor's, whose types are others.
#[test]
fn an_old_handle_reaches_nothing() {
    let (system, hollow) = system_with(Hollow);
    let cpu = Cpu::new(system);
    let task = cpu.fork(site(system, "task"));
    hollow.unregister().unwrap();
    let turns = system.register(Turns).unwrap();
    let event = turns.attach_global().unwrap();
    assert_eq!(hollow.unregister(), Err(Error::Unregistered));
    assert_eq!(hollow.attach_global().err(), Some(Error::Unregistered));
    let handle = task.handle();
    for inherit in [Inherit::No, Inherit::Children] {
        assert_eq!(hollow.attach_task(&handle, inherit).err(), Some(Error::Unregistered));
    }
    assert_eq!(hollow.with_data(&task, |()| ()), None);
    assert!(hollow.snapshot(|_| ()).is_empty());
    assert_eq!(hollow.set_retention(Retention::UntilExit), Err(Error::Unregistered));
    // A CPU that came later has nothing of the old one's.
    let later = Cpu::new(system);
    assert!(hollow.cpu_data(later.record()).is_none());
    assert!(turns.cpu_data(later.record()).is_some());
    assert_live(turns, 1);
    drop((task, event, later, cpu));
    assert_nothing_left(turns);
}

/// Retained data goes with its PMU.
#[test]
fn a_pmu_takes_its_retained_data_along() {
    let (system, turns, cpu) = retaining();
    let mut tasks = forks(&cpu, system, 100);
    drop(turns.attach_global().unwrap());
    assert_live(turns, 100);
    turns.unregister().unwrap();
    assert_live(turns, 0);
    let next = system.register(Turns).unwrap();
    let event = next.attach_global().unwrap();
    tasks.iter_mut().for_each(|task| cpu.run(task, || {}));
    assert_eq!(event.read(), 100);
    drop((tasks, event, cpu));
    assert_nothing_left(next);
}

/// A thread drops the last event in a section, for which another thread waits that turns retention off.
#[test]
fn retention_is_turned_off_while_a_section_drops_the_last_event() {
    let (system, turns, cpu) = retaining();
    let task = cpu.fork(site(system, "task"));
    let event = turns.attach_task(task.handle_ref(), Inherit::No).unwrap();
    let handle = task.handle();
    let (inside, is_inside) = mpsc::channel();
    let dropping = thread::spawn(move || {
        turns.with_data(&handle, |_| {
            inside.send(()).unwrap();
            // As a rule, the other thread waits for this section by then.
            thread::sleep(Duration::from_millis(100));
            drop(event);
        })
    });
    is_inside.recv().unwrap();
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || done.send(turns.set_retention(Retention::UntilDetached)));
    let released = is_done.recv_timeout(Duration::from_secs(60));
    assert_eq!(released, Ok(Ok(())), "the two threads wait for each other");
    assert_eq!(dropping.join().unwrap(), Some(()));
    assert_live(turns, 0);
    drop((task, cpu));
    assert_nothing_left(turns);
}
