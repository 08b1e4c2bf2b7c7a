//! What handlers walk stacks with: the modules' unwind tables, and the mappings in which stacks may be. The collector publishes it,
//! and replaces it when either has changed.

use super::modules::Unwinder;
use super::record::Replaced;
use super::stacks::Stacks;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Whether a handler has met a stack in no mapping that it knows.
static ASKED: AtomicBool = AtomicBool::new(false);

/// The least wait for the next look at the mappings because of an unknown stack, in multiples of the time that the last look took.
const REST: u32 = 50;

/// What handlers walk stacks with.
pub(super) struct Walker {
    pub(super) unwinder: Arc<Unwinder>,
    /// The mappings in which stacks may be, and those that have code, by address.
    mappings: Arc<[Range<u64>]>,
    code: Arc<[Range<u64>]>,
}

impl Walker {
    pub(super) fn new(unwinder: Arc<Unwinder>, stacks: &Stacks) -> Self {
        let Stacks { mappings, code, .. } = stacks;
        Self { unwinder, mappings: Arc::clone(mappings), code: Arc::clone(code) }
    }

    /// The mapping for stacks in which an address is.
    pub(super) fn mapping(&self, address: u64) -> Option<Range<u64>> {
        find(&self.mappings, address).cloned()
    }

    /// Whether there was code at an address when the collector last looked.
    pub(super) fn is_code(&self, address: u64) -> bool {
        find(&self.code, address).is_some()
    }

    /// Asks for a look at the mappings. A handler calls this where [`mapping`](Self::mapping) finds none.
    pub(super) fn ask() {
        // Relaxed: at worst, the collector looks one turn later.
        ASKED.store(true, Ordering::Relaxed);
    }
}

/// The range in which an address is. The ranges are in order.
fn find(ranges: &[Range<u64>], address: u64) -> Option<&Range<u64>> {
    let after = ranges.partition_point(|range| range.start <= address);
    ranges.get(after.checked_sub(1)?).filter(|range| range.contains(&address))
}

/// The collector's side: it makes walkers.
pub(super) struct Walkers {
    unwinder: Arc<Unwinder>,
    pub(super) stacks: Stacks,
    replaced: Replaced,
    next_look: Instant,
}

impl Walkers {
    /// Publishes the first walker.
    pub(super) fn new(unwinder: Unwinder) -> Self {
        let mut walkers = Self {
            unwinder: Arc::new(unwinder),
            stacks: Stacks::default(),
            replaced: Replaced::default(),
            next_look: Instant::now(),
        };
        walkers.look();
        walkers
    }

    /// Publishes an unwinder for the modules that are mapped now.
    pub(super) fn set_unwinder(&mut self, unwinder: Unwinder) {
        self.unwinder = Arc::new(unwinder);
        self.look();
    }

    /// Looks at the mappings, and publishes them.
    pub(super) fn look(&mut self) {
        let start = Instant::now();
        // Relaxed: see `ask`.
        ASKED.store(false, Ordering::Relaxed);
        if let Some(stacks) = Stacks::read() {
            self.stacks = stacks;
        }
        self.publish();
        // A look takes time in proportion to the number of mappings.
        self.next_look = start + start.elapsed().max(Duration::from_micros(100)) * REST;
    }

    /// Looks at the mappings if a handler has asked for it, but not too often.
    pub(super) fn look_if_asked(&mut self) {
        // Relaxed: see `ask`.
        if ASKED.load(Ordering::Relaxed) && Instant::now() >= self.next_look {
            self.look();
        }
    }

    /// Frees the walkers that no handler uses any more.
    pub(super) fn free_unused(&mut self) {
        self.replaced.free_unused();
    }

    fn publish(&mut self) {
        self.replaced.publish(Walker::new(Arc::clone(&self.unwinder), &self.stacks));
    }
}
