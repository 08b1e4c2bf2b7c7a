//! The edges: code that is not the core's panics, and calls the core from places where it should not; runs end in another
//! order than they began; threads end, and processes fork, in the middle of things. Nothing of it reaches freed memory, hangs,
//! or makes a count wrong in silence.
//!
//! Run under AddressSanitizer by `ci/stress.sh`, and under Miri by `ci/miri.sh`: all but what needs coroutines or `fork(2)`, which
//! Miri does not have.

#![cfg(not(any(pertask_loom, pertask_shuttle)))]

mod common;

use common::{Turns, alone, assert_live, assert_nothing_left, site, system_with};
use pertask_core::{
    Count, Cpu, CpuRecord, Edge, Error, Inherit, OwnedTask, Pmu, PmuHandle, Switch, System, Task,
    rcu, swallowed_panics,
};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;

/// A PMU that counts turns, and does what it is told when it is called.
#[derive(Default)]
struct Hostile {
    panics_in: AtomicUsize,
}

/// Where it may be told to panic, once.
const SCHED_IN: usize = 1;
const SCHED_OUT: usize = 2;
const READ: usize = 3;
const FOLD: usize = 4;
const ADD: usize = 5;

thread_local! {
    /// What a hook is to do next on this thread. Called once.
    static IN_HOOK: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    /// Where the next `add` is to panic.
    static PANICS_IN_ADD: Cell<bool> = const { Cell::new(false) };
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sum(u64);

impl Count for Sum {
    fn add(&mut self, other: &Self) {
        assert!(!PANICS_IN_ADD.take(), "told to, in add");
        self.0 += other.0;
    }
    fn since(&self, base: &Self) -> Self {
        Self(self.0 - base.0)
    }
}

impl Hostile {
    fn panic_in(&self, place: usize) {
        self.panics_in.store(place, SeqCst);
    }

    fn called(&self, place: usize) {
        let told = self.panics_in.compare_exchange(place, 0, SeqCst, SeqCst).is_ok();
        assert!(!told, "told to, in {place}");
    }
}

fn in_hook(act: impl FnOnce() + 'static) {
    IN_HOOK.set(Some(Box::new(act)));
}

impl Pmu for Hostile {
    const NAME: &'static str = "hostile";
    type Data = AtomicU64;
    type CpuData = ();
    type Count = Sum;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        if let (Some(turns), Edge::Turn) = (switch.data, switch.edge) {
            turns.fetch_add(1, SeqCst);
        }
        if let Some(act) = IN_HOOK.take() {
            act();
        }
        self.called(SCHED_IN);
    }

    fn sched_out(&self, _: Switch<'_, Self>) {
        if let Some(act) = IN_HOOK.take() {
            act();
        }
        self.called(SCHED_OUT);
    }

    fn read(&self, turns: &AtomicU64) -> Sum {
        self.called(READ);
        Sum(turns.load(SeqCst))
    }

    fn fold(&self, ended: &AtomicU64, totals: &AtomicU64) -> bool {
        self.called(FOLD);
        // Now and then the sum is left to the core.
        let is_even = ended.load(SeqCst).is_multiple_of(2);
        if is_even {
            totals.fetch_add(ended.load(SeqCst), SeqCst);
        }
        is_even
    }
}

struct Scene {
    system: &'static System,
    hostile: PmuHandle<Hostile>,
    /// Beside it, one that checks that each `sched_in` is answered.
    turns: PmuHandle<Turns>,
    cpu: Rc<Cpu>,
}

impl Scene {
    fn new() -> Self {
        let (system, hostile) = system_with(Hostile::default());
        let turns = system.register(Turns).unwrap();
        Self { system, hostile, turns, cpu: Rc::new(Cpu::new(system)) }
    }

    fn fork(&self, name: &str) -> OwnedTask {
        self.cpu.fork(site(self.system, name))
    }

    /// That all is as it was in the beginning.
    fn assert_nothing_left(self) {
        assert_eq!(self.cpu.record().current_id(), None);
        drop(self.cpu);
        assert_live(self.hostile, 0);
        assert_nothing_left(self.turns);
    }
}

fn panics<R>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(|| drop(f()))).is_err()
}

// Panics.

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

/// A PMU that counts how often it was told of CPUs that came and went.
#[derive(Default)]
struct Calls([AtomicU64; 2]);

impl Calls {
    fn get(&self) -> [u64; 2] {
        self.0.each_ref().map(|calls| calls.load(SeqCst))
    }
}

impl Pmu for Calls {
    const NAME: &'static str = "calls";
    type Data = ();
    type CpuData = ();
    type Count = ();
    fn sched_in(&self, _: Switch<'_, Self>) {}
    fn sched_out(&self, _: Switch<'_, Self>) {}
    fn read(&self, (): &()) {}
    fn cpu_online(&self, _: &CpuRecord, (): &()) {
        self.0[0].fetch_add(1, SeqCst);
    }
    fn cpu_offline(&self, _: &CpuRecord, (): &()) {
        self.0[1].fetch_add(1, SeqCst);
    }
}

// What a hook may call.

/// Calls `act` in the hook of each side of a switch from one task to another, with a scene of its own.
fn in_each_hook(act: impl Fn(&Cpu, PmuHandle<Hostile>) + Clone + 'static) {
    for side in 0..4 {
        let scene = Scene::new();
        let events = (scene.hostile.attach_global().unwrap(), scene.turns.attach_global().unwrap());
        let (mut outer, mut inner) = (scene.fork("outer"), scene.fork("inner"));
        let (called, is_called) = (Rc::new(Cell::new(false)), Cell::new(false));
        let arm = || {
            let (act, cpu, hostile) = (act.clone(), Rc::clone(&scene.cpu), scene.hostile);
            let called = Rc::clone(&called);
            in_hook(move || {
                act(&cpu, hostile);
                called.set(true);
            });
        };
        // Coming to an idle CPU; coming over another task; giving back; leaving.
        if side == 0 {
            arm();
        }
        scene.cpu.run(&mut outer, || {
            if side == 1 {
                arm();
            }
            scene.cpu.run(&mut inner, || {
                if side == 2 {
                    arm();
                }
            });
            if side == 3 {
                arm();
            }
        });
        is_called.set(called.get());
        assert!(is_called.get(), "the hook of side {side} was not called");
        assert!(scene.cpu.current().is_none());
        drop((outer, inner, events));
        scene.assert_nothing_left();
    }
}

#[test]
fn a_hook_that_runs_a_task_runs_it_unseen() {
    in_each_hook(|cpu, hostile| {
        let now = cpu.record().current_id();
        let mut other = cpu.fork(site(hostile.system(), "in a hook"));
        let seen = cpu.run(&mut other, || cpu.record().current_id());
        assert_eq!(seen, now);
        assert_eq!(hostile.with_data(&other, |turns| turns.load(SeqCst)), Some(0));
        cpu.run_aside(&mut other, || ());
        cpu.exit(other);
    });
}

#[test]
fn a_hook_that_switches_is_refused() {
    in_each_hook(|cpu, hostile| {
        assert!(cpu.switch_out().is_none());
        let other = cpu.fork(site(hostile.system(), "in a hook"));
        drop(cpu.switch_in(other).expect_err("refused"));
        assert!(cpu.switch_out().is_none());
    });
}

#[test]
fn a_hook_may_make_and_end_tasks_and_look_at_them() {
    in_each_hook(|cpu, hostile| {
        let mut task = cpu.fork(site(hostile.system(), "in a hook"));
        task.set_tag(7);
        cpu.set_tag(cpu.tag());
        hostile.system().for_each_task(|task| assert!(!task.has_exited()));
        assert!(hostile.system().find_task(task.id()).is_some());
        hostile
            .system()
            .for_each_cpu(|cpu| assert!(cpu.index() < 8 && cpu.current_id() != Some(task.id())));
        drop(cpu.current());
        assert_eq!(hostile.with_data(&task, |_| ()), Some(()));
        cpu.run(&mut task, || {});
        drop(task);
    });
}

#[test]
fn a_hook_may_attach_to_a_task_and_not_to_all() {
    in_each_hook(|cpu, hostile| {
        let task = cpu.fork(site(hostile.system(), "in a hook"));
        for inherit in [Inherit::No, Inherit::Children] {
            let event = hostile.attach_task(&task.handle(), inherit).unwrap();
            assert_eq!(event.read(), Sum(0));
        }
        // There is one already: this takes a reference.
        drop(hostile.attach_global().unwrap());
        let (system, other) = system_with(Turns);
        assert_eq!(other.attach_global().err(), Some(Error::InsideHook));
        assert_eq!(rcu::barrier(), Err(Error::InsideHook));
        assert_eq!(other.unregister(), Err(Error::InsideHook));
        let cell = rcu::RcuCell::default();
        assert!(cell.replace(Some(Box::new(1))).is_ok_and(|old| old.is_none()));
        assert_eq!(cell.replace(None), Err(Error::InsideHook));
        drop(Cpu::new(system));
        drop(hostile.snapshot(|_| {}));
    });
}

#[test]
fn a_hook_may_register_a_pmu_and_let_it_go_later() {
    in_each_hook(|_, hostile| {
        let late = hostile.system().register(Calls::default()).unwrap();
        assert_eq!(late.pmu().get(), [1, 0]);
    });
}

/// The last global event goes inside a hook: no wait for that hook, and no data is left.
#[test]
fn the_last_global_event_may_go_in_a_hook() {
    let scene = Scene::new();
    let own = scene.turns.attach_global().unwrap();
    let mut task = scene.fork("runs");
    let event = scene.hostile.attach_global().unwrap();
    let bystanders: Vec<_> = (0..3).map(|_| scene.fork("bystander")).collect();
    in_hook(move || drop(event));
    scene.cpu.run(&mut task, || {});
    assert_live(scene.hostile, 0);
    // Another may come, and finds all tasks.
    let event = scene.hostile.attach_global().unwrap();
    assert_live(scene.hostile, 4);
    drop((event, own, task, bystanders));
    scene.assert_nothing_left();
}

/// A run of a coroutine's ends inside a hook, and its task with it, while the hooks of a switch from that task are called.
#[cfg(not(miri))]
#[test]
fn a_run_that_ends_in_a_hook_leaves_nothing_freed_in_the_chain() {
    use corosensei::{Coroutine, CoroutineResult};
    // Below the switch: the task that is switched out, and the one that is given back to.
    for deep in [false, true] {
        let scene = Scene::new();
        let events = (scene.hostile.attach_global().unwrap(), scene.turns.attach_global().unwrap());
        let (cpu, place) = (Rc::clone(&scene.cpu), site(scene.system, "coroutine"));
        let mut coroutine = Coroutine::<(), (), ()>::new(move |yielder, ()| {
            let mut task = cpu.fork(place);
            cpu.run(&mut task, || yielder.suspend(()));
        });
        assert!(matches!(coroutine.resume(()), CoroutineResult::Yield(())));
        let mut over = scene.fork("over");
        let resume = move || assert!(matches!(coroutine.resume(()), CoroutineResult::Return(())));
        if deep {
            scene.cpu.run(&mut over, || in_hook(resume));
        } else {
            in_hook(resume);
            scene.cpu.run(&mut over, || {});
        }
        assert!(scene.cpu.current().is_none());
        assert!(scene.cpu.record().disorders() > 0);
        drop((over, events.0));
        // The PMU that checks its hooks has been told of a task that had ended.
        drop(events.1);
        assert_eq!(scene.system.live_tasks(), 0);
        assert_live(scene.hostile, 0);
        assert_live(scene.turns, 0);
    }
}

/// Code of a PMU's reads the same counts again: refused by a panic, where it would wait for itself.
#[test]
fn a_read_inside_a_read_is_refused() {
    let scene = Scene::new();
    let event = scene.hostile.attach_global().unwrap();
    let mut task = scene.fork("runs");
    let family = scene.hostile.attach_task(&task.handle(), Inherit::Children).unwrap();
    scene.cpu.run(&mut task, || {});
    let mut refused = 0;
    scene.hostile.snapshot(|_| {
        refused += usize::from(panics(|| scene.hostile.snapshot(|_| {})));
        refused += usize::from(panics(|| event.read()));
        // This one is another's.
        assert_eq!(family.read(), Sum(1));
    });
    assert_eq!(refused, 2);
    assert_eq!(event.read(), Sum(1));
    drop((family, event, task));
    scene.assert_nothing_left();
}

// Runs that end in another order than they began.

/// A coroutine that is suspended in a run, and goes on and ends inside another: both tasks' turns are counted, and the other
/// goes on.
#[cfg(not(miri))]
#[test]
fn runs_end_in_another_order_than_they_began() {
    use corosensei::{Coroutine, CoroutineResult};
    for attached in [false, true] {
        let scene = Scene::new();
        let events = attached.then(|| {
            (scene.hostile.attach_global().unwrap(), scene.turns.attach_global().unwrap())
        });
        let (cpu, place) = (Rc::clone(&scene.cpu), site(scene.system, "coroutine"));
        let ended = Rc::new(Cell::new(false));
        let mut coroutine = Coroutine::<(), (), ()>::new({
            let ended = Rc::clone(&ended);
            move |yielder, ()| {
                let mut task = cpu.fork(place);
                cpu.run(&mut task, || yielder.suspend(()));
                drop(task);
                ended.set(true);
            }
        });
        assert!(matches!(coroutine.resume(()), CoroutineResult::Yield(())));
        let mut other = scene.fork("other");
        scene.cpu.run(&mut other, || {
            assert!(matches!(coroutine.resume(()), CoroutineResult::Return(())));
            assert!(ended.get());
            assert_eq!(scene.cpu.record().current_id(), scene.cpu.current().map(|it| it.id()));
            assert_eq!(scene.cpu.current().unwrap().site().name(), Some("other"));
        });
        assert!(scene.cpu.current().is_none());
        assert_eq!(scene.cpu.record().disorders(), 1);
        if let Some((hostile, turns)) = &events {
            assert_eq!((hostile.read(), turns.read()), (Sum(2), 2));
        }
        drop((other, events, coroutine));
        scene.assert_nothing_left();
    }
}

/// Many coroutines, each suspended in a run of its own, ended in any order; with a task carried in between.
#[cfg(not(miri))]
#[test]
fn runs_of_many_coroutines_end_in_any_order() {
    use corosensei::{Coroutine, CoroutineResult};
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0], [0, 2, 1], [2, 0, 1]] {
        let scene = Scene::new();
        let events = (scene.hostile.attach_global().unwrap(), scene.turns.attach_global().unwrap());
        let mut coroutines = [(); 3].map(|()| {
            let (cpu, place) = (Rc::clone(&scene.cpu), site(scene.system, "coroutine"));
            let mut coroutine = Coroutine::<(), (), ()>::new(move |yielder, ()| {
                let mut task = cpu.fork(place);
                cpu.run(&mut task, || yielder.suspend(()));
            });
            assert!(matches!(coroutine.resume(()), CoroutineResult::Yield(())));
            coroutine
        });
        scene.cpu.switch_in(scene.fork("carried")).unwrap();
        for at in order {
            assert!(matches!(coroutines[at].resume(()), CoroutineResult::Return(())));
        }
        // What was switched in over the last run, in its turn, may have ended with it.
        drop(scene.cpu.switch_out());
        assert!(scene.cpu.current().is_none());
        assert_eq!(events.1.read(), 4);
        drop((events, coroutines));
        scene.assert_nothing_left();
    }
}

/// A coroutine that is suspended in a run is dropped, which unwinds it, when the thread's CPU has gone.
#[cfg(not(miri))]
#[test]
fn a_thread_may_end_with_a_run_suspended_on_it() {
    use corosensei::{Coroutine, CoroutineResult};
    thread_local! {
        // Made before the CPU, so destroyed after it.
        static SUSPENDED: RefCell<Option<Coroutine<(), (), ()>>> = const { RefCell::new(None) };
    }
    let turns = System::global().register(Turns).unwrap();
    let event = turns.attach_global().unwrap();
    let (before, record) = (System::global().live_tasks(), Arc::new(AtomicUsize::new(0)));
    let at = Arc::clone(&record);
    let thread = thread::spawn(move || {
        SUSPENDED.with(|_| ());
        let mut coroutine = Coroutine::new(|yielder, ()| {
            let mut task = Cpu::with(|cpu| cpu.fork(site(System::global(), "suspended")));
            Cpu::with(|cpu| cpu.run(&mut task, || yielder.suspend(())));
        });
        assert!(matches!(coroutine.resume(()), CoroutineResult::Yield(())));
        at.store(Cpu::with(|cpu| cpu.record().index() as usize), SeqCst);
        SUSPENDED.set(Some(coroutine));
    });
    thread.join().unwrap();
    assert_eq!(System::global().live_tasks(), before, "the task has ended");
    let mut disorders = 0;
    System::global().for_each_cpu(|cpu| {
        if cpu.index() as usize == record.load(SeqCst) {
            disorders = cpu.disorders();
            assert_eq!(cpu.thread(), None);
        }
    });
    assert!(disorders > 0);
    // The next thread's CPU is sound.
    let next = thread::spawn(move || {
        let mut task = Cpu::with(|cpu| cpu.fork(site(System::global(), "next")));
        Cpu::with(|cpu| cpu.run(&mut task, || {}));
    });
    next.join().unwrap();
    drop(event);
    turns.unregister().unwrap();
}

// CPUs that come and go.

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

// Holes.

/// A task that found no memory at its fork has data once somebody attaches to it, and keeps it: no count falls.
#[test]
fn an_event_of_its_own_mends_a_task_born_without_data() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let global = turns.attach_global().unwrap();
    turns.cache().set_limit_bytes(Some(0));
    let mut task = cpu.fork(site(system, "born without"));
    turns.cache().set_limit_bytes(None);
    assert_eq!(turns.tasks_without_data(), 1);
    let own = turns.attach_task(&task.handle(), Inherit::No).unwrap();
    assert_eq!(turns.tasks_without_data(), 0, "it has data now");
    cpu.run(&mut task, || {});
    assert_eq!(global.read(), 1);
    drop(own);
    assert_eq!(global.read(), 1, "a global count fell");
    cpu.run(&mut task, || {});
    assert_eq!(global.read(), 2);
    drop((task, global, cpu));
    assert_nothing_left(turns);
}

#[test]
fn a_later_global_event_mends_what_the_first_could_not() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let first = turns.attach_global().unwrap();
    turns.cache().set_limit_bytes(Some(turns.cache().object_bytes()));
    let mut tasks = [0; 3].map(|_| cpu.fork(site(system, "task")));
    assert_eq!(turns.tasks_without_data(), 2);
    // Still no memory: the event is attached, and what is missing is still counted.
    drop(turns.attach_global().unwrap());
    assert_eq!(turns.tasks_without_data(), 2);
    turns.cache().set_limit_bytes(None);
    let second = turns.attach_global().unwrap();
    assert_eq!(turns.tasks_without_data(), 0);
    tasks.iter_mut().for_each(|task| cpu.run(task, || {}));
    assert_eq!((first.read(), second.read()), (3, 3));
    drop((tasks, first, second, cpu));
    assert_nothing_left(turns);
}

/// Who stays without data is counted for good.
#[test]
fn who_stayed_without_data_stays_counted() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let global = turns.attach_global().unwrap();
    turns.cache().set_limit_bytes(Some(0));
    let (ends, stays) = (cpu.fork(site(system, "ends")), cpu.fork(site(system, "stays")));
    turns.cache().set_limit_bytes(None);
    let handle = ends.handle();
    drop(ends);
    assert_eq!(turns.tasks_without_data(), 2);
    drop(handle);
    drop(global);
    // The next session finds no hole.
    let next = turns.attach_global().unwrap();
    assert_live(turns, 1);
    assert_eq!(turns.tasks_without_data(), 2);
    drop((stays, next, cpu));
    assert_nothing_left(turns);
}

// Processes and threads that end or split in a section.

/// The child of a `fork(2)` has none of the threads that were in sections: it does not wait for them.
#[cfg(all(unix, not(miri)))]
#[test]
fn a_forked_child_waits_for_no_section_of_its_parents_threads() {
    let _alone = alone();
    let (system, turns) = system_with(Turns);
    let task = system.fork(site(system, "task"), None, 0);
    let event = turns.attach_task(&task.handle(), Inherit::No).unwrap();
    let (inside, is_inside) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let handle = task.handle();
    let thread = thread::spawn(move || {
        turns.with_data(&handle, |_| {
            inside.send(()).unwrap();
            let _ = goes_on.recv();
        });
    });
    is_inside.recv().unwrap();
    // SAFETY: the child attaches, which takes no lock that a thread of this test holds, and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // The alarm ends a child that hangs.
        // SAFETY: no memory is involved.
        unsafe { libc::alarm(20) };
        let attached = turns.attach_global().is_ok();
        let is_whole = turns.with_data(&task, |_| ()).is_some();
        let freed = rcu::barrier().is_ok();
        // SAFETY: ends the child without running its parent's destructors.
        unsafe { libc::_exit(if attached && is_whole && freed { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: writes to `status`.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    go_on.send(()).unwrap();
    thread.join().unwrap();
    drop((event, task));
    assert_live(turns, 0);
    assert!(libc::WIFEXITED(status), "the child hangs in attach_global");
    assert_eq!(libc::WEXITSTATUS(status), 0, "the child could not attach");
}

/// A thread of the parent's was at a task's end when the process forked: a snapshot in the child does not wait for it.
#[cfg(all(unix, not(miri)))]
#[test]
fn a_forked_child_waits_for_no_end_of_its_parents_threads() {
    /// Stops at an end.
    struct Stops(std::sync::Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>);
    impl Pmu for Stops {
        const NAME: &'static str = "stops";
        type Data = AtomicU64;
        type CpuData = ();
        type Count = u64;
        fn sched_in(&self, _: Switch<'_, Self>) {}
        fn sched_out(&self, _: Switch<'_, Self>) {}
        fn read(&self, turns: &AtomicU64) -> u64 {
            turns.load(SeqCst)
        }
        fn fold(&self, _: &AtomicU64, _: &AtomicU64) -> bool {
            let stop = self.0.lock().unwrap().take();
            if let Some((stopped, go_on)) = stop {
                stopped.send(()).unwrap();
                let _ = go_on.recv();
            }
            true
        }
    }
    let _alone = alone();
    let (stopped, is_stopped) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let (system, pmu) = system_with(Stops(Some((stopped, goes_on)).into()));
    let event = pmu.attach_global().unwrap();
    let task = system.fork(site(system, "ends"), None, 0);
    let thread = thread::spawn(move || drop(task));
    is_stopped.recv().unwrap();
    // SAFETY: the child reads counts, for which it takes no lock that a thread of this test holds, and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: no memory is involved. The alarm ends a child that hangs.
        unsafe { libc::alarm(20) };
        let rows = pmu.snapshot(|_| {}).len();
        // SAFETY: ends the child without running its parent's destructors.
        unsafe { libc::_exit(i32::try_from(rows).unwrap_or(1)) };
    }
    let mut status = 0;
    // SAFETY: writes to `status`.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    go_on.send(()).unwrap();
    thread.join().unwrap();
    assert!(libc::WIFEXITED(status), "the child hangs in a snapshot");
    assert_eq!(pmu.snapshot(|_| {})[0].exited, 1);
    drop(event);
    assert_live(pmu, 0);
}

/// On a thread that is ending, what is inside a section is refused what would wait for it.
#[test]
fn an_ending_thread_knows_that_it_is_in_a_section() {
    type Last = (PmuHandle<Turns>, Arc<Task>, mpsc::Sender<Vec<Option<Error>>>);
    struct AtTheEnd(Cell<Option<Last>>);
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            let Some((turns, task, told)) = self.0.take() else { return };
            let refused = turns.with_data(&task, |_| {
                let inner = turns.with_data(&task, |_| turns.attach_global().err()).flatten();
                vec![inner, turns.attach_global().err(), rcu::barrier().err()]
            });
            // Outside, it is not.
            let outside = turns.attach_global().err();
            told.send(refused.into_iter().flatten().chain([outside]).collect()).unwrap();
        }
    }
    thread_local! {
        // Made before the thread's first section, so destroyed after what is RCU's.
        static LAST: AtTheEnd = const { AtTheEnd(Cell::new(None)) };
    }
    let (system, turns) = system_with(Turns);
    let task = system.fork(site(system, "task"), None, 0);
    let event = turns.attach_task(&task.handle(), Inherit::No).unwrap();
    let (told, is_told) = mpsc::channel();
    let handle = task.handle();
    let thread = thread::spawn(move || {
        LAST.with(|last| last.0.set(Some((turns, Arc::clone(&handle), told))));
        turns.with_data(&handle, |_| ());
    });
    thread.join().unwrap();
    let inside = Some(Error::InsideHook);
    assert_eq!(is_told.recv().unwrap(), [inside, inside, inside, None]);
    drop((event, task));
    assert_live(turns, 0);
}

/// A task may be made, run and ended by the destructors of a thread that has given its CPU back.
#[test]
fn an_ending_thread_runs_tasks() {
    struct AtTheEnd;
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            let mut task = Cpu::with(|cpu| cpu.fork(site(System::global(), "late")));
            let ran = Cpu::with(|cpu| cpu.run(&mut task, || cpu.record().current_id()));
            assert_eq!(ran, Some(task.id()));
        }
    }
    thread_local! {
        static LAST: AtTheEnd = const { AtTheEnd };
    }
    let calls = System::global().register(Calls::default()).unwrap();
    let [came, went] = calls.pmu().get();
    thread::spawn(|| {
        LAST.with(|_| ());
        Cpu::with(|_| ());
    })
    .join()
    .unwrap();
    // It was a CPU, and for its last moments another; both have gone. (Other tests' threads come and go, too.)
    let [came, went] = [calls.pmu().get()[0] - came, calls.pmu().get()[1] - went];
    assert!(came >= 2 && went >= 1, "came {came} times, went {went} times");
    calls.unregister().unwrap();
}
