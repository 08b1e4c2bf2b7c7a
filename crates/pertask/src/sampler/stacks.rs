//! Where the stacks of threads are.

use super::record::Stack;
use super::signals;
use pertask_symbols::mappings;
use std::ops::Range;
use std::sync::Arc;

/// The mappings in which stacks may be, at one moment.
pub(super) struct Stacks {
    pub(super) mappings: Arc<[Range<u64>]>,
    main: Stack,
}

impl Stacks {
    /// Reads the mappings of the process.
    pub(super) fn read() -> Self {
        let all = mappings().unwrap_or_default();
        let may_hold = all.iter().filter(|mapping| mapping.may_hold_stack());
        let main = all.iter().find(|mapping| mapping.path == "[stack]");
        Self {
            mappings: may_hold.map(|mapping| mapping.range.clone()).collect(),
            main: main.map_or(Stack::Unknown, |main| {
                // The kernel lets this stack grow down to its limit.
                let start = main.range.end.saturating_sub(signals::main_stack_limit());
                Stack::Known(start.min(main.range.start)..main.range.end)
            }),
        }
    }

    /// Where the stack of a thread is.
    pub(super) fn of(&self, thread: u32) -> Stack {
        // The first thread's control block is not on its stack.
        if thread == std::process::id() { self.main.clone() } else { Stack::Sought }
    }
}
