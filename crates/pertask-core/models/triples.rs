//! Three operations at once, as the faults in the kernel's versions suggest. All use the usual bound.

use super::{World, check};
use crate::primitive::{Arc, AtomicBool, Ordering};
use loom::thread;

/// On one task: the global event is attached, another event comes and goes, and the task ends.
#[test]
fn attach_global_races_attach_task_and_exit() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let attacher = {
            let task = task.handle();
            thread::spawn(move || drop(world.attach(&task)))
        };
        let exiter = thread::spawn(move || drop(task));
        let global = world.pmu.attach_global().unwrap();
        attacher.join().unwrap();
        exiter.join().unwrap();
        drop(global);
        world.finish();
    });
}

/// On one task: the global event is attached, the task ends, and its event is detached. Exit may give back the reference that
/// has just been marked, and the event the last one, while the marking thread still looks at the data.
#[test]
fn attach_global_races_detach_task_and_exit() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let event = world.attach(&task.handle()).unwrap();
        let detacher = thread::spawn(move || drop(event));
        let exiter = thread::spawn(move || drop(task));
        let global = world.pmu.attach_global().unwrap();
        detacher.join().unwrap();
        exiter.join().unwrap();
        assert_eq!(world.pmu.cache().live(), 0, "a reference to an ended task was kept");
        drop(global);
        world.finish();
    });
}

/// On one task: the global event is attached, an event is attached, and another is detached. In every order, the global event
/// ends up with one marked reference, and each event with its own.
#[test]
fn attach_global_races_attach_task_and_detach_task() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let going = world.attach(&task.handle()).unwrap();
        let attacher = {
            let task = task.handle();
            thread::spawn(move || world.attach(&task).unwrap())
        };
        let detacher = thread::spawn(move || drop(going));
        let global = world.pmu.attach_global().unwrap();
        let event = attacher.join().unwrap();
        detacher.join().unwrap();
        world.assert_whole(&task, 1);
        drop(global);
        assert_eq!(world.references(&task), Some((1, false)));
        drop(event);
        drop(task);
        world.finish();
    });
}

/// The global event is attached while one task is forked and another ends. The first has data; the other keeps none.
#[test]
fn attach_global_races_fork_and_exit() {
    check(|| {
        let world = World::new();
        let old = world.fork();
        let exiter = thread::spawn(move || drop(old));
        let forker = thread::spawn(move || world.fork());
        let global = world.pmu.attach_global().unwrap();
        exiter.join().unwrap();
        let new = forker.join().unwrap();
        world.assert_whole(&new, 0);
        assert_eq!(world.pmu.cache().live(), 1, "an ended task was given data");
        drop(global);
        assert_eq!(world.references(&new), None);
        drop(new);
        world.finish();
    });
}

/// A global event is detached while another is attached and a task is forked. The task has data, from whichever thread.
#[test]
fn detach_global_races_fork_and_attach_global() {
    check(|| {
        let world = World::new();
        let going = world.pmu.attach_global().unwrap();
        let forker = thread::spawn(move || world.fork());
        let detacher = thread::spawn(move || drop(going));
        let global = world.pmu.attach_global().unwrap();
        detacher.join().unwrap();
        let task = forker.join().unwrap();
        world.assert_whole(&task, 0);
        drop(global);
        assert_eq!(world.references(&task), None, "data is left that only the exit would free");
        drop(task);
        world.finish();
    });
}

/// On one task: a global event is detached, another is attached, and so is an event of the task's own.
#[test]
fn detach_global_races_attach_global_and_attach_task() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let going = world.pmu.attach_global().unwrap();
        let attacher = {
            let task = task.handle();
            thread::spawn(move || world.attach(&task).unwrap())
        };
        let detacher = thread::spawn(move || drop(going));
        let global = world.pmu.attach_global().unwrap();
        let event = attacher.join().unwrap();
        detacher.join().unwrap();
        world.assert_whole(&task, 1);
        drop(global);
        assert_eq!(world.references(&task), Some((1, false)));
        drop((event, task));
        world.finish();
    });
}

/// A task is forked and run at once while the global event is attached. If the attach returned before the switch, there is
/// data.
#[test]
fn attach_global_races_fork_and_sched_in() {
    check(|| {
        let world = World::new();
        let cpu = crate::Cpu::new(world.system);
        let returned = Arc::new(AtomicBool::new(false));
        let other = {
            let returned = Arc::clone(&returned);
            thread::spawn(move || {
                let global = world.pmu.attach_global().unwrap();
                returned.store(true, Ordering::Release);
                global
            })
        };
        let mut task = world.fork();
        let whole = returned.load(Ordering::Acquire);
        cpu.run(&mut task, || {});
        assert!(!whole || world.hooks() == (2, 0), "a hole: {:?}", world.hooks());
        let global = other.join().unwrap();
        drop((task, global));
        drop(cpu);
        world.finish();
    });
}
