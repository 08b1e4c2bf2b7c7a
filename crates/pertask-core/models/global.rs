//! The global event: against fork, exit, events on one task, and itself.

use super::{World, check};
use loom::thread;

/// A task born during the attach has data when both are done; so has the one that was there.
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

/// A task that ends during the attach keeps nothing.
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

/// The global event comes while a task's own goes: it does not rely on what is going.
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

/// Exit meets the mark on data that an event holds: the reference that goes with it is given back once.
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

/// The second attach returns only when the first has finished its walk; the last detach undoes it once.
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

/// A detach that may be the last meets an attach.
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

/// Two detaches at once: the last one takes the data, once.
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

/// A task born during the detach is left without data.
#[test]
fn detach_global_races_fork() {
    check(|| {
        let world = World::new();
        let event = world.pmu.attach_global().unwrap();
        let other = thread::spawn(move || world.fork());
        drop(event);
        let task = other.join().unwrap();
        assert_eq!(world.references(&task), None, "data is left that nobody frees before exit");
        drop(task);
        world.finish();
    });
}

/// Both give back the global event's reference: it is given back once.
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

/// An event comes while the global one goes: what it holds stays alive.
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

/// The global event goes while a task's own does: whoever is last takes the data out.
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
