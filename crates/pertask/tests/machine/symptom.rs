//! The founding symptom: call stacks that are cut off at switches, and are not where they are the tasks' own data.
//!
//! Here it is the shipped call-stack PMU and real futures. They hold scopes across their awaits, are polled one inside
//! another and now by this thread, now by that one; who runs, what it does and when a sample is taken follow from the seed.

use crate::alone;
use crate::seed::Rng;
use pertask::core::rcu;
use pertask::{CallStack, CallStacks, Inherit, Scope, TaskExt, current_scopes};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;

const SEEDS: u64 = 20;
const TASKS: usize = 8;
const CPUS: usize = 3;
/// What each task does in its life: enter or leave a scope, yield, poll another, be sampled.
const STEPS: usize = 300;
const DEPTH: usize = 6;
const NAMES: [&str; 4] = ["request", "session", "query", "row"];

type Polled = Pin<Box<dyn Future<Output = ()> + Send>>;

#[test]
fn stacks_are_whole_where_tasks_have_data_and_cut_at_switches_where_not() {
    let _alone = alone();
    let with = sample_all(&CallStack::record().unwrap());
    // Scopes are recorded, but the tasks that run have nowhere to keep them: the registers are reset at each switch.
    let bystander = async {}.task("bystander");
    let handle = bystander.handle().unwrap();
    let without = sample_all(&CallStack::record_task(handle, Inherit::No).unwrap());
    drop(bystander);
    rcu::barrier().unwrap();
    println!("whole stacks with per-task data:    {}", with.shares());
    println!("whole stacks without per-task data: {}", without.shares());
    assert!(with.all > 10_000 && without.all == with.all, "the program is the same");
    assert_eq!(with.whole, with.all);
    assert!(without.whole * 2 < without.all, "{}", without.shares());
}

/// Samples of tasks that were in a scope.
#[derive(Clone, Copy, Default)]
struct Samples {
    all: u64,
    whole: u64,
}

impl Samples {
    fn shares(self) -> String {
        let share = 100.0 * self.whole as f64 / self.all as f64;
        format!("{share:5.1} % of {} samples", self.all)
    }
}

fn sample_all(_recording: &CallStacks) -> Samples {
    let mut sum = Samples::default();
    for samples in (0..SEEDS).map(Program::run) {
        sum.all += samples.all;
        sum.whole += samples.whole;
    }
    sum
}

/// What all tasks and threads share. One thread runs at a time.
struct Program {
    rng: Mutex<Rng>,
    ready: Mutex<Vec<Polled>>,
    samples: Mutex<Samples>,
}

impl Program {
    fn run(seed: u64) -> Samples {
        let program = Arc::new(Self {
            rng: Mutex::new(Rng::new(seed)),
            ready: Mutex::default(),
            samples: Mutex::default(),
        });
        for _ in 0..TASKS {
            let task = Arc::clone(&program).live().task("sampled");
            program.ready.lock().unwrap().push(Box::pin(task));
        }
        let cpus: Vec<_> = (0..CPUS).map(|_| Cpu::start(&program)).collect();
        while !program.ready.lock().unwrap().is_empty() {
            cpus[program.below(CPUS)].poll();
        }
        cpus.into_iter().for_each(Cpu::end);
        *program.samples.lock().unwrap()
    }

    async fn live(self: Arc<Self>) {
        let (mut scopes, mut steps) = (Vec::new(), STEPS);
        while steps != 0 {
            self.in_scopes(&mut scopes, &mut steps).await;
        }
    }

    /// Lives on in the scopes that the task has entered, and in further ones.
    fn in_scopes<'a>(
        &'a self,
        scopes: &'a mut Vec<&'static str>,
        steps: &'a mut usize,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            while *steps != 0 {
                *steps -= 1;
                match self.below(8) {
                    0 | 1 if scopes.len() < DEPTH => {
                        let name = NAMES[self.below(NAMES.len())];
                        let _scope = Scope::enter_named(name);
                        scopes.push(name);
                        self.in_scopes(scopes, steps).await;
                        scopes.pop();
                    }
                    2 => return,
                    3 | 4 => yield_once().await,
                    5 => self.poll_one(),
                    _ => self.sample(scopes),
                }
            }
        })
    }

    /// Polls one of the tasks that nobody polls at the moment.
    fn poll_one(&self) {
        let mut ready = self.ready.lock().unwrap();
        if ready.is_empty() {
            return;
        }
        let place = self.below(ready.len());
        let mut task = ready.swap_remove(place);
        drop(ready);
        if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.ready.lock().unwrap().push(task);
        }
    }

    fn sample(&self, scopes: &[&str]) {
        if scopes.is_empty() {
            return;
        }
        let is_whole = current_scopes().iter().map(|name| &**name).eq(scopes.iter().copied());
        let mut samples = self.samples.lock().unwrap();
        samples.all += 1;
        samples.whole += u64::from(is_whole);
    }

    fn below(&self, end: usize) -> usize {
        self.rng.lock().unwrap().below(end)
    }
}

fn yield_once() -> impl Future<Output = ()> + Send {
    let mut yielded = false;
    poll_fn(move |_| match std::mem::replace(&mut yielded, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
}

/// A thread that polls one task each time that it is told to.
struct Cpu {
    orders: mpsc::Sender<()>,
    done: mpsc::Receiver<()>,
    thread: thread::JoinHandle<()>,
}

impl Cpu {
    fn start(program: &Arc<Program>) -> Self {
        let (orders, ordered) = mpsc::channel();
        let (tell, done) = mpsc::channel();
        let program = Arc::clone(program);
        let thread = thread::spawn(move || {
            for () in ordered {
                program.poll_one();
                tell.send(()).unwrap();
            }
        });
        Self { orders, done, thread }
    }

    fn poll(&self) {
        self.orders.send(()).unwrap();
        self.done.recv().unwrap();
    }

    fn end(self) {
        drop(self.orders);
        self.thread.join().unwrap();
    }
}
