//! The table: items enter and leave while walks look at them. loom reports an access to an item after its end, and an item that
//! never ends.

use super::{check, check_within};
use crate::magazine::Magazine;
use crate::primitive::Arc;
use crate::task_table::{Entry, TaskTable};
use loom::cell::UnsafeCell;
use loom::thread;
use std::ptr::NonNull;

/// An item that detects an access after its end.
struct Item {
    alive: UnsafeCell<u64>,
}

impl Item {
    fn new() -> Arc<Self> {
        Arc::new(Self { alive: UnsafeCell::new(1) })
    }

    fn look(&self) {
        // SAFETY: loom reports a concurrent end.
        self.alive.with(|alive| assert_eq!(unsafe { *alive }, 1));
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        // SAFETY: loom reports a concurrent access.
        self.alive.with_mut(|alive| unsafe { *alive = 0 });
    }
}

fn enter(
    table: &TaskTable<Item>,
    at_hand: &Magazine<Entry<Item>>,
    item: &Arc<Item>,
) -> NonNull<Entry<Item>> {
    // SAFETY: the models keep the item until it has left.
    unsafe { table.enter(at_hand, item) }
}

/// Makes an item that enters and leaves.
fn come_and_go(table: &TaskTable<Item>, at_hand: &Magazine<Entry<Item>>) -> bool {
    let item = Item::new();
    let entry = enter(table, at_hand, &item);
    // SAFETY: `entry` is the one `enter` returned for this item, which leaves once.
    unsafe { table.leave(at_hand, entry, &item) }
}

fn walk(table: &TaskTable<Item>) -> usize {
    let mut seen = 0;
    let _ = table.try_for_each_pinned(|item| {
        item.look();
        seen += 1;
        Ok::<(), ()>(())
    });
    seen
}

/// An item leaves and ends while a walk has it pinned, or is about to pin it.
#[test]
fn leave_races_walk() {
    check(|| {
        let table = Arc::new(TaskTable::new());
        let at_hand = Magazine::default();
        let item = Item::new();
        let entry = enter(&table, &at_hand, &item);
        let walker = {
            let table = Arc::clone(&table);
            thread::spawn(move || walk(&table))
        };
        // SAFETY: `entry` is the one `enter` returned for this item, which leaves once.
        let alone = unsafe { table.leave(&at_hand, entry, &item) };
        // We still hold the item.
        item.look();
        if alone {
            // If no walk has the item pinned, our accesses come after those of all walks.
            item.alive.with_mut(|_| ());
        }
        drop(item);
        walker.join().unwrap();
        assert_eq!(walk(&table), 0);
    });
}

/// An item leaves and ends while a walk makes a handle of it and keeps the handle.
#[test]
fn leave_races_walk_that_keeps_a_handle() {
    check(|| {
        let table = Arc::new(TaskTable::new());
        let at_hand = Magazine::default();
        let item = Item::new();
        let entry = enter(&table, &at_hand, &item);
        let walker = {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                let mut kept = None;
                table.for_each(|item| kept = Some(Arc::clone(item)));
                kept
            })
        };
        // SAFETY: `entry` is the one `enter` returned for this item, which leaves once.
        unsafe { table.leave(&at_hand, entry, &item) };
        item.look();
        drop(item);
        if let Some(kept) = walker.join().unwrap() {
            kept.look();
        }
    });
}

/// The next item gets the entry of one that has left, while a walk still has its pin on the first item.
#[test]
fn leave_and_enter_race_walk() {
    check(|| {
        let table = Arc::new(TaskTable::new());
        let at_hand = Magazine::default();
        let [first, second] = [(); 2].map(|()| Item::new());
        let entry = enter(&table, &at_hand, &first);
        let walker = {
            let table = Arc::clone(&table);
            thread::spawn(move || walk(&table))
        };
        // SAFETY: `entry` is the one `enter` returned for this item, which leaves once.
        unsafe { table.leave(&at_hand, entry, &first) };
        drop(first);
        let entry = enter(&table, &at_hand, &second);
        walker.join().unwrap();
        // SAFETY: `entry` is the one `enter` returned for this item, which leaves once.
        assert!(unsafe { table.leave(&at_hand, entry, &second) }, "a pin is left");
    });
}

/// Two walks pin one entry while its item leaves. With two preemptions, because three take half a minute.
#[test]
fn leave_races_two_walks() {
    check_within(2, || {
        let table = Arc::new(TaskTable::new());
        let at_hand = Magazine::default();
        let item = Item::new();
        let entry = enter(&table, &at_hand, &item);
        let walkers = [(); 2].map(|()| {
            let table = Arc::clone(&table);
            thread::spawn(move || walk(&table))
        });
        // SAFETY: `entry` is the one `enter` returned for this item, which leaves once.
        unsafe { table.leave(&at_hand, entry, &item) };
        item.look();
        drop(item);
        assert!(walkers.into_iter().all(|walker| walker.join().unwrap() <= 1));
    });
}

/// Two threads take free entries from one depot and put them back. No entry is handed out twice.
#[test]
fn enter_races_enter() {
    check(|| {
        let table = Arc::new(TaskTable::new());
        let other = {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                let at_hand = Magazine::default();
                assert!(come_and_go(&table, &at_hand), "nobody walks");
            })
        };
        let at_hand = Magazine::default();
        let item = Item::new();
        let entry = enter(&table, &at_hand, &item);
        assert!(come_and_go(&table, &at_hand), "nobody walks");
        // SAFETY: `entry` is the one `enter` returned for this item, which leaves once.
        assert!(unsafe { table.leave(&at_hand, entry, &item) }, "nobody walks");
        other.join().unwrap();
    });
}
