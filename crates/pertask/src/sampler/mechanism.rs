//! What interrupts a thread each time that it has used so much CPU time: three ways, best first, of which the first that is
//! seen to work is used.

use super::disposition;
use super::handler::{self, MOST_DESCRIPTORS};
use super::record::{Record, Stack};
use super::stacks::Stacks;
use crate::os::clock;
use crate::os::perf::{Notice, Overflow};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;

/// A way to interrupt a thread each time that it has used so much CPU time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mechanism {
    /// A perf event on the thread's CPU clock, which signals by itself.
    PerfTrap,
    /// A perf event on the thread's CPU clock, whose file is told to signal: SIGURG, which harms nobody who does not
    /// handle it.
    PerfSignal,
    /// A POSIX timer on the thread's CPU clock. The kernel looks at it once a timer tick: it is no faster than the tick, and
    /// does not see work that keeps in step with it. It signals SIGURG too, at any moment: also in the middle of a system
    /// call, which is then begun again, or ends with `EINTR` if it is one that waits for a limited time.
    Timer,
}

/// What is armed for one thread, until it is dropped.
#[derive(Debug)]
pub(super) enum Source {
    Trap { _event: Overflow },
    Signal { event: Overflow },
    Timer { _timer: Timer },
}

impl Mechanism {
    /// All, best first.
    pub const ALL: [Self; 3] = [Self::PerfTrap, Self::PerfSignal, Self::Timer];

    /// Why it must not even be tried.
    pub(super) fn forbidden(self) -> Option<String> {
        match self {
            Self::PerfTrap if traced() => {
                Some("a debugger is attached, and takes SIGTRAP".to_owned())
            }
            // Until 5.18 the kernel kills a thread that blocks SIGTRAP, and who blocks it is not ours to say.
            Self::PerfTrap if kernel() < (5, 18) => Some(
                "this kernel ends threads that block SIGTRAP; since 5.18 it does not".to_owned(),
            ),
            _ => None,
        }
    }

    /// Why it must not go on. Asked many times a second.
    pub(super) fn disturbed(self, signal: i32, seldom: bool) -> Option<&'static str> {
        if !disposition::is_ours(signal, handler::on_signal) {
            return Some(
                "the program has given the signal another handler, so sampling has ended early",
            );
        }
        let traced = self == Self::PerfTrap && seldom && traced();
        traced.then_some("a debugger takes SIGTRAP, so sampling has ended early")
    }

    /// Its signal.
    ///
    /// Where there is a choice, it is one that is ignored by default: so it harms nobody when the program takes our handler
    /// away, and when it is still pending in a thread that becomes another program. And it is none of the real-time signals:
    /// those queue up while a thread blocks them, until the user has none left, and then the kernel sends SIGIO, which
    /// ends the process.
    pub(super) fn signal(self) -> i32 {
        match self {
            Self::PerfTrap => libc::SIGTRAP,
            Self::PerfSignal | Self::Timer => libc::SIGURG,
        }
    }

    /// What it does not see, for people.
    pub(super) fn blindness(self) -> &'static str {
        match self {
            Self::PerfTrap | Self::PerfSignal => {
                "in user mode; time in the kernel counts for what follows it"
            }
            Self::Timer => {
                "no faster than the kernel's tick, and blind to work that keeps in step with it"
            }
        }
    }

    /// The shortest period that it can keep.
    pub(super) fn period_ns(self, frequency_hz: u32) -> u64 {
        let highest = match self {
            Self::Timer => clock::tick_hz().unwrap_or(100),
            _ => u32::MAX,
        };
        1_000_000_000 / u64::from(frequency_hz.min(highest).max(1))
    }

    /// CPU time after which it has certainly signalled, if it works.
    pub(super) fn patience_ns(self) -> u64 {
        match self {
            // Where others want the CPU, few ticks meet the thread.
            Self::Timer => 1_000_000_000,
            _ => 20_000_000,
        }
    }

    /// Lets it interrupt the calling thread, with the collectors' own record, until that has happened.
    pub(super) fn try_on_this_thread(
        self,
        trial: &'static Record,
        period_ns: u64,
        signal: i32,
    ) -> Result<(), String> {
        // SAFETY: no arguments, no memory.
        let thread = unsafe { libc::gettid() }.cast_unsigned();
        let mut words = Vec::new();
        while trial.ring.read(&mut words) {}
        // SAFETY: its last thread was a collector, which has ended; collectors begin one after the other.
        // Its stack is walked, so that what a first walk has to do is done.
        unsafe { trial.give(thread, Stack::Sought, Stacks::read().mappings) };
        let _source = self.arm(trial, thread, period_ns, signal)?;
        let start_ns = clock::thread_cpu_ns();
        while !trial.ring.read(&mut words) {
            if clock::thread_cpu_ns() - start_ns > self.patience_ns() {
                return Err("it can be asked for, but no signal comes".to_owned());
            }
        }
        Ok(())
    }

    /// Arms it for a thread of this process.
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
                // A signal before this is one without a record.
                handler::bind_descriptor(event.descriptor(), Some(record));
                Ok(Source::Signal { event })
            }
            Self::Timer => Timer::start(record, thread, period_ns, signal)
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

// SAFETY: a timer is a number of the process's.
unsafe impl Send for Timer {}

impl Timer {
    fn start(record: &Record, thread: u32, period_ns: u64, signal: i32) -> io::Result<Self> {
        // SAFETY: all of it is numbers and a pointer, for which zero is a value.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        event.sigev_notify_thread_id = thread.cast_signed();
        // A number, in the room that is given for a pointer.
        event.sigev_value.sival_ptr =
            std::ptr::without_provenance_mut(handler::number_of(record) as usize);
        let mut timer = MaybeUninit::uninit();
        let clock = clock::clock_of_thread(thread);
        // SAFETY: an event of ours, and a place for the timer.
        if unsafe { libc::timer_create(clock, &raw mut event, timer.as_mut_ptr()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has filled it in.
        let timer = Self(unsafe { timer.assume_init() });
        timer.set(period_ns).map(|()| timer)
    }

    fn set(&self, period_ns: u64) -> io::Result<()> {
        let (seconds, rest) = (period_ns / 1_000_000_000, period_ns % 1_000_000_000);
        let period = libc::timespec { tv_sec: seconds.cast_signed(), tv_nsec: rest.cast_signed() };
        let times = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: a timer of ours, and times to read.
        let refused =
            unsafe { libc::timer_settime(self.0, 0, &raw const times, std::ptr::null_mut()) };
        if refused < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: made by `start`, and deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// The process keeps a quarter of its descriptors for itself.
fn within_limits(event: &Overflow) -> Result<(), String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit, which is ours.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let most = (limit.rlim_cur / 4 * 3).min(MOST_DESCRIPTORS as u64);
    if u64::from(event.descriptor().cast_unsigned()) < most {
        return Ok(());
    }
    Err("the process is short of file descriptors: raise ulimit -n".to_owned())
}

fn traced() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

/// The kernel's version, as far as it matters here.
fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next())
}
