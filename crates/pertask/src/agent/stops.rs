//! Requests that another request can look into, or end early with what was measured so far: those to which their caller gave a name.

use super::asked::{Asked, Parameter, Refusal};
use crate::sampler::Sampler;
use pertask_agent::Answer;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The parameters of `/v1/stop`, and one of the requests that it ends.
pub(super) const PARAMETERS: &[Parameter] = &[Parameter {
    name: "id",
    meaning: "a name of the caller's choice: /v1/stop ends the request that has it, and /v1/profile/so_far looks into it",
}];

/// The most bytes of a name.
const MOST_BYTES: usize = 64;

/// A request that is being answered, and whether it is to end.
pub(super) struct Stop(Arc<Running>);

pub(super) struct Running {
    name: Option<String>,
    wanted: AtomicBool,
    /// What samples for it, if it is a profile.
    sampler: Mutex<Option<Sampler>>,
}

/// Those that have a name.
static RUNNING: Mutex<Vec<Arc<Running>>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<Arc<Running>>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stop {
    /// Enters the request under its name, if it has one.
    pub(super) fn of(asked: &Asked<'_>) -> Result<Self, Refusal> {
        let request = |name: Option<&str>| {
            let (name, wanted) = (name.map(str::to_owned), AtomicBool::new(false));
            Arc::new(Running { name, wanted, sampler: Mutex::new(None) })
        };
        let Some(name) = asked.text("id") else { return Ok(Self(request(None))) };
        if name.is_empty() || name.len() > MOST_BYTES {
            return Err(Refusal::bad(format!("id must have 1 to {MOST_BYTES} bytes")));
        }
        let mut running = running();
        if running.iter().any(|other| other.is_named(name)) {
            return Err(Refusal::new(409, format!("another request has the id {name:?}")));
        }
        let named = request(Some(name));
        running.push(Arc::clone(&named));
        Ok(Self(named))
    }

    pub(super) fn has_name(&self) -> bool {
        self.0.name.is_some()
    }

    pub(super) fn is_wanted(&self) -> bool {
        // Relaxed: nothing else comes with it.
        self.0.wanted.load(Ordering::Relaxed)
    }

    /// Where the request's sampler is while it samples.
    pub(super) fn sampler(&self) -> MutexGuard<'_, Option<Sampler>> {
        self.0.sampler()
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        if self.has_name() {
            running().retain(|other| !Arc::ptr_eq(&self.0, other));
        }
    }
}

impl Running {
    /// The request of which this one asks.
    pub(super) fn of(asked: &Asked<'_>) -> Result<Arc<Self>, Refusal> {
        let Some(name) = asked.text("id") else {
            return Err(Refusal::bad("id is missing: the name of another request"));
        };
        let found = running().iter().find(|other| other.is_named(name)).map(Arc::clone);
        found.ok_or_else(|| {
            Refusal::new(404, format!("no request has the id {name:?}; it may have ended"))
        })
    }

    fn is_named(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }

    /// Its sampler, if it is a profile and samples are being taken.
    pub(super) fn sampler(&self) -> MutexGuard<'_, Option<Sampler>> {
        self.sampler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the parent's requests, in a forked child.
pub(super) fn reset() {
    running().clear();
}

/// Ends the request with this name.
pub(super) fn stop(asked: &Asked<'_>) -> Result<Answer, Refusal> {
    // Relaxed: nothing else comes with it.
    Running::of(asked)?.wanted.store(true, Ordering::Relaxed);
    Ok(Answer::json("{}\n".to_owned()))
}
