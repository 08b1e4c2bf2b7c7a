//! What other threads see of a CPU, and what a CPU hands over to the next thread.

use super::check;
use crate::primitive::{AtomicU32, Ordering};
use crate::{Cpu, CpuRecord, Inherit, Pmu, Switch, System};
use loom::cell::UnsafeCell;
use loom::thread;
use std::sync::atomic::AtomicU64;

/// A PMU with plain per-CPU data: loom reports accesses that are not ordered.
struct Noting;

#[derive(Default)]
struct Note {
    /// Written once, when the data is made.
    whole: UnsafeCell<()>,
    /// Passed from each thread to the next.
    threads: UnsafeCell<u32>,
    /// How many hooks have run.
    hooks: AtomicU32,
}

// SAFETY: the models check this: loom reports accesses that are not ordered.
unsafe impl Sync for Note {}
// SAFETY: nothing in it is bound to a thread.
unsafe impl Send for Note {}

impl Note {
    fn hand_over(&self) {
        // SAFETY: loom reports any concurrent access.
        self.threads.with_mut(|threads| unsafe { *threads += 1 });
    }

    fn hook(&self) {
        self.whole.with(|_| {});
        // Relaxed: the models check that the switch publishes it.
        self.hooks.fetch_add(1, Ordering::Relaxed);
    }
}

impl Pmu for Noting {
    const NAME: &'static str = "noting";
    type Data = AtomicU64;
    type CpuData = Note;
    type Count = ();

    fn sched_in(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.hook();
    }
    fn sched_out(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.hook();
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

/// The next thread to have a CPU sees everything that the former thread wrote to it.
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

/// A PMU is registered while a CPU runs. A hook that is called sees the CPU's data initialised.
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

/// Another thread asks which task runs. The answer is at least as new as the number of switches, and the reader sees what the
/// hooks wrote before it.
#[test]
fn current_id_races_sched_in() {
    check(|| {
        let system = System::leak();
        let pmu = system.register(Noting).unwrap();
        let cpu = Cpu::new(system);
        let site = system.site(None, std::panic::Location::caller());
        let mut task = system.fork(site, None, 0);
        let event = pmu.attach_task(task.handle_ref(), Inherit::No).unwrap();
        let (record, task_id) = (cpu.record(), task.id());
        let hooks = move || pmu.cpu_data(record).unwrap().hooks.load(Ordering::Relaxed);
        let reader = thread::spawn(move || {
            let switches = record.switches();
            assert!(u64::from(hooks()) >= switches, "older than `switches`");
            let id = record.current_id();
            assert!(switches < 2 || id.is_none(), "older than `switches`");
            assert!(id != Some(task_id) || hooks() >= 1, "older than `current_id`");
        });
        cpu.run(&mut task, || {});
        reader.join().unwrap();
        drop((event, task, cpu));
        finish(system);
    });
}
