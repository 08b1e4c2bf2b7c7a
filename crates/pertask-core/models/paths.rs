//! The tree of spawns: forks that concurrently need a new path. A model has room for one path with a parent, and one bucket.

use super::{World, check};
use crate::Site;
use crate::task::{OwnedTask, Task};
use loom::thread;
use std::panic::Location;
use std::ptr;

impl World {
    fn fork_at(self, site: &'static Site, parent: &Task) -> OwnedTask {
        self.system.fork(site, Some(parent), 0)
    }
}

/// Two tasks of one site are forked from one parent. Both get the one new path, although it takes the last room.
#[test]
fn fork_races_fork_on_a_new_path() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let site = world.system.site(Some("child"), Location::caller());
        let other = {
            let parent = parent.handle();
            thread::spawn(move || world.fork_at(site, &parent))
        };
        let ours = world.fork_at(site, &parent);
        let theirs = other.join().unwrap();
        assert!(ptr::eq(ours.path(), theirs.path()), "two nodes of one path");
        assert!(ptr::eq(ours.path().parent().unwrap(), parent.path()));
        assert_eq!(world.system.tasks_without_path(), 0);
        drop((ours, theirs, parent));
        world.finish();
    });
}

/// Two tasks of one site are forked without a parent. Both get the one new root.
#[test]
fn fork_races_fork_on_a_new_root() {
    check(|| {
        let world = World::new();
        let other = thread::spawn(move || world.fork());
        let ours = world.fork();
        let theirs = other.join().unwrap();
        assert!(ptr::eq(ours.path(), theirs.path()), "two roots of one site");
        drop((ours, theirs));
        world.finish();
    });
}

/// Two tasks of different sites are forked, with room for one path. One task falls back to its site's root, and is counted.
#[test]
fn fork_races_fork_for_the_last_path() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let [one, two] =
            ["one", "two"].map(|name| world.system.site(Some(name), Location::caller()));
        let other = {
            let parent = parent.handle();
            thread::spawn(move || world.fork_at(two, &parent))
        };
        let ours = world.fork_at(one, &parent);
        let theirs = other.join().unwrap();
        let below = [&ours, &theirs].map(|task| task.path().parent().is_some());
        assert!(below[0] != below[1], "{below:?}");
        assert_eq!(world.system.tasks_without_path(), 1);
        assert!(ptr::eq(ours.site(), one) && ptr::eq(theirs.site(), two));
        drop((ours, theirs, parent));
        world.finish();
    });
}
