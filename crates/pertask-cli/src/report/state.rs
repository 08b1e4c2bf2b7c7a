//! Which time a report shows: that of one state, or all of it.

use clap::ValueEnum;
use pertask::profile::{Profile, State};

use crate::error::Error;

/// A state of tasks, or their whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StateOption {
    /// CPU time
    OnCpu,
    /// Time in polls off the CPU
    Blocked,
    /// Time between wake and poll
    Ready,
    /// Time until tasks are woken
    Waiting,
    /// All of these together
    Life,
}

impl StateOption {
    /// Returns the one state, or `None` for the whole life.
    fn state(self) -> Option<State> {
        match self {
            Self::OnCpu => Some(State::OnCpu),
            Self::Blocked => Some(State::Blocked),
            Self::Ready => Some(State::Ready),
            Self::Waiting => Some(State::Waiting),
            Self::Life => None,
        }
    }
}

/// Returns the profile of the wanted state. Without a wish, and for the whole life, it keeps the samples of all.
///
/// # Errors
///
/// Returns [`Error::NoState`] if the profile has no such time.
pub fn selected(
    profile: Profile,
    wanted: Option<StateOption>,
    place: &str,
) -> Result<Profile, Error> {
    let Some(wanted) = wanted else { return Ok(profile) };
    let state = wanted.state();
    if lacks(&profile, state) {
        return Err(no_state(&profile, state, place));
    }
    Ok(match state {
        Some(state) => profile.in_state(state),
        None => profile,
    })
}

/// Returns the two profiles of a difference in the wanted state, which one of them may lack.
///
/// # Errors
///
/// Returns [`Error::NoState`] if both lack it, and [`Error::LivesCompared`] if it is the whole life.
pub fn of_both(
    both: [Profile; 2],
    wanted: Option<StateOption>,
    place: &str,
) -> Result<[Profile; 2], Error> {
    let Some(wanted) = wanted else { return Ok(both) };
    let Some(state) = wanted.state() else {
        return Err(Error::LivesCompared { place: place.to_owned() });
    };
    if both.iter().all(|profile| lacks(profile, Some(state))) {
        return Err(no_state(&both[1], Some(state), place));
    }
    Ok(both.map(|profile| profile.in_state(state)))
}

fn no_state(profile: &Profile, state: Option<State>, place: &str) -> Error {
    let time = state.map_or("time off the CPU", State::time);
    let (has, has_waits) = (profile.times().to_string(), !profile.off_cpu.is_empty());
    Error::NoState { place: place.to_owned(), time, has, has_waits }
}

/// Returns whether a profile has no time in the state, or none off the CPU. A profile of CPU time may be empty.
fn lacks(profile: &Profile, state: Option<State>) -> bool {
    match state {
        Some(State::OnCpu) => false,
        Some(state) => profile.amount_in(state).time_ns == 0,
        None => profile.off_cpu.is_empty(),
    }
}

/// Returns a line that says what a report of one state does not show of the profile, if there is anything.
pub fn advice(profile: &Profile) -> Option<String> {
    let mut others = profile.times();
    // What is shown of CPU time is all there is of it.
    others.on_cpu_ns = 0;
    let has_others = profile.state == State::OnCpu && others.sum() > 0;
    has_others.then(|| {
        format!("not shown: {others}; pertask report --state waiting shows where (or ready, blocked, life)")
    })
}
