//! The steps of a model in one execution, and the fault that ended it.

use crate::models::check;
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The faults that a model can find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A pointer was followed after its object had been freed.
    UseAfterFree,
    /// Live data was freed through a pointer to other data that had been at the same address before.
    AddressReused,
    /// Data went back to an allocator that it did not come from.
    WrongAllocator,
    /// A count rose from zero.
    Revived,
    /// A reference was dropped that nobody held.
    Underflow,
    /// Data has more or fewer references than holders, or lacks the global event's mark.
    References,
    /// A task has no data although it was promised some.
    Hole,
    /// Data is left that nobody will free.
    Leak,
    /// Fork or exit waited for a walk over all tasks.
    Waited,
}

thread_local! {
    // loom runs all threads of a model on one thread of the system, so this is shared by all of them.
    static STEPS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
    static EXECUTIONS: Cell<u64> = const { Cell::new(0) };
}

/// Records a step of the current execution.
pub(super) fn step(cpu: usize, what: impl Display) {
    STEPS.with_borrow_mut(|steps| steps.push(format!("CPU {cpu}  {what}")));
}

/// Ends the current execution with a fault.
pub(super) fn fault(fault: Fault, what: impl Display) -> ! {
    FAULT.set(Some(fault));
    panic!("{fault:?}: {what}")
}

/// Runs a version's model, asserts that the checker finds `expected`, and prints the interleaving.
pub(super) fn finds(expected: Fault, model: impl Fn() + Send + Sync + 'static) {
    let Err(panic) = run(model) else { panic!("every interleaving passes") };
    let message = panic.downcast_ref::<String>().map_or("", String::as_str);
    let steps = STEPS.take();
    assert_eq!(FAULT.get(), Some(expected), "{message}, after\n{}", steps.join("\n"));
    println!("\n{}\n  => {message}  (execution {})", steps.join("\n"), EXECUTIONS.get());
}

/// Runs a version's model, and asserts that it has no fault.
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
