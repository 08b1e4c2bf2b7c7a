//! An executor whose futures are tasks: it forks where it spawns, runs where it polls, and runs aside where it drops.
//!
//! `cargo run -p pertask-core --example executor` prints how long the tasks of each spawn path were on a CPU.

#![forbid(unsafe_code)]

use pertask_core::{Cpu, OwnedTask, PathCounts, Pmu, Switch, System};
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

// The executor.

type Body = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes tasks, and puts them into the queue of ready tasks.
#[derive(Clone)]
struct Spawner(Sender<Arc<Job>>);

/// A spawned future, with the right to run its task. `None` once the task has ended.
struct Job {
    body: Mutex<Option<(OwnedTask, Body)>>,
    is_queued: AtomicBool,
    spawner: Spawner,
}

impl Spawner {
    #[track_caller]
    fn spawn(&self, name: &str, future: impl Future<Output = ()> + Send + 'static) {
        // The caller of `spawn` is the site. In the closure, `Location::caller` would be in this file.
        let location = Location::caller();
        // The spawning task is current here, so the new task becomes its child, and inherits its events.
        let task = Cpu::with(|cpu| cpu.fork(cpu.site(Some(name), location)));
        let body = Mutex::new(Some((task, Box::pin(future) as Body)));
        Arc::new(Job { body, is_queued: AtomicBool::new(false), spawner: self.clone() }).wake();
    }
}

impl Wake for Job {
    fn wake(self: Arc<Self>) {
        if !self.is_queued.swap(true, SeqCst) {
            let queue = self.spawner.0.clone();
            // If no worker is left, the job is dropped, and its task ends.
            let _ = queue.send(self);
        }
    }
}

impl Job {
    fn poll(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        let mut body = self.body.lock().unwrap();
        // Before the poll: a wake during the poll queues the job again.
        self.is_queued.store(false, SeqCst);
        let Some((task, future)) = &mut *body else { return };
        let mut context = Context::from_waker(&waker);
        // A poll that panics also ends this worker. By then `run` has switched the task out.
        let poll = Cpu::with(|cpu| cpu.run(task, || future.as_mut().poll(&mut context)));
        if poll.is_ready() {
            end(body.take());
        }
    }
}

/// A job that nobody can wake any more ends like a job whose future is ready.
impl Drop for Job {
    fn drop(&mut self) {
        end(self.body.get_mut().ok().and_then(Option::take));
    }
}

/// Drops a future aside, so that the destructor's work is charged to the task but is no turn of it. Then ends the task.
fn end(body: Option<(OwnedTask, Body)>) {
    let Some((mut task, future)) = body else { return };
    Cpu::with(|cpu| {
        cpu.run_aside(&mut task, || drop(future));
        cpu.exit(task);
    });
}

/// A worker: polls ready jobs until the last job has ended, and with it the last spawner.
fn work(ready: &Mutex<Receiver<Arc<Job>>>) {
    let next = || ready.lock().unwrap().recv().ok();
    std::iter::from_fn(next).for_each(Job::poll);
}

// A PMU, so that there is something to show. `pmu.rs` explains how to write one.

/// How long each task was on a CPU.
struct WallTime(Instant);

impl WallTime {
    fn now_ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

impl Pmu for WallTime {
    const NAME: &'static str = "wall time";
    type Data = AtomicU64;
    type CpuData = AtomicU64;
    type Count = u64;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.store(self.now_ns(), Relaxed);
    }
    fn sched_out(&self, switch: Switch<'_, Self>) {
        // The event was attached before any task ran, so `sched_in` has run before.
        if let Some(sum) = switch.data {
            sum.fetch_add(self.now_ns() - switch.cpu_data.load(Relaxed), Relaxed);
        }
    }
    fn read(&self, sum: &AtomicU64) -> u64 {
        sum.load(Relaxed)
    }
}

// A program.

fn main() -> Result<(), pertask_core::Error> {
    let wall_time = System::global().register(WallTime(Instant::now()))?;
    // Tasks are counted as long as the event lives.
    let event = wall_time.attach_global()?;

    let (queue, ready) = channel();
    let spawner = Spawner(queue);
    spawner.spawn("server", server(spawner.clone()));
    drop(spawner);
    let ready = Mutex::new(ready);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| work(&ready));
        }
    });

    println!("TIME ON A CPU  TASKS  SPAWN PATH");
    let rows = wall_time.snapshot(|_| {});
    rows.iter().filter(|row| row.path.depth() == 0).for_each(|root| print(&rows, root));
    println!("{:>10.2} ms         in all", event.read() as f64 / 1e6);
    Ok(())
}

async fn server(spawner: Spawner) {
    for request in 0..20 {
        match request % 4 {
            0 => spawner.spawn("GET /report", report(spawner.clone())),
            _ => spawner.spawn("GET /hash", busy(1)),
        }
        yield_now().await;
    }
}

async fn report(spawner: Spawner) {
    (0..3).for_each(|_| spawner.spawn("render", busy(2)));
    yield_now().await;
}

async fn busy(times: u32) {
    for _ in 0..times {
        let from = Instant::now();
        while from.elapsed() < Duration::from_millis(1) {}
        yield_now().await;
    }
}

async fn yield_now() {
    let mut has_yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Prints a path, and below it the paths whose parent it is.
fn print(rows: &[PathCounts<u64>], row: &PathCounts<u64>) {
    let site = row.path.site();
    let (indent, name) = (2 * row.path.depth() as usize, site.name().unwrap_or("-"));
    let (ms, tasks) = (row.count as f64 / 1e6, row.exited + row.live);
    println!("{ms:>10.2} ms  {tasks:>5}  {:indent$}{name} ({})", "", site.location());
    let is_child = |child: &&PathCounts<u64>| {
        child.path.parent().is_some_and(|parent| std::ptr::eq(parent, row.path))
    };
    rows.iter().filter(is_child).for_each(|child| print(rows, child));
}
