//! Sampled profiles.

use super::asked::{Asked, Parameter, Refusal};
use super::limits::{self, MOST_SECONDS};
use super::running::{self, Running};
use crate::profile::{Lost, Profile};
use crate::sampler::{RawProfile, ResolveOptions, Sampler, SamplerOptions};
use pertask_agent::Answer;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter { name: "seconds", meaning: "how long to sample [default: 10]" },
    Parameter {
        name: "hz",
        meaning: "samples for each second of a thread's CPU time [default: 199]",
    },
    Parameter { name: "waits", meaning: "true: also see where tasks wait [default: false]" },
    ALLOCATIONS,
    Parameter {
        name: "resolved",
        meaning: "true: with the names of functions, which costs this process CPU time and memory [default: false]",
    },
];

pub(super) const ALLOCATIONS: Parameter = Parameter {
    name: "allocations",
    meaning: "true: also see where tasks allocate: -sample_index=alloc_space; needs pertask::Alloc [default: false]",
};

/// The memory for the samples of one profile.
const MEMORY_BYTES: usize = 64 << 20;

/// The memory for the files in which names are found. One profile at a time gets its names.
const NAMES_BYTES: usize = 128 << 20;

fn resolved(profile: &RawProfile) -> Profile {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let options = ResolveOptions { memory_bytes: NAMES_BYTES, ..ResolveOptions::default() };
    profile.resolve_with(&options)
}

/// A profile as its caller wants it.
pub(super) struct Wanted {
    pub(super) time: Duration,
    pub(super) frequency_hz: u32,
    pub(super) waits: bool,
    pub(super) allocations: bool,
    /// Whether allocations are all that is wanted.
    pub(super) only_allocations: bool,
    pub(super) resolved: bool,
}

/// A profile as gzip'd pprof.
pub(super) fn profile(asked: &Asked<'_>) -> Result<Answer, Refusal> {
    let default_hz = SamplerOptions::default().frequency_hz;
    let wanted = Wanted {
        time: asked.seconds(10.0, &(0.001..=MOST_SECONDS))?,
        frequency_hz: asked.number("hz", default_hz, &(1..=SamplerOptions::HIGHEST_HZ))?,
        waits: asked.flag("waits", false)?,
        allocations: asked.flag("allocations", false)?,
        only_allocations: false,
        resolved: asked.flag("resolved", false)?,
    };
    wanted.get(asked)
}

impl Wanted {
    pub(super) fn get(&self, asked: &Asked<'_>) -> Result<Answer, Refusal> {
        let running = Running::begin(asked)?;
        let _permit = limits::PROFILES.take()?;
        let mut options = SamplerOptions::with_frequency(self.frequency_hz);
        options.memory_bytes = MEMORY_BYTES;
        options.waits = self.waits;
        options.allocations = self.allocations;
        running.keep(Sampler::start(options)?);
        running.wait(self.time, asked.caller());
        let Some(profile) = running.take().map(Sampler::stop) else {
            return Err(Refusal::new(500, "the profile's sampler is gone"));
        };
        if asked.caller().is_gone() {
            return Err(Refusal::new(499, "the caller is gone"));
        }
        self.answer(&profile)
    }

    fn answer(&self, profile: &RawProfile) -> Result<Answer, Refusal> {
        match self.resolved {
            true => as_pprof(|bytes| self.named(profile).write_pprof(bytes)),
            false => as_pprof(|bytes| profile.write_pprof_unresolved(bytes)),
        }
    }
}

impl Wanted {
    fn named(&self, profile: &RawProfile) -> Profile {
        let mut named = resolved(profile);
        if self.only_allocations {
            // Nothing of these was asked for.
            named.samples.clear();
            named.lost = Lost::default();
        }
        named
    }
}

/// What a profile that is being sampled has so far. One caller at a time has it copied.
pub(super) fn so_far(asked: &Asked<'_>) -> Result<Answer, Refusal> {
    running::look(asked, |sampler| {
        let profile = sampler.snapshot();
        as_pprof(|bytes| profile.write_pprof_unresolved(bytes))
    })
}

fn as_pprof(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<Answer, Refusal> {
    let mut bytes = Vec::new();
    write(&mut bytes)
        .map_err(|why| Refusal::new(500, format!("cannot write the profile: {why}")))?;
    let mut answer = Answer::bytes("application/octet-stream", bytes);
    let name = "attachment; filename=\"profile.pb.gz\"".to_owned();
    answer.headers.push(("Content-Disposition", name));
    Ok(answer)
}
