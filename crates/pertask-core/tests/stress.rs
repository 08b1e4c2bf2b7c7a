//! Threads that make, run, move and end tasks while others attach, detach and read, in a random order.
//!
//! What is sure in any order is checked: counts lie between the runs that had ended before a read and those that had
//! begun after it, never fall, and are exact at the end; whoever holds a global event finds *Whole* true for its own
//! tasks; and when all is over nothing is left.
//!
//! `ci/stress.sh` runs it optimised, under AddressSanitizer and under valgrind; `PERTASK_STRESS=1000` is ten times as long.

#![cfg(not(any(pertask_loom, pertask_shuttle)))]

mod common;

use common::{Rng, Turns, assert_live, assert_nothing_left, share, site, system_with};
use pertask_core::{Cpu, Error, Event, Inherit, OwnedTask, PmuHandle, Site, System, Task, TaskId};
use proptest::prelude::*;
use std::rc::Rc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: share(12),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_global_event_counts_every_run(seed: u64, workers in 1..4_usize, steps in 1..3000_u64) {
        let load = Load::new(workers, steps);
        let event = load.turns.attach_global().unwrap();
        load.run(seed, None, Some(&|| event.read()));
        prop_assert_eq!(event.read(), load.finished());
        let ended: u64 = load.turns.snapshot(|_| {}).iter().map(|row| row.exited).sum();
        prop_assert_eq!(ended, load.forked.load(SeqCst));
        drop(event);
        assert_nothing_left(load.turns);
    }

    #[test]
    fn an_inherited_event_counts_every_run_of_the_family(
        seed: u64,
        workers in 1..4_usize,
        steps in 1..3000_u64,
    ) {
        let load = Load::new(workers, steps);
        let root = load.system.fork(load.site, None, 0);
        let event = load.turns.attach_task(&root.handle(), Inherit::Children).unwrap();
        load.run(seed, Some(root), Some(&|| event.read()));
        prop_assert_eq!(event.read(), load.finished());
        prop_assert_eq!(event.lost(), 0);
        drop(event);
        assert_nothing_left(load.turns);
    }

    #[test]
    fn whole_holds_for_whoever_attaches_globally(
        seed: u64,
        threads in 2..4_u64,
        steps in 1..300_u64,
    ) {
        let (system, turns) = system_with(Turns);
        thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || whole_for_own_tasks(turns, seed ^ thread, steps));
            }
        });
        prop_assert_eq!(system.live_tasks(), 0);
        assert_nothing_left(turns);
    }

    #[test]
    fn refused_allocations_leave_nothing_behind(seed: u64, workers in 1..3_usize, steps in 1..1500_u64) {
        let load = Load::new(workers, steps);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| move_the_limit(load.turns, &mut Rng::new(!seed), &done));
            let _over = SetWhenDropped(&done);
            load.run(seed, None, None);
        });
        load.turns.cache().set_limit_bytes(None);
        assert_nothing_left(load.turns);
        // And what comes later is as good as new.
        let whole = load.turns.attach_global().unwrap();
        let task = load.system.fork(load.site, None, 0);
        assert_live(load.turns, 1);
        drop((task, whole));
        assert_nothing_left(load.turns);
    }
}

/// One thread marks each task's data as it ends on another: whoever comes first, the reference is given back once.
#[test]
fn tasks_exit_as_the_walk_comes_to_them() {
    let (system, turns) = system_with(Turns);
    for round in 0..share(300) {
        let tasks: Vec<_> = (0..64).map(|_| system.fork(site(system, "ends"), None, 0)).collect();
        let attach = |task: &OwnedTask| turns.attach_task(&task.handle(), Inherit::No).unwrap();
        let events: Vec<_> = tasks.iter().map(attach).collect();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                // The two are to meet somewhere on the way, each time elsewhere.
                (0..round % 50).for_each(|_| std::hint::spin_loop());
                tasks.into_iter().for_each(drop);
            });
            start.wait();
            drop(turns.attach_global().unwrap());
        });
        drop(events);
        assert_live(turns, 0);
    }
    assert_nothing_left(turns);
}

/// `barrier` is a promise about what was released before, whatever other threads do meanwhile.
#[test]
fn barrier_frees_what_was_released_while_others_switch() {
    let (system, turns) = system_with(Turns);
    let (other_system, other) = system_with(Turns);
    let watch = other.attach_global().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = SetWhenDropped(&done);
        for _ in 0..2 {
            scope.spawn(|| run_until(&done, other_system));
        }
        let task = system.fork(site(system, "attached"), None, 0);
        for _ in 0..share(3000) {
            drop(turns.attach_task(&task.handle(), Inherit::No).unwrap());
            assert_live(turns, 0);
        }
    });
    drop(watch);
    assert_nothing_left(other);
}

fn run_until(done: &AtomicBool, system: &'static System) {
    let cpu = Cpu::new(system);
    let mut task = cpu.fork(site(system, "runs"));
    while !done.load(Relaxed) {
        cpu.run(&mut task, || {});
    }
}

/// What an event reads.
type Counted<'a> = dyn Fn() -> u64 + Sync + 'a;

/// Tells the other threads that this one is over, also when it panics.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Threads at work on one PMU's tasks.
struct Load {
    system: &'static System,
    turns: PmuHandle<Turns>,
    site: &'static Site,
    workers: usize,
    steps: u64,
    forked: AtomicU64,
    started: AtomicU64,
    finished: AtomicU64,
}

impl Load {
    fn new(workers: usize, steps: u64) -> Self {
        let (system, turns) = system_with(Turns);
        Self {
            system,
            turns,
            site: site(system, "load"),
            workers,
            steps,
            forked: AtomicU64::new(0),
            started: AtomicU64::new(0),
            finished: AtomicU64::new(0),
        }
    }

    fn finished(&self) -> u64 {
        assert_eq!(self.started.load(SeqCst), self.finished.load(SeqCst));
        self.finished.load(SeqCst)
    }

    /// Workers, two readers of `count`, and one who attaches and detaches, until the workers are done.
    ///
    /// With a `root`, all tasks descend from it; without, they have no parents or any.
    fn run(&self, seed: u64, root: Option<OwnedTask>, count: Option<&Counted<'_>>) {
        let done = AtomicBool::new(false);
        let rooted = root.is_some();
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..self.workers).map(|_| channel()).unzip();
        if let Some(root) = root {
            senders[0].send(root).unwrap();
        }
        thread::scope(|scope| {
            scope.spawn(|| churn(self.turns, &mut Rng::new(seed ^ 1000), &done));
            for count in count.into_iter().flat_map(|count| [count; 2]) {
                let done = &done;
                scope.spawn(move || self.watch(count, done));
            }
            let _over = SetWhenDropped(&done);
            thread::scope(|workers| {
                for (number, inbox) in inboxes.into_iter().enumerate() {
                    let rng = Rng::new(seed ^ number as u64);
                    let senders = senders.clone();
                    workers.spawn(move || Worker::new(self, rng, inbox, senders, rooted).work());
                }
                drop(senders);
            });
        });
    }

    /// A count never falls, misses no run that has ended, and has none that has not begun.
    fn watch(&self, count: &Counted<'_>, done: &AtomicBool) {
        let mut last = 0;
        while !done.load(SeqCst) {
            let finished = self.finished.load(SeqCst);
            let now = count();
            let started = self.started.load(SeqCst);
            assert!(finished <= now, "{now} counted, {finished} had ended");
            assert!(now <= started, "{now} counted, {started} had begun");
            assert!(last <= now, "{now} after {last}");
            last = now;
        }
    }
}

/// One thread that runs tasks, and hands them on.
struct Worker<'a> {
    load: &'a Load,
    rng: Rng,
    cpu: Rc<Cpu>,
    inbox: Receiver<OwnedTask>,
    others: Vec<Sender<OwnedTask>>,
    tasks: Vec<OwnedTask>,
    rooted: bool,
}

impl<'a> Worker<'a> {
    fn new(
        load: &'a Load,
        rng: Rng,
        inbox: Receiver<OwnedTask>,
        others: Vec<Sender<OwnedTask>>,
        rooted: bool,
    ) -> Self {
        let cpu = Rc::new(Cpu::new(load.system));
        Self { load, rng, cpu, inbox, others, tasks: Vec::new(), rooted }
    }

    fn work(mut self) {
        (0..self.load.steps).for_each(|_| self.step());
    }

    fn step(&mut self) {
        self.tasks.extend(self.inbox.try_iter());
        let Some(mut task) = self.pick() else {
            if !self.rooted {
                let root = self.fork();
                self.tasks.push(root);
            }
            return;
        };
        match self.rng.below(8) {
            0..3 => self.run(&mut task, |_| {}),
            3 => self.run(&mut task, |worker| {
                let child = worker.fork();
                worker.tasks.push(child);
            }),
            4 => self.run(&mut task, Self::run_another),
            5 => self.run(&mut task, Self::carry_another),
            6 => return self.hand_on(task),
            // The last one here goes on, lest a family die out at once.
            _ if self.tasks.is_empty() => {}
            _ => return drop(task),
        }
        self.tasks.push(task);
    }

    fn run(&mut self, task: &mut OwnedTask, inside: impl FnOnce(&mut Self)) {
        let cpu = Rc::clone(&self.cpu);
        self.load.started.fetch_add(1, SeqCst);
        cpu.run(task, || inside(self));
        self.load.finished.fetch_add(1, SeqCst);
    }

    fn run_another(&mut self) {
        if let Some(mut task) = self.pick() {
            self.run(&mut task, |_| {});
            self.tasks.push(task);
        }
    }

    fn carry_another(&mut self) {
        if let Some(task) = self.pick() {
            self.load.started.fetch_add(1, SeqCst);
            self.cpu.switch_in(task).unwrap();
            self.load.finished.fetch_add(1, SeqCst);
            self.tasks.extend(self.cpu.switch_out());
        }
    }

    fn hand_on(&mut self, task: OwnedTask) {
        let other = self.rng.below(self.others.len() as u64) as usize;
        // One that has gone home gives it back, and it ends here.
        let _ = self.others[other].send(task);
    }

    fn fork(&self) -> OwnedTask {
        self.load.forked.fetch_add(1, SeqCst);
        self.cpu.fork(self.load.site)
    }

    fn pick(&mut self) -> Option<OwnedTask> {
        let count = self.tasks.len() as u64;
        (count != 0).then(|| self.tasks.swap_remove(self.rng.below(count) as usize))
    }
}

/// Events that are attached at a time, so that the work is bounded however fast they come.
const MOST_EVENTS: usize = 32;

/// Attaches to what there is and detaches again, until it is told to stop.
fn churn(turns: PmuHandle<Turns>, rng: &mut Rng, done: &AtomicBool) {
    let mut events = Vec::new();
    while !done.load(SeqCst) {
        churn_once(turns, rng, &mut events);
    }
}

fn churn_once(turns: PmuHandle<Turns>, rng: &mut Rng, events: &mut Vec<Event<Turns>>) {
    let task = any_task(turns.system(), rng);
    // When there are many it only detaches, for each inherited event makes each fork dearer.
    let any = if events.len() < MOST_EVENTS { rng.below(6) } else { 5 };
    let attached = match (any, task) {
        (0, _) => turns.attach_global(),
        (1, Some(task)) => turns.attach_task(&task, Inherit::Children),
        (2 | 3, Some(task)) => turns.attach_task(&task, Inherit::No),
        _ => {
            if !events.is_empty() {
                drop(events.swap_remove(rng.below(events.len() as u64) as usize));
            }
            return;
        }
    };
    match attached {
        Ok(event) => events.push(event),
        Err(Error::TaskExited | Error::CacheLimit { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    let _ = events.last().map(Event::read);
}

/// Any task that lives; it may have ended when it is looked at.
fn any_task(system: &System, rng: &mut Rng) -> Option<Arc<Task>> {
    let (mut chosen, mut seen) = (None, 0);
    system.for_each_task(|task| {
        seen += 1;
        if rng.below(seen) == 0 {
            chosen = Some(Arc::clone(task));
        }
    });
    chosen
}

fn move_the_limit(turns: PmuHandle<Turns>, rng: &mut Rng, done: &AtomicBool) {
    let cache = turns.cache();
    while !done.load(SeqCst) {
        cache.set_limit_bytes(Some(rng.below(20) as usize * cache.object_bytes()));
        thread::yield_now();
    }
}

/// Holds a global event now and then; meanwhile each of this thread's tasks has data, which counts each run.
fn whole_for_own_tasks(turns: PmuHandle<Turns>, seed: u64, steps: u64) {
    let (system, rng) = (turns.system(), &mut Rng::new(seed));
    let cpu = Cpu::new(system);
    let mut old = cpu.fork(site(system, "old"));
    let mut others = Vec::new();
    for _ in 0..steps {
        let whole = turns.attach_global().unwrap();
        let before = count_of(turns, old.id()).expect("the event found it alive");
        let mut young = cpu.fork(site(system, "young"));
        assert_eq!(count_of(turns, young.id()), Some(0));
        let runs = rng.below(4);
        (0..runs).for_each(|_| cpu.run(&mut old, || cpu.run(&mut young, || {})));
        assert_eq!(count_of(turns, old.id()), Some(before + runs));
        assert_eq!(count_of(turns, young.id()), Some(runs));
        drop(whole);
        // Events of its own, on any thread's tasks.
        others.truncate(3);
        churn_once(turns, rng, &mut others);
    }
}

/// What a snapshot says of a task, if it has data.
fn count_of(turns: PmuHandle<Turns>, id: TaskId) -> Option<u64> {
    let mut found = None;
    turns.snapshot(|live| {
        if live.task.id() == id {
            assert_eq!(found.replace(live.count), None, "seen twice");
        }
    });
    found
}
