//! What tasks are called. Many rows may have one long name, which is in memory once.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use super::{Sample, TaskRef, frames};

/// Names of tasks, as [`RootBy::TaskName`](super::RootBy::TaskName) has them.
#[derive(Debug, Default)]
pub(super) struct Called {
    /// Those that no sample has as they are.
    made: HashSet<Arc<str>>,
}

impl Called {
    /// Returns what the task of a sample is called, or what ran instead of one.
    pub(super) fn of(&mut self, sample: &Sample) -> Arc<str> {
        match &sample.task {
            Some(task) => self.task(task),
            None => self.made(frames::outside(sample.runtime.as_deref())),
        }
    }

    /// Returns a task's name, or its spawn site if it has no name.
    pub(super) fn task(&mut self, task: &TaskRef) -> Arc<str> {
        match &task.name {
            Some(name) => Arc::clone(name),
            None => self.made(frames::site(task)),
        }
    }

    fn made(&mut self, name: Cow<'_, str>) -> Arc<str> {
        if let Some(known) = self.made.get(&*name) {
            return Arc::clone(known);
        }
        let name = Arc::from(name);
        self.made.insert(Arc::clone(&name));
        name
    }
}
