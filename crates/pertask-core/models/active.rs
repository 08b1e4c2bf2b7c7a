//! The mask of PMUs with events, while events come and go.

use super::check;
use crate::active::{ActivePmus, Events};
use crate::primitive::Arc;
use loom::thread;

/// An event comes and goes. While it exists, its own thread sees the PMU's bit in the mask.
fn come_and_go((active, events): &(ActivePmus, Events)) {
    let event = active.count(0, events).unwrap();
    assert_eq!(active.mask(), 1, "the mask lacks the bit of an event");
    drop(event);
}

/// Two events of one PMU come and go concurrently.
#[test]
fn event_comes_and_goes_beside_another() {
    check(|| {
        let active = Arc::new((ActivePmus::new(), Events::new()));
        active.1.open();
        let other = {
            let active = Arc::clone(&active);
            thread::spawn(move || come_and_go(&active))
        };
        come_and_go(&active);
        other.join().unwrap();
        assert_eq!(active.0.mask(), 0, "the mask has a bit without an event");
    });
}
