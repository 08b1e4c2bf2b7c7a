//! A tracked future is as unwind-safe as the future in it.

mod support;

use futures::FutureExt;
use pertask::{Session, TaskExt, Tracked};
use std::cell::Cell;
use std::future::{Ready, ready};
use std::panic::{RefUnwindSafe, UnwindSafe, catch_unwind};
use support::alone;

const _: () = {
    const fn is_unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
    is_unwind_safe::<Tracked<Ready<()>>>();
};

/// Does not compile for a type that is `UnwindSafe`: both impls then apply, and the call is ambiguous.
macro_rules! assert_not_unwind_safe {
    ($type:ty) => {
        const _: () = {
            trait Either<T> {
                fn exists() {}
            }
            impl<T> Either<()> for T {}
            impl<T: UnwindSafe> Either<u8> for T {}
            let _ = <$type as Either<_>>::exists;
        };
    };
}

assert_not_unwind_safe!(Tracked<&'static mut u8>);
assert_not_unwind_safe!(Tracked<&'static Cell<u8>>);

#[test]
fn a_panic_of_a_tracked_future_can_be_caught() {
    let _turn = alone();
    let session = Session::start().unwrap();
    let panics = async {
        support::yield_once().await;
        support::spin(2);
        panic!("a task may panic");
    };
    let caught = support::run(panics.task("panics").catch_unwind());
    let message = caught.unwrap_err();
    assert_eq!(message.downcast_ref::<&str>(), Some(&"a task may panic"));
    assert!(support::current_task().is_none(), "it was switched out");
    let report = session.stop();
    let row = support::row(&report, "panics");
    assert_eq!((row.polls, row.tasks_started, row.tasks_live), (2, 1, 0));
    assert!(row.cpu_ns >= support::ms(1), "{row:?}");
}

#[test]
fn a_tracked_future_that_has_panicked_can_still_be_looked_at_and_dropped() {
    let _turn = alone();
    let mut future =
        Box::pin(std::future::poll_fn(|_| -> std::task::Poll<()> { panic!() }).task("p"));
    let polled = catch_unwind(std::panic::AssertUnwindSafe(|| support::poll_once(future.as_mut())));
    assert!(polled.is_err());
    // The task lives until the wrapper is dropped, and can be polled again.
    let task = future.handle().expect("it has not ended").clone();
    let again = catch_unwind(std::panic::AssertUnwindSafe(|| support::poll_once(future.as_mut())));
    assert!(again.is_err() && !task.has_exited());
    drop(future);
    assert!(task.has_exited());
    assert!(catch_unwind(move || ready(()).task("moved in").handle().is_some()).unwrap());
}
