//! Pointers that are followed or compared outside a section.

use super::*;
use crate::quarantine;
use loom::thread;

/// One event is attached while another is detached.
fn attach_task_meets_detach_task(version: &'static Version) {
    let ([cpu0, cpu1], task) = boot();
    (version.attach_task)(&cpu1, &task).unwrap();
    let closer = {
        let task = Arc::clone(&task);
        thread::spawn(move || (version.detach_task)(&cpu1, &task))
    };
    (version.attach_task)(&cpu0, &task).unwrap();
    closer.join().unwrap();
    cpu0.expect_references(&task, 1, false);
}

#[test]
fn sketch_looks_at_freed_data() {
    finds(Fault::UseAfterFree, || attach_task_meets_detach_task(&SKETCH));
}

#[test]
fn merged_looks_at_freed_data() {
    finds(Fault::UseAfterFree, || attach_task_meets_detach_task(&MERGED));
}

#[test]
fn repaired_looks_at_freed_data_too() {
    finds(Fault::UseAfterFree, || attach_task_meets_detach_task(&REPAIRED));
}

#[test]
fn ours_looks_at_no_freed_data() {
    check(|| {
        quarantine::reuse_addresses();
        let world = World::new();
        let task = world.fork();
        let going = world.attach(&task.handle()).unwrap();
        let closer = thread::spawn(move || drop(going));
        let event = world.attach(&task.handle()).unwrap();
        closer.join().unwrap();
        assert_eq!(world.references(&task), Some((1, false)));
        drop((event, task));
        world.finish();
    });
}

/// One event is detached while another comes and goes, and a third is attached, whose data gets the first one's address. The
/// attaches are in sections here, as in the repaired walk, so that only the detach can be at fault.
fn detach_task_meets_a_reused_address(version: &'static Version) {
    let ([cpu0, cpu1], task) = boot();
    (version.attach_task)(&cpu1, &task).unwrap();
    let closer = {
        let task = Arc::clone(&task);
        thread::spawn(move || (version.detach_task)(&cpu1, &task))
    };
    let attach_in_section = || {
        let _section = cpu0.rcu_read_lock();
        (version.attach_task)(&cpu0, &task).unwrap();
    };
    attach_in_section();
    (version.detach_task)(&cpu0, &task);
    attach_in_section();
    closer.join().unwrap();
    cpu0.expect_references(&task, 1, false);
}

#[test]
fn sketch_detach_matches_a_reused_address() {
    finds(Fault::AddressReused, || detach_task_meets_a_reused_address(&SKETCH));
}

#[test]
fn merged_detach_matches_a_reused_address() {
    finds(Fault::AddressReused, || detach_task_meets_a_reused_address(&MERGED));
}

#[test]
fn repaired_detach_matches_a_reused_address_too() {
    finds(Fault::AddressReused, || detach_task_meets_a_reused_address(&REPAIRED));
}

#[test]
fn ours_detach_matches_no_reused_address() {
    check(|| {
        quarantine::reuse_addresses();
        let world = World::new();
        let task = world.fork();
        let going = world.attach(&task.handle()).unwrap();
        let closer = thread::spawn(move || drop(going));
        drop(world.attach(&task.handle()).unwrap());
        let event = world.attach(&task.handle()).unwrap();
        closer.join().unwrap();
        assert_eq!(world.references(&task), Some((1, false)));
        drop((event, task));
        world.finish();
    });
}
