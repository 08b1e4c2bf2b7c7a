//! A bank: the open counters of one thread.

use super::counts::Counts;
use super::set::Set;
use super::usage::{Figure, Usage, current_cpu};
use crate::os::perf::{Group, Refused};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The counters of a set on one thread. They count from the moment at which they were opened.
#[derive(Debug)]
pub(super) struct Bank {
    /// A unique number, so that readings of two banks are never compared.
    pub(super) id: u64,
    thread: u32,
    groups: Vec<Group>,
    figures: Vec<(usize, Figure)>,
    migrations: Option<Migrations>,
}

/// CPU migrations of a thread, as far as the thread has seen them. Only the thread writes them.
#[derive(Debug)]
struct Migrations {
    place: usize,
    /// The CPU at the last look, plus one; 0 before the first.
    last_cpu: AtomicU32,
    seen: AtomicU64,
}

impl Bank {
    /// Opens the counters of a set on a thread of this process.
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
            // Relaxed: the number only has to differ from all others.
            id: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            thread,
            groups,
            figures: set.figures.clone(),
            migrations,
        })
    }

    /// Reads all counts, on the bank's own thread. Returns `None` if the kernel refuses one.
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

    /// Reads all counts, on any thread. Migrations, which only the bank's thread can see, are as old as that thread's last look.
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
        // Relaxed, here and below: only this thread writes them, and other threads read a figure.
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
