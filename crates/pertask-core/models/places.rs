//! PMUs that are registered and unregistered: how they are notified of CPUs, and what is attached through them.

use super::check;
use crate::primitive::Ordering;
use crate::{Cpu, CpuRecord, Error, Inherit, Pmu, Switch, System};
use loom::thread;
use std::panic::Location;
use std::sync::atomic::AtomicU64;

/// A PMU that counts how often it is told that a CPU comes or goes.
#[derive(Default)]
struct Told {
    calls: [crate::primitive::AtomicU64; 2],
}

impl Pmu for Told {
    const NAME: &'static str = "told";
    type Data = AtomicU64;
    type CpuData = ();
    type Count = u64;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        if let Some(turns) = switch.data {
            turns.fetch_add(1, Ordering::Relaxed);
        }
    }
    fn sched_out(&self, _: Switch<'_, Self>) {}
    fn read(&self, turns: &AtomicU64) -> u64 {
        turns.load(Ordering::Relaxed)
    }
    fn cpu_online(&self, _: &CpuRecord, (): &()) {
        let went = self.calls[1].load(Ordering::Relaxed);
        assert_eq!(went, 0, "told that a CPU comes after it was told that it goes");
        self.calls[0].fetch_add(1, Ordering::Relaxed);
    }
    fn cpu_offline(&self, _: &CpuRecord, (): &()) {
        self.calls[1].fetch_add(1, Ordering::Relaxed);
    }
}

fn finish(system: &'static System) {
    crate::rcu::stand_in::finish();
    // SAFETY: the threads have been joined and the tasks have ended.
    unsafe { system.dispose() };
}

/// A PMU is registered while a thread becomes a CPU and ends. The PMU is notified of both, once and in order, or of neither.
#[test]
fn register_races_cpu_online_and_cpu_offline() {
    check(|| {
        let system = System::leak();
        let other = thread::spawn(move || drop(Cpu::new(system)));
        let pmu = system.register(Told::default()).unwrap();
        other.join().unwrap();
        let [came, went] = [0, 1].map(|at| pmu.pmu().calls[at].load(Ordering::Relaxed));
        assert!(came <= 1 && came == went, "came {came} times, went {went} times");
        finish(system);
    });
}

/// A PMU is unregistered while an event is attached. One of the two is refused, and nothing is left.
#[test]
fn unregister_races_attach_task() {
    check(|| {
        let system = System::leak();
        let pmu = system.register(Told::default()).unwrap();
        let task = system.fork(system.site(None, Location::caller()), None, 0);
        let other = {
            let task = task.handle();
            thread::spawn(move || pmu.attach_task(&task, Inherit::No))
        };
        let gone = pmu.unregister();
        match (gone, other.join().unwrap()) {
            (Ok(()), Err(Error::Unregistered)) => {}
            (Err(Error::InUse { events: 1 }) | Ok(()), Ok(event)) if gone.is_err() => drop(event),
            (Ok(()), Ok(_)) => panic!("an event of an unregistered PMU"),
            (gone, attached) => panic!("{gone:?}, {:?}", attached.err()),
        }
        drop(task);
        assert_eq!(pmu.cache().live(), 0);
        finish(system);
    });
}

/// A PMU is unregistered while a task with its retained data is switched.
#[test]
fn unregister_races_sched_in() {
    check(|| {
        let system = System::leak();
        let pmu = system.register(Told::default()).unwrap();
        pmu.set_retention(crate::Retention::UntilExit).unwrap();
        let cpu = Cpu::new(system);
        let mut task = system.fork(system.site(None, Location::caller()), None, 0);
        drop(pmu.attach_task(task.handle_ref(), Inherit::No).unwrap());
        assert_eq!(pmu.cache().live(), 1, "the data is retained");
        let other = thread::spawn(move || pmu.unregister());
        cpu.run(&mut task, || {});
        other.join().unwrap().unwrap();
        assert_eq!(pmu.cache().live(), 0);
        drop((task, cpu));
        finish(system);
    });
}
