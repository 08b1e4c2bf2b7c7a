//! The mechanisms that interrupt a thread each time it has used a period of CPU time. The sampler uses the first that works of
//! three, in an order that depends on the rate.

use super::descriptors;
use super::disposition;
use super::handler::{self, MOST_DESCRIPTORS};
use super::record::{Record, Stack};
use crate::os::clock;
use crate::os::perf::{Notice, Overflow};
use std::ffi::CStr;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;

/// A way to interrupt a thread each time it has used a period of CPU time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mechanism {
    /// A perf event on the thread's CPU clock, which sends SIGTRAP itself, in user mode alone.
    ///
    /// Time in the kernel is known by the signals that are missing.
    PerfTrap,
    /// A perf event on the thread's CPU clock, whose file sends SIGURG, in user mode alone.
    ///
    /// SIGURG is ignored by default, so it does no harm to a program that does not handle it.
    PerfSignal,
    /// A POSIX timer on the thread's CPU clock, which sends SIGURG.
    ///
    /// The kernel checks the timer once per timer tick. So the rate is at most that of the tick, and samples miss work that
    /// keeps in step with the tick. Time in the kernel is sampled at the call that went there. The signal waits for the return to
    /// user mode; in kernels before 5.11 (5.18 on aarch64) it may end a system call that has a timeout with `EINTR`.
    Timer,
}

/// A mechanism that is armed for one thread, until it is dropped.
#[derive(Debug)]
pub(super) enum Source {
    Trap { _event: Overflow },
    Signal { event: Overflow },
    Timer { _timer: Timer },
}

impl Mechanism {
    /// All mechanisms, those with the highest rates first.
    pub const ALL: [Self; 3] = [Self::PerfTrap, Self::PerfSignal, Self::Timer];

    /// All mechanisms, best first for a rate: truth comes before speed.
    ///
    /// A timer sees time in the kernel, needs no descriptor and no right, and costs nothing at a context switch. But it is no
    /// faster than the kernel's tick. Kernels that do not defer a timer's signal to the return to user mode would end a sleeping
    /// system call with `EINTR`; there a timer is the last choice.
    pub(super) fn in_order(frequency_hz: u32) -> [Self; 3] {
        let is_fast_enough = clock::tick_hz().is_some_and(|tick_hz| frequency_hz <= tick_hz);
        if is_fast_enough && defers_timers() {
            [Self::Timer, Self::PerfTrap, Self::PerfSignal]
        } else {
            Self::ALL
        }
    }

    /// Whether the mechanism interrupts threads in the kernel as well.
    pub(super) fn sees_kernel(self) -> bool {
        self == Self::Timer
    }

    /// Why the mechanism must not even be tried, if so.
    pub(super) fn forbidden(self) -> Option<String> {
        match self {
            Self::PerfTrap if traced() => {
                Some("a debugger is attached, and would receive SIGTRAP".to_owned())
            }
            // Before 5.18, perf's SIGTRAP kills the process if the thread blocks SIGTRAP. Any thread of the program may do so.
            Self::PerfTrap if kernel() < (5, 18) => Some(
                "this kernel would end the program if a thread blocks SIGTRAP; kernels from 5.18 on do not".to_owned(),
            ),
            _ => None,
        }
    }

    /// Why sampling must not go on, if so. The collector asks many times a second.
    pub(super) fn disturbed(self, signal: i32, seldom: bool) -> Option<&'static str> {
        if !disposition::is_ours(signal, handler::on_signal) {
            return Some(
                "sampling ended early, because the program gave the signal another handler",
            );
        }
        let traced = self == Self::PerfTrap && seldom && traced();
        traced.then_some("sampling ended early, because a debugger receives SIGTRAP")
    }

    /// The mechanism's signal.
    ///
    /// SIGTRAP is perf's choice. SIGURG is ours, because it is ignored by default. So it does no harm when the program removes
    /// our handler, or when it is still pending in a thread that executes another program. Real-time signals would not do: they
    /// queue up while a thread blocks them until the user's limit is reached, and then the kernel sends SIGIO, which ends the
    /// process.
    pub(super) fn signal(self) -> i32 {
        match self {
            Self::PerfTrap => libc::SIGTRAP,
            Self::PerfSignal | Self::Timer => libc::SIGURG,
        }
    }

    /// The name of the mechanism's signal.
    pub(super) fn signal_name(self) -> &'static str {
        match self {
            Self::PerfTrap => "SIGTRAP",
            Self::PerfSignal | Self::Timer => "SIGURG",
        }
    }

    /// Whether the mechanism takes a file descriptor for each thread.
    pub(super) fn takes_descriptors(self) -> bool {
        self != Self::Timer
    }

    /// What the mechanism does not see, for people to read.
    pub(super) fn blindness(self) -> &'static str {
        match self {
            Self::PerfTrap | Self::PerfSignal => {
                "in user mode; time in the kernel is estimated, and shown as such"
            }
            Self::Timer => {
                "no faster than the kernel's tick, and blind to work that keeps in step with it"
            }
        }
    }

    /// The period for a rate, as short as the mechanism can make it.
    pub(super) fn period_ns(self, frequency_hz: u32) -> u64 {
        let highest = match self {
            Self::Timer => clock::tick_hz().unwrap_or(100),
            _ => u32::MAX,
        };
        1_000_000_000 / u64::from(frequency_hz.min(highest).max(1))
    }

    /// The CPU time after which the mechanism must have signalled, if it works.
    pub(super) fn patience_ns(self) -> u64 {
        match self {
            // Where other threads want the CPU, few ticks find this thread running.
            Self::Timer => 1_000_000_000,
            _ => 20_000_000,
        }
    }

    /// Arms the mechanism for the calling thread, a collector, and waits until it has interrupted that thread.
    pub(super) fn try_on_this_thread(
        self,
        trial: &'static Record,
        period_ns: u64,
        signal: i32,
    ) -> Result<(), String> {
        // SAFETY: `gettid` takes no arguments and touches no memory.
        let thread = unsafe { libc::gettid() }.cast_unsigned();
        let mut words = Vec::new();
        while trial.ring.read(&mut words) {}
        // SAFETY: the record's last thread was a collector, which has ended, because collectors begin one after the other. So
        // no other thread has the record, and only this thread gives it away. The handler walks this thread's stack, so that a
        // first walk has happened before other threads are interrupted.
        unsafe { trial.give(thread, Stack::Sought) };
        let _source = self.arm(trial, thread, period_ns, signal)?;
        let start_ns = clock::thread_cpu_ns();
        while !trial.ring.read(&mut words) {
            if clock::thread_cpu_ns() - start_ns > self.patience_ns() {
                return Err("the kernel accepts it, but no signal comes".to_owned());
            }
        }
        Ok(())
    }

    /// Arms the mechanism for a thread of this process.
    pub(super) fn arm(
        self,
        record: &Record,
        thread: u32,
        period_ns: u64,
        signal: i32,
    ) -> Result<Source, String> {
        let open = |notice| {
            let event = Overflow::open(thread, period_ns, notice).map_err(|why| why.to_string())?;
            within_limits(&event).map(|()| event)
        };
        match self {
            Self::PerfTrap => {
                let event = open(Notice::Trap(handler::number_of(record)))?;
                Ok(Source::Trap { _event: event })
            }
            Self::PerfSignal => {
                let event = open(Notice::Signal(signal))?;
                // A signal that comes before this finds no record.
                handler::bind_descriptor(event.descriptor(), Some(record));
                Ok(Source::Signal { event })
            }
            Self::Timer => Timer::start(handler::number_of(record), thread, period_ns, signal)
                .map(|timer| Source::Timer { _timer: timer })
                .map_err(|why| why.to_string()),
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PerfTrap => "perf cpu-clock with SIGTRAP",
            Self::PerfSignal => "perf cpu-clock with SIGURG",
            Self::Timer => "POSIX timer on each thread's CPU clock",
        })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Self::Signal { event } = self {
            handler::bind_descriptor(event.descriptor(), None);
        }
    }
}

/// A POSIX timer on a thread's CPU clock.
#[derive(Debug)]
pub(super) struct Timer(libc::timer_t);

// SAFETY: a timer is a number that belongs to the process, and any thread may use it.
unsafe impl Send for Timer {}

impl Timer {
    /// Starts a timer whose signals carry a number: each time that the thread has used a period of CPU time.
    fn start(number: u64, thread: u32, period_ns: u64, signal: i32) -> io::Result<Self> {
        Self::new(number, thread, signal)
            .and_then(|timer| timer.set(period_ns, period_ns).map(|()| timer))
    }

    /// Starts a timer whose signal carries a number: once, as soon as the kernel's tick finds the thread running.
    pub(super) fn once(number: u64, thread: u32, signal: i32) -> io::Result<Self> {
        Self::new(number, thread, signal).and_then(|timer| timer.set(1, 0).map(|()| timer))
    }

    fn new(number: u64, thread: u32, signal: i32) -> io::Result<Self> {
        // SAFETY: a `sigevent` has only numbers and a pointer, for which zero is a value.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        event.sigev_notify_thread_id = thread.cast_signed();
        // A number, in the field for a pointer.
        event.sigev_value.sival_ptr = std::ptr::without_provenance_mut(number as usize);
        let mut timer = MaybeUninit::uninit();
        let clock = clock::clock_of_thread(thread);
        // SAFETY: the kernel reads the event and writes the timer's number, both memory of this function's own.
        if unsafe { libc::timer_create(clock, &raw mut event, timer.as_mut_ptr()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has succeeded, so it has written the number.
        Ok(Self(unsafe { timer.assume_init() }))
    }

    fn set(&self, first_ns: u64, period_ns: u64) -> io::Result<()> {
        let time = |ns: u64| libc::timespec {
            tv_sec: (ns / 1_000_000_000).cast_signed(),
            tv_nsec: (ns % 1_000_000_000).cast_signed(),
        };
        let times = libc::itimerspec { it_interval: time(period_ns), it_value: time(first_ns) };
        // SAFETY: `self` owns the timer, and the kernel only reads the times.
        let refused =
            unsafe { libc::timer_settime(self.0, 0, &raw const times, std::ptr::null_mut()) };
        if refused < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: `start` has made the timer, and only this drop deletes it.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// Checks that the process keeps a quarter of its file descriptors for itself.
fn within_limits(event: &Overflow) -> Result<(), String> {
    let most = (descriptors::limit() / 4 * 3).min(MOST_DESCRIPTORS as u64);
    if u64::from(event.descriptor().cast_unsigned()) < most {
        return Ok(());
    }
    Err("the process is short of file descriptors: raise ulimit -n".to_owned())
}

/// Whether a debugger is attached to the process.
fn traced() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

/// Whether the kernel handles a thread's timers on the thread's way back to user mode (`CONFIG_POSIX_CPU_TIMERS_TASK_WORK`), so
/// that their signals interrupt no sleep. Both architectures had it before these versions.
pub(super) fn defers_timers() -> bool {
    kernel() >= if cfg!(target_arch = "x86_64") { (5, 11) } else { (5, 18) }
}

/// The first two numbers of the kernel's version.
fn kernel() -> (u32, u32) {
    // SAFETY: a `utsname` has only characters, for which zero is a value.
    let mut names: libc::utsname = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the kernel writes one `utsname`, into memory of this function's own, and ends each name with a zero.
    let release = unsafe {
        libc::uname(&raw mut names);
        CStr::from_ptr(names.release.as_ptr())
    };
    let release = release.to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next())
}
