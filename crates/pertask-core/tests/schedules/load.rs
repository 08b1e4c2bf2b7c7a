//! Threads that each do some tens of operations of any kind.

use crate::check;
use crate::common::Rng;
use crate::world::{SlowTurns, World, join, rng};
use pertask_core::{Cpu, Error, Event, Inherit, OwnedTask};
use shuttle::sync::Mutex;
use shuttle::thread::{self, JoinHandle};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

const THREADS: usize = 4;

/// Operations of each thread.
const STEPS: u64 = 30;

/// Reads of a thread that watches.
const LOOKS: usize = 12;

/// Few, so that threads meet.
const MOST_TASKS: usize = 6;

#[test]
fn nothing_is_left_of_any_operations() {
    check(|| {
        let load = Load::start();
        let tasks = load.run(None);
        load.world.assert_no_data();
        drop(tasks);
        load.world.finish();
    });
}

#[test]
fn a_global_event_counts_every_run() {
    check(|| {
        let load = Load::start();
        let event = Arc::new(load.world.turns.attach_global().unwrap());
        let watcher = load.watch(&event);
        drop(load.run(None));
        let [()] = join([watcher]);
        assert_eq!(event.read(), load.runs.load(SeqCst));
        let rows = load.world.turns.snapshot(|_| {});
        let ended: u64 = rows.iter().map(|row| row.exited).sum();
        assert_eq!(ended, load.forked.load(SeqCst), "each task ends once, with data");
        drop(event);
        load.world.finish();
    });
}

#[test]
fn an_inherited_event_counts_every_run_of_the_family() {
    check(|| {
        let load = Load::start();
        let root = load.world.system.fork(load.world.site, None, 0);
        let handle = root.handle();
        let event = load.world.turns.attach_task(&handle, Inherit::Children).unwrap();
        let event = Arc::new(event);
        let watcher = load.watch(&event);
        drop(load.run(Some(root)));
        let [()] = join([watcher]);
        assert_eq!(event.read(), load.runs.load(SeqCst));
        assert_eq!(event.lost(), 0);
        drop((event, handle));
        load.world.finish();
    });
}

#[test]
fn refused_allocations_leave_nothing_behind() {
    check(|| {
        let load = Load::start();
        let cache = load.world.turns.cache();
        let limiter = thread::spawn(|| {
            let mut rng = rng();
            for _ in 0..STEPS {
                cache.set_limit_bytes(Some(rng.below(8) as usize * cache.object_bytes()));
                thread::yield_now();
            }
        });
        drop(load.run(None));
        let [()] = join([limiter]);
        cache.set_limit_bytes(None);
        // What comes later is as good as new.
        let whole = load.world.turns.attach_global().unwrap();
        let task = load.world.system.fork(load.world.site, None, 0);
        assert!(load.world.living().contains_key(&task.id()));
        drop((task, whole));
        load.world.finish();
    });
}

/// What the threads share.
struct Load {
    world: World,
    /// Tasks that nobody runs at the moment.
    idle: Mutex<Vec<OwnedTask>>,
    live: AtomicUsize,
    forked: AtomicU64,
    begun: AtomicU64,
    runs: AtomicU64,
}

impl Load {
    fn start() -> Arc<Self> {
        Arc::new(Self {
            world: World::new(),
            idle: Mutex::new(Vec::new()),
            live: AtomicUsize::new(0),
            forked: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            runs: AtomicU64::new(0),
        })
    }

    /// With a `root`, all tasks descend from it. Returns the tasks that live to the end.
    fn run(self: &Arc<Self>, root: Option<OwnedTask>) -> Vec<OwnedTask> {
        let rooted = root.is_some();
        self.idle.lock().unwrap().extend(root);
        let threads = [(); THREADS].map(|()| {
            let load = Arc::clone(self);
            thread::spawn(move || Worker::new(load, rooted).work())
        });
        join(threads);
        std::mem::take(&mut *self.idle.lock().unwrap())
    }

    /// A thread that reads the event: a count never falls, misses no run that has ended, and has none that has not begun.
    fn watch(self: &Arc<Self>, event: &Arc<Event<SlowTurns>>) -> JoinHandle<()> {
        let (load, event) = (Arc::clone(self), Arc::clone(event));
        thread::spawn(move || {
            let mut last = 0;
            for _ in 0..LOOKS {
                let ended = load.runs.load(SeqCst);
                let now = event.read();
                assert!(ended <= now, "{now} counted, {ended} had ended");
                assert!(last <= now, "{now} after {last}");
                assert!(now <= load.begun.load(SeqCst), "more than have begun");
                last = now;
            }
        })
    }
}

/// One thread.
struct Worker {
    load: Arc<Load>,
    rng: Rng,
    cpu: Rc<Cpu>,
    events: Vec<Event<SlowTurns>>,
    rooted: bool,
}

impl Worker {
    fn new(load: Arc<Load>, rooted: bool) -> Self {
        let cpu = Rc::new(Cpu::new(load.world.system));
        Self { load, rng: rng(), cpu, events: Vec::new(), rooted }
    }

    fn work(mut self) {
        (0..STEPS).for_each(|_| self.step());
    }

    fn step(&mut self) {
        match self.rng.below(16) {
            0 if !self.rooted => self.fork(),
            0..3 => self.run(Self::fork),
            3..5 => self.run(|_| {}),
            5 => self.run(|worker| worker.run(|_| {})),
            6 => self.run(Self::carry),
            7..9 => self.exit(),
            9..11 => self.attach_task(Inherit::No),
            11 => self.attach_task(Inherit::Children),
            12 => {
                let attached = self.load.world.turns.attach_global();
                self.keep(attached);
            }
            13..15 => self.detach(),
            _ => drop(self.events.last().map(Event::read)),
        }
    }

    fn fork(&mut self) {
        if self.load.live.load(SeqCst) < MOST_TASKS {
            let task = self.cpu.fork(self.load.world.site);
            self.load.live.fetch_add(1, SeqCst);
            self.load.forked.fetch_add(1, SeqCst);
            self.put(task);
        }
    }

    fn run(&mut self, inside: impl FnOnce(&mut Self)) {
        let Some(mut task) = self.take() else { return };
        let cpu = Rc::clone(&self.cpu);
        self.load.begun.fetch_add(1, SeqCst);
        cpu.run(&mut task, || inside(self));
        self.load.runs.fetch_add(1, SeqCst);
        self.put(task);
    }

    /// Switches a task in, and out by hand; or leaves it to the run around it, which ends it.
    fn carry(&mut self) {
        let Some(task) = self.take() else { return };
        self.load.begun.fetch_add(1, SeqCst);
        self.cpu.switch_in(task).unwrap();
        self.load.runs.fetch_add(1, SeqCst);
        if self.rooted || self.rng.below(2) == 0 {
            let task = self.cpu.switch_out().unwrap();
            self.put(task);
        } else {
            self.load.live.fetch_sub(1, SeqCst);
        }
    }

    fn exit(&mut self) {
        // The last goes on, lest a family die out at once.
        if self.load.live.load(SeqCst) > 1
            && let Some(task) = self.take()
        {
            drop(task);
            self.load.live.fetch_sub(1, SeqCst);
        }
    }

    fn attach_task(&mut self, inherit: Inherit) {
        if let Some(task) = self.load.world.any_task(&mut self.rng) {
            let attached = self.load.world.turns.attach_task(&task, inherit);
            self.keep(attached);
        }
    }

    fn keep(&mut self, attached: Result<Event<SlowTurns>, Error>) {
        match attached {
            Ok(event) => self.events.push(event),
            Err(Error::TaskExited | Error::CacheLimit { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn detach(&mut self) {
        if !self.events.is_empty() {
            let any = self.rng.below(self.events.len() as u64) as usize;
            drop(self.events.swap_remove(any));
        }
    }

    fn take(&mut self) -> Option<OwnedTask> {
        let mut idle = self.load.idle.lock().unwrap();
        let count = idle.len() as u64;
        (count != 0).then(|| idle.swap_remove(self.rng.below(count) as usize))
    }

    fn put(&self, task: OwnedTask) {
        self.load.idle.lock().unwrap().push(task);
    }
}
