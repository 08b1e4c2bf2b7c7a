//! The sampler: where each thread of the process is, each time that it has used so much CPU time, and which task runs there.
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
//! Each sample carries the CPU time that it stands for: sums of that, not numbers of samples, say where the time went.
//! Addresses stay numbers.
//!
//! The signal is SIGTRAP; or SIGURG where perf's traps are refused, or a handler of the program's own for SIGTRAP wants an
//! alternate stack, from which the thread's own cannot be walked. While somebody samples, the program must not give SIGTRAP its
//! default action, which would end the program; another handler ends sampling early.
//!
//! There is one collector thread (`pertask-sampler`) while anybody samples, and one interruption of each thread for all
//! sessions: at the highest rate that any of them asks for. Each session gets all samples from its start to its stop.

#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("the feature `sampler` is for Linux on x86_64 and aarch64");

mod bell;
mod collector;
#[allow(unsafe_code)]
mod disposition;
mod engine;
#[allow(unsafe_code)]
mod handler;
#[allow(unsafe_code)]
mod mechanism;
mod modules;
mod next_search;
mod options;
mod profile;
#[allow(unsafe_code)]
mod record;
#[cfg(feature = "profiler")]
mod resolve;
mod ring;
#[allow(unsafe_code)]
mod roster;
mod session;
#[allow(unsafe_code)]
mod signals;
mod stacks;
#[allow(unsafe_code)]
mod unwind;
mod way;
mod weigh;
mod workers;

pub use mechanism::Mechanism;
pub use options::SamplerOptions;
pub use pertask_symbols::{Module, ModuleRange};
pub use profile::{RawProfile, RawSample, SampleLosses, Unmet};

use crate::error::Error;
use crate::pmus::call_stack::{CallStack, CallStacks};
use crate::pmus::cpu_time::CpuTime;
use crate::sessions::Session;

/// A sampling session: it takes samples of all threads from its start until it is stopped or dropped.
#[derive(Debug)]
pub struct Sampler {
    ticket: collector::Ticket,
    // After the ticket: scopes are recorded, and tasks measured, as long as samples are taken.
    beside: Option<Beside>,
}

/// What a sampling session has others do meanwhile.
#[derive(Debug)]
struct Beside {
    _scopes: Option<CallStacks>,
    clock: Option<Session>,
}

impl Sampler {
    /// Starts sampling all threads of the process, those included that begin later.
    ///
    /// # Errors
    /// [`Error::CannotSample`], with the reason for each way to interrupt threads; [`Error::Attach`] if scopes are wanted and
    /// cannot be recorded, or tasks' CPU time and it cannot be measured.
    pub fn start(options: SamplerOptions) -> Result<Self, Error> {
        let _scopes = options.scopes.then(CallStack::record).transpose()?;
        let clocked = options.clocked;
        if clocked {
            // The first time, the clock is found by trying.
            CpuTime::handle()?;
        }
        // The clock's time lies inside the samples': it is never more than the process's.
        let mut sampler = Self { ticket: collector::join(options)?, beside: None };
        let clock = clocked.then(Session::start).transpose()?;
        sampler.beside = Some(Beside { _scopes, clock });
        Ok(sampler)
    }

    /// Each way to interrupt threads, best first, and why it cannot be used here, by trying it. While another session samples by
    /// one of them, that one is what is tried each time.
    #[must_use]
    pub fn survey() -> Vec<(Mechanism, Option<Error>)> {
        let tried = |mechanism: Mechanism| {
            let alone = SamplerOptions {
                mechanism: Some(mechanism),
                scopes: false,
                clocked: false,
                ..SamplerOptions::default()
            };
            (mechanism, Self::start(alone).err())
        };
        Mechanism::ALL.into_iter().map(tried).collect()
    }

    /// Stops, and returns what was seen. When nobody samples any more, threads are not interrupted any more, and the
    /// signal's earlier handler is back.
    #[must_use]
    pub fn stop(mut self) -> RawProfile {
        let clock = self.beside.as_ref().and_then(|beside| beside.clock.as_ref());
        let clocked = clock.filter(|_| !self.ticket.is_anothers()).map(Session::clocked);
        let Some(mut profile) = self.ticket.leave() else { return RawProfile::empty() };
        if let Some(clocked) = clocked {
            profile.weigh(&clocked);
        }
        profile
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        if self.ticket.is_anothers() {
            // In a forked child, what is beside may wait for threads that are not there.
            std::mem::forget(self.beside.take());
        }
    }
}

fn cannot_sample(why: &dyn std::fmt::Display) -> Error {
    Error::CannotSample { refused: vec![why.to_string()] }
}
