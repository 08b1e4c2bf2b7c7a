//! An inherited event: attached, read, closed, against the forks and ends of its family.

use super::{Plain, World, check};
use crate::primitive::Arc;
use crate::task::Task;
use crate::{Event, Inherit};
use loom::thread;

impl World {
    fn attach_inherited(self, task: &Arc<Task>) -> Option<Event<Plain>> {
        self.pmu.attach_task(task, Inherit::Children).ok()
    }
}

/// An inherited event comes while its task forks: the child is of the family, or it is not.
#[test]
fn attach_inherited_races_fork() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let other = {
            let parent = parent.handle();
            thread::spawn(move || world.attach_inherited(&parent).unwrap())
        };
        let child = world.fork_from(Some(&parent));
        let event = other.join().unwrap();
        assert_eq!(world.references(&parent), Some((1, false)));
        let joined = world.references(&child);
        assert!(matches!(joined, None | Some((1, false))), "{joined:?}");
        // Whoever is forked now is of the family.
        let late = world.fork_from(Some(&parent));
        assert_eq!(world.references(&late), Some((1, false)));
        drop(event);
        assert_eq!(world.pmu.cache().live(), 0, "a member is left");
        drop((parent, child, late));
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
        let event = world.attach_inherited(&handle);
        other.join().unwrap();
        assert_eq!(event.as_ref().map_or(0, |event| event.read()), 0);
        let late = world.fork_from(Some(&handle));
        assert_eq!(world.references(&late), None, "inherited from a task that has ended");
        drop(late);
        drop((event, handle));
        world.finish();
    });
}

/// One inherited event comes to a task while another goes, whose link the first takes away.
#[test]
fn attach_inherited_races_detach_inherited() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let going = world.attach_inherited(&parent.handle()).unwrap();
        let other = thread::spawn(move || drop(going));
        let event = world.attach_inherited(&parent.handle()).unwrap();
        other.join().unwrap();
        let child = world.fork_from(Some(&parent));
        assert_eq!(world.references(&child), Some((1, false)));
        drop(event);
        assert_eq!(world.pmu.cache().live(), 0, "a member is left");
        drop((parent, child));
        world.finish();
    });
}

/// Two inherited events come to one task: its children inherit both.
#[test]
fn attach_inherited_races_attach_inherited() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let other = {
            let parent = parent.handle();
            thread::spawn(move || world.attach_inherited(&parent).unwrap())
        };
        let ours = world.attach_inherited(&parent.handle()).unwrap();
        let theirs = other.join().unwrap();
        let child = world.fork_from(Some(&parent));
        assert_eq!(world.references(&child), Some((2, false)));
        drop((ours, theirs));
        drop((parent, child));
        world.finish();
    });
}

/// An inherited event goes while its task forks: no child keeps a reference.
#[test]
fn detach_inherited_races_fork() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let event = world.attach_inherited(&parent.handle()).unwrap();
        let other = thread::spawn(move || drop(event));
        let child = world.fork_from(Some(&parent));
        other.join().unwrap();
        assert_eq!(world.references(&child), None, "a child holds what nobody counts");
        drop((parent, child));
        world.finish();
    });
}

/// An inherited event goes while a member ends: its reference is given back once.
#[test]
fn detach_inherited_races_exit() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let event = world.attach_inherited(&parent.handle()).unwrap();
        let child = world.fork_from(Some(&parent));
        let other = thread::spawn(move || drop(child));
        drop(event);
        other.join().unwrap();
        assert_eq!(world.references(&parent), None);
        drop(parent);
        world.finish();
    });
}

/// A child is born while the event is read: its counts are in the next read.
#[test]
fn read_of_an_inherited_event_races_fork() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let event = world.attach_inherited(&parent.handle()).unwrap();
        world.count(&parent, 1);
        let other = {
            let parent = parent.handle();
            thread::spawn(move || {
                let child = world.fork_from(Some(&parent));
                world.count(&child, 10);
                child
            })
        };
        let during = event.read();
        assert!(during == 1 || during == 11, "{during}");
        let child = other.join().unwrap();
        assert_eq!(event.read(), 11, "after");
        drop((event, parent, child));
        world.finish();
    });
}

/// A member ends during a read: it is counted once.
#[test]
fn read_of_an_inherited_event_races_exit() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let event = world.attach_inherited(&parent.handle()).unwrap();
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

/// Two members end at once: each is folded once.
#[test]
fn exit_races_exit_in_a_family() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let event = world.attach_inherited(&parent.handle()).unwrap();
        let child = world.fork_from(Some(&parent));
        world.count(&parent, 1);
        world.count(&child, 10);
        let other = thread::spawn(move || drop(child));
        drop(parent);
        other.join().unwrap();
        assert_eq!(event.read(), 11);
        drop(event);
        world.finish();
    });
}

/// A member ends while another is born, who may get its place.
#[test]
fn exit_races_fork_in_a_family() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let event = world.attach_inherited(&parent.handle()).unwrap();
        let first = world.fork_from(Some(&parent));
        world.count(&first, 10);
        let other = thread::spawn(move || drop(first));
        let second = world.fork_from(Some(&parent));
        world.count(&second, 100);
        other.join().unwrap();
        let third = world.fork_from(Some(&parent));
        world.count(&third, 1000);
        assert_eq!(event.read(), 1110);
        drop(parent);
        drop((second, third));
        assert_eq!(event.read(), 1110, "after");
        drop(event);
        world.finish();
    });
}

/// A task ends while another thread still makes a child of it: the child inherits, or it does not.
#[test]
fn exit_of_the_parent_races_fork() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let handle = parent.handle();
        let event = world.attach_inherited(&handle).unwrap();
        let other = thread::spawn(move || drop(parent));
        let child = world.fork_from(Some(&handle));
        other.join().unwrap();
        world.count(&child, 10);
        let joined = world.references(&child).is_some();
        assert_eq!(event.read(), if joined { 10 } else { 0 });
        drop(child);
        assert_eq!(event.read(), if joined { 10 } else { 0 }, "after");
        drop((event, handle));
        world.finish();
    });
}

/// Two children of one parent are born at once: each has a place of its own.
#[test]
fn fork_races_fork_in_a_family() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let event = world.attach_inherited(&parent.handle()).unwrap();
        let other = {
            let parent = parent.handle();
            thread::spawn(move || world.fork_from(Some(&parent)))
        };
        let ours = world.fork_from(Some(&parent));
        let theirs = other.join().unwrap();
        world.count(&ours, 10);
        world.count(&theirs, 100);
        assert_eq!(event.read(), 110);
        drop((ours, theirs));
        assert_eq!(event.read(), 110, "after");
        drop((event, parent));
        world.finish();
    });
}
