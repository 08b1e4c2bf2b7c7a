//! Runs that end on another thread than the one on which they began.
//!
//! loom's threads cannot move a coroutine. So the second thread does what it would do when the run ends there. The task ran over
//! another one, whose run goes on.

use super::{Plain, World, check};
use crate::cpu::leave_stray;
use crate::primitive::Arc;
use crate::task::OwnedTask;
use crate::{Cpu, CpuRecord, Edge, Event};
use loom::thread;

/// A CPU that runs a task and over it another one, of which the run will end on another thread.
struct Suspended {
    world: World,
    cpu: Cpu,
    below: OwnedTask,
    event: Event<Plain>,
}

fn begin(cpu: &Cpu, task: &OwnedTask) {
    assert!(cpu.begin(cpu.record(), task.system(), Arc::as_ptr(&task.0).cast_mut(), Edge::Turn));
}

impl Suspended {
    /// Returns the upper task, too.
    fn new() -> (Self, OwnedTask) {
        let world = World::new();
        let cpu = Cpu::new(world.system);
        let (below, task) = (world.fork(), world.fork());
        let event = world.attach(task.handle_ref()).unwrap();
        begin(&cpu, &below);
        begin(&cpu, &task);
        (Self { world, cpu, below, event }, task)
    }

    /// Switches in another task.
    fn turn(&self) {
        let mut other = self.world.fork();
        self.cpu.run(&mut other, || ());
    }

    /// Ends the lower task's run where it began, when nothing is left above it.
    fn finish(self) {
        let Self { world, cpu, below, event } = self;
        assert!(!cpu.record().has_strays());
        assert_eq!(cpu.record().current_id(), Some(below.id()));
        cpu.end(cpu.record(), world.system, Arc::as_ptr(&below.0), Edge::Turn);
        assert_eq!(cpu.record().current_id(), None);
        drop((event, below, cpu));
        world.finish();
    }
}

/// Ends the run of a task that is not at home on this thread.
fn end_elsewhere(record: &CpuRecord, task: &OwnedTask) {
    leave_stray(record, Arc::as_ptr(&task.0), Edge::Turn);
}

/// The run's CPU switches in another task, while the run ends elsewhere and its task ends. The task ends once, after it has left the
/// chain.
#[test]
fn leave_stray_races_sched_in_and_exit() {
    check(|| {
        let (suspended, task) = Suspended::new();
        let record = suspended.cpu.record();
        let elsewhere = thread::spawn(move || {
            end_elsewhere(record, &task);
            drop(task);
        });
        suspended.turn();
        elsewhere.join().unwrap();
        suspended.turn();
        suspended.finish();
    });
}

/// The task is polled again where its run has ended, while the first CPU takes it out of its chain: it is switched in there only if
/// it is in no chain.
#[test]
fn leave_stray_and_another_run_race_sched_in() {
    check(|| {
        let (suspended, mut task) = Suspended::new();
        let (record, world) = (suspended.cpu.record(), suspended.world);
        let elsewhere = thread::spawn(move || {
            end_elsewhere(record, &task);
            let (cpu, id) = (Cpu::new(world.system), task.id());
            cpu.run(&mut task, || {
                let seen = cpu.record().current_id();
                assert!(seen.is_none() || seen == Some(id));
            });
            assert_eq!(cpu.record().current_id(), None);
            task
        });
        suspended.turn();
        let task = elsewhere.join().unwrap();
        suspended.turn();
        drop(task);
        suspended.finish();
    });
}

/// Two runs end elsewhere at the same time.
#[test]
fn leave_stray_races_leave_stray() {
    check(|| {
        let (suspended, task) = Suspended::new();
        let second = suspended.world.fork();
        begin(&suspended.cpu, &second);
        let record = suspended.cpu.record();
        let elsewhere = thread::spawn(move || {
            end_elsewhere(record, &task);
            drop(task);
        });
        end_elsewhere(record, &second);
        drop(second);
        elsewhere.join().unwrap();
        suspended.turn();
        suspended.finish();
    });
}

/// The thread on which the run began ends, while the run ends elsewhere. The task ends all the same, and its memory stays if the CPU
/// still has it.
#[test]
fn leave_stray_races_cpu_offline() {
    check(|| {
        let (suspended, task) = Suspended::new();
        let record = suspended.cpu.record();
        let handle = task.handle();
        let elsewhere = thread::spawn(move || {
            end_elsewhere(record, &task);
            drop(task);
        });
        let Suspended { world, cpu, below, event } = suspended;
        // Switches the task out and in once more.
        let mut other = world.fork();
        cpu.run(&mut other, || ());
        drop((cpu, other));
        elsewhere.join().unwrap();
        assert!(handle.has_exited());
        if handle.whereabouts().is_lost() {
            // SAFETY: the count that the CPU keeps, of which nobody makes use any more.
            unsafe { Arc::decrement_strong_count(Arc::as_ptr(&handle)) };
        }
        drop((event, handle, below));
        world.finish();
    });
}
