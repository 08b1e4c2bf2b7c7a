//! Tasks that were forked without data for lack of memory, and tasks whose data is retained.

use super::{World, check};
use crate::Retention;
use loom::thread;

impl World {
    /// Forks a task that gets no memory for its data while there is a global event.
    fn fork_without_memory(self) -> crate::OwnedTask {
        self.pmu.cache().set_limit_bytes(Some(0));
        let task = self.fork();
        self.pmu.cache().set_limit_bytes(None);
        assert_eq!(self.pmu.tasks_without_data(), 1);
        task
    }
}

/// Two events are attached to the task concurrently. The hole is filled once, and the global event gets its reference.
#[test]
fn attach_task_races_attach_task_on_a_hole() {
    check(|| {
        let world = World::new();
        let global = world.pmu.attach_global().unwrap();
        let task = world.fork_without_memory();
        let handle = task.handle();
        let other = thread::spawn(move || drop(world.attach(&handle).unwrap()));
        let event = world.attach(&task.handle()).unwrap();
        other.join().unwrap();
        assert_eq!(world.pmu.tasks_without_data(), 0);
        world.assert_whole(&task, 1);
        drop(event);
        world.assert_whole(&task, 0);
        drop((task, global));
        world.finish();
    });
}

/// A later global event and an event of the task's own fill the hole concurrently.
#[test]
fn attach_global_races_attach_task_on_a_hole() {
    check(|| {
        let world = World::new();
        let global = world.pmu.attach_global().unwrap();
        let task = world.fork_without_memory();
        let handle = task.handle();
        let other = thread::spawn(move || drop(world.attach(&handle).unwrap()));
        let second = world.pmu.attach_global().unwrap();
        other.join().unwrap();
        assert_eq!(world.pmu.tasks_without_data(), 0);
        world.assert_whole(&task, 0);
        drop((task, global, second));
        world.finish();
    });
}

/// The last global event is detached while the task's own event fills the hole. The hole is counted as filled or left, and
/// nothing leaks.
#[test]
fn detach_global_races_attach_task_on_a_hole() {
    check(|| {
        let world = World::new();
        let global = world.pmu.attach_global().unwrap();
        let task = world.fork_without_memory();
        let handle = task.handle();
        let other = thread::spawn(move || world.attach(&handle).unwrap());
        drop(global);
        let event = other.join().unwrap();
        assert!(world.pmu.tasks_without_data() <= 1);
        assert_eq!(world.references(&task), Some((1, false)));
        drop((event, task));
        world.finish();
    });
}

/// A task with a hole ends while an event is attached to it.
#[test]
fn exit_races_attach_task_on_a_hole() {
    check(|| {
        let world = World::new();
        let global = world.pmu.attach_global().unwrap();
        let task = world.fork_without_memory();
        let handle = task.handle();
        let other = thread::spawn(move || world.attach(&handle));
        drop(task);
        let event = other.join().unwrap();
        assert_eq!(world.pmu.tasks_without_data() == 0, event.is_some());
        drop((event, global));
        world.finish();
    });
}

/// With retained data, the only event of a task comes and goes while the task ends.
#[test]
fn retained_exit_races_attach_task_and_detach_task() {
    check(|| {
        let world = World::new();
        world.pmu.set_retention(Retention::UntilExit).unwrap();
        let task = world.fork();
        let handle = task.handle();
        let other = thread::spawn(move || drop(world.attach(&handle)));
        drop(task);
        other.join().unwrap();
        world.finish();
    });
}

/// Events come and go on two threads. The data stays one object until the task ends.
#[test]
fn retained_attach_task_races_attach_task() {
    check(|| {
        let world = World::new();
        world.pmu.set_retention(Retention::UntilExit).unwrap();
        let task = world.fork();
        let handle = task.handle();
        let other = thread::spawn(move || drop(world.attach(&handle)));
        drop(world.attach(&task.handle()));
        other.join().unwrap();
        world.assert_whole(&task, 0);
        drop(task);
        world.finish();
    });
}

/// A global event comes and goes while a task ends. Only the exit gives back the global event's reference, once.
#[test]
fn retained_exit_races_attach_global_and_detach_global() {
    check(|| {
        let world = World::new();
        world.pmu.set_retention(Retention::UntilExit).unwrap();
        let task = world.fork();
        let other = thread::spawn(move || drop(world.pmu.attach_global().unwrap()));
        drop(task);
        other.join().unwrap();
        world.finish();
    });
}

/// Retention is turned off while a task ends.
#[test]
fn release_of_retained_data_races_exit() {
    check(|| {
        let world = World::new();
        world.pmu.set_retention(Retention::UntilExit).unwrap();
        let task = world.fork();
        drop(world.pmu.attach_global().unwrap());
        world.assert_whole(&task, 0);
        let other =
            thread::spawn(move || world.pmu.set_retention(Retention::UntilDetached).unwrap());
        drop(task);
        other.join().unwrap();
        world.finish();
    });
}
