//! What must not allocate does not: a switch, whatever is attached; the second and later global attach, which walks
//! nothing; what a PMU without data is attached to. And a first global attach allocates one object for each task.
//!
//! The test's allocator counts what each thread asks of it.

#![cfg(not(any(pertask_loom, pertask_shuttle)))]

mod common;

use common::{Clock, Hollow, Probe, Turns, assert_live, assert_nothing_left, site, system_with};
use pertask_core::{Cpu, Event, Inherit, OwnedTask, PmuHandle, System};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::panic::Location;

struct Counting;

thread_local! {
    /// Calls of the allocator on this thread, frees included.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count_call() {
    // A thread that ends may free after its storage is gone.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: all is done by the system's allocator; the counter does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_call();
        // SAFETY: the caller's.
        unsafe { std::alloc::System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_call();
        // SAFETY: the caller's.
        unsafe { std::alloc::System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_call();
        // SAFETY: the caller's.
        unsafe { std::alloc::System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count_call();
        // SAFETY: the caller's.
        unsafe { std::alloc::System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How often `f` calls the allocator, on this thread.
fn allocator_calls(f: impl FnOnce()) -> u64 {
    let before = CALLS.get();
    f();
    CALLS.get() - before
}

/// Every way of switching. The tasks come back.
fn switch_about(cpu: &Cpu, one: &mut OwnedTask, mut two: OwnedTask) -> OwnedTask {
    cpu.run(one, || {});
    cpu.run(one, || cpu.run(&mut two, || {}));
    cpu.run(one, || {
        cpu.switch_in(two).unwrap();
        cpu.switch_out().unwrap()
    })
}

/// That `switch_about` calls no allocator, once the thread has been at it for the first time.
fn assert_switch_allocates_nothing(cpu: &Cpu, one: &mut OwnedTask, two: OwnedTask) {
    let mut two = Some(switch_about(cpu, one, two));
    let calls = allocator_calls(|| {
        for _ in 0..10 {
            two = two.take().map(|two| switch_about(cpu, one, two));
        }
    });
    assert_eq!(calls, 0);
}

struct Scene {
    system: &'static System,
    turns: PmuHandle<Turns>,
    probe: PmuHandle<Probe>,
    cpu: Cpu,
}

impl Scene {
    fn new() -> Self {
        let (system, turns) = system_with(Turns);
        let probe = system.register(Probe(Clock::default())).unwrap();
        Self { system, turns, probe, cpu: Cpu::new(system) }
    }

    fn tasks(&self) -> (OwnedTask, OwnedTask) {
        let place = site(self.system, "switched");
        (self.cpu.fork(place), self.cpu.fork(place))
    }
}

#[test]
fn switch_with_nothing_attached() {
    let scene = Scene::new();
    let (mut one, two) = scene.tasks();
    assert_switch_allocates_nothing(&scene.cpu, &mut one, two);
}

#[test]
fn switch_with_task_events() {
    let scene = Scene::new();
    let (mut one, two) = scene.tasks();
    let handles = [one.handle(), two.handle()];
    let turns = scene.turns.attach_task(&handles[0], Inherit::No).unwrap();
    let probe = scene.probe.attach_task(&handles[1], Inherit::Children).unwrap();
    assert_switch_allocates_nothing(&scene.cpu, &mut one, two);
    // It was the real thing.
    assert_eq!((turns.read(), probe.read().came), (33, [22, 0]));
}

#[test]
fn switch_with_global_events() {
    let scene = Scene::new();
    let (mut one, two) = scene.tasks();
    let turns = scene.turns.attach_global().unwrap();
    let probe = scene.probe.attach_global().unwrap();
    assert_switch_allocates_nothing(&scene.cpu, &mut one, two);
    assert_eq!((turns.read(), probe.read().came), (55, [55, 22]));
}

#[test]
fn switch_whose_event_comes_and_goes() {
    let scene = Scene::new();
    let (mut one, mut two) = scene.tasks();
    scene.cpu.run(&mut one, || {});
    let mut event = None;
    scene.cpu.run(&mut one, || {
        event = Some(scene.turns.attach_global().unwrap());
        assert_eq!(allocator_calls(|| scene.cpu.run(&mut two, || {})), 0);
        event = None;
        assert_eq!(allocator_calls(|| scene.cpu.run(&mut two, || {})), 0);
    });
    drop(event);
}

#[test]
fn looking_at_what_runs() {
    let scene = Scene::new();
    let (mut one, _two) = scene.tasks();
    let record = scene.cpu.record();
    let calls = scene.cpu.run(&mut one, || {
        allocator_calls(|| {
            let seen = (record.current_id(), scene.cpu.current().map(|task| task.id()));
            assert_eq!(seen.0, seen.1);
        })
    });
    assert_eq!(calls, 0);
}

#[test]
fn site_that_the_cpu_has_asked_for_before() {
    let scene = Scene::new();
    let place = Location::caller();
    let first = scene.cpu.site(Some("again"), place);
    let calls = allocator_calls(|| {
        assert!(std::ptr::eq(scene.cpu.site(Some("again"), place), first));
    });
    assert_eq!(calls, 0);
}

/// A fork allocates the task and nothing else, once there has been its like: below a root, and as a recursion.
#[test]
fn fork_on_a_path_that_there_is_allocates_the_task_alone() {
    let scene = Scene::new();
    let [outer, inner] = ["outer", "inner"].map(|name| site(scene.system, name));
    let mut parent = scene.cpu.fork(outer);
    let mut children = Vec::with_capacity(100);
    scene.cpu.run(&mut parent, || {
        // The table's room, and the path.
        children.push(scene.cpu.fork(inner));
        children.clear();
        for site in [inner, outer] {
            let calls = allocator_calls(|| children.push(scene.cpu.fork(site)));
            assert_eq!(calls, 1, "{site:?}");
        }
    });
}

/// A walk over tasks would allocate room for a chunk, and data for each task.
#[test]
fn second_global_attach_walks_nothing() {
    let scene = Scene::new();
    let (_one, _two) = scene.tasks();
    let first = scene.turns.attach_global().unwrap();
    let mut second = None;
    assert_eq!(allocator_calls(|| second = scene.turns.attach_global().ok()), 0);
    assert_live(scene.turns, 2);
    assert_eq!(allocator_calls(|| second = None), 0);
    assert_live(scene.turns, 2);
    drop(first);
    assert_live(scene.turns, 0);
}

#[test]
fn first_global_attach_allocates_once_for_each_task() {
    const TASKS: usize = 100;
    let scene = Scene::new();
    let place = site(scene.system, "many");
    let tasks: Vec<_> = (0..TASKS).map(|hint| scene.system.fork(place, None, hint)).collect();
    let mut event = None;
    let calls = allocator_calls(|| event = scene.turns.attach_global().ok());
    // And, the first time, room for what this CPU will have at hand.
    assert_eq!(calls, TASKS as u64 + 1);
    drop((event, tasks));
    assert_nothing_left(scene.turns);
}

#[test]
fn attach_that_shares_data() {
    let scene = Scene::new();
    let (one, _two) = scene.tasks();
    let handle = one.handle();
    let first = scene.turns.attach_task(&handle, Inherit::No).unwrap();
    let mut second = None;
    let share = || second = scene.turns.attach_task(&handle, Inherit::No).ok();
    assert_eq!(allocator_calls(share), 0);
    assert_eq!(allocator_calls(|| drop(second)), 0);
    drop(first);
    assert_live(scene.turns, 0);
}

#[test]
fn pmu_without_data_walks_and_allocates_nothing() {
    let scene = Scene::new();
    let hollow = scene.system.register(Hollow).unwrap();
    let (mut one, two) = scene.tasks();
    let handle = one.handle();
    // The thread's first section.
    scene.cpu.run(&mut one, || {});
    let mut events: [Option<Event<Hollow>>; 2] = [None, None];
    let attach = || {
        events[0] = hollow.attach_global().ok();
        events[1] = hollow.attach_task(&handle, Inherit::Children).ok();
    };
    assert_eq!(allocator_calls(attach), 0);
    assert!(events.iter().all(Option::is_some));
    assert_switch_allocates_nothing(&scene.cpu, &mut one, two);
    assert_eq!(allocator_calls(|| events = [None, None]), 0);
}
