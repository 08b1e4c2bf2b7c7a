//! The counters of one thread, open.

use super::counts::Counts;
use super::set::Set;
use super::usage::{Figure, Usage, current_cpu};
use crate::os::perf::{Group, Refused};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A set's counters on one thread. They count from when they were opened.
#[derive(Debug)]
pub(super) struct Bank {
    /// Unique, so that readings of two banks are not compared.
    pub(super) id: u64,
    thread: u32,
    groups: Vec<Group>,
    figures: Vec<(usize, Figure)>,
    migrations: Option<Migrations>,
}

/// Changes of the CPU, seen when somebody looks. Written by the thread alone.
#[derive(Debug)]
struct Migrations {
    place: usize,
    /// The CPU at the last look, plus one.
    last_cpu: AtomicU32,
    seen: AtomicU64,
}

impl Bank {
    /// Opens a set's counters on a thread of this process.
    pub(super) fn open(set: &Set, thread: u32) -> Result<Self, Refused> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let groups =
            set.groups.iter().map(|members| Group::open(&members.what, thread, members.user_reads));
        let groups: Vec<_> = groups.collect::<Result<_, _>>()?;
        let migrations = set.migrations.map(|place| Migrations {
            place,
            last_cpu: AtomicU32::new(0),
            seen: AtomicU64::new(0),
        });
        Ok(Self {
            // Relaxed: a number that differs from all others.
            id: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            thread,
            groups,
            figures: set.figures.clone(),
            migrations,
        })
    }

    /// All counts, on the bank's own thread. `None` when the kernel refuses one.
    #[inline]
    pub(super) fn read(&self) -> Option<Counts> {
        let mut counts = self.read_groups(Group::read)?;
        if !self.figures.is_empty() {
            self.put_figures(Usage::of_this_thread()?, &mut counts);
        }
        if let Some(migrations) = &self.migrations {
            counts.counts[migrations.place] = migrations.look();
        }
        Some(counts)
    }

    /// The same, on any thread; what the bank's thread alone can see is as old as its last look.
    pub(super) fn read_from_outside(&self) -> Option<Counts> {
        let mut counts = self.read_groups(Group::read_by_system_call)?;
        if !self.figures.is_empty() {
            self.put_figures(Usage::of_thread(self.thread)?, &mut counts);
        }
        if let Some(migrations) = &self.migrations {
            // Relaxed: a figure.
            counts.counts[migrations.place] = migrations.seen.load(Ordering::Relaxed);
        }
        Some(counts)
    }

    #[inline]
    fn read_groups(
        &self,
        read: impl Fn(&Group, &mut [u64]) -> Option<crate::os::perf::Times>,
    ) -> Option<Counts> {
        let mut counts = Counts::default();
        let mut place = 0;
        for (group, times) in self.groups.iter().zip(&mut counts.times) {
            *times = read(group, &mut counts.counts[place..])?;
            place += group.len();
        }
        Some(counts)
    }

    fn put_figures(&self, usage: Usage, counts: &mut Counts) {
        for (place, figure) in &self.figures {
            counts.counts[*place] = usage.get(*figure);
        }
    }
}

impl Migrations {
    fn look(&self) -> u64 {
        // Relaxed: this thread's own; others read a figure.
        let seen = self.seen.load(Ordering::Relaxed);
        let Some(cpu) = current_cpu() else { return seen };
        let last = self.last_cpu.load(Ordering::Relaxed);
        if last == cpu + 1 {
            return seen;
        }
        self.last_cpu.store(cpu + 1, Ordering::Relaxed);
        let seen = seen + u64::from(last != 0);
        self.seen.store(seen, Ordering::Relaxed);
        seen
    }
}
