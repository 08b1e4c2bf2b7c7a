//! References: which holders have one, and which of them gives it back.

use super::*;
use crate::Inherit;
use loom::thread;

/// A task's own event and the global event are attached concurrently. There are two holders.
fn attach_global_meets_attach_task(version: &'static Version) {
    let ([cpu0, cpu1], task) = boot();
    let attacher = {
        let task = Arc::clone(&task);
        thread::spawn(move || (version.attach_task)(&cpu1, &task).unwrap())
    };
    (version.attach_global)(&cpu0).unwrap();
    attacher.join().unwrap();
    cpu0.expect_references(&task, 2, true);
}

#[test]
fn sketch_takes_two_references_for_the_global_event() {
    finds(Fault::References, || attach_global_meets_attach_task(&SKETCH));
}

#[test]
fn merged_takes_two_references_for_the_global_event() {
    finds(Fault::References, || attach_global_meets_attach_task(&MERGED));
}

/// The walk goes on where it once began again, so nobody sets the mark.
#[test]
fn repaired_takes_a_reference_for_the_global_event_without_a_mark() {
    finds(Fault::References, || attach_global_meets_attach_task(&REPAIRED));
}

/// A global attach races a task's attach, and both events are detached. The model checks what is left.
fn attach_global_meets_attach_task_and_both_go(version: &'static Version) {
    let ([cpu0, cpu1], task) = boot();
    let attacher = {
        let task = Arc::clone(&task);
        thread::spawn(move || {
            (version.attach_task)(&cpu1, &task).unwrap();
            cpu1
        })
    };
    (version.attach_global)(&cpu0).unwrap();
    let cpu1 = attacher.join().unwrap();
    (version.detach_global)(&cpu0);
    (version.detach_task)(&cpu1, &task);
    cpu0.expect_all_freed("both events are gone, the task lives");
}

#[test]
fn merged_keeps_the_second_reference_until_exit() {
    finds(Fault::Leak, || attach_global_meets_attach_task_and_both_go(&MERGED));
}

#[test]
fn repaired_keeps_the_reference_without_a_mark_until_exit() {
    finds(Fault::Leak, || attach_global_meets_attach_task_and_both_go(&REPAIRED));
}

#[test]
fn ours_takes_one_reference_for_the_global_event() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let attacher = {
            let task = task.handle();
            thread::spawn(move || world.attach(&task).unwrap())
        };
        let global = world.pmu.attach_global().unwrap();
        let event = attacher.join().unwrap();
        world.assert_whole(&task, 1);
        drop((global, event));
        assert_eq!(world.references(&task), None, "both events are gone, the task lives");
        drop(task);
        world.finish();
    });
}

/// Opening an event fails for lack of memory, on a task that has another event.
fn open_fails_on_a_task_with_an_event(version: &Version) {
    let ([cpu0, cpu1], task) = boot();
    merged::open_on_task(version, &cpu0, &task).unwrap();
    cpu1.memory().set_empty(true);
    merged::open_on_task(version, &cpu1, &task).unwrap_err();
    cpu0.expect_references(&task, 1, false);
}

#[test]
fn merged_attach_that_fails_drops_anothers_reference() {
    finds(Fault::Hole, || open_fails_on_a_task_with_an_event(&MERGED));
}

#[test]
fn repaired_attach_that_fails_drops_anothers_reference_too() {
    finds(Fault::Hole, || open_fails_on_a_task_with_an_event(&REPAIRED));
}

/// An attach that needs no memory does not fail. An attach that fails gives nothing back.
#[test]
fn ours_attach_that_fails_drops_nothing() {
    check(|| {
        let world = World::new();
        let [task, other] = [world.fork(), world.fork()];
        let event = world.attach(&task.handle()).unwrap();
        world.pmu.cache().set_limit_bytes(Some(0));
        let second = world.attach(&task.handle()).unwrap();
        assert!(world.attach(&other.handle()).is_none());
        assert!(world.pmu.attach_global().is_err());
        assert_eq!(world.references(&task), Some((2, false)));
        drop((second, event, task, other));
        world.finish();
    });
}

/// A child has an inherited event, which is detached while the child's fork reaches perf's hook.
fn fork_hook_meets_detach_of_the_inherited_event(version: &'static Version) {
    let ([cpu0, cpu1], parent) = boot();
    (version.attach_global)(&cpu0).unwrap();
    let child = cpu0.new_task();
    (version.attach_task)(&cpu0, &child).unwrap();
    cpu0.enter_list(&child, Some(&parent));
    let closer = {
        let child = Arc::clone(&child);
        thread::spawn(move || (version.detach_task)(&cpu1, &child))
    };
    (version.fork_hook)(&cpu0, &child, &parent);
    closer.join().unwrap();
    cpu0.expect_references(&child, 1, true);
}

#[test]
fn merged_fork_takes_a_reference_to_dead_data() {
    finds(Fault::Revived, || fork_hook_meets_detach_of_the_inherited_event(&MERGED));
}

#[test]
fn repaired_fork_takes_a_reference_to_dead_data_too() {
    finds(Fault::Revived, || fork_hook_meets_detach_of_the_inherited_event(&REPAIRED));
}

#[test]
fn ours_fork_takes_no_reference_to_dead_data() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let global = world.pmu.attach_global().unwrap();
        let event = world.pmu.attach_task(&parent.handle(), Inherit::Children).unwrap();
        let closer = thread::spawn(move || drop(event));
        let child = world.fork_from(Some(&parent));
        world.assert_whole_or_shared(&child);
        closer.join().unwrap();
        world.assert_whole(&child, 0);
        drop((global, child, parent));
        world.finish();
    });
}
