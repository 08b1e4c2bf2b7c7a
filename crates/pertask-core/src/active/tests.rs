//! A PMU without events costs nothing: when an event ends, or an attach fails, the event is no longer counted and no hook runs.

use super::*;
use crate::{Cpu, Event, Inherit, OwnedTask, Pmu, PmuHandle, Retention, Switch, System, Task};
use bytemuck::Zeroable;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex as StdMutex};
use std::thread;

/// A PMU that counts the calls of its hooks, and in the next call does what a test tells it.
struct Told<D> {
    calls: AtomicU64,
    next: StdMutex<Option<Box<dyn FnOnce() + Send>>>,
    data: PhantomData<fn() -> D>,
}

impl<D: Zeroable + Send + Sync + 'static> Told<D> {
    fn register(system: &'static System) -> PmuHandle<Self> {
        let (calls, next) = (AtomicU64::new(0), StdMutex::new(None));
        system.register(Self { calls, next, data: PhantomData }).unwrap()
    }

    fn tell(&self) {
        self.calls.fetch_add(1, SeqCst);
        let next = self.next.lock().unwrap().take();
        if let Some(next) = next {
            next();
        }
    }

    /// How often hooks were called while `f` ran.
    fn calls_in(&self, f: impl FnOnce()) -> u64 {
        let before = self.calls.load(SeqCst);
        f();
        self.calls.load(SeqCst) - before
    }
}

impl<D: Zeroable + Send + Sync + 'static> Pmu for Told<D> {
    const NAME: &'static str = "told";
    type Data = D;
    type CpuData = ();
    type Count = ();

    fn sched_in(&self, _: Switch<'_, Self>) {
        self.tell();
    }
    fn sched_out(&self, _: Switch<'_, Self>) {
        self.tell();
    }
    fn read(&self, _: &D) {}
}

/// A system with three PMUs. The second keeps no data.
struct Scene {
    system: &'static System,
    cpu: Cpu,
    pmu: PmuHandle<Told<AtomicU64>>,
    hollow: PmuHandle<Told<()>>,
    other: PmuHandle<Told<AtomicU64>>,
}

impl Scene {
    fn new() -> Self {
        let system = System::leak();
        let cpu = Cpu::new(system);
        let (pmu, hollow) = (Told::register(system), Told::register(system));
        Self { system, cpu, pmu, hollow, other: Told::register(system) }
    }

    fn fork(&self) -> OwnedTask {
        self.cpu.fork(self.cpu.site(None, Location::caller()))
    }

    /// A handle to a task that has ended.
    fn ended(&self) -> Arc<Task> {
        self.fork().handle()
    }

    /// Asserts how many events each of the three PMUs has, and that one run calls the hooks of those with events twice.
    #[track_caller]
    fn assert_events(&self, expected: [u32; 3]) {
        let states = [&self.pmu.0.state, &self.hollow.0.state, &self.other.0.state];
        assert_eq!(states.map(|state| state.events.count()), expected, "events of each PMU");
        let has_any = |(pmu, events): (usize, u32)| u32::from(events != 0) << pmu;
        let mask = expected.into_iter().enumerate().map(has_any).sum();
        assert_eq!(self.system.active_mask(), mask, "PMUs with events");
        let mut task = self.fork();
        let mut calls = [0; 3];
        calls[0] = self.pmu.pmu().calls_in(|| {
            calls[1] = self.hollow.pmu().calls_in(|| {
                calls[2] = self.other.pmu().calls_in(|| self.cpu.run(&mut task, || {}));
            });
        });
        assert_eq!(calls, expected.map(|events| 2 * u64::from(events != 0)), "calls of hooks");
    }

    /// Asserts that nothing is attached, and that a run calls no hook.
    #[track_caller]
    fn assert_idle(&self) {
        self.assert_events([0; 3]);
    }
}

const BOTH: [Inherit; 2] = [Inherit::No, Inherit::Children];

#[test]
fn event_on_a_task() {
    let scene = Scene::new();
    scene.assert_idle();
    for inherit in BOTH {
        let task = scene.fork();
        let attach = || scene.pmu.attach_task(task.handle_ref(), inherit).unwrap();
        let [one, two] = [attach(), attach()];
        scene.assert_events([2, 0, 0]);
        drop(one);
        scene.assert_events([1, 0, 0]);
        drop(two);
        scene.assert_idle();
    }
}

#[test]
fn event_on_a_task_that_ends_first() {
    let scene = Scene::new();
    for inherit in BOTH {
        let task = scene.fork();
        let event = scene.pmu.attach_task(task.handle_ref(), inherit).unwrap();
        drop(task);
        // The event can still be read, so it is still attached.
        scene.assert_events([1, 0, 0]);
        drop(event);
        scene.assert_idle();
    }
}

#[test]
fn inherited_event_is_one_however_many_tasks_share_it() {
    let scene = Scene::new();
    let mut root = scene.fork();
    let attach = |task: &OwnedTask| {
        let event = scene.pmu.attach_task(task.handle_ref(), Inherit::Children);
        event.unwrap()
    };
    let [one, two] = [attach(&root), attach(&root)];
    let mut child = scene.cpu.run(&mut root, || scene.fork());
    let grandchild = scene.cpu.run(&mut child, || scene.fork());
    scene.assert_events([2, 0, 0]);
    drop(one);
    scene.assert_events([1, 0, 0]);
    drop((root, child));
    scene.assert_events([1, 0, 0]);
    drop(two);
    scene.assert_idle();
    drop(grandchild);
    scene.assert_idle();
}

#[test]
fn global_events_in_either_order() {
    let scene = Scene::new();
    let task = scene.fork();
    for first_goes_first in [true, false] {
        let mut events = [(); 2].map(|()| scene.pmu.attach_global().unwrap());
        scene.assert_events([2, 0, 0]);
        if first_goes_first {
            events.reverse();
        }
        let [goes_last, goes_first] = events;
        drop(goes_first);
        scene.assert_events([1, 0, 0]);
        drop(goes_last);
        scene.assert_idle();
    }
    drop(task);
    scene.assert_idle();
}

#[test]
fn events_of_a_pmu_without_data() {
    let scene = Scene::new();
    let task = scene.fork();
    let own = BOTH.map(|inherit| scene.hollow.attach_task(task.handle_ref(), inherit).unwrap());
    let global = [(); 2].map(|()| scene.hollow.attach_global().unwrap());
    scene.assert_events([0, 4, 0]);
    drop(own);
    scene.assert_events([0, 2, 0]);
    drop(task);
    drop(global);
    scene.assert_idle();
}

#[test]
fn events_of_several_pmus() {
    let scene = Scene::new();
    let task = scene.fork();
    let one = scene.pmu.attach_task(task.handle_ref(), Inherit::No).unwrap();
    let hollow = scene.hollow.attach_global().unwrap();
    let other = scene.other.attach_global().unwrap();
    scene.assert_events([1, 1, 1]);
    drop(hollow);
    scene.assert_events([1, 0, 1]);
    drop(one);
    scene.assert_events([0, 0, 1]);
    drop(other);
    scene.assert_idle();
}

/// Data that is retained for the next event costs a switch nothing.
#[test]
fn event_whose_data_is_retained() {
    let scene = Scene::new();
    let task = scene.fork();
    scene.pmu.set_retention(Retention::UntilExit).unwrap();
    drop(scene.pmu.attach_task(task.handle_ref(), Inherit::No).unwrap());
    scene.assert_idle();
    drop(scene.pmu.attach_global().unwrap());
    scene.assert_idle();
    assert!(scene.pmu.with_data(&task, |_| ()).is_some());
    scene.pmu.set_retention(Retention::UntilDetached).unwrap();
    scene.assert_idle();
}

/// Asserts that an attach is refused, once with nothing attached and once beside other events.
#[track_caller]
fn assert_refused<P: Pmu>(
    scene: &Scene,
    refused: Error,
    attach: impl Fn() -> Result<Event<P>, Error>,
) {
    assert_eq!(attach().err(), Some(refused));
    scene.assert_idle();
    let beside = [scene.pmu.attach_global().unwrap(), scene.other.attach_global().unwrap()];
    assert_eq!(attach().err(), Some(refused));
    scene.assert_events([1, 0, 1]);
    drop(beside);
    scene.assert_idle();
}

#[test]
fn refused_because_the_task_has_ended() {
    let scene = Scene::new();
    let ended = scene.ended();
    for inherit in BOTH {
        assert_refused(&scene, Error::TaskExited, || scene.pmu.attach_task(&ended, inherit));
        assert_refused(&scene, Error::TaskExited, || scene.hollow.attach_task(&ended, inherit));
    }
}

#[test]
fn refused_because_the_task_is_of_another_system() {
    let (scene, elsewhere) = (Scene::new(), Scene::new());
    let stranger = elsewhere.fork();
    for inherit in BOTH {
        let refused = Error::OtherSystem;
        assert_refused(&scene, refused, || scene.pmu.attach_task(stranger.handle_ref(), inherit));
        assert_refused(&scene, refused, || {
            scene.hollow.attach_task(stranger.handle_ref(), inherit)
        });
        elsewhere.assert_idle();
    }
}

#[test]
fn refused_because_the_cache_is_full() {
    let scene = Scene::new();
    let tasks = [scene.fork(), scene.fork()];
    let cache = scene.pmu.cache();
    // There is memory for the data of one task.
    let limit_bytes = cache.object_bytes();
    cache.set_limit_bytes(Some(limit_bytes));
    let refused = Some(Error::CacheLimit { pmu: "told", limit_bytes });
    assert_eq!(scene.pmu.attach_global().err(), refused);
    scene.assert_idle();
    crate::rcu::barrier().unwrap();
    let event = scene.pmu.attach_task(tasks[0].handle_ref(), Inherit::No).unwrap();
    for inherit in BOTH {
        assert_eq!(scene.pmu.attach_task(tasks[1].handle_ref(), inherit).err(), refused);
        scene.assert_events([1, 0, 0]);
    }
    assert_eq!(scene.pmu.attach_global().err(), refused);
    scene.assert_events([1, 0, 0]);
    drop(event);
    scene.assert_idle();
}

/// The child gets no data, and nothing of its own is counted. The event detaches as usual.
#[test]
fn inherited_event_that_a_child_is_refused() {
    let scene = Scene::new();
    let mut root = scene.fork();
    let event = scene.pmu.attach_task(root.handle_ref(), Inherit::Children).unwrap();
    scene.pmu.cache().set_limit_bytes(Some(0));
    let child = scene.cpu.run(&mut root, || scene.fork());
    assert_eq!(event.lost(), 1);
    scene.assert_events([1, 0, 0]);
    drop(child);
    drop(event);
    scene.assert_idle();
}

#[test]
fn refused_in_a_section() {
    let scene = Scene::new();
    let task = scene.fork();
    let holds = scene.other.attach_task(task.handle_ref(), Inherit::No).unwrap();
    scene.other.with_data(&task, |_| {
        assert_eq!(scene.pmu.attach_global().err(), Some(Error::InsideHook));
        assert_eq!(scene.hollow.attach_global().err(), Some(Error::InsideHook));
    });
    scene.assert_events([0, 0, 1]);
    drop(holds);
    scene.assert_idle();
}

/// Runs `in_hook` in a hook of the other PMU.
fn in_a_hook(scene: &Scene, in_hook: impl FnOnce() + Send + 'static) {
    let event = scene.other.attach_global().unwrap();
    *scene.other.pmu().next.lock().unwrap() = Some(Box::new(in_hook));
    scene.cpu.run(&mut scene.fork(), || {});
    assert!(scene.other.pmu().next.lock().unwrap().is_none(), "no hook was called");
    drop(event);
}

#[test]
fn refused_in_a_hook() {
    let scene = Scene::new();
    let (pmu, hollow) = (scene.pmu, scene.hollow);
    let refused = Arc::new(StdMutex::new(Vec::new()));
    let tell = Arc::clone(&refused);
    in_a_hook(&scene, move || {
        let all = [pmu.attach_global().err(), hollow.attach_global().err()];
        tell.lock().unwrap().extend(all);
    });
    assert_eq!(*refused.lock().unwrap(), [Some(Error::InsideHook); 2]);
    scene.assert_idle();
}

/// A hook should not do this, but it does no harm.
#[test]
fn attached_and_dropped_in_a_hook() {
    let scene = Scene::new();
    let (pmu, task) = (scene.pmu, scene.fork());
    let (handle, global) = (task.handle(), pmu.attach_global().unwrap());
    in_a_hook(&scene, move || {
        for inherit in BOTH {
            drop(pmu.attach_task(&handle, inherit).unwrap());
        }
        drop(global);
    });
    scene.assert_idle();
}

#[test]
fn refused_because_the_pmu_has_been_let_go() {
    let scene = Scene::new();
    let task = scene.fork();
    let event = scene.pmu.attach_global().unwrap();
    assert_eq!(scene.pmu.unregister(), Err(Error::InUse { events: 1 }));
    scene.assert_events([1, 0, 0]);
    drop(event);
    assert_eq!(scene.pmu.unregister(), Ok(()));
    scene.assert_idle();
    assert_eq!(scene.pmu.attach_global().err(), Some(Error::Unregistered));
    for inherit in BOTH {
        let refused = scene.pmu.attach_task(task.handle_ref(), inherit).err();
        assert_eq!(refused, Some(Error::Unregistered));
    }
    scene.assert_idle();
}

#[test]
fn event_that_is_reset() {
    let scene = Scene::new();
    let task = scene.fork();
    let attach = |inherit| scene.pmu.attach_task(task.handle_ref(), inherit).unwrap();
    let [mut own, mut inherited] = BOTH.map(attach);
    let mut global = scene.pmu.attach_global().unwrap();
    let mut hollow = scene.hollow.attach_task(task.handle_ref(), Inherit::No).unwrap();
    let reset = [own.reset(), inherited.reset(), global.reset(), hollow.reset()];
    assert_eq!(reset, [Ok(()), Err(Error::Inherited), Ok(()), Ok(())]);
    scene.assert_events([3, 1, 0]);
    drop((own, inherited, global, hollow));
    scene.assert_idle();
}

#[test]
fn event_dropped_elsewhere() {
    let scene = Scene::new();
    let task = scene.fork();
    let attach = || scene.pmu.attach_task(task.handle_ref(), Inherit::No).unwrap();
    let event = attach();
    thread::spawn(move || drop(event)).join().unwrap();
    scene.assert_idle();
    // By a panic.
    let event = attach();
    let panics = || {
        let _event = event;
        std::panic::resume_unwind(Box::new("no message"));
    };
    assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    scene.assert_idle();
    // During a run of another task.
    for inherit in BOTH {
        let event = scene.pmu.attach_task(task.handle_ref(), inherit).unwrap();
        scene.cpu.run(&mut scene.fork(), || drop(event));
        scene.assert_idle();
    }
}

/// A PMU that panics when it is read.
struct Shy;

impl Pmu for Shy {
    const NAME: &'static str = "shy";
    type Data = AtomicU64;
    type CpuData = ();
    type Count = ();

    fn sched_in(&self, _: Switch<'_, Self>) {}
    fn sched_out(&self, _: Switch<'_, Self>) {}
    fn read(&self, _: &AtomicU64) {
        std::panic::resume_unwind(Box::new("no message"));
    }
}

#[test]
fn attach_in_which_the_pmu_panics() {
    let scene = Scene::new();
    let shy = scene.system.register(Shy).unwrap();
    let task = scene.fork();
    for inherit in BOTH {
        let attach = || shy.attach_task(task.handle_ref(), inherit);
        assert!(catch_unwind(AssertUnwindSafe(attach)).is_err());
        scene.assert_idle();
    }
    crate::rcu::barrier().unwrap();
    assert_eq!(shy.cache().live(), 0);
}

/// Many events of two PMUs are attached and dropped concurrently: each is counted, and none is uncounted twice.
#[test]
fn events_that_come_and_go_at_once() {
    const ROUNDS: usize = if cfg!(miri) { 20 } else { 1000 };
    let scene = Scene::new();
    let task = scene.fork();
    let (pmu, other, hollow, task) = (scene.pmu, scene.other, scene.hollow, task.handle());
    thread::scope(|scope| {
        for number in 0..4 {
            let pmu = if number % 2 == 0 { pmu } else { other };
            let task = &task;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let own = pmu.attach_task(task, BOTH[round % 2]).unwrap();
                    let without_data = hollow.attach_global().unwrap();
                    // The events of other threads do not hide ours from switches.
                    let expected = 1 << pmu.0.state.index | 1 << hollow.0.state.index;
                    assert_eq!(pmu.system().active_mask() & expected, expected);
                    drop((own, without_data));
                }
            });
        }
    });
    scene.assert_idle();
}
