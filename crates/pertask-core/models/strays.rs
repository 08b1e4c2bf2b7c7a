//! Runs that end on another thread than the one on which they began.
//!
//! loom's threads cannot move a coroutine. So the second thread does what it would do when the run ends there.

use super::{World, check};
use crate::primitive::Arc;
use crate::task::{OwnedTask, Task};
use crate::{Cpu, Edge, Event};
use loom::thread;

/// A task whose run has begun on `cpu`, and will end on another thread.
fn suspended(world: World, cpu: &Cpu) -> (OwnedTask, Event<super::Plain>) {
    let task = world.fork();
    let event = world.attach(task.handle_ref()).unwrap();
    assert!(cpu.begin(cpu.record(), world.system, Arc::as_ptr(&task.0).cast_mut(), Edge::Turn));
    (task, event)
}

/// Ends the run of `task`, which began on `cpu`, on a thread that is not the CPU's.
fn end_elsewhere(cpu: &'static crate::CpuRecord, task: &Task) {
    crate::cpu::leave_stray(cpu, task, Edge::Turn);
}

/// The run's CPU switches in another task, while the run ends elsewhere and its task ends. The task ends once, after it has left the
/// chain.
#[test]
fn leave_stray_races_sched_in_and_exit() {
    check(|| {
        let world = World::new();
        let cpu = Cpu::new(world.system);
        let record = cpu.record();
        let (task, event) = suspended(world, &cpu);
        let elsewhere = thread::spawn(move || {
            end_elsewhere(record, &task);
            drop(task);
        });
        let mut other = world.fork();
        cpu.run(&mut other, || {});
        elsewhere.join().unwrap();
        cpu.run(&mut other, || {});
        assert_eq!(cpu.record().current_id(), None);
        assert!(!cpu.record().has_strays());
        // Once at first, once to be charged for what may have been its own, and once more if `other` ran over it.
        assert!((2..=3).contains(&event.read()), "{}", event.read());
        drop((event, other, cpu));
        world.finish();
    });
}

/// The task is polled again where its run has ended, while the first CPU takes it out of its chain: it is run there only if it is in
/// no chain.
#[test]
fn leave_stray_and_another_run_race_sched_in() {
    check(|| {
        let world = World::new();
        let cpu = Cpu::new(world.system);
        let record = cpu.record();
        let (mut task, event) = suspended(world, &cpu);
        let elsewhere = thread::spawn(move || {
            end_elsewhere(record, &task);
            let cpu = Cpu::new(world.system);
            let id = task.id();
            cpu.run(&mut task, || {
                let seen = cpu.record().current_id();
                assert!(seen.is_none() || seen == Some(id));
            });
            assert_eq!(cpu.record().current_id(), None);
            task
        });
        let mut other = world.fork();
        cpu.run(&mut other, || {});
        let task = elsewhere.join().unwrap();
        cpu.run(&mut other, || {});
        assert_eq!(cpu.record().current_id(), None);
        drop((event, task, other, cpu));
        world.finish();
    });
}

/// The thread on which the run began ends, while the run ends elsewhere. The task ends all the same, and its memory stays if the CPU
/// still has it.
#[test]
fn leave_stray_races_cpu_offline() {
    check(|| {
        let world = World::new();
        let cpu = Cpu::new(world.system);
        let record = cpu.record();
        let (task, event) = suspended(world, &cpu);
        let handle = task.handle();
        let elsewhere = thread::spawn(move || {
            end_elsewhere(record, &task);
            drop(task);
        });
        drop(cpu);
        elsewhere.join().unwrap();
        assert!(handle.has_exited());
        if handle.whereabouts().is_lost() {
            // SAFETY: the count that the CPU keeps, of which nobody makes use any more.
            unsafe { Arc::decrement_strong_count(Arc::as_ptr(&handle)) };
        }
        drop((event, handle));
        world.finish();
    });
}
