//! Guards of scopes: while a guard lives, its task is in the scope.

use super::names::{self, ScopeName};
use super::pmu::CallStack;
use super::registers::MAX_SCOPES;
use std::sync::Arc;

/// Enters a scope, and leaves it when the returned guard is dropped.
///
/// The scope belongs to the task that enters it, on whatever thread the task is polled.
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

/// The guard of a scope that has been entered.
///
/// Its drop leaves the scope, and all scopes inside it. The guard belongs to the task in which it was made. If another task
/// drops it, that task leaves nothing, except a scope of the same name at the same depth. While nobody records scopes, a guard
/// costs one load of a number.
#[must_use = "a scope ends when its guard is dropped"]
#[derive(Debug)]
pub struct Scope {
    place: u32,
    name: u32,
    /// The generation in which the scope was entered, or 0 if it was not recorded.
    generation: u32,
}

impl Scope {
    /// Enters a scope.
    ///
    /// [`scope!`](crate::scope) does this for a name that is known at compile time.
    #[inline]
    pub fn enter(name: &ScopeName) -> Self {
        if !CallStack::is_recording() {
            return Self::UNRECORDED;
        }
        Self::enter_number(name.number())
    }

    /// Enters a scope whose name is known only at run time.
    ///
    /// Names are kept as long as the process lives, and there is room for 16,384 of them.
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

/// Enters a scope that has no guard. [`leave_number`] leaves it.
#[cfg(feature = "tracing")]
pub(crate) fn enter_number(name: u32) {
    let Ok(handle) = CallStack::handle() else { return };
    if CallStack::here(handle, |cpu| cpu.now().enter_again(name)) == Some(false) {
        std::mem::forget(Scope::enter_number(name));
    }
}

/// Leaves the innermost scope of that name, and none inside it. If it is entered again, it has its old place.
#[cfg(feature = "tracing")]
pub(crate) fn leave_number(name: u32) {
    let Ok(handle) = CallStack::handle() else { return };
    CallStack::here(handle, |cpu| cpu.now().leave(name));
}

/// The names of the scopes that are open on the calling thread, outermost first, as far as they were recorded.
#[must_use]
pub fn current_scopes() -> Vec<Arc<str>> {
    let Ok(handle) = CallStack::handle() else { return Vec::new() };
    let mut numbers = [0; MAX_SCOPES];
    let kept = CallStack::here(handle, |cpu| cpu.now().read(&mut numbers).0).unwrap_or(0);
    numbers[..kept].iter().map(|number| names::name_of(*number)).collect()
}
