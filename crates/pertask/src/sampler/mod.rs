//! The sampler, which records where each thread of the process is, and which task runs there, each time that the thread has
//! used a period of CPU time.
//!
//! ```no_run
//! use pertask::sampler::{Sampler, SamplerOptions};
//!
//! let sampler = Sampler::start(SamplerOptions::default())?;
//! // ... the program runs ...
//! let profile = sampler.stop();
//! println!("{} samples by {}", profile.samples.len(), profile.mechanism);
//! # Ok::<(), pertask::Error>(())
//! ```
//!
//! Each sample carries the CPU time that it stands for. To see where the time went, add up those times, and do not count samples.
//! A [`RawProfile`] has addresses; `RawProfile::resolve` (feature `profiler`) turns them into functions, and
//! `RawProfile::write_pprof_unresolved` leaves that to whoever reads the file.
//!
//! Up to the rate of the kernel's tick, POSIX timers interrupt the threads, by SIGURG; above it perf events do, by SIGTRAP. Those, too,
//! use SIGURG where the kernel refuses perf's traps, and where the program's own SIGTRAP handler runs on an alternate stack, which
//! may be small. Threads that block SIGTRAP, and those for which perf events would take more
//! than a quarter of the free file descriptors, are sampled by timers ([`RawProfile::remarks`]). While perf's traps are used, the program must not give SIGTRAP its default
//! action, which would end the program. If the program installs another handler, sampling ends early.
//!
//! While at least one session samples, there is one collector thread, `pertask-sampler`. All sessions share the same
//! interruptions of each thread, at the highest rate that a session asks for and the mechanism can keep: the first session chooses
//! it, so a timer's rate stays below the tick's for sessions that join later. Each session gets all samples from its start to its
//! stop.
//!
//! While sessions sample, the program's signal handlers on alternate stacks (`SA_ONSTACK`) block the sampler's signals. On a small
//! stack the kernel has no room for a second signal, and would end the process. A handler that the program installs meanwhile is
//! covered after 10 to 100 ms.

#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("the feature `sampler` is for Linux on x86_64 and aarch64");

mod allocation_table;
mod allocations;
#[cfg(feature = "profiler")]
mod allocator;
#[allow(unsafe_code)]
mod area;
mod arms;
mod bell;
mod catcher;
mod census;
mod collector;
mod descriptors;
#[allow(unsafe_code)]
mod disposition;
mod division;
mod engine;
#[allow(unsafe_code)]
mod errno;
mod frame_pointer;
mod functions;
#[allow(unsafe_code)]
mod ground;
#[allow(unsafe_code)]
mod handler;
#[allow(unsafe_code)]
mod mechanism;
mod modules;
#[cfg(feature = "profiler")]
mod naming;
mod next_search;
mod options;
mod outside;
#[allow(unsafe_code)]
mod own_thread;
mod profile;
#[allow(unsafe_code)]
mod record;
#[cfg(feature = "profiler")]
mod recording;
#[cfg(feature = "profiler")]
mod resolve;
mod ring;
#[allow(unsafe_code)]
mod roster;
mod sampled;
mod session;
#[allow(unsafe_code)]
mod shield;
#[allow(unsafe_code)]
mod signals;
mod stacks;
#[allow(unsafe_code)]
mod stat;
#[allow(unsafe_code)]
mod summons;
#[cfg(feature = "profiler")]
mod types;
#[allow(unsafe_code)]
mod unwind;
mod wait_table;
mod waits;
mod walker;
mod way;
mod weigh;
mod weigh_allocations;
mod weigh_waits;
mod workers;

pub(crate) use catcher::{Asked, Catcher, Stack, leave_signals};
pub use mechanism::Mechanism;
pub use options::SamplerOptions;
pub use pertask_symbols::{Module, ModuleRange};
pub use profile::{RawAllocation, RawProfile, RawSample, RawWait, SampleLosses, Unmet};
#[cfg(feature = "profiler")]
pub use resolve::{ResolveOptions, resolve};

use crate::error::Error;
use crate::pmus::call_stack::{CallStack, CallStacks};
use crate::pmus::cpu_time::CpuTime;
use crate::pmus::memory;
use crate::pmus::waits::Sampled;
use crate::sessions::{Clocked, MemorySource, Session, SessionOptions};

/// A sampling session, which samples all threads from its start until it is stopped or dropped.
#[derive(Debug)]
pub struct Sampler {
    ticket: collector::Ticket,
    // Dropped after the ticket, so that scopes are recorded and tasks measured as long as samples are taken.
    beside: Option<Beside>,
}

/// The recording of scopes and the session on tasks that run beside a sampling session.
#[derive(Debug)]
struct Beside {
    _scopes: Option<CallStacks>,
    /// Dropped before `clock`, which counts.
    allocations: Option<Seen<memory::sampling::Sampled>>,
    clock: Option<Session>,
    waits: Option<Seen<Sampled>>,
    /// Why allocations are not sampled, if they were asked for.
    no_allocations: Option<String>,
}

/// What is seen beside the samples, as long as this lives, and how many of it had been dropped before.
#[derive(Debug)]
struct Seen<T> {
    _sampled: T,
    dropped_before: u64,
}

impl<T> Seen<T> {
    fn begin(begin: fn() -> T, dropped: fn() -> u64) -> Self {
        Self { dropped_before: dropped(), _sampled: begin() }
    }
}

impl Sampler {
    /// Starts to sample all threads of the process, including threads that begin later.
    ///
    /// This keeps its caller: some 60 ms the first time and 3 ms later, and with 2,000 threads 240 and 100 ms; on a busy machine
    /// several times as long. The first start tries the clocks. A start while no other session samples tries the mechanisms, reads
    /// the unwind tables, and arms each thread. Async code should call this on a thread of its own, or with `spawn_blocking`,
    /// because a runtime's worker runs no other task meanwhile. The same holds for [`stop`](Self::stop), which takes half as long.
    ///
    /// # Errors
    /// Returns [`Error::CannotSample`] if no mechanism works, with the reason for each, and [`Error::Attach`] if scopes or the
    /// CPU time of tasks are wanted and the core refuses the attach.
    pub fn start(mut options: SamplerOptions) -> Result<Self, Error> {
        let _scopes = options.scopes.then(CallStack::record).transpose()?;
        let source = MemorySource::open(options.allocations)?;
        options.allocations = source.handle().is_some();
        let (sees_waits, sees_allocations) = (options.waits, options.allocations);
        let is_clocked = options.clocked || sees_allocations;
        if is_clocked {
            // The first call finds the clock by trying.
            CpuTime::handle()?;
        }
        // The session on tasks starts last and stops first. So its CPU time is never more than the sampling session's.
        let mut sampler = Self { ticket: collector::join(options)?, beside: None };
        let measured = SessionOptions {
            life: sees_waits,
            memory: sees_allocations,
            ..SessionOptions::default()
        };
        let clock = (is_clocked || sees_waits).then(|| measured.start()).transpose()?;
        let waits = sees_waits.then(|| Seen::begin(waits::begin, waits::dropped));
        let allocations =
            sees_allocations.then(|| Seen::begin(allocations::begin, allocations::dropped));
        let no_allocations = source.refused();
        sampler.beside = Some(Beside { _scopes, allocations, clock, waits, no_allocations });
        Ok(sampler)
    }

    /// Tries each mechanism, in the order of [`Mechanism::ALL`], and returns why those that cannot be used here do not work.
    ///
    /// While another session samples, this tries that session's mechanism each time.
    #[must_use]
    pub fn survey() -> Vec<(Mechanism, Option<Error>)> {
        let tried = |mechanism: Mechanism| {
            let alone = SamplerOptions {
                mechanism: Some(mechanism),
                scopes: false,
                clocked: false,
                waits: false,
                allocations: false,
                ..SamplerOptions::default()
            };
            (mechanism, Self::start(alone).err())
        };
        Mechanism::ALL.into_iter().map(tried).collect()
    }

    /// The samples so far, while sampling goes on.
    ///
    /// The samples are copied, which may take as much memory as they have: half of [`SamplerOptions::memory_bytes`] at most. In a forked
    /// child of the process that samples, this returns an empty profile.
    #[must_use]
    pub fn snapshot(&self) -> RawProfile {
        let clocked = self.clocked();
        self.with_losses(weighed(self.ticket.snapshot(), clocked))
    }

    /// Stops sampling, and returns the samples.
    ///
    /// When the last session stops, threads are no longer interrupted, and the signal has its earlier handler again. In a
    /// forked child of the process that samples, this returns an empty profile.
    #[must_use]
    pub fn stop(mut self) -> RawProfile {
        let clocked = self.clocked();
        let profile = weighed(self.ticket.leave(), clocked);
        self.with_losses(profile)
    }

    /// Says how many waits and allocations were dropped while this sampler was there, and why there are no allocations.
    fn with_losses(&self, mut profile: RawProfile) -> RawProfile {
        let Some(Beside { waits, allocations, no_allocations, .. }) = &self.beside else {
            return profile;
        };
        let lost = &mut profile.lost;
        lost.dropped_waits += waits.as_ref().map_or(0, |it| waits::dropped() - it.dropped_before);
        lost.dropped_allocations +=
            allocations.as_ref().map_or(0, |it| allocations::dropped() - it.dropped_before);
        let lost = [(lost.dropped_waits, "waits"), (lost.dropped_allocations, "allocations")];
        let lost = lost.into_iter().filter(|(number, _)| *number > 0);
        profile.remarks.extend(lost.map(|(number, what)| {
            format!("{what} that were to be seen and were lost: {number}; those that were seen stand for them, too")
        }));
        profile.remarks.extend(no_allocations.iter().map(|why| format!("no allocations: {why}")));
        profile
    }

    /// The CPU time of tasks, which is read before the samples are, so that it is never more than the sampling session's.
    fn clocked(&self) -> Option<Clocked> {
        let clock = self.beside.as_ref()?.clock.as_ref()?;
        (!self.ticket.is_anothers()).then(|| clock.clocked())
    }
}

fn weighed(profile: Option<RawProfile>, clocked: Option<Clocked>) -> RawProfile {
    let Some(mut profile) = profile else { return RawProfile::empty() };
    if let Some(clocked) = clocked {
        profile.weigh(&clocked);
        weigh_waits::weigh(&mut profile.waits, &clocked.lives, &clocked.labeled_lives);
        let blocked = clocked.lives.iter().map(|(path, life)| (*path, life.blocked_ns));
        profile.blocked_ns = blocked.filter(|(_, ns)| *ns > 0).collect();
        weigh_allocations::weigh(&mut profile.allocations, &clocked.memory);
    }
    profile
}

impl Drop for Sampler {
    fn drop(&mut self) {
        if self.ticket.is_anothers() {
            // In a forked child, a drop could wait for threads that the child does not have.
            std::mem::forget(self.beside.take());
        }
    }
}

fn cannot_sample(why: &dyn std::fmt::Display) -> Error {
    Error::CannotSample { refused: vec![why.to_string()] }
}
