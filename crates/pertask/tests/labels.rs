//! Labels hold while their future is polled, and for what it spawns; nowhere else.

#![expect(clippy::async_yields_async, reason = "tasks are made in one place and run in another")]

mod support;

use pertask::{LabelExt, Labels, TaskExt};
use std::collections::BTreeMap;
use std::pin::pin;
use support::{poll_once, run, yield_once};

fn here() -> BTreeMap<String, String> {
    Labels::current().iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn set<const N: usize>(labels: [(&str, &str); N]) -> BTreeMap<String, String> {
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

#[test]
fn they_hold_across_await_and_not_between_polls() {
    let seen = std::cell::RefCell::new(Vec::new());
    let mut future = pin!(
        async {
            seen.borrow_mut().push(here());
            yield_once().await;
            seen.borrow_mut().push(here());
        }
        .labels([("tenant", "acme")])
        .task("request")
    );
    for _ in 0..2 {
        let _ = poll_once(future.as_mut());
        assert_eq!(here(), set([]), "after a poll");
    }
    assert_eq!(*seen.borrow(), [set([("tenant", "acme")]), set([("tenant", "acme")])]);
}

#[test]
fn nested_ones_add_up_and_the_inner_wins() {
    let inner = async { here() }.labels([("route", "/b"), ("step", "parse")]);
    let outer = async move { (here(), inner.await, here()) }.labels([
        ("route", "/a"),
        ("tenant", "acme"),
        ("tenant", "zeta"),
    ]);
    let (before, within, after) = run(outer);
    assert_eq!(before, set([("route", "/a"), ("tenant", "zeta")]));
    assert_eq!(within, set([("route", "/b"), ("step", "parse"), ("tenant", "zeta")]));
    assert_eq!(after, before);
}

#[test]
fn tasks_that_are_made_inherit_them_and_keep_them() {
    let child =
        run(async { async { here() }.task("child") }.labels([("tenant", "acme")]).task("parent"));
    // Its parent is gone, and it runs where no labels hold.
    assert_eq!(run(child), set([("tenant", "acme")]));
    // Also from what is no task.
    let child = run(async { async { here() }.task("child") }.labels([("tenant", "zeta")]));
    assert_eq!(run(child), set([("tenant", "zeta")]));
    assert_eq!(run(async { here() }.task("stranger")), set([]));
}

#[test]
fn a_task_can_be_given_labels_after_it_was_made() {
    let task = async { here() }.task("request").labels([("a", "1")]).labels([("b", "2")]);
    assert_eq!(run(task), set([("a", "1"), ("b", "2")]));
}

#[test]
fn a_task_that_moves_takes_them_along() {
    let mut task = Box::pin(
        async {
            let first = here();
            yield_once().await;
            (first, here())
        }
        .labels([("tenant", "acme")])
        .task("moves"),
    );
    assert!(poll_once(task.as_mut()).is_pending());
    let (first, second) = std::thread::spawn(move || (run(task), here())).join().unwrap().0;
    assert_eq!((first, second), (set([("tenant", "acme")]), set([("tenant", "acme")])));
}

#[test]
fn a_panic_ends_them() {
    let panics = async { panic!("on purpose") }.labels([("tenant", "acme")]);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run::<_>(panics)));
    assert!(caught.is_err());
    assert_eq!(here(), set([]));
}

#[test]
fn the_same_future_under_other_labels_has_those() {
    let mut inner = Box::pin(
        async {
            let first = here();
            yield_once().await;
            (first, here())
        }
        .labels([("own", "x")]),
    );
    let mut first =
        pin!(async { poll_once(inner.as_mut()).is_pending() }.labels([("around", "1")]));
    assert!(matches!(poll_once(first.as_mut()), std::task::Poll::Ready(true)));
    let (first, second) = run(inner.labels([("around", "2")]));
    assert_eq!(first, set([("around", "1"), ("own", "x")]));
    assert_eq!(second, set([("around", "2"), ("own", "x")]));
}

#[test]
fn sets_compare_by_content_and_are_found_by_key() {
    let labels = Labels::new([("b", "2"), ("a", "1")]);
    assert_eq!(labels, Labels::new([("a", "1"), ("b", "2")]));
    assert_eq!((labels.get("a"), labels.get("c")), (Some("1"), None));
    assert_eq!(format!("{labels:?}"), r#"{"a": "1", "b": "2"}"#);
    assert!(Labels::default().is_empty());
}
