//! Arms threads: by the way that was found for all of them, or by a timer where that way cannot reach a single thread. A thread
//! may block the way's signal, and events need file descriptors, of which most are the program's.

use super::descriptors::{Budget, Lease};
use super::disposition;
use super::handler;
use super::mechanism::{Mechanism, Source, defers_timers};
use super::options::SamplerOptions;
use super::record::Record;
use super::stat::Stat;
use super::way::{self, Way};

/// How threads are armed, and how many of them another way than the rest.
pub(super) struct Arms {
    pub(super) way: Way,
    frequency_hz: u32,
    budget: Budget,
    /// Whether timers may take the place of the way. They may not if the user has asked for one mechanism.
    may_stand_in: bool,
    /// Whether the timers' handler is installed beside that of the way.
    beside: bool,
    /// The number of threads that the way could not reach, by the reason.
    deaf: u64,
    too_many: u64,
    refused: u64,
    /// Why the kernel refused one of them.
    refusal: String,
}

/// A thread's source, with what it is and its period.
pub(super) struct Armed {
    source: Source,
    _lease: Option<Lease>,
    pub(super) mechanism: Mechanism,
    pub(super) period_ns: u64,
}

/// Why a thread could not be armed by the way.
enum Unreached {
    Blocks,
    NoDescriptor,
    Refused(String),
}

impl Arms {
    pub(super) fn new(way: Way, options: &SamplerOptions) -> Self {
        let replaceable = options.mechanism.is_none() && way.mechanism != Mechanism::Timer;
        Self {
            may_stand_in: replaceable && defers_timers(),
            budget: way.budget,
            way,
            frequency_hz: options.frequency_hz,
            beside: false,
            deaf: 0,
            too_many: 0,
            refused: 0,
            refusal: String::new(),
        }
    }

    /// The period of the way.
    pub(super) fn period_ns(&self) -> u64 {
        self.way.mechanism.period_ns(self.frequency_hz)
    }

    /// Sets the rate at which threads are armed from now on. Returns whether it is another one.
    pub(super) fn set_rate(&mut self, frequency_hz: u32) -> bool {
        let before = (self.period_ns(), Mechanism::Timer.period_ns(self.frequency_hz));
        self.frequency_hz = frequency_hz;
        before != (self.period_ns(), Mechanism::Timer.period_ns(frequency_hz))
    }

    /// Arms a thread. `None` if nothing can arm it.
    pub(super) fn arm(
        &mut self,
        record: &'static Record,
        thread: u32,
        stat: Option<&Stat>,
    ) -> Option<Armed> {
        let why = match self.by_way(record, thread, stat) {
            Ok(armed) => return Some(armed),
            Err(why) => why,
        };
        let instead = if self.may_stand_in { self.by_timer(record, thread) } else { None };
        if instead.is_none() && !super::signals::lives(thread) {
            return None;
        }
        match why {
            Unreached::Blocks => self.deaf += 1,
            Unreached::NoDescriptor => self.too_many += 1,
            // The thread is about to end.
            Unreached::Refused(why) if why.starts_with("ESRCH") => {}
            Unreached::Refused(why) => (self.refused, self.refusal) = (self.refused + 1, why),
        }
        instead
    }

    /// Arms a thread that is armed already at the current rate. If that cannot be, the thread stays as it is.
    pub(super) fn arm_again(
        &self,
        record: &'static Record,
        thread: u32,
        armed: &mut Armed,
    ) -> bool {
        let (mechanism, period_ns) =
            (armed.mechanism, armed.mechanism.period_ns(self.frequency_hz));
        let Ok(source) = mechanism.arm(record, thread, period_ns, mechanism.signal()) else {
            return false;
        };
        (armed.source, armed.period_ns) = (source, period_ns);
        true
    }

    /// Whether a timer would reach a thread that blocks the way's signal.
    pub(super) fn could_reach(&self, armed: &Armed, stat: &Stat) -> bool {
        self.may_stand_in
            && stat.blocks(armed.mechanism.signal())
            && !stat.blocks(Mechanism::Timer.signal())
    }

    fn by_way(
        &self,
        record: &'static Record,
        thread: u32,
        stat: Option<&Stat>,
    ) -> Result<Armed, Unreached> {
        let Way { mechanism, signal, .. } = self.way;
        let timer = Mechanism::Timer.signal();
        let is_deaf = |stat: &Stat| stat.blocks(signal) && !stat.blocks(timer);
        if self.may_stand_in && stat.is_some_and(is_deaf) {
            return Err(Unreached::Blocks);
        }
        let lease = || self.budget.take().ok_or(Unreached::NoDescriptor);
        let _lease = mechanism.takes_descriptors().then(lease).transpose()?;
        let period_ns = self.period_ns();
        let source =
            mechanism.arm(record, thread, period_ns, signal).map_err(Unreached::Refused)?;
        Ok(Armed { source, _lease, mechanism, period_ns })
    }

    fn by_timer(&mut self, record: &'static Record, thread: u32) -> Option<Armed> {
        let mechanism = Mechanism::Timer;
        let (signal, period_ns) = (mechanism.signal(), mechanism.period_ns(self.frequency_hz));
        disposition::install(signal, handler::on_signal).ok()?;
        self.beside |= signal != self.way.signal;
        let source = mechanism.arm(record, thread, period_ns, signal).ok()?;
        Some(Armed { source, _lease: None, mechanism, period_ns })
    }

    /// The signals that may come to threads, sooner or later.
    pub(super) fn signals(&self) -> &'static [i32] {
        match (self.way.mechanism, self.may_stand_in) {
            (Mechanism::PerfTrap, false) => &[libc::SIGTRAP],
            (Mechanism::PerfTrap, true) => &[libc::SIGTRAP, libc::SIGURG],
            (Mechanism::PerfSignal | Mechanism::Timer, _) => &[libc::SIGURG],
        }
    }

    /// Whether a signal's handler is installed, and removed at the end.
    pub(super) fn handles(&self, signal: i32) -> bool {
        self.way.signal == signal || self.beside && Mechanism::Timer.signal() == signal
    }

    /// Why sampling must not go on, if so. The collector asks many times a second.
    pub(super) fn disturbed(&self, seldom: bool) -> Option<&'static str> {
        let beside = || Mechanism::Timer.disturbed(Mechanism::Timer.signal(), seldom);
        self.way
            .mechanism
            .disturbed(self.way.signal, seldom)
            .or_else(|| if self.beside { beside() } else { None })
    }

    /// Removes our handlers. All threads are disarmed.
    pub(super) fn withdraw(self, threads: impl Iterator<Item = u32> + Clone) {
        if self.beside {
            way::withdraw(Mechanism::Timer.signal(), threads.clone());
        }
        way::withdraw(self.way.signal, threads);
    }

    /// What people should know of the threads that the way did not reach, a line for each reason.
    pub(super) fn remarks(&self) -> Vec<String> {
        let Way { mechanism, .. } = self.way;
        let hertz = 1_000_000_000 / Mechanism::Timer.period_ns(self.frequency_hz).max(1);
        let fate = match self.may_stand_in {
            true => format!("sampled by POSIX timers, at {hertz} Hz at most"),
            false => "not sampled".to_owned(),
        };
        let line = |threads: u64, why: String| {
            let (noun, verb) = if threads == 1 { ("thread", "is") } else { ("threads", "are") };
            (threads > 0).then(|| format!("{threads} {noun} {verb} {fate}: {why}"))
        };
        let Budget { most, limit } = self.budget;
        let blocks = format!("{} is blocked there", mechanism.signal_name());
        let descriptors = format!(
            "{mechanism} takes a file descriptor for each thread, and {most} is a quarter of the free ones (ulimit -n {limit})"
        );
        let lines = [
            line(self.deaf, blocks),
            line(self.too_many, descriptors),
            line(self.refused, format!("{mechanism}: {}", self.refusal)),
        ];
        lines.into_iter().flatten().collect()
    }
}
