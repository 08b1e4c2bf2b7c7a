//! Guards: while one lives, the task is in a scope.

use super::names::{self, ScopeName};
use super::pmu::CallStack;
use super::registers::MAX_SCOPES;
use std::sync::Arc;

/// Enters a scope of that name until the guard is dropped, wherever the task is polled meanwhile.
///
/// ```
/// use pertask::{CallStack, TaskExt, current_scopes, scope};
///
/// async fn parse() {
///     let _scope = scope!("parse");
///     futures::future::ready(()).await;
///     assert_eq!(current_scopes().iter().map(|name| &**name).collect::<Vec<_>>(), ["request", "parse"]);
/// }
///
/// let recording = CallStack::record()?;
/// futures::executor::block_on(async {
///     let _scope = scope!("request");
///     parse().await;
/// }.task("GET /"));
/// # Ok::<(), pertask::Error>(())
/// ```
#[macro_export]
macro_rules! scope {
    ($name:expr) => {{
        static NAME: $crate::ScopeName = $crate::ScopeName::new($name);
        $crate::Scope::enter(&NAME)
    }};
}

/// A scope that has been entered. Dropping it leaves the scope, and those inside it that have not been left.
///
/// It belongs to the task in which it was made: dropped in another, it leaves nothing there, but where that one has a scope of
/// the same name at the same depth. While nobody records scopes, making one costs a look at a number.
#[must_use = "a scope ends when its guard is dropped"]
#[derive(Debug)]
pub struct Scope {
    place: u32,
    name: u32,
    /// When it was entered; 0: it was not recorded.
    generation: u32,
}

impl Scope {
    /// Enters a scope. [`scope!`](crate::scope) does, for a name that is known when the program is compiled.
    #[inline]
    pub fn enter(name: &ScopeName) -> Self {
        if !CallStack::is_recording() {
            return Self::UNRECORDED;
        }
        Self::enter_number(name.number())
    }

    /// Enters a scope whose name is known only now. Names are kept for ever, and there is room for 16,384 of them.
    pub fn enter_named(name: &str) -> Self {
        if !CallStack::is_recording() {
            return Self::UNRECORDED;
        }
        Self::enter_number(names::number_of(name))
    }

    const UNRECORDED: Self = Self { place: 0, name: 0, generation: 0 };

    fn enter_number(name: u32) -> Self {
        let Ok(handle) = CallStack::handle() else { return Self::UNRECORDED };
        let entered = CallStack::here(handle, |cpu| {
            let place = cpu.now().push(name);
            if place as usize >= MAX_SCOPES {
                handle.pmu().count_deeper();
            }
            Self { place, name, generation: cpu.generation() }
        });
        entered.unwrap_or(Self::UNRECORDED)
    }
}

impl Drop for Scope {
    #[inline]
    fn drop(&mut self) {
        if self.generation != 0 {
            leave(self);
        }
    }
}

fn leave(scope: &Scope) {
    let Ok(handle) = CallStack::handle() else { return };
    CallStack::here(handle, |cpu| {
        if cpu.generation() == scope.generation {
            cpu.now().pop(scope.place, scope.name);
        }
    });
}

/// Enters a scope that is left by [`leave_number`], and not by a guard.
#[cfg(feature = "tracing")]
pub(crate) fn enter_number(name: u32) {
    let Ok(handle) = CallStack::handle() else { return };
    if CallStack::here(handle, |cpu| cpu.now().enter_again(name)) == Some(false) {
        std::mem::forget(Scope::enter_number(name));
    }
}

/// Leaves the innermost scope of that name, and none inside it. Entered again, it is where it was.
#[cfg(feature = "tracing")]
pub(crate) fn leave_number(name: u32) {
    let Ok(handle) = CallStack::handle() else { return };
    CallStack::here(handle, |cpu| cpu.now().leave(name));
}

/// The names of the scopes that hold here, outermost first, as far as they were recorded.
#[must_use]
pub fn current_scopes() -> Vec<Arc<str>> {
    let Ok(handle) = CallStack::handle() else { return Vec::new() };
    let mut numbers = [0; MAX_SCOPES];
    let kept = CallStack::here(handle, |cpu| cpu.now().read(&mut numbers).0).unwrap_or(0);
    numbers[..kept].iter().map(|number| names::name_of(*number)).collect()
}
