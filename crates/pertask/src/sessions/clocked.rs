//! CPU time by the clock during a session, and lives, divided in the same way as samples can be.

use crate::pmus::memory::count::MemoryCount;
use crate::report::LifeReport;
use crate::tasks::label_set::Labels;
use crate::tasks::past::Key;
use crate::tasks::used::Used;
use std::collections::HashMap;

/// CPU time by the clock during a session.
#[derive(Debug, Default)]
pub(crate) struct Clocked {
    /// The CPU time of the tasks of each spawn path, by the path's number.
    pub(crate) paths_ns: HashMap<u32, u64>,
    /// The part of it that those tasks had with these labels, as far as it is known.
    pub(crate) labeled_ns: HashMap<(u32, Labels), u64>,
    /// The lives of the tasks of each spawn path, where they were measured.
    pub(crate) lives: HashMap<u32, LifeReport>,
    /// The part of those lives that those tasks had with these labels.
    pub(crate) labeled_lives: HashMap<(u32, Labels), LifeReport>,
    /// What the tasks of each spawn path have allocated and freed, where that was counted.
    pub(crate) memory: HashMap<u32, MemoryCount>,
    /// The CPU time in tasks of which it is not known in which task it was.
    pub(crate) unknown_ns: u64,
    /// The CPU time of each live thread outside tasks, or `None` for a thread that is no worker: all its time is outside tasks.
    pub(crate) threads_ns: HashMap<u32, Option<u64>>,
    /// The CPU time outside tasks of all threads that have ended.
    pub(crate) ended_ns: u64,
}

/// The CPU time of labels on these paths. The labels of a path have no more than the path, whatever happened between the two
/// readings.
pub(super) fn labeled(
    accounts: HashMap<Key, Used>,
    paths_ns: &HashMap<u32, u64>,
) -> HashMap<(u32, Labels), u64> {
    let mut rest_ns = paths_ns.clone();
    let part = |(Key { path, labels }, used): (Key, Used)| {
        let (path, rest) = path.and_then(|path| Some((path, rest_ns.get_mut(&path)?)))?;
        let cpu_ns = used.cpu_ns.min(*rest);
        *rest -= cpu_ns;
        Some(((path, labels), cpu_ns))
    };
    accounts.into_iter().filter_map(part).collect()
}

/// The lives of labels on these paths, of those that have any.
pub(super) fn labeled_lives(accounts: &HashMap<Key, Used>) -> HashMap<(u32, Labels), LifeReport> {
    let life = |(Key { path, labels }, used): (&Key, &Used)| {
        let life = LifeReport::of(&used.life, used.cpu_ns);
        (life.life_ns() > 0).then(|| Some((((*path)?, labels.clone()), life)))?
    };
    accounts.iter().filter_map(life).collect()
}
