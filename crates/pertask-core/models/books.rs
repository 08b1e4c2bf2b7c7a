//! Books and depots: what threads have to themselves, and what they exchange.

use super::check;
use crate::books::Library;
use crate::magazine::{Batch, Depot, Magazine};
use crate::primitive::Arc;
use loom::cell::UnsafeCell;
use loom::thread;
use std::ptr::NonNull;

/// Two threads claim books at once: they get different ones, and what one leaves in them the next one finds.
#[test]
fn claim_races_claim() {
    check(|| {
        let library = Arc::new(Library::new());
        let pages = Arc::new([UnsafeCell::new(0_u64), UnsafeCell::new(0)]);
        let write = {
            let (library, pages) = (Arc::clone(&library), Arc::clone(&pages));
            move || {
                let claimed = library.claim_for_now(0);
                // SAFETY: loom checks that nobody else is at it.
                pages[claimed.mine().number()].with_mut(|page| unsafe { *page += 1 });
            }
        };
        let other = thread::spawn(write.clone());
        write();
        other.join().unwrap();
        write();
        // SAFETY: the other thread has been joined.
        let written: u64 = pages.iter().map(|page| page.with(|page| unsafe { *page })).sum();
        assert_eq!(written, 3);
    });
}

/// What is counted in a window is read whole, or not at all.
#[test]
fn end_races_read() {
    check(|| {
        let library = Arc::new(Library::new());
        let sums = Arc::new([(); 2].map(|()| crate::primitive::AtomicU64::new(0)));
        drop(library.claim_for_now(0));
        let other = {
            let (library, sums) = (Arc::clone(&library), Arc::clone(&sums));
            thread::spawn(move || {
                let claimed = library.claim_for_now(0);
                let _window = claimed.mine().begin_end();
                for sum in &*sums {
                    // Relaxed: that the window orders them is what the model checks.
                    sum.store(1, crate::primitive::Ordering::Relaxed);
                }
            })
        };
        for books in library.iter() {
            let read = || [0, 1].map(|at| sums[at].load(crate::primitive::Ordering::Relaxed));
            let [first, second] = books.read(read);
            assert_eq!(first, second, "half of an end");
        }
        other.join().unwrap();
    });
}

/// One thread puts a batch into a depot while another takes one out: each thing is somebody's.
#[test]
fn put_races_take() {
    check(|| {
        static THINGS: [u8; 2 * Batch::<u8>::LEN] = [0; 2 * Batch::<u8>::LEN];
        let batch =
            |at: usize| Batch::from_fn(|n| NonNull::from(&THINGS[at * Batch::<u8>::LEN + n]));
        let depot = Arc::new(Depot::new(usize::MAX));
        depot.put(batch(0));
        let other = {
            let depot = Arc::clone(&depot);
            thread::spawn(move || depot.put(batch(1)))
        };
        let magazine = Magazine::default();
        assert!(depot.fill(&magazine));
        let mut taken: Vec<_> = std::iter::from_fn(|| magazine.take()).collect();
        other.join().unwrap();
        taken.extend(depot.empty());
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), THINGS.len());
    });
}

/// Two threads put at once.
#[test]
fn put_races_put() {
    check(|| {
        static THINGS: [u8; 2 * Batch::<u8>::LEN] = [0; 2 * Batch::<u8>::LEN];
        let depot = Arc::new(Depot::new(usize::MAX));
        let put = |at: usize| {
            let depot = Arc::clone(&depot);
            move || depot.put(Batch::from_fn(|n| NonNull::from(&THINGS[at * Batch::<u8>::LEN + n])))
        };
        let other = thread::spawn(put(1));
        put(0)();
        other.join().unwrap();
        assert_eq!(depot.empty().count(), THINGS.len());
    });
}
