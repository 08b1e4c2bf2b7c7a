//! Switches on one CPU while other threads attach, detach and read. The hooks use the task's data, which must stay alive while
//! they run.
//!
//! A task has one owner, and only the owner switches it or ends it. So a switch cannot race the exit of its own task, nor
//! another switch of it.

use super::{Plain, World, check};
use crate::primitive::{Arc, AtomicBool, Ordering};
use crate::task::OwnedTask;
use crate::{Cpu, Event};
use loom::thread;

/// Switches `task` in while `other` runs, and out after `other` has ended.
fn sched_in_races<T: 'static>(
    task: OwnedTask,
    other: impl FnOnce() -> T + 'static,
) -> (OwnedTask, T) {
    let cpu = Cpu::new(task.system());
    let other = thread::spawn(other);
    cpu.switch_in(task).unwrap();
    let other = other.join().unwrap();
    (cpu.switch_out().unwrap(), other)
}

/// Switches `task` in, and out again while `other` runs.
fn sched_out_races<T: 'static>(
    task: OwnedTask,
    other: impl FnOnce() -> T + 'static,
) -> (OwnedTask, T) {
    let cpu = Cpu::new(task.system());
    cpu.switch_in(task).unwrap();
    let other = thread::spawn(other);
    let task = cpu.switch_out().unwrap();
    (task, other.join().unwrap())
}

/// An event is attached while its task is switched in. The first hook may or may not get the data; the last hook gets it.
#[test]
fn attach_task_races_sched_in() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let handle = task.handle();
        let (task, event) = sched_in_races(task, move || world.attach(&handle).unwrap());
        let (with_data, without) = world.hooks();
        assert!(matches!((with_data, without), (1, 0 | 1) | (2, 0)), "{:?}", world.hooks());
        // The hook may have counted before the event was attached.
        assert!(event.read() < with_data);
        drop((event, task));
        world.finish();
    });
}

/// An event is attached while its task is switched out.
#[test]
fn attach_task_races_sched_out() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let handle = task.handle();
        let (task, event) = sched_out_races(task, move || world.attach(&handle).unwrap());
        assert_eq!(event.read(), 0, "it was attached after the turn's beginning");
        drop((event, task));
        world.finish();
    });
}

/// The last event is detached while its task is switched in. The data stays until the hook has returned, and no longer.
#[test]
fn detach_task_races_sched_in() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let event = world.attach(&task.handle()).unwrap();
        let (task, ()) = sched_in_races(task, move || drop(event));
        assert_eq!(world.pmu.cache().live(), 0);
        drop(task);
        world.finish();
    });
}

/// The last event is detached while its task is switched out. The data stays until the hook has returned, and no longer.
#[test]
fn detach_task_races_sched_out() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let event = world.attach(&task.handle()).unwrap();
        let (task, ()) = sched_out_races(task, move || drop(event));
        assert_eq!(world.pmu.cache().live(), 0);
        let (with_data, without) = world.hooks();
        assert_eq!(with_data + without, 2, "a sched_in without its sched_out");
        drop(task);
        world.finish();
    });
}

/// Attaches a global event, and then sets a flag to show that the attach has returned.
fn attach_global(world: World, returned: &AtomicBool) -> Event<Plain> {
    let event = world.pmu.attach_global().unwrap();
    // Release: pairs with the Acquire loads in the models below.
    returned.store(true, Ordering::Release);
    event
}

/// *Whole*: a task that is switched in after the attach has returned has data.
#[test]
fn attach_global_races_sched_in() {
    check(|| {
        let world = World::new();
        let cpu = Cpu::new(world.system);
        let task = world.fork();
        let returned = Arc::new(AtomicBool::new(false));
        let other = {
            let returned = Arc::clone(&returned);
            thread::spawn(move || attach_global(world, &returned))
        };
        let whole = returned.load(Ordering::Acquire);
        cpu.switch_in(task).unwrap();
        assert!(!whole || world.hooks() == (1, 0), "a hole: {:?}", world.hooks());
        let event = other.join().unwrap();
        let (before, _) = world.hooks();
        let task = cpu.switch_out();
        assert_eq!(world.hooks().0, before + 1, "a hole at the turn's end");
        drop((event, task, cpu));
        world.finish();
    });
}

/// *Whole*, at the end of a turn: a task that is switched out after the attach has returned has data.
#[test]
fn attach_global_races_sched_out() {
    check(|| {
        let world = World::new();
        let cpu = Cpu::new(world.system);
        cpu.switch_in(world.fork()).unwrap();
        let returned = Arc::new(AtomicBool::new(false));
        let other = {
            let returned = Arc::clone(&returned);
            thread::spawn(move || attach_global(world, &returned))
        };
        let whole = returned.load(Ordering::Acquire);
        let task = cpu.switch_out();
        assert!(!whole || world.hooks() == (1, 0), "a hole: {:?}", world.hooks());
        drop((other.join().unwrap(), task, cpu));
        world.finish();
    });
}

/// The global event is detached while a task is switched in. The data stays until the hook has returned, and no longer.
#[test]
fn detach_global_races_sched_in() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let event = world.pmu.attach_global().unwrap();
        let (task, ()) = sched_in_races(task, move || drop(event));
        assert_eq!(world.pmu.cache().live(), 0);
        drop(task);
        world.finish();
    });
}

/// The global event is detached while a task is switched out. The data stays until the hook has returned, and no longer.
#[test]
fn detach_global_races_sched_out() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let event = world.pmu.attach_global().unwrap();
        let (task, ()) = sched_out_races(task, move || drop(event));
        assert_eq!(world.pmu.cache().live(), 0);
        let (with_data, without) = world.hooks();
        assert_eq!(with_data + without, 2, "a sched_in without its sched_out");
        drop(task);
        world.finish();
    });
}

/// An event is read while its task is switched in. It may or may not have counted the turn.
#[test]
fn read_of_an_event_races_sched_in() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let event = world.attach(&task.handle()).unwrap();
        let (task, event) = sched_in_races(task, move || {
            assert!(event.read() <= 1, "{}", event.read());
            event
        });
        assert_eq!(event.read(), 1);
        drop((event, task));
        world.finish();
    });
}

/// An event is read while its task is switched out.
#[test]
fn read_of_an_event_races_sched_out() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let event = world.attach(&task.handle()).unwrap();
        let (task, event) = sched_out_races(task, move || {
            assert_eq!(event.read(), 1);
            event
        });
        drop((event, task));
        world.finish();
    });
}
