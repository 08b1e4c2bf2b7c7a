//! Tasks that are forked without the data that they were promised.

use super::*;
use loom::thread;

/// A thread is made while the global event is attached.
fn fork_meets_attach_global(version: &'static Version) {
    let ([cpu0, cpu1], parent) = boot();
    let forker = {
        let parent = Arc::clone(&parent);
        thread::spawn(move || fork(version, &cpu1, &parent))
    };
    (version.attach_global)(&cpu0).unwrap();
    let child = forker.join().unwrap();
    cpu0.expect_references(&parent, 1, true);
    cpu0.expect_references(&child, 1, true);
}

#[test]
fn merged_fork_behind_the_walk_gets_no_data() {
    finds(Fault::Hole, || fork_meets_attach_global(&MERGED));
}

#[test]
fn repaired_fork_behind_the_walk_gets_no_data_either() {
    finds(Fault::Hole, || fork_meets_attach_global(&REPAIRED));
}

#[test]
fn ours_fork_behind_the_walk_gets_data() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let handle = parent.handle();
        let forker = thread::spawn(move || world.fork_from(Some(&handle)));
        let global = world.pmu.attach_global().unwrap();
        world.assert_whole(&parent, 0);
        let child = forker.join().unwrap();
        world.assert_whole(&child, 0);
        drop((global, child, parent));
        world.finish();
    });
}

/// For a moment there is no memory for a child's data. Later the child makes a child of its own.
fn fork_from_a_parent_without_data(version: &Version) {
    let ([cpu, _], first) = boot();
    (version.attach_global)(&cpu).unwrap();
    cpu.memory().set_empty(true);
    let child = fork(version, &cpu, &first);
    cpu.memory().set_empty(false);
    let grandchild = fork(version, &cpu, &child);
    cpu.expect_references(&grandchild, 1, true);
}

#[test]
fn merged_parent_without_data_makes_a_family_without_data() {
    finds(Fault::Hole, || fork_from_a_parent_without_data(&MERGED));
}

#[test]
fn repaired_parent_without_data_makes_a_family_without_data_too() {
    finds(Fault::Hole, || fork_from_a_parent_without_data(&REPAIRED));
}

#[test]
fn ours_parent_without_data_makes_a_family_with_data() {
    check(|| {
        let world = World::new();
        let first = world.fork();
        let global = world.pmu.attach_global().unwrap();
        world.pmu.cache().set_limit_bytes(Some(0));
        let child = world.fork_from(Some(&first));
        assert_eq!(world.references(&child), None);
        assert_eq!(world.pmu.tasks_without_data(), 1, "the task without data is counted");
        world.pmu.cache().set_limit_bytes(None);
        let grandchild = world.fork_from(Some(&child));
        world.assert_whole(&grandchild, 0);
        drop((global, grandchild, child, first));
        world.finish();
    });
}
