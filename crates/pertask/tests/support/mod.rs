//! What the tests share: work whose CPU time is known, and the rows of a report.
//!
//! The truth is read from the kernel's CPU clock of the very thread that works, which is the clock that pertask reads.
//! A busy machine makes neither of them wrong, so the tolerances hold under any load:
//!
//! - What pertask measured is never *less* than the truth: its two readings enclose the test's two, on one clock. But for
//!   [`STOLEN_NS`]: between two readings of that clock it counts ticks, also those that a hypervisor has taken.
//! - It is more by what lies between them: two switches a poll and the executor's glue, some microseconds in a debug
//!   build, and now and then an interrupt, which the kernel charges to whoever runs. [`glue_ns`] allows for that.
#![allow(dead_code, reason = "each file of tests uses a part of it")]

pub mod by_hand;
pub mod process;

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    hint,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc::{self, Receiver, Sender},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use pertask::{
    CpuTime, CpuTimeCount, Report, SiteReport, Task, ThreadReport,
    core::{Cpu, PmuHandle, System},
};

/// Serialises the tests of one process that look at the whole process.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says something that the test harness does not capture: what was skipped, and why.
pub fn loudly(message: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{message}");
}

pub fn ms(milliseconds: u64) -> u64 {
    milliseconds * 1_000_000
}

/// How much more than the truth may be measured: 2 %, 2 ms for an interrupt at the wrong moment, and what spins have
/// taken beyond what they were told to.
pub fn glue_ns(truth_ns: u64) -> u64 {
    truth_ns / 50 + ms(2) + OVERSHOT_NS.load(Relaxed)
}

/// By how much spins have overshot their time, each by an interrupt just before its end, and what was taken between a spin and the
/// end of its poll.
static OVERSHOT_NS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// What spins have used in this thread.
    static SPUN_NS: Cell<u64> = const { Cell::new(0) };
}

/// What a piece of work knows of itself.
#[derive(Clone, Debug, Default)]
pub struct Truth(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    cpu_ns: AtomicU64,
    polls: AtomicU64,
    longest_poll_ns: AtomicU64,
}

impl Truth {
    pub fn cpu_ns(&self) -> u64 {
        self.0.cpu_ns.load(Relaxed)
    }

    pub fn polls(&self) -> u64 {
        self.0.polls.load(Relaxed)
    }

    /// Uses the CPU for some milliseconds of this thread's CPU time.
    pub fn spin(&self, milliseconds: u64) {
        let began = Instant::now();
        self.0.cpu_ns.fetch_add(spin(milliseconds), Relaxed);
        // A part of a poll, so no longer than the poll.
        let wall_ns = u64::try_from(began.elapsed().as_nanos()).unwrap();
        self.0.longest_poll_ns.fetch_max(wall_ns, Relaxed);
    }

    /// The future that `make` makes, its polls counted.
    pub fn counts<F: Future, M: FnOnce(Self) -> F>(
        &self,
        make: M,
    ) -> impl Future<Output = F::Output> + use<F, M> {
        let truth = self.clone();
        let mut future = Box::pin(make(self.clone()));
        poll_fn(move |context| {
            truth.0.polls.fetch_add(1, Relaxed);
            future.as_mut().poll(context)
        })
    }

    /// A future of so many polls, each of which spins.
    pub fn work(&self, polls: u64, milliseconds: u64) -> impl Future<Output = ()> + Send + use<> {
        let truth = self.clone();
        async move {
            for poll in 0..polls {
                if poll > 0 {
                    yield_once().await;
                }
                truth.0.polls.fetch_add(1, Relaxed);
                truth.spin(milliseconds);
            }
        }
    }

    /// Asserts that `count` is what this truth says.
    #[track_caller]
    pub fn check(&self, what: &str, count: &CpuTimeCount) {
        assert_eq!(count.polls, self.polls(), "{what}: polls");
        self.check_times(what, count.cpu_ns, count.wall_ns, count.longest_poll_ns, count.polls);
    }

    /// The same, of a site's row.
    #[track_caller]
    pub fn check_row(&self, row: &SiteReport) {
        let what = row.site.name.as_deref().unwrap_or(&row.site.file);
        assert_eq!(row.usage.polls, self.polls(), "{what}: polls");
        self.check_times(
            what,
            row.usage.cpu_ns,
            row.usage.wall_ns,
            Some(row.usage.max_poll_ns),
            row.usage.polls,
        );
    }

    #[track_caller]
    fn check_times(&self, what: &str, cpu: u64, wall: u64, longest: Option<u64>, polls: u64) {
        check_within(what, cpu, self.cpu_ns(), STOLEN_NS * polls.clamp(1, 3));
        // The wall clock is read after the CPU clock, and the kernel trims its rate by up to 500 ppm.
        let granularity = wall / 1000 + polls * 100_000 + STOLEN_NS;
        assert!(wall + granularity >= cpu, "{what}: {cpu} ns of CPU in {wall} ns of wall time");
        let longest = longest.unwrap_or_else(|| panic!("{what}: no longest poll"));
        let known = self.0.longest_poll_ns.load(Relaxed);
        assert!(longest + known / 1000 >= known, "{what}: longest {longest} ns, not {known}");
        assert!(longest <= wall, "{what}: longest {longest} ns of {wall} ns");
    }
}

/// How far the clock may be ahead of the truth, and a difference of two of its readings be off either way.
pub const STOLEN_NS: u64 = 1_000_000;

/// Asserts that `measured` is the truth and no more than the glue. It may be of several polls, and each may have begun just after
/// a theft.
#[track_caller]
pub fn check_ns(what: &str, measured: u64, truth: u64) {
    check_within(what, measured, truth, 3 * STOLEN_NS);
}

#[track_caller]
fn check_within(what: &str, measured: u64, truth: u64, stolen_ns: u64) {
    assert!(measured + stolen_ns >= truth, "{what}: {measured} ns were measured, {truth} ns used");
    let most = truth + glue_ns(truth) + stolen_ns;
    assert!(measured <= most, "{what}: {measured} ns were measured, only {truth} ns used");
}

/// Asserts that `measured` lies between two truths.
#[track_caller]
pub fn check_between(what: &str, measured: u64, (least, most): (u64, u64)) {
    let within = (least.saturating_sub(STOLEN_NS)..=most + STOLEN_NS).contains(&measured);
    assert!(within, "{what}: {measured} ns were measured, between {least} and {most} ns used");
}

/// Uses the CPU for some milliseconds of this thread's CPU time, and returns how long it was.
pub fn spin(milliseconds: u64) -> u64 {
    let start = thread_cpu_ns();
    loop {
        let used = thread_cpu_ns() - start;
        if used >= ms(milliseconds) {
            let over = used - ms(milliseconds);
            // Less is the loop's own granularity.
            OVERSHOT_NS.fetch_add(if over > 20_000 { over } else { 0 }, Relaxed);
            SPUN_NS.set(SPUN_NS.get() + used);
            return used;
        }
        for n in 0..100 {
            hint::black_box(n);
        }
    }
}

pub fn thread_cpu_ns() -> u64 {
    read_clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

pub fn process_cpu_ns() -> u64 {
    read_clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

pub fn thread_number() -> u32 {
    // SAFETY: no arguments, no memory.
    unsafe { libc::gettid() }.cast_unsigned()
}

fn read_clock(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which is ours.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "clock {clock}");
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// The CPU clock of a thread, for others to read while it lives.
#[derive(Clone, Copy, Debug)]
pub struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// That of the calling thread.
    pub fn mine() -> Self {
        let mut clock = 0;
        // SAFETY: the thread is alive, being this one; the clock is ours.
        let result = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
        assert_eq!(result, 0);
        Self(clock)
    }

    pub fn cpu_ns(self) -> u64 {
        read_clock(self.0)
    }

    /// Waits until the thread has used so much more CPU time.
    pub fn wait_for(self, milliseconds: u64) {
        let until = self.cpu_ns() + ms(milliseconds);
        wait_until("a thread uses the CPU", || self.cpu_ns() >= until);
    }
}

/// After so long, what has not happened never will: far beyond what anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Looks again and again, and lets others run meanwhile.
#[track_caller]
pub fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < PATIENCE, "has not happened in {PATIENCE:?}: {what}");
        thread::yield_now();
    }
}

/// Waits for a child of this process, and returns its status. A child that does not end is killed, and the test fails.
#[track_caller]
pub fn wait_for_child(child: libc::pid_t) -> libc::c_int {
    let (began, mut status) = (Instant::now(), -1);
    loop {
        // SAFETY: the status is ours.
        let ended = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
        if ended != 0 {
            assert_eq!(ended, child, "{}", std::io::Error::last_os_error());
            return status;
        }
        if began.elapsed() > PATIENCE {
            // SAFETY: it is our child, and has not been waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
            panic!("a child has not ended in {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the kernel has reaped a thread that has been joined: it may be listed for a moment after that.
pub fn wait_until_reaped(thread: u32) {
    let task = format!("/proc/self/task/{thread}");
    wait_until("a joined thread is gone", || !std::path::Path::new(&task).exists());
}

/// Pending once.
pub fn yield_once() -> impl Future<Output = ()> + Send {
    let mut yielded = false;
    poll_fn(move |context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

/// Polls once, by hand, with a waker that wakes nobody.
pub fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    let (began, spun) = (thread_cpu_ns(), SPUN_NS.get());
    let polled = future.poll(&mut Context::from_waker(Waker::noop()));
    let beside = (thread_cpu_ns() - began).saturating_sub(SPUN_NS.get() - spun);
    // Less is the glue's.
    OVERSHOT_NS.fetch_add(if beside > ms(1) { beside } else { 0 }, Relaxed);
    polled
}

/// Polls until it is ready, by hand: the least of all executors.
pub fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = poll_once(future.as_mut()) {
            return output;
        }
    }
}

/// The task that runs here.
pub fn current_task() -> Option<Arc<Task>> {
    Cpu::with(Cpu::current)
}

/// The live tasks of a name.
pub fn live_tasks(name: &str) -> Vec<Arc<Task>> {
    live_tasks_where(|task| task.site().name() == Some(name))
}

/// The live tasks that were made in a line of a file.
pub fn live_tasks_at(file: &str, line: u32) -> Vec<Arc<Task>> {
    live_tasks_where(|task| {
        let location = task.site().location();
        (location.file(), location.line()) == (file, line)
    })
}

fn live_tasks_where(is_meant: impl Fn(&Task) -> bool) -> Vec<Arc<Task>> {
    let mut tasks = Vec::new();
    System::global().for_each_task(|task| {
        if is_meant(task) {
            tasks.push(Arc::clone(task));
        }
    });
    tasks
}

pub fn cpu_time() -> PmuHandle<CpuTime> {
    CpuTime::handle().expect("there is room for the PMU")
}

/// The row of a name, which must be the only one of it.
#[track_caller]
pub fn row<'r>(report: &'r Report, name: &str) -> &'r SiteReport {
    let mut rows = report.sites.iter().filter(|row| row.site.name.as_deref() == Some(name));
    let row = rows.next().unwrap_or_else(|| panic!("no row {name:?}: {report:#?}"));
    assert!(rows.next().is_none(), "two rows {name:?}: {report:#?}");
    row
}

/// The row of the unnamed tasks that were made in a line of a file.
#[track_caller]
pub fn row_at<'r>(report: &'r Report, file: &str, line: u32) -> &'r SiteReport {
    let is_meant = |row: &&SiteReport| {
        row.site.name.is_none() && row.site.file == file && row.site.line == line
    };
    let row = report.sites.iter().find(is_meant);
    row.unwrap_or_else(|| panic!("no row of {file}:{line}: {report:#?}"))
}

/// The row of a live thread.
#[track_caller]
pub fn thread_row(report: &Report, number: u32) -> &ThreadReport {
    let row = report.threads.iter().find(|thread| thread.tid == Some(number));
    row.unwrap_or_else(|| panic!("no thread {number}: {report:#?}"))
}

/// The row of the threads that have ended, workers or others.
pub fn ended_row(report: &Report, worker: bool) -> Option<&ThreadReport> {
    report.threads.iter().find(|thread| thread.tid.is_none() && thread.worker == worker)
}

/// Tells other threads to stop when it is dropped, so also when a test fails.
#[derive(Debug, Default)]
pub struct StopOnDrop(Arc<AtomicBool>);

impl StopOnDrop {
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// A thread that does what it is sent, one thing after the other.
pub struct Puppet {
    pub number: u32,
    pub clock: ThreadClock,
    orders: Sender<Box<dyn FnOnce() + Send>>,
    thread: thread::JoinHandle<()>,
}

impl Puppet {
    pub fn new(name: &str) -> Self {
        let (orders, received): (_, Receiver<Box<dyn FnOnce() + Send>>) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let body = move || {
            tell.send((thread_number(), ThreadClock::mine())).unwrap();
            received.into_iter().for_each(|order| order());
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(body).unwrap();
        let (number, clock) = told.recv().unwrap();
        Self { number, clock, orders, thread }
    }

    /// Has the thread do something, and waits for it.
    pub fn does<R: Send + 'static>(&self, order: impl FnOnce() -> R + Send + 'static) -> R {
        self.begins(order).recv().expect("the thread did as told")
    }

    /// Has the thread do something, and does not wait.
    pub fn begins<R: Send + 'static>(
        &self,
        order: impl FnOnce() -> R + Send + 'static,
    ) -> Receiver<R> {
        let (tell, told) = mpsc::channel();
        self.orders.send(Box::new(move || drop(tell.send(order())))).unwrap();
        told
    }

    /// Ends the thread, and waits until nothing is left of it.
    pub fn ends(self) {
        drop(self.orders);
        self.thread.join().unwrap();
        wait_until_reaped(self.number);
    }
}
