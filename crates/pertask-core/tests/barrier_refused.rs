//! The kernel grants `membarrier(2)` when the program starts, and refuses it later to one thread, on which the program has set
//! a seccomp filter. What needs the barrier there says so and leaves nothing behind; what needs none goes on; other threads
//! do not notice; and what that thread releases is freed by another, neither early nor never.

#![cfg(all(target_os = "linux", not(any(pertask_loom, pertask_shuttle))))]

mod common;

use common::{
    Hollow, Turns, alone, assert_live, assert_nothing_left, hook_calls, site, system_with,
};
use pertask_core::rcu::{self, RcuCell};
use pertask_core::{Cpu, Error, Event, Inherit, OwnedTask, Pmu, PmuHandle, Switch, System, TaskId};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// More than a thread releases before it tries to free.
const MANY: usize = 1000;

/// No job takes so long but one that waits for ever.
const LONG: Duration = Duration::from_secs(300);

const REFUSED: Option<Error> = Some(Error::BarrierRefused);

/// A thread to which the kernel refuses the barrier, and which does what it is told.
struct Refused {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Refused {
    /// `None`, and said aloud, where the kernel refuses the barrier from the start, or there is no filter to be had.
    fn start() -> Option<Self> {
        if !rcu::asymmetric() {
            return skipped("the kernel has refused membarrier(2) from the start");
        }
        let (jobs, inbox) = channel::<Job>();
        let (tell, told) = channel();
        let thread = thread::spawn(move || {
            tell.send(refuse_the_barrier()).unwrap();
            inbox.into_iter().for_each(|job| job());
        });
        match told.recv().unwrap() {
            Ok(()) => Some(Self { jobs: Some(jobs), thread: Some(thread) }),
            Err(why) => skipped(&why),
        }
    }

    /// Does `job` on that thread, and returns when it is done.
    fn does<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (done, is_done) = channel();
        let job = move || done.send(job()).unwrap();
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        is_done.recv_timeout(LONG).expect("the job has panicked, or waits for somebody")
    }
}

impl Drop for Refused {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // A test that fails may leave it waiting.
        if !thread::panicking() {
            self.thread.take().unwrap().join().unwrap();
        }
    }
}

fn skipped<T>(why: &str) -> Option<T> {
    // Past the harness, which keeps what a test that passes prints.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {}: {why}", thread::current().name().unwrap());
    None
}

/// From here on, this thread and those that it starts are refused `membarrier`.
fn refuse_the_barrier() -> Result<(), String> {
    let rules = [(libc::SYS_membarrier, Vec::new())].into();
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().map_err(|error| format!("seccomp: {error}"))?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap())
        .map_err(|error| format!("seccomp: {error}"))?;
    const QUERY: libc::c_int = 0;
    // SAFETY: it takes three integers and touches no memory.
    match unsafe { libc::syscall(libc::SYS_membarrier, QUERY, 0, 0) } {
        -1 => Ok(()),
        _ => Err("the filter refuses nothing here".to_owned()),
    }
}

fn forks(system: &'static System, count: usize) -> Vec<OwnedTask> {
    (0..count).map(|_| system.fork(site(system, "forked"), None, 0)).collect()
}

/// The tasks that have data.
fn with_data<P: Pmu>(pmu: PmuHandle<P>) -> Vec<TaskId> {
    let mut tasks = Vec::new();
    pmu.snapshot(|live| tasks.push(live.task.id()));
    tasks
}

/// Nobody is attached: a fork gets no data, and a run calls no hook.
fn assert_nobody_attached(turns: PmuHandle<Turns>, cpu: &Cpu, task: &mut OwnedTask) {
    let calls = hook_calls(turns);
    drop(forks(turns.system(), 1));
    cpu.run(task, || {});
    assert_eq!(hook_calls(turns), calls, "a hook was called");
    assert_eq!(with_data(turns), []);
    assert_eq!(turns.tasks_without_data(), 0);
    assert_live(turns, 0);
}

#[test]
fn global_attach_is_refused_and_leaves_nothing_behind() {
    let _alone = alone();
    let Some(refused) = Refused::start() else { return };
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let mut tasks = forks(system, 3);
    // Not the second time, either.
    for _ in 0..2 {
        assert_eq!(refused.does(move || turns.attach_global().err()), REFUSED);
        assert_nobody_attached(turns, &cpu, &mut tasks[0]);
    }
    // There, too, a fork finds no global event.
    tasks.extend(refused.does(move || forks(system, 1)));
    assert_nobody_attached(turns, &cpu, &mut tasks[3]);
    // Another thread's attach is the first, and gives data to all.
    let event = turns.attach_global().unwrap();
    tasks.iter_mut().for_each(|task| cpu.run(task, || {}));
    assert_eq!((with_data(turns).len(), event.read()), (4, 4));
    drop((event, tasks, cpu));
    assert_nothing_left(turns);
}

#[test]
fn refused_global_attach_leaves_task_events_as_they_were() {
    let _alone = alone();
    let Some(refused) = Refused::start() else { return };
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let mut tasks = forks(system, 2);
    let event = turns.attach_task(tasks[0].handle_ref(), Inherit::No).unwrap();
    assert_eq!(refused.does(move || turns.attach_global().err()), REFUSED);
    tasks.iter_mut().for_each(|task| cpu.run(task, || {}));
    assert_eq!((with_data(turns), event.read()), (vec![tasks[0].id()], 1));
    // It holds its own reference, and nobody another.
    drop(event);
    assert_nobody_attached(turns, &cpu, &mut tasks[0]);
    drop((tasks, cpu));
    assert_nothing_left(turns);
}

#[test]
fn what_needs_no_barrier_goes_on() {
    let _alone = alone();
    let Some(refused) = Refused::start() else { return };
    let (system, turns) = system_with(Turns);
    let hollow = system.register(Hollow).unwrap();
    let first = turns.attach_global().unwrap();
    let (events, read) = refused.does(move || {
        let cpu = Cpu::new(system);
        let mut task = cpu.fork(site(system, "there"));
        let attach = |inherit| turns.attach_task(task.handle_ref(), inherit).unwrap();
        let own = [Inherit::No, Inherit::Children].map(attach);
        // One that is not the first, and one of a PMU without data.
        let global = (turns.attach_global().unwrap(), hollow.attach_global().unwrap());
        cpu.run(&mut task, || drop(cpu.fork(site(system, "child"))));
        ((own, global), first.read())
    });
    let (own, global) = events;
    assert_eq!((read, own.each_ref().map(Event::read), global.0.read()), (1, [1, 1], 1));
    drop((own, global));
    assert_nothing_left(turns);
    assert_nothing_left(hollow);
}

/// The last global event gives its tasks' data back also where it cannot wait for forks under way.
#[test]
fn last_global_event_is_dropped_where_the_barrier_is_refused() {
    let _alone = alone();
    let Some(refused) = Refused::start() else { return };
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let mut tasks = forks(system, 3);
    let [one, other] = [(); 2].map(|()| turns.attach_global().unwrap());
    let shared = turns.attach_task(tasks[1].handle_ref(), Inherit::No).unwrap();
    drop(one);
    refused.does(move || drop(other));
    assert_live(turns, 1);
    assert_eq!(with_data(turns), [tasks[1].id()]);
    drop(shared);
    assert_nobody_attached(turns, &cpu, &mut tasks[1]);
    // The next is a first one again.
    let event = turns.attach_global().unwrap();
    assert_eq!(with_data(turns).len(), 3);
    drop((event, tasks, cpu));
    assert_nothing_left(turns);
}

/// A PMU that could not be let go there is as it was.
#[test]
fn unregister_is_refused() {
    let _alone = alone();
    let Some(refused) = Refused::start() else { return };
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let mut tasks = forks(system, 2);
    assert_eq!(refused.does(move || turns.unregister().err()), REFUSED);
    let event = turns.attach_global().unwrap();
    tasks.iter_mut().for_each(|task| cpu.run(task, || {}));
    assert_eq!(event.read(), 2);
    drop((event, tasks, cpu));
    assert_nothing_left(turns);
    assert_eq!(turns.unregister(), Ok(()));
}

#[test]
fn barrier_is_refused() {
    let _alone = alone();
    let Some(refused) = Refused::start() else { return };
    let (system, turns) = system_with(Turns);
    let task = forks(system, 1).remove(0);
    drop(turns.attach_task(task.handle_ref(), Inherit::No).unwrap());
    assert_eq!(refused.does(|| rcu::barrier().err()), REFUSED);
    // It did not say that all was freed, and nothing was; nor is anything lost for those whom nothing is refused.
    assert_eq!(turns.cache().live(), 1);
    drop(task);
    assert_nothing_left(turns);
}

/// Released there, data waits, however often that thread tries to free it; the next thread that tries frees it.
#[test]
fn what_is_released_there_is_freed_by_another_thread() {
    let _alone = alone();
    let Some(refused) = Refused::start() else { return };
    rcu::barrier().unwrap();
    let (system, turns) = system_with(Turns);
    let task = forks(system, 1).remove(0);
    let handle = task.handle();
    let release = move || {
        for _ in 0..MANY {
            drop(turns.attach_task(&handle, Inherit::No).unwrap());
        }
    };
    refused.does(release);
    assert_eq!((turns.cache().live(), rcu::pending()), (MANY, MANY));
    // Not through `barrier`: another thread that releases data comes by.
    let (others, passes_by) = system_with(Turns);
    let passing = forks(others, 1).remove(0);
    for _ in 0..MANY {
        drop(passes_by.attach_task(passing.handle_ref(), Inherit::No).unwrap());
    }
    assert_eq!(turns.cache().live(), 0);
    drop((task, passing));
    assert_nothing_left(turns);
    assert_nothing_left(passes_by);
}

/// A PMU whose `sched_in` says that it has data, and then waits to be told to go on. (No hook should wait.)
struct Stands(Mutex<(Sender<()>, Receiver<()>)>);

impl Pmu for Stands {
    const NAME: &'static str = "stands";
    type Data = AtomicU64;
    type CpuData = ();
    type Count = u64;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        let (stands, go_on) = &*self.0.lock().unwrap();
        stands.send(()).unwrap();
        // An error is as good: the test has failed.
        let _ = go_on.recv();
        if let Some(data) = switch.data {
            data.fetch_add(1, SeqCst);
        }
    }

    fn sched_out(&self, _: Switch<'_, Self>) {}

    fn read(&self, data: &AtomicU64) -> u64 {
        data.load(SeqCst)
    }
}

/// A hook's data stays also when it was released by a thread that may not ask who looks at it, and then by others that may.
#[test]
fn data_in_a_hook_outlives_its_event() {
    let _alone = alone();
    let Some(refused) = Refused::start() else { return };
    let (stands, is_standing) = channel();
    let (go_on, goes_on) = channel();
    let (system, pmu) = system_with(Stands(Mutex::new((stands, goes_on))));
    let turns = system.register(Turns).unwrap();
    let (mut runs, other) = (forks(system, 1).remove(0), forks(system, 1).remove(0));
    let release_many = move || {
        for _ in 0..MANY {
            drop(turns.attach_task(other.handle_ref(), Inherit::No).unwrap());
        }
    };
    let event = pmu.attach_task(runs.handle_ref(), Inherit::No).unwrap();
    let run = thread::spawn(move || Cpu::new(system).run(&mut runs, || {}));
    is_standing.recv().unwrap();
    let release_many = refused.does(move || {
        drop(event);
        release_many();
        release_many
    });
    release_many();
    let live = pmu.cache().live();
    go_on.send(()).unwrap();
    run.join().unwrap();
    assert_eq!(live, 1, "freed while a hook looked at it");
    drop(release_many);
    assert_live(pmu, 0);
    assert_nothing_left(turns);
}

/// What is dropped is counted.
struct Counted(u32, Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, SeqCst);
    }
}

#[test]
fn replaced_value_is_in_and_the_old_one_is_never_freed() {
    let _alone = alone();
    let Some(refused) = Refused::start() else { return };
    let cell: &'static RcuCell<Counted> = Box::leak(Box::default());
    let drops = Arc::new(AtomicUsize::new(0));
    let value = |number| Some(Box::new(Counted(number, Arc::clone(&drops))));
    let replace = |new| refused.does(move || cell.replace(new).map(|old| old.map(|old| old.0)));
    let now = || cell.with(|value| value.map(|value| value.0));
    // There is nothing that anybody could look at: no barrier.
    assert_eq!((replace(value(1)), now()), (Ok(None), Some(1)));
    assert_eq!((replace(value(2)).err(), now()), (REFUSED, Some(2)));
    assert_eq!((replace(None).err(), now()), (REFUSED, None));
    rcu::barrier().unwrap();
    assert_eq!(drops.load(SeqCst), 0);
    // The cell is good for other threads, which get back what is in it.
    assert_eq!(replace(value(3)), Ok(None));
    assert_eq!(cell.replace(None).unwrap().map(|old| old.0), Some(3));
    assert_eq!(drops.load(SeqCst), 1);
}

/// With what stands before it, of a size that no other allocation here has.
type Wide = [AtomicU64; 1024];

/// A PMU whose data is told from all else by its size.
struct Conspicuous;

impl Pmu for Conspicuous {
    const NAME: &'static str = "conspicuous";
    type Data = Wide;
    type CpuData = AtomicU64;
    type Count = ();

    fn sched_in(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.fetch_add(1, SeqCst);
    }
    fn sched_out(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.fetch_add(1, SeqCst);
    }
    fn read(&self, _: &Wide) {}
}

/// Stops a thread at an allocation of the size that it has named.
struct Stopping;

thread_local! {
    static STOPS_AT: Cell<usize> = const { Cell::new(0) };
}

static STOPPED: AtomicBool = AtomicBool::new(false);
static GOES_ON: AtomicBool = AtomicBool::new(false);

fn wait_for(word: &AtomicBool) {
    while !word.load(SeqCst) {
        thread::yield_now();
    }
}

/// Lets the thread go on when it is dropped: also when the test fails.
struct GoOn;

impl Drop for GoOn {
    fn drop(&mut self) {
        GOES_ON.store(true, SeqCst);
    }
}

// SAFETY: all is done by the system's allocator; what is done besides does not allocate.
unsafe impl GlobalAlloc for Stopping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if STOPS_AT.try_with(Cell::get) == Ok(layout.size()) {
            STOPS_AT.set(0);
            STOPPED.store(true, SeqCst);
            wait_for(&GOES_ON);
        }
        // SAFETY: the caller's.
        unsafe { std::alloc::System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { std::alloc::System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static STOPPING: Stopping = Stopping;

/// A fork has seen the last global event, and gives its task data when the event has gone: nobody has waited for it. The task
/// gives the data back when it ends.
#[test]
fn fork_under_way_as_the_last_global_event_is_dropped() {
    let _alone = alone();
    let Some(refused) = Refused::start() else { return };
    let (system, pmu) = system_with(Conspicuous);
    let event = pmu.attach_global().unwrap();
    let (forked, is_forked): (Sender<OwnedTask>, Receiver<_>) = channel();
    let fork = thread::spawn(move || {
        STOPS_AT.set(pmu.cache().object_bytes());
        forked.send(forks(system, 1).remove(0)).unwrap();
    });
    let go_on = GoOn;
    wait_for(&STOPPED);
    refused.does(move || drop(event));
    let before = with_data(pmu);
    drop(go_on);
    fork.join().unwrap();
    let mut late = is_forked.recv().unwrap();
    assert_eq!((before, with_data(pmu)), (vec![], vec![late.id()]));
    // It is nobody's event's.
    let cpu = Cpu::new(system);
    cpu.run(&mut late, || {});
    assert_eq!(pmu.cpu_data(cpu.record()).unwrap().load(SeqCst), 0);
    // The next global event takes what is there, and gives it back.
    let next = pmu.attach_global().unwrap();
    assert_live(pmu, 1);
    drop((late, next));
    assert_live(pmu, 0);
}
