//! The functions of stacks, looked up when somebody asks and then kept.

use crate::report::StackFrame;
use pertask_symbols::Module;
#[cfg(feature = "symbols")]
use pertask_symbols::Symbolizer;
#[cfg(feature = "symbols")]
use std::collections::HashMap;
#[cfg(feature = "symbols")]
use std::sync::{Arc, Mutex, PoisonError};

/// The names of functions. Without the feature `symbols` there are none.
#[derive(Default)]
pub(super) struct Names {
    #[cfg(feature = "symbols")]
    known: Mutex<Known>,
}

/// The most addresses whose functions are kept.
#[cfg(feature = "symbols")]
const MOST: usize = 1 << 14;

#[cfg(feature = "symbols")]
#[derive(Default)]
struct Known {
    modules: Arc<[Module]>,
    frames: HashMap<u64, Arc<[StackFrame]>>,
}

#[cfg(not(feature = "symbols"))]
impl Names {
    pub(super) fn set_modules(&self, _: &[Module]) {}

    pub(super) fn frames(&self, stack: &[u64]) -> (Vec<StackFrame>, Option<StackFrame>, bool) {
        let frame = |address: &u64| StackFrame { address: *address, ..StackFrame::default() };
        (stack.iter().map(frame).collect(), None, false)
    }
}

#[cfg(feature = "symbols")]
impl Names {
    /// Notes which modules are mapped now. Code may have moved, so what is known is forgotten.
    pub(super) fn set_modules(&self, modules: &[Module]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Known { modules: modules.into(), frames: HashMap::new() };
    }

    /// The functions of a stack, the innermost first, up to the one that polls the task; the program's own among them; and whether the
    /// one that polls the task was there.
    pub(super) fn frames(&self, stack: &[u64]) -> (Vec<StackFrame>, Option<StackFrame>, bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut frames = known.look_up(stack);
        let root = frames.iter().position(is_root);
        frames.truncate(root.unwrap_or(frames.len()));
        let place = frames.iter().find(|frame| known.is_own(frame)).cloned();
        (frames, place, root.is_some())
    }
}

#[cfg(feature = "symbols")]
impl Known {
    fn look_up(&mut self, stack: &[u64]) -> Vec<StackFrame> {
        // A return address may be where another function begins.
        let within = |(depth, address): (usize, &u64)| address.saturating_sub((depth > 0).into());
        let addresses: Vec<u64> = stack.iter().enumerate().map(within).collect();
        if self.frames.len() > MOST {
            self.frames.clear();
        }
        let new = addresses.iter().filter(|address| !self.frames.contains_key(address));
        let new: Vec<u64> = new.copied().collect();
        if !new.is_empty() {
            // Its memory goes back to the system at once.
            let mut symbolizer = Symbolizer::new(&self.modules);
            for address in new {
                self.frames.insert(address, named(address, &mut symbolizer));
            }
        }
        addresses.iter().flat_map(|address| self.frames[address].to_vec()).collect()
    }

    /// Whether a function is the program's own: of neither the standard library nor a C library.
    fn is_own(&self, frame: &StackFrame) -> bool {
        let Some(function) = &frame.function else { return false };
        let bare = function.trim_start_matches(['<', '&', '*', ' ']);
        let bare = bare.trim_start_matches("mut ").trim_start_matches("dyn ");
        let of_std = ["std::", "core::", "alloc::"].iter().any(|name| bare.starts_with(name));
        let file = frame.file.as_deref();
        let in_std = file.is_some_and(|file| {
            file.starts_with("/rustc/") || file.contains("/rustlib/src/rust/library/")
        });
        // Functions of C have no paths.
        let is_c = !function.contains("::") && self.is_of_c_library(frame.address);
        let is_unknown_c = !function.contains("::") && file.is_none();
        !(of_std || in_std || is_c || is_unknown_c)
    }

    fn is_of_c_library(&self, address: u64) -> bool {
        let holds =
            |module: &&Module| module.ranges.iter().any(|range| range.addresses.contains(&address));
        let path = self.modules.iter().find(holds).map_or("", |module| &*module.path);
        let name = path.rsplit('/').next().unwrap_or_default();
        ["libc.", "libc-", "libpthread", "ld-linux", "ld-musl", "[vdso]"]
            .iter()
            .any(|start| name.starts_with(start))
    }
}

#[cfg(feature = "symbols")]
fn named(address: u64, symbolizer: &mut Symbolizer) -> Arc<[StackFrame]> {
    let frames: Vec<_> = symbolizer
        .frames(address)
        .iter()
        .map(|frame| StackFrame {
            address,
            function: Some(frame.function.to_string()),
            file: frame.file.as_ref().map(ToString::to_string),
            line: frame.line,
        })
        .collect();
    match frames.is_empty() {
        true => [StackFrame { address, ..StackFrame::default() }].into(),
        false => frames.into(),
    }
}

/// Whether a function polls a task's future.
#[cfg(feature = "symbols")]
fn is_root(frame: &StackFrame) -> bool {
    use crate::tasks::tracked::{FILE, FUNCTIONS};
    let is_named = frame.function.as_ref().is_some_and(|function| function.starts_with(FUNCTIONS));
    // The names of inlined functions may have neither type nor module.
    is_named || frame.file.as_ref().is_some_and(|file| file.ends_with(FILE))
}

#[cfg(all(test, feature = "symbols"))]
mod tests {
    use super::*;

    #[test]
    fn a_stack_ends_where_its_task_is_polled() {
        let frame = |function: &str, file: &str| StackFrame {
            function: Some(function.to_owned()),
            file: Some(file.to_owned()),
            ..StackFrame::default()
        };
        let file = "/src/pertask/crates/pertask/src/tasks/tracked.rs";
        assert!(is_root(&frame("{closure#0}<app::handle>", file)));
        let poll = "<pertask::tasks::tracked::Tracked<F> as core::future::future::Future>::poll";
        assert!(is_root(&frame(poll, "?")));
        assert!(!is_root(&frame("poll<app::handle>", "/src/app/tracked.rs")));
    }

    #[test]
    fn the_programs_own_function_is_told_from_machinery() {
        let known = Known::default();
        let frame = |function: &str, file: Option<&str>| StackFrame {
            function: Some(function.to_owned()),
            file: file.map(str::to_owned),
            ..StackFrame::default()
        };
        for own in [
            "demo::routes::blocking",
            "<demo::A as std::fmt::Display>::fmt",
            "demo::f<std::fs::File>",
        ] {
            assert!(known.is_own(&frame(own, None)), "{own}");
            assert!(!known.is_own(&frame(own, Some("/rustc/abc/library/std/src/fs.rs"))), "{own}");
        }
        assert!(known.is_own(&frame("compress", Some("deflate.c"))));
        for machinery in [
            "std::thread::sleep",
            "<std::fs::File as std::io::Read>::read",
            "<&std::fs::File as std::io::Read>::read",
            "<alloc::boxed::Box<F> as core::ops::function::FnOnce<()>>::call_once",
            "clock_nanosleep",
        ] {
            assert!(!known.is_own(&frame(machinery, None)), "{machinery}");
        }
        assert!(!known.is_own(&StackFrame::default()));
    }
}
