//! Where tasks are in the tree of spawns: a site below the path of the task that spawned there, interned.

use crate::primitive::plain::AtomicU64;
use crate::primitive::{AtomicPtr, AtomicU32, Mutex, Ordering, lock};
use crate::site::Site;
use std::fmt;
use std::ptr;

/// How many spawn paths with a parent a system keeps apart.
///
/// A task beyond that gets its site's root path, and is [counted](crate::System::tasks_without_path). There are at most
/// [`MAX_SITES`](crate::MAX_SITES) roots.
#[cfg(not(pertask_loom))]
pub const MAX_PATHS: usize = 8192;
/// In models there is one, so that two forks can race for the last free path.
#[cfg(pertask_loom)]
pub const MAX_PATHS: usize = 1;

/// How many sites a spawn path has at most.
///
/// A task spawned below the deepest path gets its site's root path, and is [counted](crate::System::tasks_without_path). So no
/// fork looks at more ancestors than this.
pub const MAX_DEPTH: u32 = 64;

#[cfg(not(any(pertask_loom, pertask_shuttle, miri)))]
const BUCKETS: usize = 4096;
/// Every schedule makes its own table, and Miri takes a minute for thousands of buckets.
#[cfg(any(pertask_shuttle, miri))]
const BUCKETS: usize = 16;
/// All paths of a model share one bucket.
#[cfg(pertask_loom)]
const BUCKETS: usize = 1;

/// A spawn path: a site, below the path of the task that spawned there.
///
/// It is a node in the tree of spawns, as a call chain is a node in a call graph.
///
/// Recursion is folded: if the site is already among the ancestors, the task gets that ancestor's path. So the tree does not
/// grow with the depth of a recursion, and the sum over a path and all paths below it counts nothing twice.
///
/// Paths are interned and never freed.
///
/// INVARIANT: no site occurs twice on the way from a path to its root. A parent's `id` is lower than its children's. Nothing
/// changes once the path can be found.
pub struct SpawnPath {
    id: u32,
    depth: u32,
    parent: Option<&'static SpawnPath>,
    site: &'static Site,
    /// The next path in the same bucket.
    next: Option<&'static SpawnPath>,
    /// For the models: written before the path can be found, so that a model sees if the path is found too early.
    #[cfg(pertask_loom)]
    whole: crate::primitive::AtomicBool,
}

impl SpawnPath {
    /// The path's number: unique in the system, dense from 0, and higher than the parent's.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The path of the tasks that spawned these tasks; `None` for a root.
    #[must_use]
    pub fn parent(&self) -> Option<&'static SpawnPath> {
        self.parent
    }

    /// The site where these tasks are made, which has their name.
    #[must_use]
    #[inline]
    pub fn site(&self) -> &'static Site {
        self.site
    }

    /// How many ancestors the path has: 0 for a root.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.depth
    }

    #[inline]
    fn is(&self, parent: Option<&'static Self>, site: &'static Site) -> bool {
        // Relaxed: the model tests that the lookup itself orders this load.
        #[cfg(pertask_loom)]
        assert!(self.whole.load(Ordering::Relaxed), "found before it was whole");
        let address = |path: Option<&'static Self>| path.map_or(ptr::null(), ptr::from_ref);
        ptr::eq(self.site, site) && address(self.parent) == address(parent)
    }

    /// The path itself, or its ancestor, whose last site is `site`.
    fn folded(&'static self, site: &'static Site) -> Option<&'static Self> {
        let mut upwards = std::iter::successors(Some(self), |path| path.parent);
        upwards.find(|path| ptr::eq(path.site, site))
    }
}

impl fmt::Debug for SpawnPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnPath")
            .field("id", &self.id)
            .field("depth", &self.depth)
            .field("parent", &self.parent.map(Self::id))
            .field("site", self.site)
            .finish_non_exhaustive()
    }
}

/// All spawn paths of a system, found by parent and site.
///
/// A fork whose path exists takes no lock: it searches one bucket, and buckets grow only at their head.
///
/// INVARIANT: `all` holds each path of the buckets once, at the index of its id; each path was complete before it entered its
/// bucket. All changes are made under the lock of `all`. At most [`MAX_PATHS`] paths have a parent, and `children` is their
/// number.
pub(crate) struct PathTable {
    buckets: [AtomicPtr<SpawnPath>; BUCKETS],
    all: Mutex<Vec<&'static SpawnPath>>,
    children: AtomicU32,
    overflowed: AtomicU64,
}

impl PathTable {
    pub(crate) fn new() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            all: Mutex::new(Vec::new()),
            children: AtomicU32::new(0),
            overflowed: AtomicU64::new(0),
        }
    }

    /// The path of a task that is made at `site` by a task whose path is `parent`.
    #[inline]
    pub(crate) fn of(
        &self,
        parent: Option<&'static SpawnPath>,
        site: &'static Site,
    ) -> &'static SpawnPath {
        self.find(parent, site).unwrap_or_else(|| self.of_unusual(parent, site))
    }

    /// How many tasks got a root path because there was no room for their own.
    pub(crate) fn overflowed(&self) -> u64 {
        // Relaxed: for statistics.
        self.overflowed.load(Ordering::Relaxed)
    }

    pub(crate) fn get(&self, id: u32) -> Option<&'static SpawnPath> {
        lock(&self.all).get(id as usize).copied()
    }

    pub(crate) fn for_each(&self, f: impl FnMut(&'static SpawnPath)) {
        let all = lock(&self.all).clone();
        all.into_iter().for_each(f);
    }

    #[inline]
    fn find(
        &self,
        parent: Option<&'static SpawnPath>,
        site: &'static Site,
    ) -> Option<&'static SpawnPath> {
        // Acquire: pairs with the Release in `insert`. A thread that finds a path sees it complete, and every path before it.
        let head = self.buckets[bucket(parent, site)].load(Ordering::Acquire);
        // SAFETY: the pointer is null or points to a path, and paths are never freed (`dispose` frees them only when out of
        // use).
        let mut next: Option<&'static SpawnPath> = unsafe { head.as_ref() };
        while let Some(path) = next {
            if path.is(parent, site) {
                return Some(path);
            }
            next = path.next;
        }
        None
    }

    /// The path of a task whose path was not found: a new path, a recursion, or a path too many.
    #[inline(never)]
    fn of_unusual(
        &self,
        parent: Option<&'static SpawnPath>,
        site: &'static Site,
    ) -> &'static SpawnPath {
        let Some(parent) = parent else { return self.root(site) };
        if let Some(ancestor) = parent.folded(site) {
            return ancestor;
        }
        self.child(parent, site).unwrap_or_else(|| {
            // Relaxed: for statistics.
            self.overflowed.fetch_add(1, Ordering::Relaxed);
            self.find(None, site).unwrap_or_else(|| self.root(site))
        })
    }

    #[cold]
    fn root(&self, site: &'static Site) -> &'static SpawnPath {
        let mut all = lock(&self.all);
        // Another thread may have been first.
        self.find(None, site).unwrap_or_else(|| self.insert(&mut all, None, site))
    }

    /// A child path, or `None` if there is no room for it. Takes no lock once there is no room for any.
    fn child(&self, parent: &'static SpawnPath, site: &'static Site) -> Option<&'static SpawnPath> {
        if parent.depth + 1 >= MAX_DEPTH {
            return None;
        }
        // Acquire: pairs with the Release in `make_child`. If there is no room left, a second search finds every path that
        // exists: another thread may have used the last room after our first search.
        if self.children.load(Ordering::Acquire) as usize >= MAX_PATHS {
            return self.find(Some(parent), site);
        }
        self.make_child(parent, site)
    }

    #[cold]
    fn make_child(
        &self,
        parent: &'static SpawnPath,
        site: &'static Site,
    ) -> Option<&'static SpawnPath> {
        let mut all = lock(&self.all);
        // Another thread may have been first.
        if let Some(path) = self.find(Some(parent), site) {
            return Some(path);
        }
        // Relaxed: the number changes only under the lock, which we hold.
        let children = self.children.load(Ordering::Relaxed);
        if children as usize >= MAX_PATHS {
            return None;
        }
        let path = self.insert(&mut all, Some(parent), site);
        // Release: pairs with the Acquire in `child`. A thread that finds no room left also finds this path.
        self.children.store(children + 1, Ordering::Release);
        Some(path)
    }

    fn insert(
        &self,
        all: &mut Vec<&'static SpawnPath>,
        parent: Option<&'static SpawnPath>,
        site: &'static Site,
    ) -> &'static SpawnPath {
        let head = &self.buckets[bucket(parent, site)];
        let path: &'static SpawnPath = Box::leak(Box::new(SpawnPath {
            id: u32::try_from(all.len()).unwrap_or(u32::MAX),
            depth: parent.map_or(0, |parent| parent.depth + 1),
            parent,
            site,
            // Relaxed: heads change only under the lock, which the caller holds.
            // SAFETY: the pointer is null or points to a path, and paths are never freed.
            next: unsafe { head.load(Ordering::Relaxed).as_ref() },
            #[cfg(pertask_loom)]
            whole: crate::primitive::AtomicBool::new(false),
        }));
        // Relaxed: the model tests that the lookup itself orders this store.
        #[cfg(pertask_loom)]
        path.whole.store(true, Ordering::Relaxed);
        all.push(path);
        // Release: pairs with the Acquire in `find`.
        head.store(ptr::from_ref(path).cast_mut(), Ordering::Release);
        path
    }
}

#[inline]
fn bucket(parent: Option<&SpawnPath>, site: &Site) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let parent = parent.map_or(0, |parent| u64::from(parent.id) + 1);
    let hash = (parent << 32 | u64::from(site.id())).wrapping_mul(ODD);
    (hash >> 40) as usize % BUCKETS
}

#[cfg(all(test, not(any(pertask_loom, pertask_shuttle))))]
mod tests {
    use super::*;
    use crate::{MAX_SITES, OwnedTask, System, Task};
    use std::panic::Location;

    /// The largest number of paths that any fork looks at.
    fn longest_walk(table: &PathTable) -> usize {
        let walk = |head: &AtomicPtr<SpawnPath>| {
            // SAFETY: the pointer is null or points to a path, and paths are never freed.
            let head: Option<&'static SpawnPath> = unsafe { head.load(Ordering::Acquire).as_ref() };
            std::iter::successors(head, |path| path.next).count()
        };
        table.buckets.iter().map(walk).max().unwrap_or(0)
    }

    fn fork(system: &'static System, parent: Option<&Task>, name: usize) -> OwnedTask {
        let site = system.site(Some(&name.to_string()), Location::caller());
        system.fork(site, parent, 0)
    }

    #[test]
    fn a_parent_of_many_names_makes_no_fork_walk_far() {
        let system = System::leak();
        let parent = fork(system, None, 0);
        (0..10_000).for_each(|name| drop(fork(system, Some(&parent), name)));
        assert_eq!(system.paths().all.lock().unwrap().len(), MAX_SITES);
        assert!(longest_walk(system.paths()) <= 8, "{}", longest_walk(system.paths()));
        assert_eq!(system.tasks_without_path(), 0);
    }

    #[test]
    fn a_full_tree_makes_no_fork_walk_far() {
        for children in [2, 16, 128, 1024] {
            let system = System::leak();
            let roots: Vec<_> =
                (0..MAX_PATHS / children).map(|name| fork(system, None, name)).collect();
            for root in &roots {
                (roots.len()..roots.len() + children)
                    .for_each(|name| drop(fork(system, Some(root), name)));
            }
            let longest = longest_walk(system.paths());
            assert!(longest <= 16, "{longest} of {children} children each");
        }
    }
}
