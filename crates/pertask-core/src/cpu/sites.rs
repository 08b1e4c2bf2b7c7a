//! The spawn sites that a CPU remembers, so that making a task takes no lock.

use crate::site::Site;
use std::cell::Cell;
use std::panic::Location;
use std::ptr;

/// How many sites a CPU remembers.
const ROOM: usize = 64;

pub(super) struct SiteCache([Cell<Option<&'static Site>>; ROOM]);

impl SiteCache {
    pub(super) fn new() -> Self {
        Self([const { Cell::new(None) }; ROOM])
    }

    /// The site of that name and location, which `find` finds if it is not remembered.
    pub(super) fn site(
        &self,
        name: Option<&str>,
        location: &'static Location<'static>,
        find: impl FnOnce() -> &'static Site,
    ) -> &'static Site {
        let place = &self.0[place(name, location)];
        if let Some(site) = place.get()
            && site.is(name, location)
        {
            return site;
        }
        let site = find();
        // The overflow site is not remembered, so that each task without a site of its own is counted.
        if !site.is_other() {
            place.set(Some(site));
        }
        site
    }
}

/// The index of a site in the cache. The hash is cheap: a collision costs only a lookup in the table.
fn place(name: Option<&str>, location: &'static Location<'static>) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let name = name.unwrap_or_default().as_bytes();
    let ends = |eight: Option<&[u8; 8]>| eight.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let name =
        ends(name.first_chunk()) ^ ends(name.last_chunk()).rotate_left(29) ^ name.len() as u64;
    let place = (ptr::from_ref(location).addr() as u64 >> 3).wrapping_add(name.wrapping_mul(ODD));
    (place.wrapping_mul(ODD) >> 32) as usize % ROOM
}
