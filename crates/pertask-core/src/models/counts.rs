//! Reading counts while tasks end: each is counted once.

use super::{World, check};
use crate::Inherit;
use loom::thread;

/// A task ends during a snapshot: it is among the living or the ended, not both and not neither.
#[test]
fn snapshot_races_exit() {
    check(|| {
        let world = World::new();
        let event = world.pmu.attach_global().unwrap();
        let task = world.fork();
        world.count(&task, 7);
        let other = thread::spawn(move || drop(task));
        assert_eq!(event.read(), 7, "during");
        other.join().unwrap();
        assert_eq!(event.read(), 7, "after");
        drop(event);
        world.finish();
    });
}

/// The same for the members of an inherited event.
#[test]
fn read_of_an_inherited_event_races_exit() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let event = world.pmu.attach_task(&parent.handle(), Inherit::Children).unwrap();
        let child = world.fork_from(Some(&parent));
        world.count(&parent, 1);
        world.count(&child, 10);
        let other = thread::spawn(move || drop(child));
        assert_eq!(event.read(), 11, "during");
        other.join().unwrap();
        assert_eq!(event.read(), 11, "after");
        drop(event);
        drop(parent);
        world.finish();
    });
}

/// An event is read while its task ends: the counts are there, and stay.
#[test]
fn read_of_an_event_races_exit() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let event = world.attach(&task.handle()).unwrap();
        world.count(&task, 3);
        let other = thread::spawn(move || drop(task));
        assert_eq!(event.read(), 3);
        other.join().unwrap();
        assert_eq!(event.read(), 3);
        drop(event);
        world.finish();
    });
}
