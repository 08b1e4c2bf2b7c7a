//! Events on one task: against each other, and against the task's beginning and end.

use super::{World, check};
use loom::thread;

/// Two events come at once: they share one object, which is freed when both have gone.
#[test]
fn attach_task_races_attach_task() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let other = {
            let task = task.handle();
            thread::spawn(move || world.attach(&task).unwrap())
        };
        let ours = world.attach(&task.handle()).unwrap();
        let theirs = other.join().unwrap();
        assert_eq!(world.references(&task), Some((2, false)));
        drop((ours, theirs));
        assert_eq!(world.references(&task), None);
        drop(task);
        world.finish();
    });
}

/// One event comes while another goes: the new one never holds the dead object.
#[test]
fn attach_task_races_detach_task() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let going = world.attach(&task.handle()).unwrap();
        let other = thread::spawn(move || drop(going));
        let event = world.attach(&task.handle()).unwrap();
        other.join().unwrap();
        assert_eq!(world.references(&task), Some((1, false)));
        drop(event);
        drop(task);
        world.finish();
    });
}

/// Two events go at once: one of them is the last, and frees the object once.
#[test]
fn detach_task_races_detach_task() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let [ours, theirs] = [(); 2].map(|()| world.attach(&task.handle()).unwrap());
        let other = thread::spawn(move || drop(theirs));
        drop(ours);
        other.join().unwrap();
        assert_eq!(world.references(&task), None);
        drop(task);
        world.finish();
    });
}

/// Both come and go at once: dead objects are replaced while their owners take them out.
#[test]
fn attach_and_detach_race_attach_and_detach() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let other = {
            let task = task.handle();
            thread::spawn(move || drop(world.attach(&task)))
        };
        drop(world.attach(&task.handle()));
        other.join().unwrap();
        assert_eq!(world.references(&task), None);
        drop(task);
        world.finish();
    });
}

/// An event comes while the task ends: it is refused, or it has data that outlives the task.
#[test]
fn attach_task_races_exit() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let handle = task.handle();
        let other = thread::spawn(move || drop(task));
        let event = world.attach(&handle);
        other.join().unwrap();
        assert!(handle.has_exited());
        assert!(world.attach(&handle).is_none(), "an ended task was given data");
        if let Some(event) = event {
            let _ = event.read();
        }
        drop(handle);
        world.finish();
    });
}

/// An event goes while the task ends.
#[test]
fn detach_task_races_exit() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let event = world.attach(&task.handle()).unwrap();
        let other = thread::spawn(move || drop(task));
        drop(event);
        other.join().unwrap();
        world.finish();
    });
}

/// An event finds the task in the table while fork is still giving it the global event's data.
#[test]
fn attach_task_races_fork() {
    check(|| {
        let world = World::new();
        let global = world.pmu.attach_global().unwrap();
        let other = thread::spawn(move || world.fork());
        let mut event = None;
        world.system.for_each_task(|task| event = world.attach(task));
        let task = other.join().unwrap();
        world.assert_whole(&task, u32::from(event.is_some()));
        drop((global, event));
        assert_eq!(world.references(&task), None);
        drop(task);
        world.finish();
    });
}
