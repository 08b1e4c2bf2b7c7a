//! The result of a sampling session: its samples, what was lost, and which code was mapped where.

use crate::tasks::label_set::Labels;
use pertask_symbols::Module;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// One sample: a thread at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawSample {
    /// When the sample was taken, by `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The CPU time that the sample stands for, user and system.
    ///
    /// In a task, this is the sample's share of the time that the tasks of its spawn path had by the clock. On a worker outside
    /// tasks, it is the share of the rest of the worker's time. On other threads, and without
    /// [`clocked`](super::SamplerOptions::clocked), it is what the thread has used since its last sample.
    pub cpu_ns: u64,
    /// The thread, by the kernel's number.
    pub thread: u32,
    /// The number of the task that ran on the thread, or `None` if no task did.
    pub task: Option<u64>,
    /// The number of the task that made this task.
    pub parent: Option<u64>,
    /// The number of the task's spawn path: its spawn site and name, and those of its ancestors.
    ///
    /// [`System::path`](pertask_core::System::path) finds the path by its number.
    pub path: Option<u32>,
    /// The labels that held: those of the task, or those of the thread outside tasks.
    pub labels: Labels,
    /// The scopes that were open, outermost first, as far as they were [recorded](crate::CallStack::record).
    ///
    /// Equal stacks of scopes share their memory.
    pub scopes: Arc<[Arc<str>]>,
    /// The number of scopes that were open inside these.
    pub deeper_scopes: u32,
    /// The number of signals that came while this one waited for delivery.
    ///
    /// This sample includes their CPU time.
    pub overrun: u32,
    /// How long the handler took, without the kernel's part: the interrupt, the delivery of the signal, and the return.
    pub handler_ns: u32,
    /// The addresses of the call stack: where the thread was, and then where each caller continues, up to the thread's root.
    ///
    /// The stack is empty in a sample for the time between the thread's birth and the moment at which the sampler found it.
    /// Equal stacks share their memory.
    pub stack: Arc<[u64]>,
    /// Whether the stack reaches the thread's root, or that of a [`fiber`](Self::fiber).
    pub complete: bool,
    /// Whether the stack had more frames than a sample has room for.
    ///
    /// A stack that is neither complete nor truncated ends where the unwind tables do not say how to continue.
    pub truncated: bool,
    /// Whether the stack ends at the root of a fiber: a coroutine with a stack of its own, which a thread has resumed.
    ///
    /// Some libraries of coroutines have unwind tables that lead on to the code that has resumed the fiber. There the stack is whole,
    /// up to the thread's root, and this is false.
    pub fiber: bool,
}

/// Waits of the tasks of one spawn path and with the same labels, at one place, which tasks of one spawn path ended.
///
/// Only some waits are seen where there are many. These stand for all, and all of a spawn path have the time that the path's tasks
/// waited by the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawWait {
    /// The number of the tasks' spawn path.
    pub path: u32,
    /// The labels that the tasks had at the end of the wait.
    pub labels: Labels,
    /// The spawn path of the tasks that woke them, or `None` where no task did: a timer, the network, another thread; or where the
    /// wait goes on.
    pub woken_by: Option<u32>,
    /// Of waits that go on, the spawn path of the task that holds the lock that is waited for, as far as a
    /// [`LockLayer`](crate::tracing::LockLayer) knows of it.
    pub held_by: Option<u32>,
    /// About how many waits these are.
    pub count: u64,
    /// How many of them were seen. Together they stand for `count`.
    pub seen: u64,
    /// How long the tasks waited until they were woken.
    pub waiting_ns: u64,
    /// How long they were ready after that, until they were polled.
    pub ready_ns: u64,
    /// Where the future that waited left its waker, as addresses of code, from the innermost function. Empty where it left none that
    /// was seen.
    pub stack: Arc<[u64]>,
    /// Whether the stack reaches the thread's root, or that of a [`fiber`](Self::fiber).
    pub complete: bool,
    /// Whether the stack had more frames than there is room for.
    pub truncated: bool,
    /// Whether the stack ends at the root of a fiber.
    pub fiber: bool,
}

/// Allocations at one place, by the tasks of one spawn path with the same labels, or by workers outside tasks.
///
/// Some of them are seen, about one for each 512 KiB. These stand for all, and all of a spawn path have what the path's tasks have
/// allocated, which was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawAllocation {
    /// The number of the tasks' spawn path, or `None` outside tasks. Those are estimates: a worker's other code is not counted by itself.
    pub path: Option<u32>,
    /// The labels that held.
    pub labels: Labels,
    /// About how many allocations these are.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them were seen.
    pub seen: u64,
    /// Where memory was asked for, as addresses of code, from the innermost function, which is one of the allocator. Empty where the tasks
    /// of a path have allocated, and none of it was seen.
    pub stack: Arc<[u64]>,
    /// Whether the stack reaches the thread's root, or that of a [`fiber`](Self::fiber).
    pub complete: bool,
    /// Whether the stack had more frames than there is room for.
    pub truncated: bool,
    /// Whether the stack ends at the root of a fiber.
    pub fiber: bool,
}

impl RawAllocation {
    /// Allocations of a path of which none was seen.
    pub(super) fn without_place(path: u32) -> Self {
        Self {
            path: Some(path),
            labels: Labels::default(),
            count: 0,
            bytes: 0,
            seen: 0,
            stack: [].into(),
            complete: true,
            truncated: false,
            fiber: false,
        }
    }
}

/// What a sampling session has missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SampleLosses {
    /// Samples that were dropped because their thread's ring was full.
    ///
    /// Their CPU time is in that thread's next sample.
    pub dropped_ring_full: u64,
    /// Samples that were dropped because the session had no memory left.
    pub dropped_memory_full: u64,
    /// Signals that were dropped because they came while a sample was being taken.
    pub dropped_nested: u64,
    /// Signals that were dropped because the program's own signal stack had no room.
    ///
    /// Their CPU time is in the thread's next sample.
    pub dropped_stack_full: u64,
    /// Samples whose stack does not reach the thread's root.
    pub incomplete_stacks: u64,
    /// Samples whose stack had too many frames.
    ///
    /// [`incomplete_stacks`](Self::incomplete_stacks) counts them, too.
    pub truncated_stacks: u64,
    /// Samples on a stack that the sampler did not know, such as that of a fiber which was made a moment before.
    ///
    /// They have one address. [`incomplete_stacks`](Self::incomplete_stacks) counts them, too.
    pub unknown_stacks: u64,
    /// Waits that were to be seen, and of which there is nothing: there was no room, or the thread is not sampled.
    pub dropped_waits: u64,
    /// Allocations that were to be seen, and of which there is nothing: there was no room, the stack was not known, or the thread is not
    /// sampled.
    pub dropped_allocations: u64,
    /// Threads that could not be sampled, or that block the signal. [`RawProfile::remarks`] says why.
    pub threads_not_sampled: u64,
    /// CPU time of the process that is nowhere in the profile.
    ///
    /// This is the time from each thread's last sample to the end, and the time of threads that came and went between two
    /// looks. If the session ran out of memory or ended early, it includes all time after that.
    pub unsampled_cpu_ns: u64,
}

/// CPU time without a sample: it is known who had it, but not where in the code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unmet {
    /// The spawn path of the tasks that had the time, or `None` if it was outside tasks.
    pub path: Option<u32>,
    /// The kernel's number of the thread that had the time outside tasks, or `None` if it was in tasks. If both are `None`, and it was
    /// not in the kernel, it is not known which task had it.
    pub thread: Option<u32>,
    /// The labels that the tasks had, where it is known.
    pub labels: Labels,
    /// Whether it was time in the kernel, by the interruptions that are missing. Otherwise the clock measured it.
    ///
    /// That is an estimate. Interruptions are also missing where a hypervisor took the CPU away.
    pub kernel: bool,
    /// The CPU time.
    pub cpu_ns: u64,
}

impl Unmet {
    /// Time in tasks of which it is not known which.
    pub(super) fn of_unknown_task(cpu_ns: u64) -> Self {
        Self { path: None, thread: None, labels: Labels::default(), kernel: false, cpu_ns }
    }

    /// Whether it was in a task, and it is not known in which, because polls ended in another order than they began.
    #[cfg(feature = "profiler")]
    pub(super) fn is_of_unknown_task(&self) -> bool {
        self.path.is_none() && self.thread.is_none() && !self.kernel
    }

    /// A thread's time in the kernel.
    pub(super) fn kernel_of(thread: u32, cpu_ns: u64) -> Self {
        Self { path: None, thread: Some(thread), labels: Labels::default(), kernel: true, cpu_ns }
    }

    /// The time of a thread that blocks its signal.
    pub(super) fn deaf(thread: u32, cpu_ns: u64) -> Self {
        Self { kernel: false, ..Self::kernel_of(thread, cpu_ns) }
    }
}

/// All that a sampling session has recorded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RawProfile {
    /// When the session began.
    pub start: SystemTime,
    /// How long the session lasted.
    pub duration: Duration,
    /// The samples.
    ///
    /// Those of one thread are in the order of time.
    pub samples: Vec<RawSample>,
    /// Where tasks waited, by place, the longest first. Empty without [`waits`](super::SamplerOptions::waits).
    pub waits: Vec<RawWait>,
    /// Where tasks allocated, by place, most bytes first. Empty without [`allocations`](super::SamplerOptions::allocations).
    pub allocations: Vec<RawAllocation>,
    /// How long tasks were polled without the CPU, by the number of their spawn path. Empty without
    /// [`waits`](super::SamplerOptions::waits).
    pub blocked_ns: BTreeMap<u32, u64>,
    /// CPU time without a sample, most time first: that of spawn paths and threads that had none, that of threads that block the
    /// signal, and time in the kernel where the mechanism sees user mode alone.
    ///
    /// The first kind is absent without [`clocked`](super::SamplerOptions::clocked), and where samples are missing from some
    /// moment on.
    pub unmet: Vec<Unmet>,
    /// What the session has missed.
    pub lost: SampleLosses,
    /// Whether allocations were asked for, and could be seen.
    pub has_allocations: bool,
    /// Whether samples are missing from some moment on.
    pub(super) cut_short: bool,
    /// The mechanism that interrupted the threads, its rate, and why no better one could be used.
    pub mechanism: String,
    /// The CPU time between two samples of a thread, as the sampler asked the kernel for it.
    pub period_ns: u64,
    /// The process's CPU time during the session.
    pub process_cpu_ns: u64,
    /// The names of the sampled threads, by the kernel's number.
    pub threads: BTreeMap<u32, String>,
    /// The code that was mapped at some time during the session.
    pub modules: Vec<Module>,
    /// What people should know of threads and stacks that were not sampled like the others, and why, a line for each reason.
    pub remarks: Vec<String>,
}

impl SampleLosses {
    /// The number of samples that were due and were not kept, for whatever reason.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped_ring_full
            + self.dropped_memory_full
            + self.dropped_nested
            + self.dropped_stack_full
    }
}

impl RawProfile {
    /// The part of the process's CPU time that the profile has, in samples or without.
    #[must_use]
    pub fn carried_cpu_ns(&self) -> u64 {
        let sampled: u64 = self.samples.iter().map(|sample| sample.cpu_ns).sum();
        let unmet: u64 = self.unmet.iter().map(|unmet| unmet.cpu_ns).sum();
        sampled + unmet
    }

    /// The profile that a forked child gets, because the session belongs to its parent.
    pub(super) fn empty() -> Self {
        Self {
            start: SystemTime::now(),
            duration: Duration::ZERO,
            samples: Vec::new(),
            waits: Vec::new(),
            allocations: Vec::new(),
            has_allocations: false,
            blocked_ns: BTreeMap::new(),
            unmet: Vec::new(),
            cut_short: false,
            lost: SampleLosses::default(),
            mechanism: String::new(),
            period_ns: 0,
            process_cpu_ns: 0,
            threads: BTreeMap::new(),
            modules: Vec::new(),
            remarks: Vec::new(),
        }
    }
}
