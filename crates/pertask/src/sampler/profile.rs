//! What a sampling session hands back: samples as they were taken, what was lost, and what code was mapped where.

use crate::tasks::labels::Labels;
use pertask_symbols::Module;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A thread at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawSample {
    /// When, by `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The CPU time that the sample stands for, user and system: its share of what the tasks of its spawn path had by the clock;
    /// outside of tasks, and where that was [not wanted](super::SamplerOptions::clocked), what the thread has used since its last
    /// sample.
    pub cpu_ns: u64,
    /// The thread, by the kernel's number.
    pub thread: u32,
    /// The task that ran there, by number. `None`: none did.
    pub task: Option<u64>,
    /// The task that made it.
    pub parent: Option<u64>,
    /// Where the task stands in the tree of spawns: its spawn site, its name, and those of its ancestors. See
    /// [`System::path`](pertask_core::System::path).
    pub path: Option<u32>,
    /// The labels that held: the task's, or outside of tasks the thread's.
    pub labels: Labels,
    /// The scopes that were open, outermost first, as far as they were [recorded](crate::CallStack::record). Equal ones share
    /// their memory.
    pub scopes: Arc<[Arc<str>]>,
    /// How many more scopes were open, inside these.
    pub deeper_scopes: u32,
    /// Signals that came while this one was waiting to be delivered. Their CPU time is in this sample.
    pub overrun: u32,
    /// How long the handler took to take it, without the kernel's part: the interrupt, the signal, and the way back.
    pub handler_ns: u32,
    /// Empty for what a thread has used between its birth and when it was found. Otherwise where the thread was, then where
    /// each caller goes on, up to the thread's root. Equal stacks share their memory.
    pub stack: Arc<[u64]>,
    /// Whether the stack reaches the thread's root.
    pub complete: bool,
    /// Whether there were more frames than there is room for. Otherwise, what is not complete ends where nothing said how
    /// to go on.
    pub truncated: bool,
}

/// What a sampling session missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SampleLosses {
    /// Samples that found a thread's ring full. Their CPU time is in that thread's next sample.
    pub dropped_ring_full: u64,
    /// Samples for which the session had no memory left.
    pub dropped_memory_full: u64,
    /// Signals that came while a sample was being taken.
    pub dropped_nested: u64,
    /// Signals that found no room on the program's own stack for signals. Their CPU time is in the thread's next sample.
    pub dropped_stack_full: u64,
    /// Samples whose stack does not reach the thread's root.
    pub incomplete_stacks: u64,
    /// Of those, the ones with too many frames.
    pub truncated_stacks: u64,
    /// Threads that could not be sampled, or block the signal.
    pub threads_not_sampled: u64,
    /// CPU time of the process that is nowhere in the profile: from each thread's last sample to the end, of threads that
    /// came and went unseen, and, where there was no memory left or sampling has ended early, all that came after.
    pub unsampled_cpu_ns: u64,
}

/// CPU time that was measured, and in which no sample was taken: it is known whose it is, and not where it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unmet {
    /// The spawn path of the tasks that had it. `None`: it was outside of tasks.
    pub path: Option<u32>,
    /// The thread that had it outside of tasks, by the kernel's number.
    pub thread: Option<u32>,
    /// How much.
    pub cpu_ns: u64,
}

/// All that a sampling session has seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RawProfile {
    /// When the session began.
    pub start: SystemTime,
    /// How long it lasted.
    pub duration: Duration,
    /// The samples; those of one thread in order.
    pub samples: Vec<RawSample>,
    /// Who had CPU time and no sample: the most first. Empty where times [are not measured](super::SamplerOptions::clocked), and
    /// where there are no samples from some moment on.
    pub unmet: Vec<Unmet>,
    /// What is missing.
    pub lost: SampleLosses,
    /// Whether samples are missing from some moment on.
    pub(super) cut_short: bool,
    /// What interrupted the threads, at what rate, and why nothing better could be used.
    pub mechanism: String,
    /// CPU time between samples of a thread, as it was asked of the kernel.
    pub period_ns: u64,
    /// The process's CPU time during the session.
    pub process_cpu_ns: u64,
    /// The names of the threads that were sampled, by number.
    pub threads: BTreeMap<u32, String>,
    /// The code that was mapped at some time during the session.
    pub modules: Vec<Module>,
}

impl SampleLosses {
    /// Samples that were due and were not kept, for whatever reason.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped_ring_full
            + self.dropped_memory_full
            + self.dropped_nested
            + self.dropped_stack_full
    }
}

impl RawProfile {
    /// The CPU time that is told of, of the process's.
    #[must_use]
    pub fn carried_cpu_ns(&self) -> u64 {
        let sampled: u64 = self.samples.iter().map(|sample| sample.cpu_ns).sum();
        let unmet: u64 = self.unmet.iter().map(|unmet| unmet.cpu_ns).sum();
        sampled + unmet
    }

    /// Of a session that another process has, of which this one was forked.
    pub(super) fn empty() -> Self {
        Self {
            start: SystemTime::now(),
            duration: Duration::ZERO,
            samples: Vec::new(),
            unmet: Vec::new(),
            cut_short: false,
            lost: SampleLosses::default(),
            mechanism: String::new(),
            period_ns: 0,
            process_cpu_ns: 0,
            threads: BTreeMap::new(),
            modules: Vec::new(),
        }
    }
}
