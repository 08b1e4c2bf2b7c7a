//! A cell that one thread reads while another replaces its value.

use super::check;
use crate::primitive::Arc;
use crate::rcu::{self, RcuCell};
use loom::cell::UnsafeCell;
use loom::thread;

/// A value that detects an access after its owner has got it back.
struct Value(UnsafeCell<u32>);

// SAFETY: the model checks this: loom reports accesses that are not ordered.
unsafe impl Sync for Value {}

/// The thread that gets the old value back has it alone. A reader sees the whole old value or the whole new one.
#[test]
fn reader_races_replace() {
    check(|| {
        let cell = Arc::new(RcuCell::default());
        cell.replace(Some(Box::new(Value(UnsafeCell::new(1))))).unwrap();
        assert!(cell.with(|value| value.is_some()));
        let reader = {
            let cell = Arc::clone(&cell);
            thread::spawn(move || {
                cell.with(|value: Option<&Value>| {
                    // SAFETY: loom reports a concurrent write.
                    let seen = value.unwrap().0.with(|number| unsafe { *number });
                    assert!(seen == 1 || seen == 2, "read a value after it was given back: {seen}");
                });
            })
        };
        let old = cell.replace(Some(Box::new(Value(UnsafeCell::new(2))))).unwrap().unwrap();
        // SAFETY: loom reports a concurrent read.
        old.0.with_mut(|number| unsafe { *number = 0 });
        reader.join().unwrap();
        drop(cell);
        rcu::stand_in::finish();
    });
}

/// Two threads replace the value concurrently. Each value is given back once, and whole.
#[test]
fn replace_races_replace() {
    check(|| {
        let cell = Arc::new(RcuCell::default());
        let put = |cell: &RcuCell<Value>, number| {
            let old = cell.replace(Some(Box::new(Value(UnsafeCell::new(number))))).unwrap();
            // SAFETY: loom reports an access that is not ordered after the value's initialisation.
            old.map_or(0, |old| old.0.with_mut(|number| unsafe { *number }))
        };
        let other = {
            let cell = Arc::clone(&cell);
            thread::spawn(move || put(&cell, 1))
        };
        let ours = put(&cell, 2);
        assert!(matches!((ours, other.join().unwrap()), (0, 2) | (1, 0)));
        drop(cell);
        rcu::stand_in::finish();
    });
}
