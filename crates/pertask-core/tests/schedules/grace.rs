//! The real RCU: who waits for memory waits for whoever looks at it, and for nobody else's sake in vain.

use crate::check;
use crate::common::assert_live;
use crate::world::{World, join};
use pertask_core::rcu::RcuCell;
use pertask_core::{Cpu, Inherit, OwnedTask};
use shuttle::sync::atomic::{AtomicBool, Ordering::SeqCst};
use shuttle::thread;
use std::sync::Arc;

const ROUNDS: usize = 12;

/// `barrier` frees what was released before, whatever sections others have open meanwhile.
#[test]
fn barrier_frees_what_was_released_while_others_switch() {
    check(|| {
        let world = World::new();
        let runs = [(); 2].map(|()| world.system.fork(world.site, None, 0));
        let task = world.system.fork(world.site, None, 1);
        let watches = runs
            .each_ref()
            .map(|task| world.turns.attach_task(&task.handle(), Inherit::No).unwrap());
        let threads = runs.map(|task| thread::spawn(move || run_often(world, task)));
        for _ in 0..ROUNDS / 2 {
            drop(world.turns.attach_task(task.handle_ref(), Inherit::No).unwrap());
            assert_live(world.turns, watches.len());
        }
        join(threads);
        assert!(watches.iter().all(|watch| watch.read() == ROUNDS as u64));
        drop((watches, task));
        world.finish();
    });
}

/// An event comes and goes on a task that runs: the hook's data stays until the hook is through with it.
#[test]
fn data_in_a_hook_outlives_its_event() {
    check(|| {
        let world = World::new();
        let task = world.system.fork(world.site, None, 0);
        let attach = [(); 2].map(|()| {
            let handle = task.handle();
            thread::spawn(move || {
                // Refused once the task has ended.
                (0..ROUNDS).for_each(|_| drop(world.turns.attach_task(&handle, Inherit::No)));
            })
        });
        run_often(world, task);
        join(attach);
        world.finish();
    });
}

fn run_often(world: World, mut task: OwnedTask) {
    let cpu = Cpu::new(world.system);
    (0..ROUNDS).for_each(|_| cpu.run(&mut task, || {}));
}

/// Who gets a value back from a cell has it alone.
#[test]
fn a_value_taken_back_is_looked_at_by_nobody() {
    check(|| {
        let cell = Arc::new(RcuCell::<AtomicBool>::default());
        let readers = [(); 2].map(|()| {
            let cell = Arc::clone(&cell);
            thread::spawn(move || {
                for _ in 0..ROUNDS {
                    cell.with(|taken_back| {
                        for _ in 0..2 {
                            let late = taken_back.is_some_and(|taken_back| taken_back.load(SeqCst));
                            assert!(!late, "a value that was taken back");
                        }
                    });
                }
            })
        });
        for _ in 0..ROUNDS {
            let old = cell.replace(Some(Box::new(AtomicBool::new(false)))).unwrap();
            if let Some(old) = old {
                old.store(true, SeqCst);
                // Kept, so that a late look finds it.
                std::mem::forget(old);
            }
        }
        join(readers);
    });
}
