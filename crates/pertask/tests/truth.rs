//! The cheap clock tells the truth: the CPU time of tasks is what the thread's own CPU clock says, under whatever takes the
//! CPU from their thread, and with each detector.
//!
//! The clock is chosen once in a process, so each test runs itself again in a child for each of them. A clock that this machine
//! does not have is skipped, loudly; with `PERTASK_TRUTH_ALL` set, that is a failure.

use pertask::{Report, Session, TaskExt};
use std::future::Future;
use std::hint::black_box;
use std::io::{Read, Write};
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How far the sum over tasks may be off.
const TOLERANCE: f64 = 0.005;
/// CPU time that each test spends in tasks, in milliseconds, unless `PERTASK_TRUTH_MS` says otherwise: enough to see half a
/// per cent through the noise of a machine that others use.
const CPU_TIME_MS: u64 = 1500;

/// CPU time of a poll: long against what the two readings of the truth cost, which are inside the poll and outside the truth.
const POLL: Duration = Duration::from_millis(20);

#[test]
fn alone() {
    with_each_clock("alone", || check(spin_a_while));
}

#[test]
fn beside_a_competitor_on_the_same_cpu() {
    with_each_clock("beside_a_competitor_on_the_same_cpu", || {
        stay_on_one_cpu();
        let competing = AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while competing.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            // Also when the check fails.
            let _stop = Stop(&competing);
            check(spin_a_while);
        });
    });
}

#[test]
fn with_sleep_inside_polls() {
    with_each_clock("with_sleep_inside_polls", || {
        check(|| {
            spin_a_while();
            std::thread::sleep(Duration::from_micros(50));
            spin_a_while();
        });
    });
}

#[test]
fn with_blocking_system_calls() {
    with_each_clock("with_blocking_system_calls", || {
        let (mut from_echo, mut echo_out) = std::io::pipe().unwrap();
        let (mut echo_in, mut to_echo) = std::io::pipe().unwrap();
        let echo = std::thread::spawn(move || {
            let mut byte = [0];
            while echo_in.read_exact(&mut byte).is_ok() && echo_out.write_all(&byte).is_ok() {}
        });
        check(|| {
            spin_a_while();
            let mut byte = [1];
            to_echo.write_all(&byte).unwrap();
            from_echo.read_exact(&mut byte).unwrap();
        });
        drop(to_echo);
        echo.join().unwrap();
    });
}

#[test]
fn with_page_faults() {
    const BYTES: usize = 4 << 20;
    with_each_clock("with_page_faults", || {
        check(|| {
            // Above malloc's threshold: fresh pages each time.
            let mut pages = vec![0_u8; BYTES];
            pages.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
            black_box(pages);
        });
    });
}

#[test]
fn under_a_signal_each_millisecond() {
    with_each_clock("under_a_signal_each_millisecond", || {
        let signals = signal_each_millisecond();
        check(spin_a_while);
        let signals = signals.load(Ordering::Relaxed);
        assert!(signals > cpu_time().as_millis() as u64 / 3, "only {signals} signals came");
    });
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Runs tasks of `work` and compares their CPU time with what the thread's clock said at the edges of each poll.
///
/// A kernel learns late that its hypervisor has taken time: its own clock runs on meanwhile, and then stands still until it is
/// right again. If that happens between our reading and the test's, it is the test's that is wrong; so while much is being
/// stolen, it is measured again.
fn check(mut work: impl FnMut()) {
    for measured_before in 0.. {
        let (off, report) = measure(&mut work);
        println!("{:+.3} %  {}", off * 100.0, report.clock);
        assert_conserved(&report);
        if off.abs() <= TOLERANCE {
            return;
        }
        let stolen = report.clock.contains("stolen");
        assert!(stolen && measured_before < 3, "{:+.3} % off: {report:?}", off * 100.0);
    }
}

/// By how much tasks of `work` are off the truth.
fn measure(work: &mut impl FnMut()) -> (f64, Report) {
    let session = Session::start().unwrap();
    let truth_ns = AtomicU64::new(0);
    let polls = Polls { work, truth_ns: &truth_ns };
    futures::executor::block_on(polls.task("truth"));
    let report = session.stop();
    let told_ns = report.tasks_cpu_ns as f64;
    (told_ns / truth_ns.into_inner() as f64 - 1.0, report)
}

fn assert_conserved(report: &Report) {
    let parts = report.tasks_cpu_ns + report.workers_cpu_ns + report.other_cpu_ns;
    let off = parts.abs_diff(report.process_cpu_ns) as f64 / report.process_cpu_ns as f64;
    assert!(off <= TOLERANCE, "the parts are {:.3} % off: {report:?}", off * 100.0);
}

/// Polls of `work`, which notes for each what the thread's own clock says.
struct Polls<'a, F> {
    work: &'a mut F,
    truth_ns: &'a AtomicU64,
}

impl<F: FnMut()> Future for Polls<'_, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let start = thread_cpu_ns();
        let spent = loop {
            (self.work)();
            // Asking for the time is also when the kernel notices that a slice is over: let that be part of the truth.
            thread_cpu_ns();
            let spent = thread_cpu_ns() - start;
            if spent > POLL.as_nanos() as u64 {
                break spent;
            }
        };
        let total = self.truth_ns.fetch_add(spent, Ordering::Relaxed) + spent;
        if total > cpu_time().as_nanos() as u64 {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn cpu_time() -> Duration {
    let said = std::env::var("PERTASK_TRUTH_MS").ok();
    Duration::from_millis(said.map_or(CPU_TIME_MS, |said| said.parse().unwrap()))
}

/// Some hundred microseconds.
fn spin_a_while() {
    for n in 0..400_000_u32 {
        black_box(n);
    }
}

fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Runs `body` in a child for each clock. In such a child: runs it here.
fn with_each_clock(test: &str, body: impl FnOnce()) {
    if std::env::var_os("PERTASK_TRUTH_CHILD").is_some() {
        return body();
    }
    for clock in ["rseq", "perf-page", "thread"] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env("PERTASK_TRUTH_CHILD", "1")
            .env("PERTASK_CLOCK", clock)
            .output()
            .unwrap();
        let (out, err) =
            (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        assert!(child.status.success(), "{clock}, {}:\n{out}\n{err}", child.status);
        let told = out.lines().find(|line| line.contains(" %  ")).unwrap_or_default();
        if told.contains("refused") && clock != "thread" {
            assert!(std::env::var_os("PERTASK_TRUTH_ALL").is_none(), "no {clock}: {told}");
            // Past libtest, which would swallow it.
            let skipped = format!("SKIPPED {test} with {clock}: {told}\n");
            std::io::stderr().write_all(skipped.as_bytes()).unwrap();
        } else {
            println!("{test}, {clock}: {told}");
        }
    }
}

fn stay_on_one_cpu() {
    // SAFETY: a set of ours, of the size that is passed.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu() as usize, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// Has this thread interrupted by SIGALRM a thousand times a second. Returns the count.
fn signal_each_millisecond() -> &'static AtomicU64 {
    static SIGNALS: AtomicU64 = AtomicU64::new(0);
    extern "C" fn count(_: libc::c_int) {
        SIGNALS.fetch_add(1, Ordering::Relaxed);
    }
    let each = libc::timeval { tv_sec: 0, tv_usec: 1000 };
    let timer = libc::itimerval { it_interval: each, it_value: each };
    // SAFETY: the handler only counts; SA_RESTART keeps system calls whole.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
        libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut());
    }
    // Until the first has come.
    let start = Instant::now();
    while SIGNALS.load(Ordering::Relaxed) == 0 && start.elapsed() < Duration::from_secs(5) {
        std::hint::spin_loop();
    }
    &SIGNALS
}
