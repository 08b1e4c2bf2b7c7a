//! The global event: against fork, exit, events on one task, and other global events.

use super::{World, check};
use loom::thread;

/// A task is forked during the attach. Afterwards both the new and the old task have data.
#[test]
fn attach_global_races_fork() {
    check(|| {
        let world = World::new();
        let old = world.fork();
        let other = thread::spawn(move || world.fork());
        let event = world.pmu.attach_global().unwrap();
        world.assert_whole(&old, 0);
        let new = other.join().unwrap();
        world.assert_whole(&new, 0);
        drop(event);
        drop((old, new));
        world.finish();
    });
}

/// A task that ends during the attach keeps no data.
#[test]
fn attach_global_races_exit() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let other = thread::spawn(move || drop(task));
        let event = world.pmu.attach_global().unwrap();
        other.join().unwrap();
        assert_eq!(world.pmu.cache().live(), 0, "an ended task was given data");
        drop(event);
        world.finish();
    });
}

/// The global event takes one reference and marks it once, whether it finds data or makes it.
#[test]
fn attach_global_races_attach_task() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let other = {
            let task = task.handle();
            thread::spawn(move || world.attach(&task).unwrap())
        };
        let global = world.pmu.attach_global().unwrap();
        let event = other.join().unwrap();
        world.assert_whole(&task, 1);
        drop(global);
        assert_eq!(world.references(&task), Some((1, false)));
        drop(event);
        drop(task);
        world.finish();
    });
}

/// The global event is attached while a task's own event is detached. It never relies on the data that is going away.
#[test]
fn attach_global_races_detach_task() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let going = world.attach(&task.handle()).unwrap();
        let other = thread::spawn(move || drop(going));
        let global = world.pmu.attach_global().unwrap();
        world.assert_whole_or_shared(&task);
        other.join().unwrap();
        world.assert_whole(&task, 0);
        drop(global);
        drop(task);
        world.finish();
    });
}

/// Exit meets a new mark on data that an event also holds. The reference that goes with the mark is given back once.
#[test]
fn attach_global_races_exit_of_a_task_with_an_event() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let event = world.attach(&task.handle()).unwrap();
        let other = thread::spawn(move || drop(task));
        let global = world.pmu.attach_global().unwrap();
        other.join().unwrap();
        assert_eq!(world.pmu.cache().live(), 1, "the event's data");
        drop(event);
        assert_eq!(
            world.pmu.cache().live(),
            0,
            "the global event kept a reference to an ended task"
        );
        drop(global);
        world.finish();
    });
}

/// The second attach returns only after the first has finished its walk. The last detach undoes the attach once.
#[test]
fn attach_global_races_attach_global() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let other = thread::spawn(move || world.pmu.attach_global().unwrap());
        let ours = world.pmu.attach_global().unwrap();
        world.assert_whole(&task, 0);
        drop(ours);
        let theirs = other.join().unwrap();
        world.assert_whole(&task, 0);
        drop(theirs);
        assert_eq!(world.references(&task), None);
        drop(task);
        world.finish();
    });
}

/// A detach that may be the last runs concurrently with an attach.
#[test]
fn detach_global_races_attach_global() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let going = world.pmu.attach_global().unwrap();
        let other = thread::spawn(move || drop(going));
        let event = world.pmu.attach_global().unwrap();
        world.assert_whole(&task, 0);
        other.join().unwrap();
        world.assert_whole(&task, 0);
        drop(event);
        drop(task);
        world.finish();
    });
}

/// Two detaches run concurrently. The last one removes the data, once.
#[test]
fn detach_global_races_detach_global() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let [ours, theirs] = [(); 2].map(|()| world.pmu.attach_global().unwrap());
        let other = thread::spawn(move || drop(theirs));
        drop(ours);
        other.join().unwrap();
        assert_eq!(world.references(&task), None);
        drop(task);
        world.finish();
    });
}

/// A task that is forked during the detach ends up without data.
#[test]
fn detach_global_races_fork() {
    check(|| {
        let world = World::new();
        let event = world.pmu.attach_global().unwrap();
        let other = thread::spawn(move || world.fork());
        drop(event);
        let task = other.join().unwrap();
        assert_eq!(world.references(&task), None, "data is left that only the exit would free");
        drop(task);
        world.finish();
    });
}

/// Exit and detach both try to give back the global event's reference. It is given back once.
#[test]
fn detach_global_races_exit() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let event = world.pmu.attach_global().unwrap();
        let other = thread::spawn(move || drop(task));
        drop(event);
        other.join().unwrap();
        world.finish();
    });
}

/// An event is attached while the global event is detached. The event's data stays alive.
#[test]
fn detach_global_races_attach_task() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let global = world.pmu.attach_global().unwrap();
        let other = {
            let task = task.handle();
            thread::spawn(move || world.attach(&task).unwrap())
        };
        drop(global);
        let event = other.join().unwrap();
        assert_eq!(world.references(&task), Some((1, false)));
        drop(event);
        drop(task);
        world.finish();
    });
}

/// The global event and a task's own event are detached concurrently. The last of them removes the data.
#[test]
fn detach_global_races_detach_task() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let event = world.attach(&task.handle()).unwrap();
        let global = world.pmu.attach_global().unwrap();
        let other = thread::spawn(move || drop(event));
        drop(global);
        other.join().unwrap();
        assert_eq!(world.references(&task), None);
        drop(task);
        world.finish();
    });
}
