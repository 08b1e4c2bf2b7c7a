//! What this machine offers to measure with. pertask tries each thing instead of looking up whether it should work.

use crate::os::clock::{self, Choice};
use crate::os::perf;
use crate::pmus::counters::{self, CounterEvent, CounterSource};

/// What this machine offers to measure with, found by trying.
///
/// ```
/// let machine = pertask::Machine::examine();
/// println!("{}: tasks are timed by {}", machine.kernel, machine.clock);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct Machine {
    /// The kernel's name, release and architecture.
    pub kernel: String,
    /// The number of CPUs that this process may use.
    pub cpus: usize,
    /// The kernel's timer ticks per second, or `None` where the kernel does not say.
    pub tick_hz: Option<u32>,
    /// The clock that measures tasks, as reports name it.
    pub clock: String,
    /// Each way to read a thread's CPU time, best first.
    pub clocks: Vec<Offer>,
    /// `membarrier`, with which an attach waits for switches under way.
    pub membarrier: Offer,
    /// Each mechanism to interrupt a thread for a sample.
    #[cfg(feature = "sampler")]
    #[cfg_attr(feature = "json", serde(default))]
    pub sampling: Vec<Offer>,
    /// Whether the program exports the symbol by which profilers outside find the running task, or `None` without the feature `otel`.
    #[cfg_attr(feature = "json", serde(default, skip_serializing_if = "Option::is_none"))]
    pub thread_context: Option<Offer>,
    /// Each event that has a name, and what counts it here.
    pub events: Vec<CounterSource>,
    /// `kernel.perf_event_paranoid`, or `None` where it cannot be read.
    pub perf_event_paranoid: Option<i32>,
    /// The effective user id of the process; 0 is root.
    pub user: u32,
    /// The number of file descriptors that the process may open.
    ///
    /// Counters take one for each event and worker.
    pub open_files: Option<u64>,
    /// The memory that the process may lock, in bytes, or `None` where no limit is known.
    ///
    /// Pages of perf events count.
    pub locked_memory_bytes: Option<u64>,
}

/// A facility that a machine may offer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct Offer {
    /// The facility's name.
    pub name: String,
    /// Why it cannot be used, and the remedy, or `None` where it works.
    pub refused: Option<String>,
}

impl Machine {
    /// Tries everything that pertask can measure with.
    ///
    /// This takes some tens of milliseconds, or some hundreds where there are hardware counters.
    #[must_use]
    pub fn examine() -> Self {
        let offer = |(name, tried): (&str, Result<(), String>)| Offer {
            name: name.to_owned(),
            refused: tried.err(),
        };
        let barrier = pertask_core::rcu::asymmetric();
        Self {
            kernel: kernel(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            tick_hz: clock::tick_hz(),
            clock: Choice::of_process().to_string(),
            clocks: Choice::survey().into_iter().map(offer).collect(),
            membarrier: offer(("membarrier", barrier.then_some(()).ok_or_else(membarrier_remedy))),
            #[cfg(feature = "sampler")]
            sampling: sampling(),
            thread_context: thread_context(),
            events: CounterEvent::known().filter_map(source).collect(),
            perf_event_paranoid: perf::paranoid(),
            // SAFETY: `geteuid` takes no arguments and touches no memory.
            user: unsafe { libc::geteuid() },
            open_files: perf::open_files(),
            locked_memory_bytes: perf::locked_memory_bytes(),
        }
    }
}

#[cfg(feature = "json")]
impl Machine {
    /// Renders this description as indented JSON, each field under its name.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Serialisation cannot fail: the machine is plain data, its keys are strings, and it is written to memory.
        let mut json = serde_json::to_string_pretty(self).expect("a machine is plain data");
        json.push('\n');
        json
    }
}

#[cfg(feature = "otel")]
fn thread_context() -> Option<Offer> {
    let refused = crate::otel::is_exported().err();
    Some(Offer { name: "otel_thread_ctx_v1".to_owned(), refused })
}

#[cfg(not(feature = "otel"))]
fn thread_context() -> Option<Offer> {
    None
}

#[cfg(feature = "sampler")]
fn sampling() -> Vec<Offer> {
    use crate::Error;
    let reason = |error| match error {
        // Each reason begins with the name of the mechanism.
        Error::CannotSample { refused } => refused
            .iter()
            .map(|why| why.split_once(": ").map_or(&**why, |(_, why)| why))
            .collect::<Vec<_>>()
            .join("; "),
        other => other.to_string(),
    };
    let offer = |(mechanism, refused): (crate::sampler::Mechanism, Option<Error>)| Offer {
        name: mechanism.to_string(),
        refused: refused.map(reason),
    };
    crate::sampler::Sampler::survey().into_iter().map(offer).collect()
}

fn source(name: &str) -> Option<CounterSource> {
    Some(counters::examine(&name.parse().ok()?))
}

fn membarrier_remedy() -> String {
    "the kernel or a seccomp filter refuses it: each switch pays for a full fence instead"
        .to_owned()
}

fn kernel() -> String {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/sys/kernel/{file}"));
    let word = |file| read(file).map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned());
    format!("{} {} ({})", word("ostype"), word("osrelease"), std::env::consts::ARCH)
}
