//! What a CPU shows to other threads, and what it hands over to the next thread.

use super::check;
use crate::{Cpu, CpuRecord, Inherit, Pmu, Switch, System};
use loom::cell::UnsafeCell;
use loom::thread;
use std::sync::atomic::AtomicU64;

/// A PMU that keeps plain numbers for its CPU: loom reports a look that is not ordered.
struct Noting;

#[derive(Default)]
struct Note {
    /// Written once, when it is made.
    whole: UnsafeCell<()>,
    /// What the thread leaves to the next.
    threads: UnsafeCell<u32>,
}

// SAFETY: what the models check: loom reports accesses that are not ordered.
unsafe impl Sync for Note {}
// SAFETY: as above.
unsafe impl Send for Note {}

impl Note {
    fn hand_over(&self) {
        // SAFETY: loom checks that nobody else is at it.
        self.threads.with_mut(|threads| unsafe { *threads += 1 });
    }

    fn look(&self) {
        self.whole.with(|_| {});
    }
}

impl Pmu for Noting {
    const NAME: &'static str = "noting";
    type Data = AtomicU64;
    type CpuData = Note;
    type Count = ();

    fn sched_in(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.look();
    }
    fn sched_out(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.look();
    }
    fn cpu_online(&self, _: &CpuRecord, note: &Note) {
        note.hand_over();
    }
    fn cpu_offline(&self, _: &CpuRecord, note: &Note) {
        note.hand_over();
    }
    fn read(&self, _: &AtomicU64) {}
}

fn finish(system: &'static System) {
    crate::rcu::stand_in::finish();
    // SAFETY: the threads have been joined and the tasks have ended.
    unsafe { system.dispose() };
}

/// A thread's CPU goes to the next thread with all that was written on it.
#[test]
fn cpu_online_races_cpu_offline() {
    check(|| {
        let system = System::leak();
        system.register(Noting).unwrap();
        let first = Cpu::new(system);
        let other = thread::spawn(move || drop(Cpu::new(system)));
        drop(first);
        other.join().unwrap();
        finish(system);
    });
}

/// A PMU is registered while a CPU runs: a hook that is called finds the CPU's data whole.
#[test]
fn register_races_sched_in() {
    check(|| {
        let system = System::leak();
        let cpu = Cpu::new(system);
        let site = system.site(None, std::panic::Location::caller());
        let mut task = system.fork(site, None, 0);
        let other = {
            let task = task.handle();
            thread::spawn(move || {
                let pmu = system.register(Noting).unwrap();
                pmu.attach_task(&task, Inherit::No).unwrap()
            })
        };
        cpu.run(&mut task, || {});
        drop(other.join().unwrap());
        drop((task, cpu));
        finish(system);
    });
}

/// Another thread counts switches: while the number stays the same, what the hooks have written is there, and the task is
/// that one or a later.
#[test]
fn current_id_races_sched_in() {
    check(|| {
        let system = System::leak();
        let cpu = Cpu::new(system);
        let site = system.site(None, std::panic::Location::caller());
        let mut task = system.fork(site, None, 0);
        let ids = [0, task.id().get()];
        let record = cpu.record();
        let reader = thread::spawn(move || {
            let switches = record.switches();
            let id = record.current_id().map_or(0, |id| id.get());
            // Of the turn's two switches, the first brings the task and the second takes it.
            match switches {
                0 => assert!(ids.contains(&id)),
                1 => assert!(ids.contains(&id)),
                _ => assert_eq!(id, 0, "older than what `switches` counts"),
            }
        });
        cpu.run(&mut task, || {});
        reader.join().unwrap();
        drop((task, cpu));
        finish(system);
    });
}
