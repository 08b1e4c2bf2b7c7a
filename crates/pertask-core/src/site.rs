//! Where tasks are made: a name and a source location, interned.

use crate::primitive::plain::{AtomicU32, AtomicU64};
use crate::primitive::{Mutex, Ordering, lock};
use std::collections::HashMap;
use std::fmt;
use std::panic::Location;

/// How many sites a system keeps apart.
///
/// Names made up at run time could be unlimited in number. Tasks of later sites share [one site](Site::is_other), and are
/// [counted](crate::System::tasks_without_site).
pub const MAX_SITES: usize = 4096;

/// A spawn site: the name given to its tasks, and the source location that makes them.
///
/// Sites are interned and never freed.
pub struct Site {
    id: u32,
    /// The number of the system that the site belongs to.
    system: u32,
    name: Option<Box<str>>,
    location: &'static Location<'static>,
}

impl Site {
    fn new(
        id: u32,
        system: u32,
        name: Option<&str>,
        location: &'static Location<'static>,
    ) -> &'static Self {
        Box::leak(Box::new(Self { id, system, name: name.map(Box::from), location }))
    }

    /// The site's number: unique in the system, and dense from 0.
    #[must_use]
    #[inline]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The name, if the tasks were given one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The source location that makes the tasks.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Whether this is the site that stands for all sites beyond the limit.
    #[must_use]
    pub fn is_other(&self) -> bool {
        self.id == 0
    }

    pub(crate) fn is(&self, name: Option<&str>, location: &'static Location<'static>) -> bool {
        std::ptr::eq(self.location, location) && self.name.as_deref() == name
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("location", &format_args!("{}", self.location))
            .finish_non_exhaustive()
    }
}

/// All sites of a system.
pub(crate) struct SiteTable {
    system: u32,
    sites: Mutex<Interned>,
    overflowed: AtomicU64,
}

struct Interned {
    all: Vec<&'static Site>,
    by_name: HashMap<(Option<Box<str>>, Location<'static>), &'static Site>,
}

impl SiteTable {
    pub(crate) fn new() -> Self {
        static SYSTEMS: AtomicU32 = AtomicU32::new(0);
        let system = SYSTEMS.fetch_add(1, Ordering::Relaxed);
        let other = Site::new(0, system, Some("(other)"), Location::caller());
        let interned = Interned { all: vec![other], by_name: HashMap::new() };
        Self { system, sites: Mutex::new(interned), overflowed: AtomicU64::new(0) }
    }

    /// The site itself, or this system's site of the same name and location if `site` belongs to another system.
    pub(crate) fn own(&self, site: &'static Site) -> &'static Site {
        if site.system == self.system { site } else { self.intern(site.name(), site.location) }
    }

    /// The site of that name and location. Takes a lock; [`Cpu::site`](crate::Cpu::site) is the usual way.
    pub(crate) fn intern(
        &self,
        name: Option<&str>,
        location: &'static Location<'static>,
    ) -> &'static Site {
        let mut interned = lock(&self.sites);
        let key = (name.map(Box::from), *location);
        if let Some(site) = interned.by_name.get(&key) {
            return site;
        }
        if interned.all.len() >= MAX_SITES {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
            return interned.all[0];
        }
        let id = u32::try_from(interned.all.len()).unwrap_or(u32::MAX);
        let site = Site::new(id, self.system, name, location);
        interned.all.push(site);
        interned.by_name.insert(key, site);
        site
    }

    /// How many tasks share the common site because there was no room for their own.
    pub(crate) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    #[cfg(any(pertask_loom, pertask_shuttle, fuzzing))]
    pub(crate) fn for_each(&self, f: impl FnMut(&'static Site)) {
        let all = lock(&self.sites).all.clone();
        all.into_iter().for_each(f);
    }
}
