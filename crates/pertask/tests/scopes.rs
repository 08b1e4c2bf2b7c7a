//! Scopes belong to the task that entered them, however it is polled and whoever runs beside it.

mod support;

use pertask::{CallStack, Inherit, MAX_SCOPES, Scope, TaskExt, current_scopes, scope};
use std::pin::pin;
use std::task::Poll;
use support::{alone, poll_once, run, yield_once};

fn here() -> Vec<String> {
    current_scopes().iter().map(|name| name.to_string()).collect()
}

#[test]
fn scopes_held_across_await_are_the_tasks() {
    let _turn = alone();
    let _recording = CallStack::record().unwrap();
    let task = |name: &'static str| {
        async move {
            let _outer = Scope::enter_named(name);
            yield_once().await;
            let _inner = scope!("inner");
            yield_once().await;
            here()
        }
        .task("scoped")
    };
    let (mut a, mut b) = (pin!(task("a")), pin!(task("b")));
    // In turn: with plain thread-locals each would see the other's.
    for _ in 0..2 {
        assert!(poll_once(a.as_mut()).is_pending());
        assert_eq!(here(), [""; 0], "between polls");
        assert!(poll_once(b.as_mut()).is_pending());
    }
    assert_eq!(poll_once(b.as_mut()), Poll::Ready(vec!["b".to_owned(), "inner".to_owned()]));
    assert_eq!(poll_once(a.as_mut()), Poll::Ready(vec!["a".to_owned(), "inner".to_owned()]));
}

#[test]
fn a_task_inside_another_has_its_own() {
    let _turn = alone();
    let _recording = CallStack::record().unwrap();
    let (before, within, after) = run(async {
        let _outer = scope!("outer");
        let within = async {
            let _inner = scope!("inner");
            yield_once().await;
            here()
        };
        (here(), within.task("inner").await, here())
    }
    .task("outer"));
    assert_eq!((before, after), (vec!["outer".to_owned()], vec!["outer".to_owned()]));
    assert_eq!(within, ["inner"]);
}

#[test]
fn a_thread_keeps_its_own_around_the_tasks_it_runs() {
    let _turn = alone();
    let _recording = CallStack::record().unwrap();
    let _own = scope!("main loop");
    assert_eq!(run(async { here() }.task("task")), [""; 0]);
    assert_eq!(here(), ["main loop"]);
}

#[test]
fn a_task_that_moves_takes_them_along() {
    let _turn = alone();
    let _recording = CallStack::record().unwrap();
    let mut task = Box::pin(
        async {
            let _scope = scope!("moves");
            yield_once().await;
            let moved = here();
            drop(_scope);
            (moved, here())
        }
        .task("moves"),
    );
    assert!(poll_once(task.as_mut()).is_pending());
    let (moved, left) = std::thread::spawn(move || run(task)).join().unwrap();
    assert_eq!((moved, left), (vec!["moves".to_owned()], vec![]));
}

#[test]
fn guards_dropped_out_of_order_leave_what_they_should() {
    let _turn = alone();
    let _recording = CallStack::record().unwrap();
    let outer = scope!("outer");
    let inner = scope!("inner");
    drop(outer);
    assert_eq!(here(), [""; 0], "who leaves the outer has left the inner");
    let next = scope!("next");
    let last = scope!("last");
    drop(inner);
    assert_eq!(here(), ["next", "last"], "another one stands in its place");
    drop((last, next));
    let thrown = std::panic::catch_unwind(|| {
        let _scope = scope!("panics");
        panic!("on purpose");
    });
    assert!(thrown.is_err());
    assert_eq!(here(), [""; 0]);
}

#[test]
fn scopes_too_deep_for_a_register_are_counted_and_come_back() {
    let _turn = alone();
    let _recording = CallStack::record().unwrap();
    let before = CallStack::deeper_scopes();
    let mut guards: Vec<_> =
        (0..MAX_SCOPES + 8).map(|n| Scope::enter_named(&n.to_string())).collect();
    assert_eq!(here().len(), MAX_SCOPES);
    assert_eq!(CallStack::deeper_scopes() - before, 8);
    guards.truncate(MAX_SCOPES - 1);
    guards.push(scope!("again"));
    assert_eq!(here().last().map(String::as_str), Some("again"));
    while guards.pop().is_some() {}
    assert_eq!(here(), [""; 0]);
}

#[test]
fn nothing_is_recorded_while_nobody_asks_and_nothing_old_comes_back() {
    let _turn = alone();
    let unrecorded = scope!("before");
    assert_eq!(here(), [""; 0]);
    let recording = CallStack::record().unwrap();
    let first = scope!("first");
    assert_eq!(here(), ["first"]);
    drop(recording);
    let _between = scope!("between");
    let _recording = CallStack::record().unwrap();
    assert_eq!(here(), [""; 0], "of an earlier time");
    let _same = scope!("first");
    // Guards of that time end nothing of this one.
    drop(first);
    drop(unrecorded);
    assert_eq!(here(), ["first"]);
}

#[test]
fn a_recording_that_begins_in_mid_poll_knows_what_is_entered_from_then_on() {
    let _turn = alone();
    let recording = std::cell::RefCell::new(None);
    let seen = run(async {
        let _before = scope!("before");
        *recording.borrow_mut() = Some(CallStack::record().unwrap());
        let _after = scope!("after");
        yield_once().await;
        here()
    }
    .task("task"));
    assert_eq!(seen, ["after"]);
}

#[test]
fn only_the_tasks_that_are_recorded_keep_theirs() {
    let _turn = alone();
    let task = || {
        async {
            let _scope = scope!("kept");
            yield_once().await;
            here()
        }
        .task("some")
    };
    let (recorded, other) = (task(), task());
    let _recording = CallStack::record_task(recorded.handle().unwrap(), Inherit::No).unwrap();
    assert_eq!(run(recorded), ["kept"]);
    let _own = scope!("the thread's own");
    assert_eq!(run(other), [""; 0], "cut at the switch");
}

#[test]
fn a_dropped_future_leaves_its_scopes() {
    let _turn = alone();
    let _recording = CallStack::record().unwrap();
    let mut task = Box::pin(
        async {
            let _scope = scope!("dropped");
            std::future::pending::<()>().await;
        }
        .task("dropped"),
    );
    assert!(poll_once(task.as_mut()).is_pending());
    let _own = scope!("own");
    drop(task);
    assert_eq!(here(), ["own"]);
}
