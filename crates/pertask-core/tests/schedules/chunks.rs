//! Walks of several chunks, in two shards, beside threads that change what is walked.

use crate::check;
use crate::common::assert_live;
use crate::world::{World, join, rng};
use pertask_core::OwnedTask;
use shuttle::thread;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tasks that stay: more chunks than one in either shard.
const TASKS: usize = 40;

/// Tasks that come and go, in each of two threads.
const GUESTS: usize = 20;

#[test]
fn walk_of_a_global_attach_leaves_out_nobody_who_stays() {
    check(|| {
        let world = World::new();
        let stay = fork_many(world);
        let guests = [(); 2].map(|()| thread::spawn(move || guests_come_and_go(world)));
        attach_and_detach(world, &stay);
        join(guests);
        assert_eq!(world.living(), BTreeMap::new(), "data that nobody holds before exit");
        assert_live(world.turns, 0);
        drop(stay);
        world.finish();
    });
}

#[test]
fn two_global_events_come_and_go_as_tasks_do() {
    check(|| {
        let world = World::new();
        let stay = Arc::new(fork_many(world));
        let guests = thread::spawn(move || guests_come_and_go(world));
        let other = {
            let stay = Arc::clone(&stay);
            thread::spawn(move || attach_and_detach(world, &stay))
        };
        attach_and_detach(world, &stay);
        join([guests, other]);
        assert_live(world.turns, 0);
        drop(stay);
        world.finish();
    });
}

/// Meanwhile all who stay have data.
fn attach_and_detach(world: World, stay: &[OwnedTask]) {
    let event = world.turns.attach_global().unwrap();
    let living = world.living();
    assert!(stay.iter().all(|task| living.contains_key(&task.id())), "a hole");
    drop(event);
}

fn fork_many(world: World) -> Vec<OwnedTask> {
    (0..TASKS).map(|hint| world.system.fork(world.site, None, hint)).collect()
}

/// Guests take free places between those who stay, and beyond them.
fn guests_come_and_go(world: World) {
    let mut rng = rng();
    let mut guests = Vec::new();
    for hint in 0..GUESTS {
        guests.push(world.system.fork(world.site, None, hint));
        if rng.below(2) == 0 {
            drop(guests.swap_remove(rng.below(guests.len() as u64) as usize));
        }
    }
}
