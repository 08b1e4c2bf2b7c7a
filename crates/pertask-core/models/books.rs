//! Books and depots: what each thread has to itself, and what threads exchange.

use super::check;
use crate::books::Library;
use crate::magazine::{Batch, Depot, Magazine};
use crate::primitive::Arc;
use loom::cell::UnsafeCell;
use loom::thread;
use std::ptr::NonNull;

/// Two threads claim books concurrently. They get different books, and a later owner sees what an earlier owner wrote.
#[test]
fn claim_races_claim() {
    check(|| {
        let library = Arc::new(Library::new());
        let pages = Arc::new([UnsafeCell::new(0_u64), UnsafeCell::new(0)]);
        let write = {
            let (library, pages) = (Arc::clone(&library), Arc::clone(&pages));
            move || {
                let claimed = library.claim_for_now(0);
                // SAFETY: loom reports any concurrent access.
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

/// A reader sees everything that was written in a window, or nothing of it.
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
                    // Relaxed: the model checks that the window orders the two stores.
                    sum.store(1, crate::primitive::Ordering::Relaxed);
                }
            })
        };
        for books in library.iter() {
            let read = || [0, 1].map(|at| sums[at].load(crate::primitive::Ordering::Relaxed));
            let [first, second] = books.read(read);
            assert_eq!(first, second, "half of an exit");
        }
        other.join().unwrap();
    });
}

/// One thread puts a batch into a depot while another takes one out. No object is lost or handed out twice.
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

/// Two threads put batches concurrently.
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
