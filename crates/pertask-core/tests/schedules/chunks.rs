//! Walks of several chunks, over several blocks of the table, beside threads that change what is walked.

use crate::check;
use crate::world::{World, join, rng};
use pertask_core::OwnedTask;
use shuttle::thread;
use std::ops::Range;
use std::sync::Arc;

/// Tasks there are at first: several chunks. Those in the middle leave, so that whole chunks are empty.
const TASKS: usize = 80;
const GAP: Range<usize> = 16..48;

/// Tasks that come and go, in each of two threads.
const GUESTS: usize = 20;

#[test]
fn walk_of_a_global_attach_leaves_out_nobody_who_stays() {
    check(|| {
        let world = World::new();
        let stay = fork_many(world);
        let guests = [(); 2].map(|()| thread::spawn(move || guests_come_and_go(world)));
        attach_and_detach(world, &stay);
        let guests = join(guests);
        world.assert_no_data();
        drop((stay, guests));
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
        let ([guests], [()]) = (join([guests]), join([other]));
        world.assert_no_data();
        drop((stay, guests));
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
    let fork = |hint| world.system.fork(world.site, None, hint);
    let mut tasks: Vec<_> = (0..TASKS).map(fork).collect();
    tasks.drain(GAP).for_each(drop);
    tasks
}

/// Guests take free places, between those who stay and beyond them. Some are there to the end.
fn guests_come_and_go(world: World) -> Vec<OwnedTask> {
    let mut rng = rng();
    let mut guests = Vec::new();
    for hint in 0..GUESTS {
        guests.push(world.system.fork(world.site, None, hint));
        if rng.below(2) == 0 {
            drop(guests.swap_remove(rng.below(guests.len() as u64) as usize));
        }
    }
    guests
}
