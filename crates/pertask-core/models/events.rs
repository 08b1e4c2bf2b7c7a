//! Events on one task: against each other, and against the task's fork and exit.

use super::{World, check};
use loom::thread;

/// Two events are attached concurrently. They share one object, which is freed when both are gone.
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

/// One event is attached while another is detached. The new event never holds the dead object.
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

/// Two events are detached concurrently. One of them is the last, and frees the object once.
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

/// Two events are attached and detached concurrently. Dead objects are replaced while their owners remove them.
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

/// An event is attached while the task ends. The attach is refused, or its data outlives the task.
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

/// An event is detached while the task ends.
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

/// An event finds the task in the table during its fork, when a global event is attached.
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
