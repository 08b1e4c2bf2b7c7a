//! What a function does for an executor.

use crate::name::{arguments, arguments_of, skeleton};
use crate::tables::{BESIDE, BETWEEN, PARTS, Polls, ROOTS, Root, WRAPPERS};

/// What a function does for an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role<'a> {
    /// It polls a task, or drops it. The functions that it calls are the task's, from the first that is not [`Between`](Self::Between).
    PollsTask {
        /// The executor's name.
        executor: &'static str,
        /// The type of the task's future, or `None` where the name does not tell.
        future: Option<&'a str>,
        /// Whether it does not poll the task but drops it. Then another task may be being polled.
        drops: bool,
    },
    /// It runs one future to its end on the calling thread, as `block_on` does. It may also run a scheduler: what it calls is the
    /// future's only if the first function that is not [`Between`](Self::Between) is no [`Runtime`](Self::Runtime).
    BlocksOn {
        /// The executor's name.
        executor: &'static str,
        /// The type of the future, or `None` where the name does not tell.
        future: Option<&'a str>,
    },
    /// It can stand between an executor and a future, and says nothing of either.
    Between,
    /// It is a part of a runtime, which this names: `tokio I/O driver`.
    Runtime(&'static str),
    /// It has nothing to do with executors.
    Other,
}

impl<'a> Role<'a> {
    /// Returns the role of a function.
    ///
    /// `path` is its whole name, demangled. `typed` is the name that debug information gives it in its own module, which has type
    /// arguments even where the symbol has none: `poll<app::serve::{async_fn_env#0}, ..>`.
    #[must_use]
    pub fn of(path: &'a str, typed: Option<&'a str>) -> Self {
        let skeleton = skeleton(path);
        if let Some(root) = ROOTS.iter().find(|root| root.function == skeleton) {
            return Self::of_root(root, path, typed);
        }
        // A closure in such a function is no more than the function itself.
        let outside = without_closures(&skeleton);
        let is_roots = || ROOTS.iter().any(|root| root.function == outside);
        let starts =
            |prefix: &str| skeleton.strip_prefix('<').unwrap_or(&skeleton).starts_with(prefix);
        // Inlined functions have no module where there are line tables only.
        if !skeleton.contains("::")
            || is_roots()
            || is_beside(&skeleton)
            || is_wrappers_poll(outside)
            || BETWEEN.iter().any(|it| starts(it))
        {
            return Self::Between;
        }
        let parts = PARTS.iter().filter(|(prefix, _)| starts(prefix));
        match parts.max_by_key(|(prefix, _)| prefix.len()) {
            Some((_, part)) => Self::Runtime(part),
            None => Self::Other,
        }
    }

    fn of_root(root: &Root, path: &'a str, typed: Option<&'a str>) -> Self {
        let future = [typed, Some(path)].into_iter().flatten().find_map(|name| {
            let argument = arguments(arguments_of(name)?).nth(root.future)?;
            is_type(argument).then_some(argument)
        });
        let executor = root.executor;
        match root.polls {
            Polls::Task => Self::PollsTask { executor, future, drops: false },
            Polls::Dropped => Self::PollsTask { executor, future, drops: true },
            Polls::OneFuture => Self::BlocksOn { executor, future },
        }
    }
}

/// Whether it is the function that polls its caller's future and the scheduler, and not the scheduler.
fn is_beside(skeleton: &str) -> bool {
    let outside = skeleton.rsplit_once("::{").map(|(outside, _)| outside);
    outside == Some(BESIDE)
}

/// The function in which a closure stands.
fn without_closures(mut skeleton: &str) -> &str {
    while let Some((outside, last)) = skeleton.rsplit_once("::")
        && last.starts_with('{')
    {
        skeleton = outside;
    }
    skeleton
}

/// Whether a type argument is a type, and not the name of a parameter, as the old mangling has it.
fn is_type(argument: &str) -> bool {
    argument.contains(|it: char| !it.is_alphanumeric() && it != '_')
}

/// `<tracing::instrument::Instrumented as core::future::future::Future>::poll`.
fn is_wrappers_poll(skeleton: &str) -> bool {
    let Some(of) = skeleton.strip_suffix(" as core::future::future::Future>::poll") else {
        return false;
    };
    let of = of.strip_prefix('<').unwrap_or(of);
    WRAPPERS.iter().any(|(wrapper, _)| *wrapper == of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_that_polls_a_task_has_its_type_wherever_that_stands() {
        let typed = "poll<app::run::{async_fn_env#0}, alloc::sync::Arc<tokio::H>>";
        for (path, typed, expected) in [
            ("tokio::runtime::task::raw::poll", Some(typed), Some("app::run::{async_fn_env#0}")),
            (
                "tokio::runtime::task::harness::Harness<T,S>::poll",
                Some(typed),
                Some("app::run::{async_fn_env#0}"),
            ),
            ("tokio::runtime::task::harness::Harness<T,S>::poll", None, None),
            (
                "tokio::runtime::task::raw::poll::<app::run::{closure#0}, H>",
                None,
                Some("app::run::{closure#0}"),
            ),
            (
                "<tokio::runtime::task::harness::Harness<<app::W<u32>>::run::{closure#0}, H>>::poll",
                None,
                Some("<app::W<u32>>::run::{closure#0}"),
            ),
            ("<async_task::raw::RawTask<app::F, (), app::S, ()>>::run", None, Some("app::F")),
            (
                "<compio_executor::task::TaskAlloc<app::F<()>>>::run_future",
                None,
                Some("app::F<()>"),
            ),
            ("<embassy_executor::raw::TaskStorage<app::F<()>>>::poll", None, Some("app::F<()>")),
        ] {
            let Role::PollsTask { future, .. } = Role::of(path, typed) else { panic!("{path}") };
            assert_eq!(future, expected, "{path}");
        }
        let block_on = Role::of(
            "<tokio::runtime::park::CachedParkThread>::block_on::<app::main::{closure#0}>",
            None,
        );
        assert_eq!(
            block_on,
            Role::BlocksOn { executor: "tokio", future: Some("app::main::{closure#0}") }
        );
    }

    #[test]
    fn other_functions_are_between_or_a_runtimes_or_nobodys() {
        for (path, expected) in [
            ("tokio::runtime::task::core::Core<T,S>::poll", Role::Between),
            (
                "<core::panic::unwind_safe::AssertUnwindSafe<F> as core::ops::function::FnOnce<()>>::call_once",
                Role::Between,
            ),
            (
                "<tracing::instrument::Instrumented<T> as core::future::future::Future>::poll",
                Role::Between,
            ),
            (
                "<tokio::time::timeout::Timeout<T> as core::future::future::Future>::poll",
                Role::Between,
            ),
            ("poll_inner<app::F, H>", Role::Between),
            (
                "tokio::runtime::scheduler::current_thread::CoreGuard::block_on::{{closure}}::{{closure}}",
                Role::Between,
            ),
            (
                "<tokio::task::local::RunUntil<T> as core::future::future::Future>::poll::{{closure}}",
                Role::Between,
            ),
            ("tokio::task::local::LocalSet::tick", Role::Runtime("tokio scheduler")),
            ("async_executor::State::run::{{closure}}", Role::Between),
            (
                "async_executor::State::run::{{closure}}::{{closure}}",
                Role::Runtime("async-executor scheduler"),
            ),
            ("tokio::runtime::io::driver::Driver::turn", Role::Runtime("tokio I/O driver")),
            (
                "tokio::runtime::time::<impl tokio::runtime::time::handle::Handle>::process_at_time",
                Role::Runtime("tokio timers"),
            ),
            (
                "<tokio::runtime::scheduler::multi_thread::worker::Context>::run",
                Role::Runtime("tokio scheduler"),
            ),
            ("app::burn", Role::Other),
            ("<app::Own as core::future::future::Future>::poll", Role::Other),
        ] {
            assert_eq!(Role::of(path, None), expected, "{path}");
        }
    }
}
