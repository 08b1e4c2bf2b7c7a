//! The cost of a walk over tasks, and the threads that wait for it.

use super::*;
use crate::rcu;
use loom::thread;
use std::cell::RefCell;

/// How many visits to tasks a global attach makes, and the detach that follows, with that many tasks.
fn visits(version: &Version, tasks: usize, quick: usize) -> [usize; 2] {
    let ([cpu, _], _) = boot();
    (1..tasks).for_each(|_| drop(cpu.spawn_plain()));
    cpu.memory().limit_quick(quick);
    (version.attach_global)(&cpu).unwrap();
    let attach = cpu.visits();
    (version.detach_global)(&cpu);
    cpu.expect_all_freed("the last event is gone");
    [attach, cpu.visits() - attach]
}

/// The first task, the first two, and so on; and all of them once more, to see that no task is left.
fn restarted(tasks: usize) -> usize {
    tasks * (tasks + 1) / 2 + tasks
}

#[test]
fn sketch_walk_is_quadratic() {
    passes(|| assert_eq!(visits(&SKETCH, 10, 0), [restarted(10), 10]));
}

#[test]
fn merged_walks_are_quadratic() {
    passes(|| assert_eq!(visits(&MERGED, 10, 0), [restarted(10), restarted(10)]));
}

#[test]
fn repaired_walks_are_linear() {
    passes(|| assert_eq!(visits(&REPAIRED, 10, usize::MAX), [10, 10]));
}

#[test]
fn repaired_walk_is_quadratic_where_quick_allocations_fail() {
    passes(|| assert_eq!(visits(&REPAIRED, 10, 0), [restarted(10), 10]));
}

/// Counted in RCU sections, because each access to a slot needs one.
#[test]
fn ours_walks_are_linear() {
    fn sections(tasks: usize) -> u64 {
        // The previous world has closed the books.
        rcu::stand_in::begin();
        let world = World::new();
        let tasks = (0..tasks).map(|_| world.fork()).collect::<Vec<_>>();
        let before = rcu::stand_in::sections_begun();
        drop(world.pmu.attach_global().unwrap());
        let sections = rcu::stand_in::sections_begun() - before;
        drop(tasks);
        world.finish();
        sections
    }
    check(|| {
        let [four, eight, sixteen] = [4, 8, 16].map(sections);
        assert_eq!(sixteen - eight, 2 * (eight - four), "{four}, {eight}, {sixteen}");
    });
}

/// One of three tasks ends while the global event is attached.
fn exit_meets_attach_global(version: &'static Version) {
    let ([cpu0, cpu1], task) = boot();
    (0..2).for_each(|_| drop(cpu0.spawn_plain()));
    let exiter = thread::spawn(move || exit(version, &cpu1, &task));
    (version.attach_global)(&cpu0).unwrap();
    exiter.join().unwrap();
    cpu0.expect_no_wait(3);
}

#[test]
fn merged_exit_waits_for_a_whole_walk() {
    finds(Fault::Waited, || exit_meets_attach_global(&MERGED));
}

#[test]
fn repaired_exit_waits_for_no_walk() {
    passes(|| exit_meets_attach_global(&REPAIRED));
}

/// A task is made, beside three others, while the global event is detached.
fn fork_meets_detach_global(version: &'static Version) {
    let ([cpu0, cpu1], parent) = boot();
    (0..2).for_each(|_| drop(cpu0.spawn_plain()));
    (version.attach_global)(&cpu0).unwrap();
    let forker = thread::spawn(move || drop(fork(version, &cpu1, &parent)));
    (version.detach_global)(&cpu0);
    forker.join().unwrap();
    cpu0.expect_no_wait(3);
}

#[test]
fn merged_fork_waits_for_a_whole_walk() {
    finds(Fault::Waited, || fork_meets_detach_global(&MERGED));
}

#[test]
fn repaired_fork_waits_for_a_whole_walk_too() {
    finds(Fault::Waited, || fork_meets_detach_global(&REPAIRED));
}

/// The attach is held up until fork and exit are done, with every lock that it holds while it walks. A lock that fork or exit
/// needs would stop the model.
#[test]
fn ours_neither_fork_nor_exit_waits_for_an_attach() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let section = rcu::enter();
        let attacher = thread::spawn(move || world.pmu.attach_global().unwrap());
        drop(task);
        let new = world.fork();
        drop(section);
        let global = attacher.join().unwrap();
        world.assert_whole(&new, 0);
        drop((global, new));
        world.finish();
    });
}

/// A walk, of the kind every attach uses, is held up in its middle until fork and exit are done.
#[test]
fn ours_neither_fork_nor_exit_waits_for_a_walk() {
    check(|| {
        let world = World::new();
        let tasks = RefCell::new(vec![world.fork(), world.fork(), world.fork()]);
        let mut visits = 0;
        world.system.for_each_task(|_| {
            visits += 1;
            drop(tasks.borrow_mut().pop());
            drop(world.fork());
        });
        assert!(visits >= 2, "{visits}");
        drop(tasks.take());
        world.finish();
    });
}
