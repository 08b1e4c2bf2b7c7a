//! The deferred free of a task's former data, against later operations on that task.
//!
//! A reader's section delays the free, and may end at any moment. Without a reader, the free happens at once; every model with
//! a detach has that case.

use super::{World, check};
use crate::Cpu;
use crate::rcu;
use crate::task::OwnedTask;
use loom::thread::{self, JoinHandle};

impl World {
    /// Gives the task data and takes it away, while a reader may have found the data and looks at it.
    fn retire_under_a_reader(self, task: &OwnedTask) -> JoinHandle<()> {
        let event = self.attach(&task.handle()).unwrap();
        let reader = {
            let task = task.handle();
            thread::spawn(move || {
                let section = rcu::enter();
                if let Some(data) = task.slot(0).data(section.token()) {
                    let _ = data.refcount.read();
                    data.assert_not_freed();
                }
            })
        };
        drop(event);
        reader
    }
}

/// One of the models: `during` runs after the data was retired, and the free may happen at any point in it.
fn races_deferred_free(during: impl Fn(World, OwnedTask) + Send + Sync + 'static) {
    check(move || {
        let world = World::new();
        let task = world.fork();
        let reader = world.retire_under_a_reader(&task);
        during(world, task);
        reader.join().unwrap();
        world.finish();
    });
}

#[test]
fn attach_task_and_detach_task_race_deferred_free() {
    races_deferred_free(|world, task| {
        let event = world.attach(&task.handle()).unwrap();
        assert_eq!(world.references(&task), Some((1, false)));
        drop(event);
        assert_eq!(world.references(&task), None);
    });
}

#[test]
fn attach_global_and_detach_global_race_deferred_free() {
    races_deferred_free(|world, task| {
        let event = world.pmu.attach_global().unwrap();
        world.assert_whole(&task, 0);
        drop(event);
        assert_eq!(world.references(&task), None);
    });
}

#[test]
fn exit_races_deferred_free() {
    races_deferred_free(|_, task| drop(task));
}

#[test]
fn sched_in_and_sched_out_race_deferred_free() {
    check(|| {
        let world = World::new();
        let cpu = Cpu::new(world.system);
        let mut task = world.fork();
        // So that switches call hooks.
        let event = world.pmu.attach_task(world.fork().handle_ref(), crate::Inherit::No).unwrap();
        let reader = world.retire_under_a_reader(&task);
        cpu.run(&mut task, || {});
        assert_eq!(world.hooks(), (0, 2), "data without an event");
        reader.join().unwrap();
        drop((task, event, cpu));
        world.finish();
    });
}

#[test]
fn snapshot_races_deferred_free() {
    races_deferred_free(|world, task| {
        assert!(world.pmu.snapshot(|_| {}).is_empty(), "data without an event");
        drop(task);
    });
}

/// Two objects are freed concurrently, one by the end of a section and the other by the detaching thread.
#[test]
fn deferred_free_races_deferred_free() {
    races_deferred_free(|world, task| {
        let other = world.retire_under_a_reader(&task);
        other.join().unwrap();
        drop(task);
    });
}
