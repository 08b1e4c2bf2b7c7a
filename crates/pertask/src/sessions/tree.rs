//! The spawn tree of a report: for each path, what its tasks did by themselves, and with all that they spawned.

use crate::pmus::cpu_time::CpuTimeCount;
use crate::pmus::life::LifeCount;
use crate::report::{LifeReport, SpawnSite, TreeReport, Usage};
use pertask_core::SpawnPath;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What the tasks of one spawn path did during a session, without their descendants.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) path: &'static SpawnPath,
    pub(crate) started: u64,
    pub(crate) live: u64,
    pub(crate) count: CpuTimeCount,
    pub(crate) max_poll_ns: u64,
    /// `None` where lives are not measured.
    pub(crate) life: Option<LifeCount>,
}

impl Spawned {
    pub(crate) fn life(&self) -> Option<LifeReport> {
        self.life.as_ref().map(|life| LifeReport::of(life, self.count.cpu_ns))
    }
}

/// The nodes of the tree, by path number. A parent's number is lower than those of its children.
type Nodes = BTreeMap<u32, TreeReport>;

/// The rows of the tree, depth first. Children are sorted by inclusive CPU time.
pub(crate) fn rows(spawned: &[Spawned]) -> Vec<TreeReport> {
    let seen = |row: &&Spawned| {
        let life_ns = row.life.as_ref().map_or(0, LifeCount::life_ns);
        row.count.polls | row.count.cpu_ns | row.started | row.live | life_ns != 0
    };
    let mut nodes = Nodes::new();
    spawned.iter().filter(seen).for_each(|row| plant(&mut nodes, row));
    add_up(&mut nodes);
    depth_first(nodes)
}

/// Adds the row of a path, and the rows of its ancestors.
fn plant(nodes: &mut Nodes, row: &Spawned) {
    for path in std::iter::successors(Some(row.path), |path| path.parent()) {
        nodes.entry(path.id()).or_insert_with(|| empty(path));
    }
    if let Some(node) = nodes.get_mut(&row.path.id()) {
        node.tasks_started = row.started;
        node.tasks_live = row.live;
        node.usage = Usage::of(&row.count, row.max_poll_ns);
        node.inclusive_cpu_ns = row.count.cpu_ns;
        node.life = row.life();
    }
}

/// Adds each path's inclusive time to its parent, children first.
fn add_up(nodes: &mut Nodes) {
    let ids: Vec<u32> = nodes.keys().rev().copied().collect();
    for id in ids {
        let (parent, cpu_ns) = (nodes[&id].parent, nodes[&id].inclusive_cpu_ns);
        if let Some(parent) = parent.and_then(|parent| nodes.get_mut(&parent)) {
            parent.inclusive_cpu_ns += cpu_ns;
        }
    }
}

fn depth_first(nodes: Nodes) -> Vec<TreeReport> {
    let mut below: BTreeMap<Option<u32>, Vec<TreeReport>> = BTreeMap::new();
    for node in nodes.into_values() {
        below.entry(node.parent).or_default().push(node);
    }
    // The next row is at the end. Of two equal rows, the one with the lower number comes first.
    let next_last = |node: &TreeReport| (node.inclusive_cpu_ns, Reverse(node.id));
    below.values_mut().for_each(|children| children.sort_by_key(next_last));
    let mut rows = Vec::new();
    let mut to_come = below.remove(&None).unwrap_or_default();
    while let Some(node) = to_come.pop() {
        to_come.extend(below.remove(&Some(node.id)).unwrap_or_default());
        rows.push(node);
    }
    rows
}

fn empty(path: &SpawnPath) -> TreeReport {
    TreeReport {
        id: path.id(),
        parent: path.parent().map(SpawnPath::id),
        depth: path.depth(),
        site: SpawnSite::of(path.site()),
        tasks_started: 0,
        tasks_live: 0,
        usage: Usage::default(),
        inclusive_cpu_ns: 0,
        life: None,
        memory: None,
        inclusive_memory: None,
    }
}
