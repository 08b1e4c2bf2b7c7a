//! Scopes from spans: each task is in its own spans, whatever runs between its polls.

use ::tracing::{Instrument, Span, info_span, instrument};
use pertask::tracing::ScopeLayer;
use pertask::{CallStack, MAX_SCOPES, TaskExt, current_scopes, scope};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};

/// One at a time: recording is the process's.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    static SUBSCRIBED: Once = Once::new();
    SUBSCRIBED.call_once(|| {
        let filtered = ScopeLayer::new().with_filter(
            Targets::new().with_default(LevelFilter::TRACE).with_target("quiet", LevelFilter::OFF),
        );
        let subscriber = tracing_subscriber::registry().with(filtered);
        ::tracing::subscriber::set_global_default(subscriber).expect("the only one");
    });
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn scopes() -> Vec<String> {
    current_scopes().iter().map(ToString::to_string).collect()
}

fn block_on<F: Future>(future: F) -> F::Output {
    futures::executor::block_on(future.task("test"))
}

#[instrument(skip_all)]
async fn outer(turns: usize) {
    for _ in 0..turns {
        assert_eq!(scopes(), ["outer"]);
        inner().await;
        tokio::task::yield_now().await;
    }
}

#[instrument(skip_all)]
async fn inner() {
    assert_eq!(scopes(), ["outer", "inner"]);
    tokio::task::yield_now().await;
    let _query = scope!("query");
    assert_eq!(scopes(), ["outer", "inner", "query"]);
    tokio::task::yield_now().await;
    assert_eq!(scopes(), ["outer", "inner", "query"]);
}

#[test]
fn tasks_that_take_turns_are_each_in_their_own_spans() {
    let _alone = alone();
    let _recording = CallStack::record().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..64)
            .map(|number| {
                let plain = async {
                    for _ in 0..50 {
                        assert!(scopes().is_empty(), "{:?}", scopes());
                        tokio::task::yield_now().await;
                    }
                };
                if number % 2 == 0 {
                    tokio::spawn(outer(50).task("instrumented"))
                } else {
                    tokio::spawn(plain.task("plain"))
                }
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn futures_of_one_task_that_take_turns_are_each_in_their_own_span() {
    let _alone = alone();
    let _recording = CallStack::record().unwrap();
    block_on(async {
        let in_span = |name: &'static str, span: Span| {
            async move {
                for _ in 0..10 {
                    assert_eq!(scopes(), [name]);
                    tokio::task::yield_now().await;
                }
            }
            .instrument(span)
        };
        futures::join!(in_span("left", info_span!("left")), in_span("right", info_span!("right")));
        assert!(scopes().is_empty());
    });
}

#[test]
fn spans_may_be_left_in_any_order() {
    let _alone = alone();
    let _recording = CallStack::record().unwrap();
    block_on(async {
        let (a, b, c) = (info_span!("a"), info_span!("b"), info_span!("c"));
        let (in_a, in_b, in_c) = (a.enter(), b.enter(), c.enter());
        drop(in_a);
        assert_eq!(scopes(), ["b", "c"]);
        drop(in_c);
        assert_eq!(scopes(), ["b"]);
        drop(in_b);
        assert!(scopes().is_empty());
    });
}

#[test]
fn a_guard_that_is_held_across_an_await_is_the_tasks_own() {
    let _alone = alone();
    let _recording = CallStack::record().unwrap();
    let span = info_span!("held");
    let wrong = async {
        let _held = span.enter();
        for _ in 0..5 {
            assert_eq!(scopes(), ["held"]);
            tokio::task::yield_now().await;
        }
    };
    let other = async {
        for _ in 0..5 {
            assert!(scopes().is_empty());
            tokio::task::yield_now().await;
        }
    };
    futures::executor::block_on(async { futures::join!(wrong.task("wrong"), other.task("other")) });
}

#[test]
fn what_is_entered_while_nobody_records_is_not_known_later_and_harms_nothing() {
    let _alone = alone();
    block_on(async {
        let (early, late) = (info_span!("early"), info_span!("late"));
        let in_early = early.enter();
        assert!(scopes().is_empty());
        let recording = CallStack::record().unwrap();
        let in_late = late.enter();
        // Recording begins for a task at its next poll, or here: not before.
        drop(in_early);
        assert_eq!(scopes(), ["late"]);
        drop(recording);
        drop(in_late);
        let _recording = CallStack::record().unwrap();
        assert!(scopes().is_empty(), "{:?}", scopes());
    });
}

#[test]
fn spans_deeper_than_the_registers_come_and_go() {
    let _alone = alone();
    let _recording = CallStack::record().unwrap();
    block_on(async {
        let spans: Vec<_> = (0..MAX_SCOPES + 5).map(|_| info_span!("deep")).collect();
        let top = info_span!("top");
        let _top = top.enter();
        let mut entered: Vec<_> = spans.iter().map(Span::enter).collect();
        assert_eq!(scopes().len(), MAX_SCOPES);
        while entered.pop().is_some() {}
        assert_eq!(scopes(), ["top"]);
    });
}

#[test]
fn a_filtered_span_is_no_scope() {
    let _alone = alone();
    let _recording = CallStack::record().unwrap();
    block_on(async {
        let (quiet, loud) = (info_span!(target: "quiet", "quiet"), info_span!("loud"));
        let (_quiet, _loud) = (quiet.enter(), loud.enter());
        assert_eq!(scopes(), ["loud"]);
    });
}
