//! What a hook was given stays until the hook returns, whoever lets it go meanwhile; and who waits for memory waits for
//! the hook.

#![cfg(not(any(pertask_loom, pertask_shuttle)))]

mod common;

use common::{Turns, Waiter, alone, assert_live, site, system_with};
use pertask_core::{Cpu, Inherit, OwnedTask, Pmu, PmuHandle, Switch, System, rcu};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// More than a thread releases before it tries to free.
const MANY: usize = 1000;

/// A PMU whose `sched_in` says that it has data, and then waits to be told to go on. (No hook should wait.)
struct Stands(Mutex<Option<(Sender<()>, Receiver<()>)>>);

impl Pmu for Stands {
    const NAME: &'static str = "stands";
    type Data = AtomicU64;
    type CpuData = ();
    type Count = u64;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        let Some((stands, go_on)) = self.0.lock().unwrap().take() else { return };
        let data = switch.data.expect("an event is attached");
        stands.send(()).unwrap();
        go_on.recv().unwrap();
        data.fetch_add(1, SeqCst);
    }

    fn sched_out(&self, _: Switch<'_, Self>) {}

    fn read(&self, data: &AtomicU64) -> u64 {
        data.load(SeqCst)
    }
}

struct Scene {
    system: &'static System,
    pmu: PmuHandle<Stands>,
    task: OwnedTask,
    stands: Receiver<()>,
    go_on: Sender<()>,
}

impl Scene {
    fn new() -> Self {
        let (stands, is_standing) = channel();
        let (go_on, goes_on) = channel();
        let (system, pmu) = system_with(Stands(Mutex::new(Some((stands, goes_on)))));
        let task = system.fork(site(system, "runs"), None, 0);
        Self { system, pmu, task, stands: is_standing, go_on }
    }

    /// Does `meanwhile` while the hook stands. Nothing of it may fail before the hook goes on.
    fn beside_hook<R>(self, meanwhile: impl FnOnce() -> R) -> R {
        let Self { system, mut task, stands, go_on, .. } = self;
        // Owns `go_on`, so that the hook does not wait for ever if `meanwhile` panics.
        thread::scope(move |scope| {
            let run = scope.spawn(move || Cpu::new(system).run(&mut task, || {}));
            stands.recv().unwrap();
            let result = meanwhile();
            go_on.send(()).unwrap();
            run.join().unwrap();
            result
        })
    }
}

/// Lets threads come by that release data and free what they may.
fn free_what_may_be_freed() {
    let (system, turns) = system_with(Turns);
    let task = system.fork(site(system, "passes by"), None, 0);
    for _ in 0..MANY {
        drop(turns.attach_task(&task.handle(), Inherit::No).unwrap());
    }
}

#[test]
fn data_in_a_hook_outlives_its_event() {
    let _alone = alone();
    let scene = Scene::new();
    let pmu = scene.pmu;
    let event = pmu.attach_task(&scene.task.handle(), Inherit::No).unwrap();
    let live = scene.beside_hook(|| {
        drop(event);
        free_what_may_be_freed();
        pmu.cache().live()
    });
    assert_eq!(live, 1);
    assert_live(pmu, 0);
}

#[test]
fn data_in_a_hook_is_not_given_to_the_next_event() {
    let _alone = alone();
    let scene = Scene::new();
    let pmu = scene.pmu;
    let handle = scene.task.handle();
    let event = pmu.attach_task(&handle, Inherit::Children).unwrap();
    let (event, live) = scene.beside_hook(|| {
        drop(event);
        let next = pmu.attach_task(&handle, Inherit::No).unwrap();
        free_what_may_be_freed();
        (next, pmu.cache().live())
    });
    assert_eq!(live, 2);
    // The hook wrote to what it was given.
    assert_eq!(event.read(), 0);
    drop(event);
    assert_live(pmu, 0);
}

/// Has another thread do what is to wait for the hook and to answer then. Whether it waits: a while is enough to see what does not.
fn still_waits<R>(answer: &Receiver<R>, waits: impl FnOnce() + Send + 'static) -> bool {
    let (begin, begun) = channel();
    thread::spawn(move || {
        begin.send(Waiter::here()).unwrap();
        waits();
    });
    begun.recv().unwrap().until_it_waits();
    matches!(answer.recv_timeout(Duration::from_millis(100)), Err(RecvTimeoutError::Timeout))
}

#[test]
fn barrier_waits_for_a_hook() {
    let _alone = alone();
    let scene = Scene::new();
    let event = scene.pmu.attach_task(&scene.task.handle(), Inherit::No).unwrap();
    let (done, is_done) = channel();
    let early =
        scene.beside_hook(|| still_waits(&is_done, move || done.send(rcu::barrier()).unwrap()));
    assert!(early);
    assert_eq!(is_done.recv(), Ok(Ok(())));
    drop(event);
}

/// A first global attach waits for sections that began before it; that is no walk, and others go on beside it.
#[test]
fn fork_and_exit_go_on_while_a_global_attach_waits_for_a_hook() {
    let _alone = alone();
    let scene = Scene::new();
    let system = scene.system;
    let turns = system.register(Turns).unwrap();
    let event = scene.pmu.attach_task(&scene.task.handle(), Inherit::No).unwrap();
    let (attached, is_attached) = channel();
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    let (early, tasks) = scene.beside_hook(|| {
        let waits = still_waits(&is_attached, move || drop(attached.send(turns.attach_global())));
        let cpu = Cpu::new(system);
        let tasks: Vec<_> = (0..100).map(|_| cpu.fork(site(system, "goes on"))).collect();
        let live = tasks.into_iter().filter_map(|mut task| {
            cpu.run(&mut task, || counted.fetch_add(1, SeqCst));
            (task.id().get() % 2 == 0).then_some(task)
        });
        let live: Vec<_> = live.collect();
        (waits && is_attached.try_recv().is_err(), live)
    });
    assert!(early);
    let whole = is_attached.recv().unwrap().unwrap();
    assert_eq!(runs.load(SeqCst), 100);
    let mut with_data = 0;
    turns.snapshot(|_| with_data += 1);
    assert_eq!(with_data, tasks.len());
    drop((event, whole, tasks));
    assert_live(turns, 0);
}
