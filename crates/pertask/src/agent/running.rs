//! The requests that are being answered. Another request can look into one to which its caller gave a name, or end it early, with what was
//! measured so far.

use super::asked::{Asked, Parameter, Refusal};
use crate::sampler::Sampler;
use pertask_agent::{Answer, Caller};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The parameter of a request that can have a name, and of those that tell of another one by its name.
pub(super) const PARAMETERS: &[Parameter] = &[Parameter {
    name: "id",
    meaning: "a name of the caller's choice: /v1/stop ends the request that has it, and /v1/profile/so_far looks into it",
}];

/// The most bytes of a name.
const MOST_BYTES: usize = 64;

/// How often a wait looks whether another caller has ended it.
const LOOK: Duration = Duration::from_millis(50);

/// A request that is being answered, until this is dropped.
pub(super) struct Running(Arc<State>);

struct State {
    name: Option<String>,
    /// Whether it is to end.
    ends: AtomicBool,
    /// What samples for it, if it is a profile.
    sampler: Mutex<Option<Sampler>>,
}

/// How a wait ended.
pub(super) enum Waited {
    TimeIsUp,
    Gone,
    Stopped,
}

/// The requests of one process that have a name.
#[derive(Default)]
struct Table {
    requests: Mutex<Vec<Arc<State>>>,
    /// The table of a forked child. The child cannot use its parent's: if another thread of the parent had it locked at the fork, it
    /// stays locked in the child for good.
    of_child: OnceLock<Box<Self>>,
}

static NAMED: Table = Table { requests: Mutex::new(Vec::new()), of_child: OnceLock::new() };

fn named() -> MutexGuard<'static, Vec<Arc<State>>> {
    NAMED.latest().requests.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    /// The table of this process.
    fn latest(&self) -> &Self {
        let mut latest = self;
        while let Some(of_child) = latest.of_child.get() {
            latest = of_child;
        }
        latest
    }

    /// Leaves the parent's table, with all that is in it, without a look at it.
    fn leave(&self) {
        self.latest().of_child.get_or_init(Box::default);
    }
}

impl Running {
    /// Enters the request, under its name if it has one.
    pub(super) fn begin(asked: &Asked<'_>) -> Result<Self, Refusal> {
        let request = |name: Option<&str>| {
            let (name, ends) = (name.map(str::to_owned), AtomicBool::new(false));
            Arc::new(State { name, ends, sampler: Mutex::new(None) })
        };
        let Some(name) = asked.text("id") else { return Ok(Self(request(None))) };
        if name.is_empty() || name.len() > MOST_BYTES {
            return Err(Refusal::bad(format!("id must have 1 to {MOST_BYTES} bytes")));
        }
        let mut named = named();
        if named.iter().any(|other| other.is_named(name)) {
            return Err(Refusal::new(409, format!("another request has the id {name:?}")));
        }
        let state = request(Some(name));
        named.push(Arc::clone(&state));
        Ok(Self(state))
    }

    /// Waits for some time, or until the caller is gone or another one ends it.
    pub(super) fn wait(&self, time: Duration, caller: &Caller) -> Waited {
        self.wait_until(Instant::now() + time, caller)
    }

    /// Waits until then, or until the caller is gone or another one ends it.
    pub(super) fn wait_until(&self, until: Instant, caller: &Caller) -> Waited {
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            let slice = if self.0.name.is_some() { rest.min(LOOK) } else { rest };
            match caller.wait(slice) {
                pertask_agent::Waited::Gone => return Waited::Gone,
                // Relaxed: nothing else comes with it.
                _ if self.0.ends.load(Ordering::Relaxed) => return Waited::Stopped,
                _ if rest.is_zero() => return Waited::TimeIsUp,
                _ => {}
            }
        }
    }

    /// Keeps the request's sampler, where others can look into it.
    pub(super) fn keep(&self, sampler: Sampler) {
        *self.0.sampler() = Some(sampler);
    }

    /// Returns the sampler that it has kept.
    pub(super) fn take(&self) -> Option<Sampler> {
        self.0.sampler().take()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.name.is_some() {
            named().retain(|other| !Arc::ptr_eq(&self.0, other));
        }
    }
}

impl State {
    fn is_named(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }

    fn sampler(&self) -> MutexGuard<'_, Option<Sampler>> {
        self.sampler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The request of which this one asks.
fn other(asked: &Asked<'_>) -> Result<Arc<State>, Refusal> {
    let Some(name) = asked.text("id") else {
        return Err(Refusal::bad("id is missing: the name of another request"));
    };
    let found = named().iter().find(|other| other.is_named(name)).map(Arc::clone);
    found.ok_or_else(|| {
        Refusal::new(404, format!("no request has the id {name:?}; it may have ended"))
    })
}

/// Ends another request.
pub(super) fn stop(asked: &Asked<'_>) -> Result<Answer, Refusal> {
    // Relaxed: nothing else comes with it.
    other(asked)?.ends.store(true, Ordering::Relaxed);
    Ok(Answer::json("{}\n".to_owned()))
}

/// Looks into the sampler of another request. One caller at a time does.
pub(super) fn look<T>(
    asked: &Asked<'_>,
    look: impl FnOnce(&Sampler) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let other = other(asked)?;
    let sampler = other.sampler();
    let Some(sampler) = &*sampler else {
        return Err(Refusal::new(409, "this request is no profile, or takes no samples now"));
    };
    look(sampler)
}

/// Forgets the parent's requests, in a forked child. Takes no lock.
pub(super) fn reset() {
    NAMED.leave();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_whose_parent_had_the_table_locked_has_one_that_is_not() {
        let table = Table::default();
        let _of_parent = table.latest().requests.lock().unwrap();
        for _ in 0..3 {
            table.leave();
            let mut requests = table.latest().requests.try_lock().expect("nobody has it locked");
            assert!(requests.is_empty());
            let state =
                State { name: None, ends: AtomicBool::new(false), sampler: Mutex::new(None) };
            requests.push(Arc::new(state));
        }
    }
}
