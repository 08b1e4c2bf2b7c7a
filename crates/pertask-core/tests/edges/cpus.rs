//! CPUs that come and go.

use crate::common::{site, system_with};
use crate::scene::Calls;
use pertask_core::{Cpu, CpuRecord, Pmu, Switch, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;

/// A PMU is registered while a thread comes online and another goes: each is told once, and in order.
#[test]
fn cpu_online_comes_once_and_before_cpu_offline() {
    const ROUNDS: u64 = if cfg!(miri) { 5 } else { 300 };
    for _ in 0..ROUNDS {
        let system = System::leak();
        let start = std::sync::Barrier::new(2);
        let calls = thread::scope(|scope| {
            let comes_and_goes = scope.spawn(|| {
                start.wait();
                drop(Cpu::new(system));
            });
            start.wait();
            let calls = system.register(Calls::default()).unwrap();
            comes_and_goes.join().unwrap();
            calls
        });
        let [came, went] = calls.pmu().get();
        assert!(came <= 1 && came == went, "came {came} times, went {went} times");
    }
}

/// The hook of one PMU lasts until another is registered: that one is told once.
#[test]
fn cpu_online_is_called_once_though_two_would_call_it() {
    struct Slow(AtomicUsize);
    impl Pmu for Slow {
        const NAME: &'static str = "slow";
        type Data = ();
        type CpuData = ();
        type Count = ();
        fn sched_in(&self, _: Switch<'_, Self>) {}
        fn sched_out(&self, _: Switch<'_, Self>) {}
        fn read(&self, (): &()) {}
        fn cpu_online(&self, _: &CpuRecord, (): &()) {
            self.0.store(1, SeqCst);
            while self.0.load(SeqCst) != 2 {
                thread::yield_now();
            }
        }
    }
    let (system, slow) = system_with(Slow(AtomicUsize::new(0)));
    let thread = thread::spawn(move || drop(Cpu::new(system)));
    while slow.pmu().0.load(SeqCst) != 1 {
        thread::yield_now();
    }
    let calls = system.register(Calls::default()).unwrap();
    slow.pmu().0.store(2, SeqCst);
    thread.join().unwrap();
    assert_eq!(calls.pmu().get(), [1, 1]);
}

/// While the number of switches stays the same, so does the task.
#[test]
fn one_number_of_switches_is_of_one_task() {
    const LOOKS: u64 = if cfg!(miri) { 200 } else { 2_000_000 };
    let system = System::leak();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let done = &done;
        scope.spawn(move || {
            let cpu = Cpu::new(system);
            sender.send(cpu.record()).unwrap();
            let mut tasks = [cpu.fork(site(system, "a")), cpu.fork(site(system, "b"))];
            while !done.load(SeqCst) {
                let [a, b] = &mut tasks;
                cpu.run(a, || cpu.run(b, || {}));
            }
        });
        let record: &CpuRecord = receiver.recv().unwrap();
        let mut torn = 0;
        for _ in 0..LOOKS {
            let before = record.switches();
            let ids = [record.current_id(), record.current_id()];
            torn += u64::from(record.switches() == before && ids[0] != ids[1]);
        }
        done.store(true, SeqCst);
        assert_eq!(torn, 0, "of {LOOKS} looks, that many saw two tasks at one number of switches");
    });
}
