//! Requests that another request can end early, with what was measured so far: those to which their caller gave a name.

use super::asked::{Asked, Parameter, Refusal};
use pertask_agent::Answer;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The parameters of `/v1/stop`, and one of the requests that it ends.
pub(super) const PARAMETERS: &[Parameter] = &[Parameter {
    name: "id",
    meaning: "a name of the caller's choice, with which /v1/stop ends the request early",
}];

/// The most bytes of a name.
const MOST_BYTES: usize = 64;

/// Whether a request is to end.
pub(super) struct Stop(Option<Arc<Named>>);

struct Named {
    name: String,
    wanted: AtomicBool,
}

static RUNNING: Mutex<Vec<Arc<Named>>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<Arc<Named>>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stop {
    /// Enters the request under its name, if it has one.
    pub(super) fn of(asked: &Asked<'_>) -> Result<Self, Refusal> {
        let Some(name) = asked.text("id") else { return Ok(Self(None)) };
        if name.is_empty() || name.len() > MOST_BYTES {
            return Err(Refusal::bad(format!("id must have 1 to {MOST_BYTES} bytes")));
        }
        let mut running = running();
        if running.iter().any(|other| other.name == name) {
            return Err(Refusal::new(409, format!("another request has the id {name:?}")));
        }
        let named = Arc::new(Named { name: name.to_owned(), wanted: AtomicBool::new(false) });
        running.push(Arc::clone(&named));
        Ok(Self(Some(named)))
    }

    pub(super) fn has_name(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn is_wanted(&self) -> bool {
        // Relaxed: nothing else comes with it.
        self.0.as_ref().is_some_and(|named| named.wanted.load(Ordering::Relaxed))
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        if let Some(named) = &self.0 {
            running().retain(|other| !Arc::ptr_eq(named, other));
        }
    }
}

/// Forgets the parent's requests, in a forked child.
pub(super) fn reset() {
    running().clear();
}

/// Ends the request with this name.
pub(super) fn stop(asked: &Asked<'_>) -> Result<Answer, Refusal> {
    let Some(name) = asked.text("id") else {
        return Err(Refusal::bad("id is missing: the name of the request to end"));
    };
    let running = running();
    let Some(named) = running.iter().find(|named| named.name == name) else {
        return Err(Refusal::new(
            404,
            format!("no request has the id {name:?}; it may have ended"),
        ));
    };
    // Relaxed: nothing else comes with it.
    named.wanted.store(true, Ordering::Relaxed);
    Ok(Answer::json("{}\n".to_owned()))
}
