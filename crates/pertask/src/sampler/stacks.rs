//! Where the stacks of threads are.

use super::record::Stack;
use super::signals;
use pertask_symbols::mappings;
use std::ops::Range;
use std::sync::Arc;

/// The mappings in which stacks and code may be, at one moment.
pub(super) struct Stacks {
    pub(super) mappings: Arc<[Range<u64>]>,
    pub(super) code: Arc<[Range<u64>]>,
    main: Stack,
}

impl Default for Stacks {
    /// Nothing is known.
    fn default() -> Self {
        Self { mappings: Arc::default(), code: Arc::default(), main: Stack::Unknown }
    }
}

impl Stacks {
    /// Reads the mappings of the process. `None` if they cannot be read.
    pub(super) fn read() -> Option<Self> {
        let all = mappings().ok()?;
        let may_hold = all.iter().filter(|mapping| mapping.may_hold_stack());
        let has_code = all.iter().filter(|mapping| mapping.executable);
        let main = all.iter().find(|mapping| mapping.path == "[stack]");
        Some(Self {
            mappings: may_hold.map(|mapping| mapping.range.clone()).collect(),
            code: has_code.map(|mapping| mapping.range.clone()).collect(),
            main: main.map_or(Stack::Unknown, |main| {
                // The kernel lets this stack grow down to its limit.
                let start = main.range.end.saturating_sub(signals::main_stack_limit());
                Stack::Known(start.min(main.range.start)..main.range.end)
            }),
        })
    }

    /// The mapping in which an address is.
    pub(super) fn mapping(&self, address: u64) -> Option<Range<u64>> {
        self.mappings.iter().find(|mapping| mapping.contains(&address)).cloned()
    }

    /// Where the stack of a thread is.
    pub(super) fn of(&self, thread: u32) -> Stack {
        // The first thread's control block is not on its stack.
        if thread == std::process::id() { self.main.clone() } else { Stack::Sought }
    }
}
