//! Code that is not the core's panics.

use crate::common::{Turns, assert_live, assert_nothing_left, site, system_with};
use crate::scene::{
    ADD, Calls, FOLD, IN_HOOK, PANICS_IN_ADD, READ, SCHED_IN, SCHED_OUT, Scene, in_hook, panics,
};
use pertask_core::{Cpu, CpuRecord, Error, Inherit, Pmu, Switch, System, swallowed_panics};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

/// Wherever the PMU panics as a task ends: the task is out of the table, its slots and families have ended, and the other PMU
/// has its counts.
#[test]
fn a_task_ends_also_if_the_pmu_panics() {
    for (place, shared) in [READ, FOLD, ADD].into_iter().flat_map(|at| [(at, false), (at, true)]) {
        let scene = Scene::new();
        let events = (scene.hostile.attach_global().unwrap(), scene.turns.attach_global().unwrap());
        let mut task = scene.fork("ends");
        scene.cpu.run(&mut task, || {});
        let handle = shared.then(|| task.handle());
        let family = handle.as_ref().map(|it| scene.hostile.attach_task(it, Inherit::Children));
        match place {
            ADD => PANICS_IN_ADD.set(true),
            place => scene.hostile.pmu().panic_in(place),
        }
        assert!(panics(|| drop(task)), "at {place}: the panic goes on");
        assert_eq!(scene.system.live_tasks(), 0, "at {place}");
        scene.system.for_each_task(|task| panic!("a walk finds {task:?}"));
        if let Some(handle) = &handle {
            assert!(handle.has_exited());
            assert_eq!(
                scene.hostile.attach_task(handle, Inherit::No).err(),
                Some(Error::TaskExited)
            );
        }
        assert_eq!(events.1.read(), 1, "the other PMU has it, at {place}");
        drop((family, events, handle));
        scene.assert_nothing_left();
    }
}

/// While another panic is on its way, that of the PMU ends in the core, and is counted.
#[test]
fn a_second_panic_as_a_task_ends_aborts_nothing() {
    let scene = Scene::new();
    let event = scene.hostile.attach_global().unwrap();
    let (task, before) = (scene.fork("ends"), swallowed_panics());
    scene.hostile.pmu().panic_in(FOLD);
    let first = catch_unwind(AssertUnwindSafe(|| {
        let _task = task;
        std::panic::panic_any("the first");
    }));
    assert_eq!(first.unwrap_err().downcast_ref(), Some(&"the first"));
    assert!(swallowed_panics() > before);
    assert_eq!(scene.system.live_tasks(), 0);
    drop(event);
    scene.assert_nothing_left();
}

/// A hook panics: its task has come or gone all the same, and the other PMU has had its hooks.
#[test]
fn a_switch_is_finished_also_if_a_hook_panics() {
    for place in [SCHED_IN, SCHED_OUT] {
        let scene = Scene::new();
        let events = (scene.hostile.attach_global().unwrap(), scene.turns.attach_global().unwrap());
        let mut task = scene.fork("runs");
        scene.hostile.pmu().panic_in(place);
        assert!(panics(|| scene.cpu.run(&mut task, || {})), "the panic goes on");
        assert!(scene.cpu.current().is_none(), "the run has ended");
        scene.cpu.run(&mut task, || {});
        assert_eq!(events.1.read(), 2);
        // Carried, and nested.
        let mut inner = scene.fork("nested");
        assert!(scene.cpu.switch_in(task).is_ok());
        scene.hostile.pmu().panic_in(place);
        assert!(panics(|| scene.cpu.run(&mut inner, || {})));
        let task = scene.cpu.switch_out().expect("the nested run has ended, the task goes on");
        scene.hostile.pmu().panic_in(place);
        let is_in = panics(|| scene.cpu.switch_in(task).is_ok());
        assert_eq!(is_in, place == SCHED_IN);
        assert_eq!(panics(|| scene.cpu.switch_out()), place == SCHED_OUT);
        drop((inner, scene.cpu.switch_out(), events));
        scene.assert_nothing_left();
    }
}

/// A hook, or the end of a task, panics as what was left over a run ends with it: the run's own task has left the chain, too.
#[test]
fn a_run_leaves_the_chain_also_if_what_it_left_behind_panics() {
    for place in [SCHED_OUT, FOLD] {
        let scene = Scene::new();
        let events = (scene.hostile.attach_global().unwrap(), scene.turns.attach_global().unwrap());
        let mut task = scene.fork("runs");
        let ran = panics(|| {
            scene.cpu.run(&mut task, || {
                (0..3).for_each(|_| scene.cpu.switch_in(scene.fork("left behind")).unwrap());
                scene.hostile.pmu().panic_in(place);
            });
        });
        assert!(ran, "the panic goes on");
        assert!(scene.cpu.current().is_none(), "at {place}");
        assert_eq!(scene.system.live_tasks(), 1);
        drop((task, events));
        scene.assert_nothing_left();
    }
}

/// The closure panics, and then the hook does: one panic arrives.
#[test]
fn a_hook_that_panics_after_the_run_has_aborts_nothing() {
    let scene = Scene::new();
    let events = (scene.hostile.attach_global().unwrap(), scene.turns.attach_global().unwrap());
    let (mut task, before) = (scene.fork("runs"), swallowed_panics());
    scene.hostile.pmu().panic_in(SCHED_OUT);
    let first = catch_unwind(AssertUnwindSafe(|| {
        scene.cpu.run(&mut task, || std::panic::panic_any("the first"))
    }));
    assert_eq!(first.unwrap_err().downcast_ref(), Some(&"the first"));
    assert!(swallowed_panics() > before);
    drop((task, events));
    scene.assert_nothing_left();
}

/// A PMU panics in an attach: nothing is left of it.
#[test]
fn an_attach_that_panics_leaves_nothing_behind() {
    for inherit in [Inherit::No, Inherit::Children] {
        let scene = Scene::new();
        let mut task = scene.fork("attached to");
        scene.hostile.pmu().panic_in(READ);
        assert!(panics(|| scene.hostile.attach_task(&task.handle(), inherit)));
        assert_live(scene.hostile, 0);
        in_hook(|| panic!("a hook is called, and nothing is attached"));
        scene.cpu.run(&mut task, || {});
        IN_HOOK.take();
        drop(task);
        scene.assert_nothing_left();
    }
}

/// What a PMU keeps for a CPU cannot be made: the PMU is not registered, and the next one finds its place untouched.
#[test]
fn cpu_data_that_panics_leaves_its_place_to_the_next() {
    struct Fragile;
    static MADE: AtomicUsize = AtomicUsize::new(0);
    struct Numbers([usize; 3]);
    impl Default for Numbers {
        fn default() -> Self {
            assert_ne!(MADE.fetch_add(1, SeqCst), 1, "the second of two");
            Self([0x4141; 3])
        }
    }
    impl Pmu for Fragile {
        const NAME: &'static str = "fragile";
        type Data = AtomicU64;
        type CpuData = Numbers;
        type Count = ();
        fn sched_in(&self, switch: Switch<'_, Self>) {
            assert_eq!(switch.cpu_data.0, [0x4141; 3]);
        }
        fn sched_out(&self, _: Switch<'_, Self>) {}
        fn read(&self, _: &AtomicU64) {}
    }
    let system = System::leak();
    let cpus = [Cpu::new(system), Cpu::new(system)];
    assert!(panics(|| system.register(Fragile)));
    let turns = system.register(Turns).unwrap();
    let event = turns.attach_global().unwrap();
    let mut task = cpus[0].fork(site(system, "task"));
    cpus.iter().for_each(|cpu| cpu.run(&mut task, || {}));
    assert_eq!(event.read(), 2);
    drop((task, event, cpus));
    assert_nothing_left(turns);
}

/// `cpu_online` panics: all other CPUs and PMUs are told, and the CPU is one.
#[test]
fn cpu_online_that_panics_keeps_nobody_from_being_told() {
    struct Afraid(AtomicU64);
    impl Pmu for Afraid {
        const NAME: &'static str = "afraid";
        type Data = ();
        type CpuData = ();
        type Count = ();
        fn sched_in(&self, _: Switch<'_, Self>) {}
        fn sched_out(&self, _: Switch<'_, Self>) {}
        fn read(&self, (): &()) {}
        fn cpu_online(&self, _: &CpuRecord, (): &()) {
            self.0.fetch_add(1, SeqCst);
            panic!("told to, in cpu_online");
        }
    }
    let (system, watch) = system_with(Calls::default());
    let cpu = Cpu::new(system);
    assert!(panics(|| system.register(Afraid(AtomicU64::new(0)))));
    let second = system.register(Calls::default()).unwrap();
    assert!(panics(|| Cpu::new(system)), "the panic goes on, and the CPU goes again");
    assert_eq!((watch.pmu().get(), second.pmu().get()), ([2, 1], [2, 1]));
    drop(cpu);
    assert_eq!((watch.pmu().get(), second.pmu().get()), ([2, 2], [2, 2]));
}
