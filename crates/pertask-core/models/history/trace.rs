//! What a model did in one execution, step by step, and the fault that ended it.

use crate::models::check;
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A pointer was followed after what it pointed to was freed.
    UseAfterFree,
    /// Live data was freed through a pointer to other data that had its address before.
    AddressReused,
    /// Data went back to an allocator that it did not come from.
    WrongAllocator,
    /// A count rose from zero.
    Revived,
    /// A reference was dropped that nobody held.
    Underflow,
    /// Data has more references, or fewer, than holders, or lacks the global event's mark.
    References,
    /// A task is without data that it was promised.
    Hole,
    /// Data is left that nobody will free.
    Leak,
    /// Fork or exit waited for a walk over all tasks.
    Waited,
}

thread_local! {
    // loom runs all threads of a model on one thread of the system.
    static STEPS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
    static EXECUTIONS: Cell<u64> = const { Cell::new(0) };
}

/// Notes a step of the execution that runs.
pub(super) fn step(cpu: usize, what: impl Display) {
    STEPS.with_borrow_mut(|steps| steps.push(format!("CPU {cpu}  {what}")));
}

/// Ends the execution that runs.
pub(super) fn fault(fault: Fault, what: impl Display) -> ! {
    FAULT.set(Some(fault));
    panic!("{fault:?}: {what}")
}

/// Runs a version's model, in which the checker must find `expected`, and prints the interleaving.
pub(super) fn finds(expected: Fault, model: impl Fn() + Send + Sync + 'static) {
    let Err(panic) = run(model) else { panic!("every interleaving passes") };
    let message = panic.downcast_ref::<String>().map_or("", String::as_str);
    let steps = STEPS.take();
    assert_eq!(FAULT.get(), Some(expected), "{message}, after\n{}", steps.join("\n"));
    println!("\n{}\n  => {message}  (execution {})", steps.join("\n"), EXECUTIONS.get());
}

/// Runs a version's model, in which there must be no fault.
pub(super) fn passes(model: impl Fn() + Send + Sync + 'static) {
    if run(model).is_err() {
        panic!("a fault, after\n{}", STEPS.take().join("\n"));
    }
}

fn run(model: impl Fn() + Send + Sync + 'static) -> std::thread::Result<()> {
    FAULT.set(None);
    EXECUTIONS.set(0);
    catch_unwind(AssertUnwindSafe(|| {
        check(move || {
            STEPS.take();
            EXECUTIONS.set(EXECUTIONS.get() + 1);
            model();
        });
    }))
}
