//! *Nobody waits on a walk*: while one thread stands in the middle of a walk over tasks, others make, run and end
//! tasks, and attach to them, and get done.
//!
//! A walk with a callback stands in that; the walks of a global attach and detach stand in the allocator. The last tests
//! are the other way round: it is the attach and the detach that wait, for a fork under way.

#![cfg(not(any(pertask_loom, pertask_shuttle)))]

mod common;

use common::{Balance, Turns, alone, assert_live, assert_nothing_left, site, system_with};
use pertask_core::{Cpu, Edge, Inherit, OwnedTask, Pmu, PmuHandle, Switch, System};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Several blocks of the table, and so many that a thread which detaches from all of them frees some itself on the way.
const TASKS: usize = 400;

/// When to give up. Nothing that works takes this long.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where a walk stands until it may go on.
struct Gate {
    state: Mutex<Walk>,
    changed: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Walk {
    Comes,
    Stands,
    MayGo,
}

impl Gate {
    fn leak() -> &'static Self {
        let state = Mutex::new(Walk::Comes);
        Box::leak(Box::new(Self { state, changed: Condvar::new() }))
    }

    /// Stands until the gate opens; afterwards it is open for good.
    fn stand(&self) {
        let mut state = self.state.lock().unwrap();
        if *state == Walk::Comes {
            *state = Walk::Stands;
            self.changed.notify_all();
        }
        drop(self.changed.wait_while(state, |state| *state != Walk::MayGo).unwrap());
    }

    fn open(&self) {
        *self.state.lock().unwrap() = Walk::MayGo;
        self.changed.notify_all();
    }

    fn wait_until_stands(&self) {
        let state = self.state.lock().unwrap();
        let waiting = |state: &mut Walk| *state != Walk::Stands;
        let (_state, time) = self.changed.wait_timeout_while(state, PATIENCE, waiting).unwrap();
        assert!(!time.timed_out(), "the walk did not come to the gate");
    }
}

/// Does `work` on another thread while `walk` stands at its gate.
fn beside<R: Send>(walk: impl FnOnce(&'static Gate) + Send, work: impl FnOnce() -> R + Send) -> R {
    let gate = Gate::leak();
    thread::scope(|scope| {
        scope.spawn(move || walk(gate));
        gate.wait_until_stands();
        let (done, is_done) = channel();
        scope.spawn(move || {
            // Nobody listens any more if it took too long.
            let _ = done.send(work());
        });
        let result = is_done.recv_timeout(PATIENCE);
        // Also if it failed, so that the threads end.
        gate.open();
        result.expect("the work is done while the walk stands")
    })
}

/// Counts turns, in data whose size nothing else in the process has.
struct Large;

impl Pmu for Large {
    const NAME: &'static str = "large";
    type Data = [AtomicU64; 512];
    type CpuData = Balance;
    type Count = u64;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.comes(switch.task);
        if let (Some(data), Edge::Turn) = (switch.data, switch.edge) {
            data[0].fetch_add(1, Relaxed);
        }
    }

    fn sched_out(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.leaves(switch.task);
    }

    fn read(&self, data: &Self::Data) -> u64 {
        data[0].load(Relaxed)
    }
}

#[derive(Clone, Copy)]
enum Side {
    Alloc,
    Free,
}

/// Where a thread is to stand: at the `countdown`th object of that size.
#[derive(Clone, Copy)]
struct Stop {
    side: Side,
    bytes: usize,
    countdown: usize,
    gate: &'static Gate,
}

thread_local! {
    static STOP: Cell<Option<Stop>> = const { Cell::new(None) };
}

/// Makes this thread stand at the gate when it allocates, or frees, data for the `countdown`th task.
fn stop_at(gate: &'static Gate, side: Side, countdown: usize, large: PmuHandle<Large>) {
    STOP.set(Some(Stop { side, bytes: large.cache().object_bytes(), countdown, gate }));
}

/// For the allocator: stands at the gate if it is time.
fn pass(passes: Side, layout: Layout) {
    let Ok(Some(stop)) = STOP.try_with(Cell::get) else { return };
    let is_side =
        matches!((stop.side, passes), (Side::Alloc, Side::Alloc) | (Side::Free, Side::Free));
    if !is_side || layout.size() != stop.bytes {
        return;
    }
    let countdown = stop.countdown - 1;
    STOP.set((countdown != 0).then_some(Stop { countdown, ..stop }));
    if countdown == 0 {
        stop.gate.stand();
    }
}

struct Gated;

// SAFETY: all is done by the system's allocator; the gate does not allocate, and no longer has a stop when it stands.
unsafe impl GlobalAlloc for Gated {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        pass(Side::Alloc, layout);
        // SAFETY: the caller's.
        unsafe { std::alloc::System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        pass(Side::Free, layout);
        // SAFETY: the caller's.
        unsafe { std::alloc::System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static GATED: Gated = Gated;

/// Tasks in several blocks of the table.
fn fork_many(system: &'static System) -> Vec<OwnedTask> {
    (0..TASKS).map(|hint| system.fork(site(system, "many"), None, hint)).collect()
}

/// What a program does all the time: runs the tasks there are, ends half of them, makes others. Returns those that live.
fn go_on(system: &'static System, tasks: Vec<OwnedTask>) -> Vec<OwnedTask> {
    let cpu = Cpu::new(system);
    let mut live = Vec::new();
    for (number, mut task) in tasks.into_iter().enumerate() {
        let mut child = cpu.run(&mut task, || cpu.fork(site(system, "child")));
        cpu.run(&mut task, || cpu.run(&mut child, || {}));
        cpu.switch_in(child).unwrap();
        live.extend(cpu.switch_out());
        if number % 2 == 0 {
            live.push(task);
        }
    }
    live.extend(fork_many(system));
    live
}

/// Attaches to each task in each way, runs it, and reads what was counted.
fn attach_to_each<P: Pmu<Count = u64>>(pmu: PmuHandle<P>, tasks: &mut [OwnedTask]) {
    let cpu = Cpu::new(pmu.system());
    for task in tasks {
        let handle = task.handle();
        let plain = pmu.attach_task(&handle, Inherit::No).unwrap();
        let family = pmu.attach_task(&handle, Inherit::Children).unwrap();
        let mut child = cpu.run(task, || cpu.fork(site(pmu.system(), "child")));
        cpu.run(&mut child, || {});
        drop(child);
        assert_eq!((plain.read(), family.read()), (1, 2));
    }
}

#[test]
fn walk_over_tasks() {
    let _alone = alone();
    let (system, turns) = system_with(Turns);
    let tasks = fork_many(system);
    let live = beside(
        |gate| system.for_each_task(|_| gate.stand()),
        || {
            let mut live = go_on(system, tasks);
            attach_to_each(turns, &mut live);
            // Another walk, and the global attach's.
            let mut event = turns.attach_global().unwrap();
            event.reset().unwrap();
            assert_eq!(event.read(), 0);
            live
        },
    );
    drop(live);
    assert_nothing_left(turns);
}

#[test]
fn snapshot() {
    let _alone = alone();
    let (system, turns) = system_with(Turns);
    let event = turns.attach_global().unwrap();
    let tasks = fork_many(system);
    let live = beside(
        |gate| drop(turns.snapshot(|_| gate.stand())),
        || {
            let mut live = go_on(system, tasks);
            attach_to_each(turns, &mut live);
            drop(turns.attach_global().unwrap());
            live
        },
    );
    drop((live, event));
    assert_nothing_left(turns);
}

#[test]
fn walk_of_a_global_attach() {
    let _alone = alone();
    for at in [1, TASKS / 2, TASKS] {
        let (system, large) = system_with(Large);
        let turns = system.register(Turns).unwrap();
        let tasks = fork_many(system);
        let (event, attached) = channel();
        let live = beside(
            |gate| {
                stop_at(gate, Side::Alloc, at, large);
                event.send(large.attach_global().unwrap()).unwrap();
            },
            || {
                let mut live = go_on(system, tasks);
                attach_to_each(large, &mut live);
                drop(turns.attach_global().unwrap());
                live
            },
        );
        // Whole, for those that were there and for those that came meanwhile.
        let mut with_data = 0;
        large.snapshot(|_| with_data += 1);
        assert_eq!(with_data, live.len());
        drop((live, attached.recv().unwrap()));
        assert_nothing_left(large);
        assert_nothing_left(turns);
    }
}

#[test]
fn walk_of_a_global_detach() {
    let _alone = alone();
    let (system, large) = system_with(Large);
    let tasks = fork_many(system);
    let event = large.attach_global().unwrap();
    let live = beside(
        |gate| {
            stop_at(gate, Side::Free, 1, large);
            drop(event);
        },
        || {
            let mut live = go_on(system, tasks);
            attach_to_each(large, &mut live);
            live
        },
    );
    large.snapshot(|live| panic!("{:?} has data, and nobody is attached", live.task));
    drop(live);
    assert_nothing_left(large);
}

#[test]
fn walk_over_a_family_that_is_let_go() {
    let _alone = alone();
    let (system, large) = system_with(Large);
    let root = system.fork(site(system, "root"), None, 0);
    let event = large.attach_task(&root.handle(), Inherit::Children).unwrap();
    let family = |hint| system.fork(site(system, "member"), Some(&root), hint);
    let tasks: Vec<_> = (0..TASKS).map(family).collect();
    let live = beside(
        |gate| {
            stop_at(gate, Side::Free, 1, large);
            drop(event);
        },
        || {
            let mut live = go_on(system, tasks);
            attach_to_each(large, &mut live);
            live
        },
    );
    drop((live, root));
    assert_nothing_left(large);
}

/// A fork stands where it has looked at which PMUs are attached, and has not acted on it.
fn fork_stands(gate: &'static Gate, large: PmuHandle<Large>) -> OwnedTask {
    stop_at(gate, Side::Alloc, 1, large);
    large.system().fork(site(large.system(), "under way"), None, 0)
}

/// Makes sure that `waits` does not end before a fork that stands does. Returns what both return.
fn waits_for_fork<R: Send>(
    large: PmuHandle<Large>,
    waits: impl FnOnce() -> R + Send,
) -> (OwnedTask, R) {
    let gate = Gate::leak();
    thread::scope(|scope| {
        let fork = scope.spawn(|| fork_stands(gate, large));
        gate.wait_until_stands();
        let (done, is_done) = channel();
        let waits = scope.spawn(move || {
            let result = waits();
            let _ = done.send(());
            result
        });
        // A while is enough to see what does not wait; what does wait is not done however long this takes.
        let early = is_done.recv_timeout(Duration::from_millis(100));
        gate.open();
        let results = (fork.join().unwrap(), waits.join().unwrap());
        assert_eq!(early, Err(RecvTimeoutError::Timeout), "the fork was not waited for");
        results
    })
}

#[test]
fn global_detach_waits_for_a_fork_under_way() {
    let _alone = alone();
    let (_, large) = system_with(Large);
    let event = large.attach_global().unwrap();
    let (task, ()) = waits_for_fork(large, || drop(event));
    // It took what the fork had installed, too.
    assert_live(large, 0);
    drop(task);
    assert_nothing_left(large);
}

#[test]
fn global_attach_waits_for_a_fork_under_way() {
    let _alone = alone();
    let (system, large) = system_with(Large);
    let turns = system.register(Turns).unwrap();
    let event = large.attach_global().unwrap();
    let (task, second) = waits_for_fork(large, || turns.attach_global().unwrap());
    assert_live(turns, 1);
    drop((task, event, second));
    assert_nothing_left(large);
    assert_nothing_left(turns);
}
