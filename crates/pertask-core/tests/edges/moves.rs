//! Runs that end on another thread than the one on which they began.

use crate::common::{Turns, assert_live, assert_nothing_left, site, system_with};
use corosensei::{Coroutine, CoroutineResult, Yielder};
use pertask_core::{Cpu, CpuRecord, OwnedTask, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

/// A coroutine that runs a task, is suspended in that run, and returns the task after it.
type Suspended = Coroutine<(), (), OwnedTask>;

/// What runtimes of stackful coroutines do: they move one to another thread.
struct Moved<T>(T);

// SAFETY: the tests wait for one thread after the other.
unsafe impl<T> Send for Moved<T> {}

impl<T> Moved<T> {
    /// A method, so that closures take the whole and not only the field.
    fn get(self) -> T {
        self.0
    }
}

fn suspended_then(system: &'static System, after: impl FnOnce() + 'static) -> Suspended {
    let mut coroutine = Coroutine::new(move |yielder: &Yielder<(), ()>, ()| {
        let mut task = system.with_cpu(|cpu| cpu.fork(site(system, "moved")));
        let run = || {
            yielder.suspend(());
            after();
        };
        let _ = catch_unwind(AssertUnwindSafe(|| {
            system.with_cpu(|cpu| cpu.run(&mut task, run));
        }));
        task
    });
    assert!(matches!(coroutine.resume(()), CoroutineResult::Yield(())));
    coroutine
}

fn suspended(system: &'static System) -> Suspended {
    suspended_then(system, || ())
}

/// Ends the run on another thread, where `then` gets the task.
fn end_elsewhere<R: Send>(coroutine: Suspended, then: impl FnOnce(OwnedTask) -> R + Send) -> R {
    let moved = Moved(coroutine);
    let elsewhere = || {
        let mut coroutine = moved.get();
        let CoroutineResult::Return(task) = coroutine.resume(()) else { panic!("it goes on") };
        then(task)
    };
    thread::scope(|scope| scope.spawn(elsewhere).join().unwrap())
}

fn record(system: &'static System) -> &'static CpuRecord {
    system.with_cpu(Cpu::record)
}

/// Runs another task here, by which the CPU learns what has happened.
fn turn(system: &'static System) {
    let mut other = system.with_cpu(|cpu| cpu.fork(site(system, "other")));
    let id = other.id();
    let seen = system.with_cpu(|cpu| cpu.run(&mut other, || cpu.record().current_id()));
    assert_eq!(seen, Some(id));
    assert_eq!(record(system).current_id(), None);
}

/// Whether runs that have moved are noticed on this platform.
const NOTICED: bool =
    cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")));

#[test]
fn a_task_whose_run_has_moved_leaves_the_first_cpu_at_its_next_switch() {
    if !NOTICED {
        return;
    }
    for attached in [false, true] {
        let (system, turns) = system_with(Turns);
        let event = attached.then(|| turns.attach_global().unwrap());
        let coroutine = suspended(system);
        let task = end_elsewhere(coroutine, |mut task| {
            // It is run unseen for now.
            let seen = system.with_cpu(|cpu| cpu.run(&mut task, || cpu.record().current_id()));
            assert_eq!(seen, None);
            Moved(task)
        });
        let mut task = task.get();
        assert_eq!(record(system).disorders(), 1);
        assert!(record(system).has_strays());
        turn(system);
        assert!(!record(system).has_strays());
        let seen = system.with_cpu(|cpu| cpu.run(&mut task, || cpu.record().current_id()));
        assert_eq!(seen, Some(task.id()));
        // Two turns of the one, and one of the other.
        if let Some(event) = &event {
            assert_eq!(event.read(), 3);
        }
        drop((task, event));
        assert_nothing_left(turns);
    }
}

#[test]
fn a_task_that_ends_where_its_run_was_moved_ends_once_it_has_left_the_first_cpu() {
    if !NOTICED {
        return;
    }
    let (system, turns) = system_with(Turns);
    let event = turns.attach_global().unwrap();
    let coroutine = suspended(system);
    end_elsewhere(coroutine, drop);
    assert_eq!(system.live_tasks(), 1);
    turn(system);
    assert_eq!(system.live_tasks(), 0);
    assert_eq!(event.read(), 2);
    drop(event);
    assert_live(turns, 0);
}

#[test]
fn a_run_that_panics_where_it_was_moved_is_one_that_ends() {
    if !NOTICED {
        return;
    }
    let (system, turns) = system_with(Turns);
    let event = turns.attach_global().unwrap();
    let coroutine = suspended_then(system, || std::panic::resume_unwind(Box::new("told to")));
    end_elsewhere(coroutine, drop);
    turn(system);
    assert_eq!(system.live_tasks(), 0);
    drop(event);
    assert_live(turns, 0);
}

/// Several in one chain, in any order, and with a run of the first thread's own between them.
#[test]
fn many_runs_are_moved_from_one_cpu() {
    if !NOTICED {
        return;
    }
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0], [0, 2, 1], [2, 0, 1]] {
        let (system, turns) = system_with(Turns);
        let event = turns.attach_global().unwrap();
        let mut coroutines = [(); 3].map(|()| Some(suspended(system)));
        for (moved, at) in order.into_iter().enumerate() {
            end_elsewhere(coroutines[at].take().unwrap(), drop);
            if moved == 0 {
                let mut own = system.with_cpu(|cpu| cpu.fork(site(system, "own")));
                system.with_cpu(|cpu| cpu.run(&mut own, || ()));
            }
        }
        assert_eq!(record(system).disorders(), 3);
        turn(system);
        assert_eq!(system.live_tasks(), 0);
        assert_eq!(event.read(), 5);
        drop(event);
        assert_live(turns, 0);
    }
}

/// The task below it is in order, and ends as always.
#[test]
fn the_run_below_a_moved_one_ends_where_it_began() {
    if !NOTICED {
        return;
    }
    let (system, turns) = system_with(Turns);
    let event = turns.attach_global().unwrap();
    let mut below = system.with_cpu(|cpu| cpu.fork(site(system, "below")));
    system.with_cpu(|cpu| cpu.run(&mut below, || end_elsewhere(suspended(system), drop)));
    assert!(!record(system).has_strays());
    assert_eq!((record(system).current_id(), record(system).disorders()), (None, 1));
    assert_eq!((system.live_tasks(), event.read()), (1, 2));
    drop((below, event));
    assert_live(turns, 0);
}

/// The first thread ends before the run does, or after it, without another switch.
#[test]
fn the_thread_where_the_run_began_may_end() {
    if !NOTICED {
        return;
    }
    for ends_first in [true, false] {
        let (system, turns) = system_with(Turns);
        let event = turns.attach_global().unwrap();
        let began = || {
            let coroutine = suspended(system);
            if ends_first {
                return Some(Moved(coroutine));
            }
            end_elsewhere(coroutine, drop);
            None
        };
        let left = thread::scope(|scope| scope.spawn(began).join().unwrap());
        if let Some(moved) = left {
            end_elsewhere(moved.get(), |mut task| {
                system.with_cpu(|cpu| cpu.run(&mut task, || ()));
            });
        }
        assert_eq!(system.live_tasks(), 0);
        turn(system);
        drop(event);
        assert_live(turns, 0);
    }
}
