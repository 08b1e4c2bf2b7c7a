//! The way in which threads are interrupted: a mechanism and its signal, found by trying each on the collector thread.

use super::descriptors::Budget;
use super::disposition;
use super::handler;
use super::mechanism::Mechanism;
use super::options::SamplerOptions;
use super::record::Record;
use super::signals;
use super::stat::Stat;
use super::summons;
use crate::error::Error;
use crate::os::threads;
use std::thread;
use std::time::Duration;

/// How long a stop waits for signals under way.
const PATIENCE: Duration = Duration::from_millis(250);

/// How often, and how long after each other, it is looked whether all threads block a signal.
const LOOKS: u32 = 20;
const MOMENT: Duration = Duration::from_millis(1);

/// Why a mechanism may miss samples.
const ALTERNATE: &str = "the program's own handler of the signal runs on alternate stacks, which may have no room for a sample";

/// A mechanism that works on this machine, and its signal.
pub(super) struct Way {
    pub(super) mechanism: Mechanism,
    pub(super) signal: i32,
    /// Whether the handler runs on alternate stacks.
    on_alternate: bool,
    /// The better mechanisms, each with the reason why it is not used.
    refused: Vec<String>,
    /// How many file descriptors may be taken.
    pub(super) budget: Budget,
}

impl Way {
    /// Finds the best mechanism that interrupts the calling thread.
    pub(super) fn find(options: &SamplerOptions, trial: &'static Record) -> Result<Self, Error> {
        let mut refused = Vec::new();
        let budget = Budget::now();
        let wanted = |way: &Mechanism| options.mechanism.is_none_or(|only| only == *way);
        let order = Mechanism::in_order(options.frequency_hz);
        // The program's alternate stacks may be small. Mechanisms whose handler would run there are tried last.
        let (on_alternate, others): (Vec<_>, Vec<_>) = order
            .into_iter()
            .filter(wanted)
            .partition(|way| disposition::wants_alternate_stack(way.signal()));
        for mechanism in others.into_iter().chain(on_alternate.iter().copied()) {
            let unfit = unfit(mechanism, options, budget);
            match unfit.map_or_else(|| Self::try_out(mechanism, trial), Err) {
                Ok(signal) => {
                    let better = order.into_iter().take_while(|it| *it != mechanism);
                    let better = better.filter(|it| on_alternate.contains(it));
                    refused.extend(better.map(|it| format!("{it}: {ALTERNATE}")));
                    let on_alternate = on_alternate.contains(&mechanism);
                    return Ok(Self { mechanism, signal, refused, on_alternate, budget });
                }
                Err(why) => refused.push(format!("{mechanism}: {why}")),
            }
        }
        Err(Error::CannotSample { refused })
    }

    /// Tries a mechanism on the calling thread. Returns its signal, whose handler stays installed.
    fn try_out(mechanism: Mechanism, trial: &'static Record) -> Result<i32, String> {
        const PERIOD_NS: u64 = 100_000;
        if let Some(why) = mechanism.forbidden() {
            return Err(why);
        }
        let signal = mechanism.signal();
        // The handler is still installed if a signal of an earlier session may still come.
        let stays = disposition::is_ours(signal, handler::on_signal);
        disposition::install(signal, handler::on_signal).map_err(|why| why.to_string())?;
        signals::unblock(signal);
        let came = mechanism.try_on_this_thread(trial, PERIOD_NS, signal);
        if came.is_err() && !stays {
            // No thread but this one was armed.
            withdraw(signal, std::iter::empty());
        }
        came.map(|()| signal)
    }

    pub(super) fn describe(&self, period_ns: u64) -> String {
        let hertz = 1_000_000_000 / period_ns.max(1);
        let mut text = format!("{}, {hertz} Hz ({})", self.mechanism, self.mechanism.blindness());
        if self.on_alternate {
            text += "; ";
            text += ALTERNATE;
        }
        for why in &self.refused {
            text += "; not ";
            text += why;
        }
        text
    }
}

/// Why a mechanism that works would not do for this process's threads, if so. The caller is the collector, which does not count.
fn unfit(mechanism: Mechanism, options: &SamplerOptions, budget: Budget) -> Option<String> {
    let this = signals::this_thread();
    let mut others = threads::numbers();
    others.retain(|thread| *thread != this);
    let signal = mechanism.signal();
    if all_block(&others, signal) {
        let name = mechanism.signal_name();
        return Some(format!("every thread of the program blocks {name}"));
    }
    // If the user asks for this mechanism, as many threads are sampled as there are descriptors for.
    let too_many = others.len() as u64 > budget.most && options.mechanism.is_none();
    (mechanism.takes_descriptors() && too_many).then(|| {
        let Budget { most, limit } = budget;
        format!(
            "{} threads would take a file descriptor each, and {most} is a quarter of the free ones (ulimit -n {limit})",
            others.len()
        )
    })
}

/// Whether all threads block a signal, for good: a thread that is making another one blocks all of them for a moment (glibc), and the one that
/// has made the collector may be just there.
fn all_block(threads: &[u32], signal: i32) -> bool {
    let all = || {
        // One that has ended says nothing of the others, and nor does one that cannot be looked at.
        let stats = threads.iter().filter_map(|thread| Stat::of(*thread));
        let mut stats = stats.filter(|stat| !stat.is_ending).peekable();
        stats.peek().is_some() && stats.all(|stat| stat.blocks(signal))
    };
    (0..LOOKS).all(|look| {
        if look > 0 {
            thread::sleep(MOMENT);
        }
        all()
    })
}

/// Removes our handler when none of our signals is under way any more. If a signal stays under way, on a thread that blocks it,
/// the handler stays, because the signal is harmless to it. It also stays while threads may be summoned.
pub(super) fn withdraw(signal: i32, threads: impl Iterator<Item = u32>) {
    if !summons::expects(signal) && signals::settle(signal, threads, PATIENCE) {
        handler::forget_closed(signal);
        disposition::restore(signal, handler::on_signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_have_ended_block_nothing_and_let_nothing_through() {
        let ended = thread::spawn(signals::this_thread).join().unwrap();
        let in_a_thread = || {
            signals::block_all_but_faults();
            let this = signals::this_thread();
            assert!(all_block(&[this, ended], libc::SIGURG));
            assert!(all_block(&[ended, this], libc::SIGURG));
            signals::unblock(libc::SIGURG);
            assert!(!all_block(&[this, ended], libc::SIGURG));
            assert!(!all_block(&[ended], libc::SIGURG), "nobody is left");
        };
        thread::scope(|scope| scope.spawn(in_a_thread).join().unwrap());
    }
}
