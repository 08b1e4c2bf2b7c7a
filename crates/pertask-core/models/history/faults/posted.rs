//! V4 as posted. Most of its faults need no race.

use super::*;
use crate::{Error, Inherit};
use loom::thread;

#[test]
fn v4_limits_the_events_of_a_task() {
    passes(|| {
        let ([cpu, _], task) = boot();
        let events = (0..).find(|_| (V4.attach_task)(&cpu, &task).is_err());
        assert_eq!(events, Some(v4::MAX_EVENTS + 1));
    });
}

#[test]
fn ours_does_not_limit_the_events_of_a_task() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let global = world.pmu.attach_global().unwrap();
        let events = [(); 20].map(|()| world.attach(&task.handle()).unwrap());
        world.assert_whole(&task, 20);
        drop((events, global, task));
        world.finish();
    });
}

/// Attaches two events to one task. The second attach allocates data that it does not need.
fn free_unused_data(cpu: &Cpu, task: &Task) {
    (V4.attach_task)(cpu, task).unwrap();
    (V4.attach_task)(cpu, task).unwrap();
}

#[test]
fn v4_frees_to_an_allocator_that_data_is_not_from() {
    finds(Fault::WrongAllocator, || {
        let ([cpu, _], task) = boot();
        cpu.memory().use_slob();
        free_unused_data(&cpu, &task);
    });
}

/// SLAB and SLUB find the cache by the address.
#[test]
fn v4_frees_well_without_slob() {
    passes(|| {
        let ([cpu, _], task) = boot();
        free_unused_data(&cpu, &task);
    });
}

#[test]
fn ours_frees_to_the_cache_that_data_is_from() {
    check(|| {
        let [one, two] = [World::new(), World::new()];
        let task = one.fork();
        let other = two.fork();
        let events = [one.attach(&task.handle()), two.attach(&other.handle())];
        assert_eq!([one, two].map(|world| world.pmu.cache().live()), [1, 1]);
        let [first, second] = events;
        drop((first, task));
        assert_eq!([one, two].map(|world| world.pmu.cache().live()), [0, 1]);
        drop((second, other));
        one.finish();
        two.finish();
    });
}

#[test]
fn v4_retries_only_when_nothing_failed() {
    finds(Fault::Hole, || {
        let ([cpu, _], _) = boot();
        let last = [cpu.spawn_plain(), cpu.spawn_plain()];
        cpu.memory().limit_quick(1);
        (V4.attach_global)(&cpu).expect("there is memory for who waits");
        cpu.expect_references(&last[1], 1, false);
    });
}

/// An attach that cannot give all tasks data fails, and leaves nothing behind.
#[test]
fn ours_succeeds_for_all_or_fails() {
    check(|| {
        let world = World::new();
        let tasks = [world.fork(), world.fork(), world.fork()];
        let object = world.pmu.cache().object_bytes();
        world.pmu.cache().set_limit_bytes(Some(object));
        assert!(matches!(world.pmu.attach_global(), Err(Error::CacheLimit { .. })));
        assert_eq!(world.pmu.cache().live(), 0);
        drop(tasks);
        world.finish();
    });
}

#[test]
fn v4_allocates_for_all_tasks_at_each_event() {
    passes(|| {
        let ([cpu, _], _) = boot();
        (0..2).for_each(|_| drop(cpu.spawn_plain()));
        (V4.attach_global)(&cpu).unwrap();
        assert_eq!(cpu.memory().allocated(), 3);
        (V4.attach_global)(&cpu).unwrap();
        assert_eq!(cpu.memory().allocated(), 6);
    });
}

/// Again the inverted condition: nothing failed, so V4 forgets what it allocated.
#[test]
fn v4_leaks_what_it_allocated_for_tasks_that_had_data() {
    finds(Fault::Leak, || {
        let ([cpu, _], _) = boot();
        (0..2).for_each(|_| drop(cpu.spawn_plain()));
        (0..2).for_each(|_| (V4.attach_global)(&cpu).unwrap());
        (0..2).for_each(|_| (V4.detach_global)(&cpu));
        cpu.expect_all_freed("both events are gone");
    });
}

#[test]
fn ours_allocates_nothing_for_a_second_event() {
    check(|| {
        let world = World::new();
        let tasks = [world.fork(), world.fork(), world.fork()];
        let first = world.pmu.attach_global().unwrap();
        // Not even for a moment.
        world.pmu.cache().set_limit_bytes(Some(0));
        let second = world.pmu.attach_global().unwrap();
        assert_eq!(world.pmu.cache().live(), 3);
        drop((first, second));
        assert_eq!(world.pmu.cache().live(), 0);
        drop(tasks);
        world.finish();
    });
}

/// The race that V4's own comment describes. V4's second check under the lock closes it.
#[test]
fn v4_leaves_no_data_to_a_child_without_events() {
    passes(|| {
        let ([cpu0, cpu1], parent) = boot();
        (V4.attach_global)(&cpu0).unwrap();
        let forker = thread::spawn(move || drop(fork(&V4, &cpu1, &parent)));
        (V4.detach_global)(&cpu0);
        forker.join().unwrap();
        cpu0.expect_all_freed("the event is gone");
    });
}

/// The child inherits an event before it is in the list. Its data gets the bias, and no walk removes it. The order avoids
/// finding any of V4's other faults first.
#[test]
fn v4_leaves_data_to_a_child_with_an_inherited_event() {
    finds(Fault::Leak, || {
        let ([cpu0, cpu1], parent) = boot();
        (V4.attach_global)(&cpu0).unwrap();
        let child = cpu1.new_task();
        (V4.attach_task)(&cpu1, &child).unwrap();
        (V4.detach_global)(&cpu0);
        cpu1.enter_list(&child, Some(&parent));
        (V4.fork_hook)(&cpu1, &child, &parent);
        (V4.detach_task)(&cpu1, &child);
        cpu0.expect_all_freed("both events are gone, the child lives");
    });
}

#[test]
fn ours_leaves_no_data_to_a_child_with_an_inherited_event() {
    check(|| {
        let world = World::new();
        let parent = world.fork();
        let event = world.pmu.attach_task(&parent.handle(), Inherit::Children).unwrap();
        let global = world.pmu.attach_global().unwrap();
        let handle = parent.handle();
        let forker = thread::spawn(move || {
            let child = world.fork_from(Some(&handle));
            drop(event);
            child
        });
        drop(global);
        let child = forker.join().unwrap();
        assert_eq!(world.references(&child), None, "both events are gone, the child lives");
        drop((child, parent));
        world.finish();
    });
}

/// An event is attached to a task without data, between the count of the last system-wide event and its walk.
#[test]
fn v4_detach_takes_off_a_bias_that_is_not_there() {
    finds(Fault::Underflow, || {
        let ([cpu0, cpu1], _) = boot();
        (V4.attach_global)(&cpu0).unwrap();
        // The task is in the list, and has not yet reached fork's hook.
        let child = cpu0.spawn_plain();
        let attacher = thread::spawn(move || (V4.attach_task)(&cpu1, &child).unwrap());
        (V4.detach_global)(&cpu0);
        attacher.join().unwrap();
    });
}

#[test]
fn ours_detach_takes_off_only_a_mark_that_is_there() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let global = world.pmu.attach_global().unwrap();
        let attacher = {
            let task = task.handle();
            thread::spawn(move || world.attach(&task).unwrap())
        };
        drop(global);
        let event = attacher.join().unwrap();
        assert_eq!(world.references(&task), Some((1, false)));
        drop((event, task));
        world.finish();
    });
}
