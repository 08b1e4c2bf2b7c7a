//! An inherited event: its attach, read and close, against the forks and exits of its family.

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

/// An inherited event is attached while its task forks. The child joins the family, or it does not.
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
        // A child that is forked from now on joins the family.
        let late = world.fork_from(Some(&parent));
        assert_eq!(world.references(&late), Some((1, false)));
        drop(event);
        assert_eq!(world.pmu.cache().live(), 0, "a member is left");
        drop((parent, child, late));
        world.finish();
    });
}

/// An inherited event is attached while its task ends. Either way nothing is left, and the event can be read.
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

/// An inherited event is attached to a task while another is detached. The first may remove the other's link.
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

/// Two inherited events are attached to one task concurrently. Its children inherit both.
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

/// An inherited event is detached while its task forks. No child keeps a reference.
#[test]
fn detach_inherited_races_fork() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let event = world.attach_inherited(&parent.handle()).unwrap();
        let other = thread::spawn(move || drop(event));
        let child = world.fork_from(Some(&parent));
        other.join().unwrap();
        assert_eq!(world.references(&child), None, "a child keeps a reference of a detached event");
        drop((parent, child));
        world.finish();
    });
}

/// An inherited event is detached while a member ends. The member's reference is given back once.
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

/// A child is forked during a read of the event. The next read has its counts.
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

/// A member ends during a read. The read counts it once.
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

/// Two members end concurrently. Each is folded once.
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

/// A member ends while another task is forked, which may get the member's index.
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

/// A task ends while another thread still forks a child from it. The child inherits the event, or it does not.
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

/// Two children of one parent are forked concurrently. Each gets an index of its own.
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
