//! A clock that stands still.

pub(crate) struct Choice;

impl Choice {
    pub(crate) fn of_process() -> Self {
        Self
    }

    pub(crate) fn wall_ns(&self) -> u64 {
        1
    }
}
