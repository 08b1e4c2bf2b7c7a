//! *Whole*, for whoever holds a global event, while others come and go.

use crate::check;
use crate::world::{World, join, rng};
use pertask_core::{Cpu, Event, Inherit};
use shuttle::thread;

const THREADS: usize = 3;
const ROUNDS: usize = 4;

#[test]
fn whoever_holds_a_global_event_finds_its_tasks_counted() {
    check(|| {
        let world = World::new();
        let threads = [(); THREADS].map(|()| thread::spawn(move || whole_for_own_tasks(world)));
        join(threads);
        world.finish();
    });
}

fn whole_for_own_tasks(world: World) {
    let mut rng = rng();
    let cpu = Cpu::new(world.system);
    let mut old = cpu.fork(world.site);
    let mut others: Vec<Event<_>> = Vec::new();
    for _ in 0..ROUNDS {
        let whole = world.turns.attach_global().unwrap();
        let before = *world.living().get(&old.id()).expect("a hole: it lived before the attach");
        let mut young = cpu.fork(world.site);
        let runs = rng.below(3);
        (0..runs).for_each(|_| cpu.run(&mut old, || cpu.run(&mut young, || {})));
        let living = world.living();
        assert_eq!(living.get(&young.id()), Some(&runs));
        assert_eq!(living.get(&old.id()), Some(&(before + runs)));
        drop(whole);
        // Events of its own, on any thread's tasks.
        others.truncate(1);
        if let Some(task) = world.any_task(&mut rng) {
            others.extend(world.turns.attach_task(&task, Inherit::No));
        }
    }
}
