//! The switch: which hooks are called, in which order and how often; runs that nest, panic, move between threads or
//! are left behind; and what others see of a CPU.

#![cfg(not(any(pertask_loom, pertask_shuttle)))]

mod common;

use common::{Clock, Counts, Probe, Turns, assert_nothing_left, site, system_with, unanswered};
use pertask_core::{Cpu, Edge, Inherit, OwnedTask, Pmu, PmuHandle, Switch, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::channel;
use std::thread;

/// Writes down each call of a hook.
struct Log(Mutex<Vec<Call>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    In(u64, Edge),
    Out(u64, Edge),
}
use Call::{In, Out};
use Edge::{Aside, Nested, Turn};

impl Pmu for Log {
    const NAME: &'static str = "log";
    type Data = AtomicU64;
    type CpuData = ();
    type Count = ();

    fn sched_in(&self, switch: Switch<'_, Self>) {
        self.0.lock().unwrap().push(In(switch.task.id().get(), switch.edge));
    }

    fn sched_out(&self, switch: Switch<'_, Self>) {
        self.0.lock().unwrap().push(Out(switch.task.id().get(), switch.edge));
    }

    fn read(&self, _: &AtomicU64) {}
}

/// A system with a log, its one CPU, and its first two tasks.
fn logged() -> (PmuHandle<Log>, Cpu, OwnedTask, OwnedTask) {
    let (system, log) = system_with(Log(Mutex::default()));
    let cpu = Cpu::new(system);
    let [one, two] = ["one", "two"].map(|name| cpu.fork(site(system, name)));
    (log, cpu, one, two)
}

fn taken(log: PmuHandle<Log>) -> Vec<Call> {
    std::mem::take(&mut log.pmu().0.lock().unwrap())
}

/// A system with a probe, one CPU and a task.
fn probed() -> (PmuHandle<Probe>, Clock, Cpu, OwnedTask) {
    let clock = Clock::default();
    let (system, probe) = system_with(Probe(clock.clone()));
    let cpu = Cpu::new(system);
    let task = cpu.fork(site(system, "probed"));
    (probe, clock, cpu, task)
}

fn fork_two(cpu: &Cpu, system: &System) -> [OwnedTask; 2] {
    [cpu.fork(site(system, "first")), cpu.fork(site(system, "second"))]
}

#[test]
fn hooks_of_nested_runs_come_in_order() {
    let (log, cpu, mut one, mut two) = logged();
    let event = log.attach_global().unwrap();
    cpu.run(&mut one, || cpu.run(&mut two, || {}));
    let expected =
        [In(1, Turn), Out(1, Nested), In(2, Turn), Out(2, Turn), In(1, Nested), Out(1, Turn)];
    assert_eq!(taken(log), expected);
    drop(event);
}

#[test]
fn run_aside_is_no_turn() {
    let (log, cpu, mut one, mut two) = logged();
    let event = log.attach_global().unwrap();
    cpu.run_aside(&mut one, || cpu.run(&mut two, || {}));
    let expected =
        [In(1, Aside), Out(1, Nested), In(2, Turn), Out(2, Turn), In(1, Nested), Out(1, Aside)];
    assert_eq!(taken(log), expected);
    drop(event);
}

#[test]
fn hooks_of_carried_tasks_are_those_of_runs() {
    let (log, cpu, mut one, two) = logged();
    let event = log.attach_global().unwrap();
    cpu.run(&mut one, || {
        cpu.switch_in(two).unwrap();
        let two = cpu.switch_out();
        assert_eq!(two.map(|two| two.id().get()), Some(2));
    });
    let expected =
        [In(1, Turn), Out(1, Nested), In(2, Turn), Out(2, Turn), In(1, Nested), Out(1, Turn)];
    assert_eq!(taken(log), expected);
    drop(event);
}

#[test]
fn nobody_attached_no_hook_called() {
    let (log, cpu, mut one, mut two) = logged();
    cpu.run(&mut one, || cpu.run(&mut two, || {}));
    drop(log.attach_task(&one.handle(), Inherit::No).unwrap());
    cpu.run(&mut one, || cpu.run(&mut two, || {}));
    assert_eq!(taken(log), []);
}

#[test]
fn event_attached_while_a_task_runs_is_told_that_it_leaves() {
    let (log, cpu, mut one, mut two) = logged();
    let event = cpu.run(&mut one, || log.attach_global()).unwrap();
    assert_eq!(taken(log), [Out(1, Turn)]);
    drop(event);
    // The same where a nested run comes between.
    let event = cpu.run(&mut one, || {
        let event = log.attach_global().unwrap();
        cpu.run(&mut two, || {});
        event
    });
    let expected = [Out(1, Nested), In(2, Turn), Out(2, Turn), In(1, Nested), Out(1, Turn)];
    assert_eq!(taken(log), expected);
    drop(event);
}

#[test]
fn event_detached_while_a_task_runs_is_told_that_it_leaves() {
    let (log, cpu, mut one, mut two) = logged();
    let event = log.attach_global().unwrap();
    cpu.run(&mut one, || drop(event));
    assert_eq!(taken(log), [In(1, Turn), Out(1, Turn)]);
    // A nested run comes between: what is owed is paid there, and nobody is told of more.
    let event = log.attach_global().unwrap();
    cpu.run(&mut one, || {
        drop(event);
        cpu.run(&mut two, || {});
    });
    assert_eq!(taken(log), [In(1, Turn), Out(1, Nested)]);
}

#[test]
fn only_the_attached_pmus_are_told() {
    let (log, cpu, mut one, _) = logged();
    let other = log.system().register(Log(Mutex::default())).unwrap();
    let event = other.attach_global().unwrap();
    cpu.run(&mut one, || {});
    assert_eq!(taken(log), []);
    assert_eq!(taken(other), [In(1, Turn), Out(1, Turn)]);
    // One comes and the other goes while the task runs.
    let event = cpu.run(&mut one, || {
        drop(event);
        log.attach_global()
    });
    assert_eq!(taken(log), [Out(1, Turn)]);
    assert_eq!(taken(other), [In(1, Turn), Out(1, Turn)]);
    drop(event);
}

#[test]
fn sched_out_without_sched_in_counts_no_time() {
    let (probe, clock, cpu, mut task) = probed();
    clock.advance(1000);
    let event = cpu.run(&mut task, || {
        let event = probe.attach_task(&cpu.current().unwrap(), Inherit::No).unwrap();
        clock.advance(10);
        event
    });
    assert_eq!(event.read(), Counts { left: [1, 0], ..Counts::default() });
    assert_eq!(unanswered(probe), 1);
    cpu.run(&mut task, || clock.advance(7));
    assert_eq!(event.read(), Counts { came: [1, 0], left: [2, 0], time: 7 });
    drop((event, task, cpu));
    assert_nothing_left(probe);
}

#[test]
fn time_is_the_innermosts() {
    let (probe, clock, cpu, mut outer) = probed();
    let mut inner = cpu.fork(site(probe.system(), "inner"));
    let events =
        [&outer, &inner].map(|task| probe.attach_task(&task.handle(), Inherit::No).unwrap());
    cpu.run(&mut outer, || {
        clock.advance(1);
        cpu.run(&mut inner, || clock.advance(10));
        clock.advance(100);
        cpu.run(&mut inner, || clock.advance(1000));
    });
    assert_eq!(events[0].read(), Counts { came: [1, 2], left: [1, 2], time: 101 });
    assert_eq!(events[1].read(), Counts { came: [2, 0], left: [2, 0], time: 1010 });
    drop((events, outer, inner, cpu));
    assert_nothing_left(probe);
}

#[test]
fn panic_in_a_run_ends_it_and_the_outer_task_goes_on() {
    let (probe, clock, cpu, mut outer) = probed();
    let mut inner = cpu.fork(site(probe.system(), "inner"));
    let event = probe.attach_global().unwrap();
    cpu.run(&mut outer, || {
        let inner = catch_unwind(AssertUnwindSafe(|| {
            cpu.run(&mut inner, || {
                clock.advance(5);
                std::panic::resume_unwind(Box::new("no message"));
            });
        }));
        assert!(inner.is_err());
        assert_eq!(cpu.current().map(|task| task.id()), cpu.record().current_id());
        assert_eq!(cpu.record().current_id().map(|id| id.get()), Some(1));
    });
    assert_eq!(cpu.record().current_id(), None);
    // It can be run again.
    cpu.run(&mut inner, || clock.advance(2));
    assert_eq!(event.read(), Counts { came: [3, 1], left: [3, 1], time: 7 });
    drop((event, outer, inner, cpu));
    assert_nothing_left(probe);
}

#[test]
fn panic_with_a_carried_task_left_behind() {
    let (probe, clock, cpu, mut outer) = probed();
    let inner = cpu.fork(site(probe.system(), "inner"));
    let handle = inner.handle();
    let event = probe.attach_global().unwrap();
    let run = catch_unwind(AssertUnwindSafe(|| {
        cpu.run(&mut outer, || {
            cpu.switch_in(inner).unwrap();
            clock.advance(3);
            std::panic::resume_unwind(Box::new("no message"));
        });
    }));
    assert!(run.is_err());
    assert!(handle.has_exited());
    assert_eq!(cpu.record().current_id(), None);
    assert_eq!(event.read(), Counts { came: [2, 1], left: [2, 1], time: 3 });
    drop((event, outer, cpu));
    assert_nothing_left(probe);
}

#[test]
fn run_ends_what_was_left_switched_in() {
    let (log, cpu, mut one, two) = logged();
    let three = cpu.fork(site(log.system(), "three"));
    let handles = [two.handle(), three.handle()];
    let event = log.attach_global().unwrap();
    cpu.run(&mut one, || {
        cpu.switch_in(two).unwrap();
        cpu.switch_in(three).unwrap();
    });
    assert!(handles.iter().all(|task| task.has_exited()));
    assert_eq!(cpu.record().current_id(), None);
    let expected = [
        [In(1, Turn), Out(1, Nested), In(2, Turn), Out(2, Nested), In(3, Turn)],
        [Out(3, Turn), In(2, Nested), Out(2, Turn), In(1, Nested), Out(1, Turn)],
    ];
    assert_eq!(taken(log), expected.concat());
    assert_eq!(log.system().live_tasks(), 1);
    drop(event);
}

#[test]
fn switch_out_returns_only_what_was_switched_in() {
    let (_, cpu, mut one, two) = logged();
    assert!(cpu.switch_out().is_none());
    cpu.run(&mut one, || assert!(cpu.switch_out().is_none()));
    cpu.switch_in(two).unwrap();
    // Not through a run, which is not over.
    cpu.run(&mut one, || assert!(cpu.switch_out().is_none()));
    let two = cpu.switch_out().unwrap();
    assert_eq!(two.id().get(), 2);
    assert!(!two.has_exited());
    assert!(cpu.switch_out().is_none());
}

#[test]
fn carried_task_can_be_run_afterwards() {
    let (_, cpu, _, two) = logged();
    cpu.switch_in(two).unwrap();
    let mut two = cpu.switch_out().unwrap();
    cpu.run(&mut two, || assert!(cpu.switch_out().is_none()));
    assert!(!two.has_exited());
}

#[test]
fn thread_that_ends_ends_the_task_it_carries() {
    let (probe, clock, cpu, task) = probed();
    drop(cpu);
    let handle = task.handle();
    let event = probe.attach_task(&handle, Inherit::No).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let cpu = Cpu::new(probe.system());
            cpu.switch_in(task).unwrap();
            clock.advance(4);
        });
    });
    assert!(handle.has_exited());
    assert_eq!(event.read(), Counts { came: [1, 0], left: [1, 0], time: 4 });
    drop(event);
    assert_nothing_left(probe);
}

/// The thread ends with a task switched in, on a CPU that the thread holds in its own storage; that is one of the program's system.
#[test]
fn thread_that_ends_ends_the_task_its_own_cpu_carries() {
    let turns = System::global().register(Turns).unwrap();
    let thread = thread::spawn(move || {
        Cpu::with(|cpu| {
            let task = cpu.fork(cpu.site(None, std::panic::Location::caller()));
            let event = turns.attach_task(&task.handle(), Inherit::No).unwrap();
            cpu.switch_in(task).unwrap();
            (event, cpu.current().unwrap())
        })
    });
    let (event, task) = thread.join().unwrap();
    assert!(task.has_exited());
    assert_eq!(event.read(), 1);
    drop(event);
    assert_nothing_left(turns);
}

#[test]
fn task_moves_to_another_thread_for_each_run() {
    const THREADS: u64 = 3;
    const ROUNDS: u64 = 200;
    let (probe, clock, cpu, task) = probed();
    let event = probe.attach_task(&task.handle(), Inherit::No).unwrap();
    let (home, last) = channel();
    thread::scope(|scope| {
        // A ring: each runs the task and hands it to the one before it.
        let first = (0..THREADS).fold(home, |next, _| {
            let (sender, inbox) = channel::<OwnedTask>();
            let clock = clock.clone();
            scope.spawn(move || {
                let cpu = Cpu::new(probe.system());
                for mut task in inbox {
                    cpu.run(&mut task, || clock.advance(1));
                    next.send(task).unwrap();
                }
            });
            sender
        });
        first.send(task).unwrap();
        for _ in 1..ROUNDS {
            first.send(last.recv().unwrap()).unwrap();
        }
    });
    drop(last.recv().unwrap());
    let runs = THREADS * ROUNDS;
    assert_eq!(event.read(), Counts { came: [runs, 0], left: [runs, 0], time: runs });
    drop((event, cpu));
    assert_nothing_left(probe);
}

#[test]
fn carried_task_moves_to_another_thread() {
    let (probe, _, cpu, task) = probed();
    let event = probe.attach_task(&task.handle(), Inherit::No).unwrap();
    cpu.switch_in(task).unwrap();
    let task = cpu.switch_out().unwrap();
    let task = thread::scope(|scope| {
        let there = scope.spawn(|| {
            let cpu = Cpu::new(probe.system());
            cpu.switch_in(task).unwrap();
            cpu.switch_out().unwrap()
        });
        there.join().unwrap()
    });
    cpu.switch_in(task).unwrap();
    drop(cpu);
    assert_eq!(event.read(), Counts { came: [3, 0], left: [3, 0], time: 0 });
    drop(event);
    assert_nothing_left(probe);
}

#[test]
fn current_is_seen_by_itself_and_by_others() {
    let (system, _) = system_with(Turns);
    let cpu = Cpu::new(system);
    let [mut outer, mut inner] = fork_two(&cpu, system);
    let (outer_id, inner_id) = (outer.id(), inner.id());
    let record = cpu.record();
    // Asked of another thread, which looks while this one waits.
    let seen = || {
        thread::scope(|scope| {
            scope.spawn(|| (record.current_id(), record.switches())).join().unwrap()
        })
    };
    let mine = || cpu.current().map(|task| task.id());
    let (before, switches) = seen();
    assert_eq!((before, mine()), (None, None));
    cpu.run(&mut outer, || {
        assert_eq!((seen(), mine()), ((Some(outer_id), switches + 1), Some(outer_id)));
        cpu.run(&mut inner, || {
            assert_eq!((seen(), mine()), ((Some(inner_id), switches + 2), Some(inner_id)));
        });
        assert_eq!((seen(), mine()), ((Some(outer_id), switches + 3), Some(outer_id)));
    });
    assert_eq!((seen(), mine()), ((None, switches + 4), None));
}

/// The handle that `current` returns outlives the task's turn, and the task.
#[test]
fn current_can_be_kept() {
    let (_, cpu, mut one, _) = logged();
    let kept = cpu.run(&mut one, || cpu.current()).unwrap();
    drop(one);
    assert!(kept.has_exited());
    assert_eq!(kept.id().get(), 1);
}

#[test]
fn child_of_what_runs() {
    let (log, cpu, mut one, mut two) = logged();
    let place = site(log.system(), "child");
    assert_eq!(cpu.fork(place).parent(), None);
    let of_one = cpu.run(&mut one, || cpu.fork(place));
    let of_two = cpu.run(&mut one, || cpu.run(&mut two, || cpu.fork(place)));
    assert_eq!(of_one.parent(), Some(one.id()));
    assert_eq!(of_two.parent(), Some(two.id()));
}

#[test]
fn cpu_of_an_ended_thread_is_used_again() {
    let (system, _) = system_with(Turns);
    let one = Cpu::new(system);
    let two = Cpu::new(system);
    assert_eq!((one.record().index(), two.record().index()), (0, 1));
    let record = one.record();
    assert_eq!(record.thread(), two.record().thread());
    drop(one);
    assert_eq!(record.thread(), None);
    let thread = thread::spawn(|| Cpu::new(system).record().index());
    assert_eq!(thread.join().unwrap(), 0);
    let mut cpus = 0;
    system.for_each_cpu(|_| cpus += 1);
    assert_eq!(cpus, 2);
}
