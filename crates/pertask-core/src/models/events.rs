//! Events on one task: against each other, and against the task's end.

use super::{World, check};
use crate::{Inherit, primitive::Arc};
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

/// An inherited event goes while its task forks: no child keeps a reference.
#[test]
fn detach_inherited_races_fork() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let event = world.pmu.attach_task(&parent.handle(), Inherit::Children).unwrap();
        let other = thread::spawn(move || drop(event));
        let child = world.fork_from(Some(&parent));
        other.join().unwrap();
        assert_eq!(world.references(&child), None, "a child holds what nobody counts");
        drop((parent, child));
        world.finish();
    });
}

/// An inherited event comes while its task ends: either way nothing is left, and the event can be read.
#[test]
fn attach_inherited_races_exit() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let handle: Arc<_> = task.handle();
        let other = thread::spawn(move || drop(task));
        let event = world.pmu.attach_task(&handle, Inherit::Children).ok();
        other.join().unwrap();
        assert_eq!(event.as_ref().map_or(0, |event| event.read()), 0);
        drop((event, handle));
        world.finish();
    });
}
