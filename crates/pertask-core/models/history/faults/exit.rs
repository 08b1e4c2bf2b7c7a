//! Tasks that end while other threads access their slots.

use super::*;
use loom::thread;

/// The task ends while the global event is attached, and then the event is detached.
fn exit_meets_attach_global(version: &'static Version) {
    let ([cpu0, cpu1], task) = boot();
    let exiter = thread::spawn(move || exit(version, &cpu1, &task));
    (version.attach_global)(&cpu0).unwrap();
    exiter.join().unwrap();
    (version.detach_global)(&cpu0);
    cpu0.expect_all_freed("the task is gone");
}

#[test]
fn merged_gives_data_to_a_task_after_its_exit_hook() {
    finds(Fault::Leak, || exit_meets_attach_global(&MERGED));
}

#[test]
fn repaired_gives_no_data_to_a_task_after_its_exit_hook() {
    passes(|| exit_meets_attach_global(&REPAIRED));
}

#[test]
fn ours_gives_no_data_to_a_task_after_its_exit_hook() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let exiter = thread::spawn(move || drop(task));
        let global = world.pmu.attach_global().unwrap();
        exiter.join().unwrap();
        assert_eq!(world.pmu.cache().live(), 0, "the task is gone");
        drop(global);
        world.finish();
    });
}

/// The task ends while its only event is closed. There is no global event.
fn exit_meets_detach_task(version: &'static Version) {
    let ([cpu0, cpu1], task) = boot();
    (version.attach_task)(&cpu0, &task).unwrap();
    let exiter = {
        let task = Arc::clone(&task);
        thread::spawn(move || exit(version, &cpu1, &task))
    };
    (version.detach_task)(&cpu0, &task);
    exiter.join().unwrap();
    cpu0.expect_all_freed("the task is gone");
}

#[test]
fn merged_exit_drops_a_reference_that_it_does_not_hold() {
    finds(Fault::Underflow, || exit_meets_detach_task(&MERGED));
}

#[test]
fn repaired_exit_drops_a_reference_that_it_does_not_hold_too() {
    finds(Fault::Underflow, || exit_meets_detach_task(&REPAIRED));
}

#[test]
fn ours_exit_drops_no_reference_that_it_does_not_hold() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let event = world.attach(&task.handle()).unwrap();
        world.count(&task, 3);
        let exiter = thread::spawn(move || drop(task));
        assert_eq!(event.read(), 3, "the event holds its data, whoever ends");
        drop(event);
        exiter.join().unwrap();
        world.finish();
    });
}

/// The task ends while the global event, which holds the only reference, is detached.
fn exit_meets_detach_global(version: &'static Version) {
    let ([cpu0, cpu1], task) = boot();
    (version.attach_global)(&cpu0).unwrap();
    let exiter = thread::spawn(move || exit(version, &cpu1, &task));
    (version.detach_global)(&cpu0);
    exiter.join().unwrap();
    cpu0.expect_all_freed("the task is gone, and the event");
}

#[test]
fn merged_exit_and_detach_drop_the_global_events_reference_once() {
    passes(|| exit_meets_detach_global(&MERGED));
}

/// Only the rwsem had kept them apart.
#[test]
fn repaired_exit_and_detach_drop_the_global_events_reference_twice() {
    finds(Fault::Underflow, || exit_meets_detach_global(&REPAIRED));
}

#[test]
fn ours_exit_and_detach_drop_the_global_events_reference_once() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let global = world.pmu.attach_global().unwrap();
        let exiter = thread::spawn(move || drop(task));
        drop(global);
        exiter.join().unwrap();
        world.finish();
    });
}
