//! The future that a task is about, behind what wraps it.

use crate::future_type::words;
use crate::name::{arguments, arguments_of};
use crate::tables::{OWN_FUTURES, WRAPPERS};

/// The future that a task is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Concrete<'a> {
    /// A future of this type.
    Future(&'a str),
    /// It stands behind `dyn Future`, or behind a wrapper whose name was cut. The first function that it calls tells its type.
    Hidden,
    /// It is a function, which debug information calls `fn()`. The first function that is called is that one.
    Function,
    /// The task is a part of a runtime, which this names: `tokio scheduler`.
    Runtime(&'static str),
}

impl<'a> Concrete<'a> {
    /// Looks through the wrappers of a type.
    #[must_use]
    pub fn of(of_task: &'a str) -> Self {
        let mut future = of_task.trim();
        // Each step leaves a shorter text.
        loop {
            // `(dyn Future<Output=()> + Send)` in debug information, without brackets in symbols.
            if future.is_empty() || future.trim_start_matches('(').starts_with("dyn ") {
                return Self::Hidden;
            }
            if ["fn(", "unsafe ", "extern "].iter().any(|shape| future.starts_with(shape)) {
                return Self::Function;
            }
            let words = words(future);
            let Some((_, place)) = WRAPPERS.iter().find(|(wrapper, _)| *wrapper == words) else {
                let own = OWN_FUTURES.iter().find(|(own, _)| words.starts_with(own));
                return own.map_or(Self::Future(future), |(_, part)| Self::Runtime(part));
            };
            let inner = arguments_of(future).and_then(|list| arguments(list).nth(*place));
            let Some(inner) = inner else { return Self::Hidden };
            future = inner;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_looked_through() {
        for (of_task, expected) in [
            ("app::run::{async_fn_env#0}", Concrete::Future("app::run::{async_fn_env#0}")),
            (
                "core::pin::Pin<alloc::boxed::Box<app::F, alloc::alloc::Global>>",
                Concrete::Future("app::F"),
            ),
            (
                "core::pin::Pin<alloc::boxed::Box<(dyn core::future::future::Future<Output=()> + core::marker::Send), alloc::alloc::Global>>",
                Concrete::Hidden,
            ),
            ("alloc::boxed::Box<dyn core::future::future::Future<Output = ()>>", Concrete::Hidden),
            (
                "tokio::task::task_local::TaskLocalFuture<u32, tracing::instrument::Instrumented<app::F>>",
                Concrete::Future("app::F"),
            ),
            (
                "tokio::task::local::{impl#3}::run_until::{async_fn_env#0}<app::main::{closure_env#0}>",
                Concrete::Future("app::main::{closure_env#0}"),
            ),
            (
                "<tokio::task::local::LocalSet>::run_until<app::main::{closure#0}>::{closure#0}",
                Concrete::Future("app::main::{closure#0}"),
            ),
            (
                "tokio::runtime::blocking::task::BlockingTask<tokio::runtime::scheduler::multi_thread::worker::{impl#0}::launch::{closure_env#0}>",
                Concrete::Runtime("tokio scheduler"),
            ),
            (
                "tokio::runtime::blocking::task::BlockingTask<app::read::{closure_env#0}>",
                Concrete::Future("app::read::{closure_env#0}"),
            ),
            (
                "async_executor::AsyncCallOnDrop<app::F, async_executor::Executor::spawn::{closure#0}>",
                Concrete::Future("app::F"),
            ),
            ("tokio::runtime::blocking::task::BlockingTask<fn()>", Concrete::Function),
            ("core::pin::Pin", Concrete::Hidden),
            ("", Concrete::Hidden),
        ] {
            assert_eq!(Concrete::of(of_task), expected, "{of_task}");
        }
    }
}
