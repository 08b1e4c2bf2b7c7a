//! The lives of all tasks at one moment: by spawn path and task, and by label.

use super::rows::{LiveTask, Rows};
use crate::pmus::life::cut::Cut;
use crate::pmus::life::{Life, LifeCount};
use pertask_core::PmuHandle;
use std::collections::HashMap;

/// The lives at one moment.
#[derive(Default)]
pub(crate) struct Lives {
    pub(crate) rows: Rows<LifeCount>,
    /// Those of all tasks together, by the place of the tag that they had. Empty where labels are not measured.
    pub(crate) by_place: Vec<LifeCount>,
}

/// Reads the lives of all tasks. Each task is read once, for its row and for its labels: so the two differ in nothing.
pub(super) fn read_all(handle: PmuHandle<Life>) -> Lives {
    let mut cut = Cut::begin(handle);
    let mut tasks = HashMap::new();
    let paths = handle.snapshot(|live| {
        live.count = cut.see(live, handle.pmu().now());
        if live.count.life_ns() > 0 {
            tasks.insert(live.task.id(), LiveTask::new(live.task, &live.count));
        }
    });
    let paths = paths.into_iter().map(|row| (row.path.id(), row)).collect();
    let by_place = cut.finish(tasks.keys().copied());
    Lives { rows: Rows { paths, tasks }, by_place }
}
