//! What single tasks have.

use crate::support::{alone, poll_once, run, yield_once};
use crate::{CALLS, NOTHING, begin, block, count, memory_of, sum};
use corosensei::{Coroutine, CoroutineResult};
use pertask::{LabelExt, SessionOptions, TaskExt, TreeReport};
use std::cell::RefCell;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Mutex;
use std::thread;

#[test]
fn a_task_has_what_it_allocates_and_frees_to_the_byte() {
    let _alone = alone();
    let session = begin();
    let mut kept = None;
    let work = async {
        kept = Some(block(1_000));
        yield_once().await;
        drop((block(20), block(300)));
        // Zeroed memory has a call of its own.
        drop(black_box(vec![0_u64; 512]));
    };
    run(work.task("exact"));
    let report = session.stop();
    assert_eq!(memory_of(&report, "exact"), count((5_416, 4), (4_416, 3)));
    drop(kept);
}

#[test]
fn a_reallocation_frees_the_old_size_and_allocates_the_new() {
    let _alone = alone();
    let session = begin();
    let work = async {
        let mut bytes = block(100);
        bytes.resize(100, 7);
        bytes.reserve_exact(900);
        bytes.shrink_to(300);
    };
    run(work.task("realloc"));
    assert_eq!(memory_of(&session.stop(), "realloc"), count((1_400, 3), (1_400, 3)));
}

#[test]
fn what_one_task_allocates_and_another_frees_stands_with_each() {
    let _alone = alone();
    let session = begin();
    let handed = RefCell::new(None);
    run(async { *handed.borrow_mut() = Some(block(777)) }.task("giver"));
    run(async { drop(handed.borrow_mut().take()) }.task("taker"));
    let report = session.stop();
    assert_eq!(memory_of(&report, "giver"), count((777, 1), (0, 0)));
    assert_eq!(memory_of(&report, "taker"), count((0, 0), (777, 1)));
}

/// The inner tasks' memory is theirs, and the tree adds it to that of the outer one.
#[test]
fn nested_tasks_have_their_own_and_the_tree_has_both() {
    let _alone = alone();
    let session = begin();
    let outer = async {
        drop(block(10));
        let inner = pin!(async { drop(block(200)) }.task("inner of memory"));
        inner.await;
        drop(block(3_000));
    };
    run(outer.task("outer of memory"));
    let report = session.stop();
    // What the outer task allocates to make the inner one is the outer task's: so this is a lower bound.
    let (outer, inner) =
        (memory_of(&report, "outer of memory"), memory_of(&report, "inner of memory"));
    assert_eq!(inner, count((200, 1), (200, 1)));
    assert!(outer.allocated_bytes >= 3_010 && outer.allocations >= 2, "{outer:?}");
    let path = |name: &str| {
        let is_it = |path: &&TreeReport| path.site.name.as_deref() == Some(name);
        report.tree.iter().find(is_it).unwrap()
    };
    let [outer_path, inner_path] = ["outer of memory", "inner of memory"].map(path);
    assert_eq!(inner_path.parent, Some(outer_path.id));
    assert_eq!((outer_path.memory, inner_path.memory), (Some(outer), Some(inner)));
    assert_eq!(outer_path.inclusive_memory, Some(sum([outer, inner])));
}

#[test]
fn what_a_future_drops_is_its_tasks() {
    let _alone = alone();
    let session = begin();
    let held = block(4_096);
    {
        let mut future = pin!(
            async move {
                let _held = held;
                std::future::pending::<()>().await;
            }
            .task("dropped")
        );
        assert!(poll_once(future.as_mut()).is_pending());
    }
    assert_eq!(memory_of(&session.stop(), "dropped"), count((0, 0), (4_096, 1)));
}

#[test]
fn a_task_that_moves_between_threads_has_the_sum() {
    let _alone = alone();
    let session = begin();
    let mut task = Box::pin(
        async {
            loop {
                drop(block(1_000));
                yield_once().await;
            }
        }
        .task("moved between threads"),
    );
    for _ in 0..5 {
        let moved = thread::spawn(move || {
            assert!(poll_once(task.as_mut()).is_pending());
            task
        });
        task = moved.join().unwrap();
    }
    let report = session.stop();
    assert_eq!(memory_of(&report, "moved between threads"), count((5_000, 5), (5_000, 5)));
}

#[test]
fn a_switch_allocates_nothing() {
    let _alone = alone();
    let session = begin();
    let mut task = pin!(std::future::pending::<()>().task("idle"));
    assert!(poll_once(task.as_mut()).is_pending());
    let before = CALLS.get();
    for _ in 0..1_000 {
        assert!(poll_once(task.as_mut()).is_pending());
    }
    assert_eq!(CALLS.get(), before);
    drop(session);
}

/// Polls that do not end in the order in which they began, as those of suspended coroutines.
#[test]
fn memory_of_which_the_task_is_not_known_is_told_apart() {
    let _alone = alone();
    let polls = |name: &'static str, bytes: usize| {
        Coroutine::new(move |yielder: &corosensei::Yielder<(), ()>, ()| {
            let work = async {
                drop(block(bytes));
                yielder.suspend(());
                drop(block(bytes));
            };
            run(work.task(name));
        })
    };
    let (mut first, mut second) =
        (polls("first to begin", 1_000), polls("second to begin", 30_000));
    let session = begin();
    assert!(matches!(first.resume(()), CoroutineResult::Yield(())));
    assert!(matches!(second.resume(()), CoroutineResult::Yield(())));
    assert!(matches!(first.resume(()), CoroutineResult::Return(())));
    assert!(matches!(second.resume(()), CoroutineResult::Return(())));
    let report = session.stop();
    assert_eq!(report.lost.polls_out_of_order, 1, "{:?}", report.lost);
    let memory = report.memory.as_ref().unwrap();
    assert!(memory.unknown.allocated_bytes >= 31_000, "{memory:#?}");
    let certain = memory_of(&report, "first to begin").allocated_bytes;
    assert!((1_000..30_000).contains(&certain), "{report:#?}");
}

#[test]
fn tasks_of_a_runtime_with_several_workers() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).build().unwrap();
    let session = begin();
    async fn rounds() {
        for _ in 0..4 {
            drop(block(100));
            yield_once().await;
        }
    }
    let spawned: Vec<_> = (0..250).map(|_| runtime.spawn(rounds().task("on workers"))).collect();
    run(rounds().task("here"));
    runtime.block_on(async {
        for task in spawned {
            task.await.unwrap();
        }
    });
    drop(runtime);
    let report = session.stop();
    assert_eq!(memory_of(&report, "on workers"), count((100_000, 1_000), (100_000, 1_000)));
    assert_eq!(memory_of(&report, "here"), count((400, 4), (400, 4)));
}

/// What each label's tasks allocate and free, to the byte: also where labels change in the midst of a poll, and of tasks that have ended.
#[test]
fn labels_have_what_was_allocated_while_they_held() {
    let _alone = alone();
    let kept = &Mutex::new(Vec::with_capacity(8));
    let labelled = || {
        let keep = move |bytes| kept.lock().unwrap().push(block(bytes));
        let acme = async move {
            keep(1_000);
            yield_once().await;
            drop(block(50));
        };
        let zeta = async move {
            keep(3_000);
            kept.lock().unwrap().clear();
        };
        let acme = acme.labels([("tenant", "acme")]);
        let zeta = zeta.labels([("tenant", "zeta")]);
        async move { (acme.await, zeta.await) }.task("labelled")
    };
    // Labels that have been seen lately are known, and take no memory again.
    run(labelled());
    let (work, session) = (labelled(), begin());
    run(work);
    run(async { drop(block(7_777)) }.task("without"));
    let report = session.stop();
    let [label] = &report.labels[..] else { panic!("{:#?}", report.labels) };
    assert_eq!(label.key, "tenant");
    let of = |value: &str| {
        let row = label.values.iter().find(|row| row.value == value);
        row.unwrap_or_else(|| panic!("{value}: {label:#?}")).memory.expect("it is counted")
    };
    assert_eq!(of("acme"), count((1_050, 2), (50, 1)));
    assert_eq!(of("zeta"), count((3_000, 1), (4_000, 2)));
    let parts = label.values.iter().filter_map(|row| row.memory);
    let rest = [label.others_memory.unwrap(), label.without_memory.unwrap()];
    assert_eq!(sum(parts.chain(rest)), report.memory.as_ref().unwrap().tasks);
    assert!(label.without_memory.unwrap().allocated_bytes >= 7_777, "{label:#?}");
    assert_eq!(label.others_memory, Some(NOTHING));

    let without = SessionOptions::default().start().unwrap();
    run(async {}.labels([("tenant", "acme")]).task("labelled"));
    let report = without.stop();
    assert!(report.labels.iter().all(|label| label.without_memory.is_none()), "not asked for");
}
