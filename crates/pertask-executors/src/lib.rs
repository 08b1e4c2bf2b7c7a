//! Which executor polled which future: from the names of a call stack's functions to the type of the task that ran.
//!
//! An executor polls the futures of each type with a function of its own, and the type stands in that function's name. So a call
//! stack tells which kind of task ran, in a program that does nothing for it.
//!
//! - [`Role::of`] says what a function does for an executor: it polls tasks, runs one future to its end, stands between an executor
//!   and a future, or is another part of a runtime.
//! - [`Concrete::of`] looks through wrappers such as `Pin<Box<F>>` and `Instrumented<F>` to the future that a task is about.
//! - [`future_type::words`] makes words for people of a type: `axum::serve::handle_connection`.
//! - [`is_primitive`] says whether a function of a waiting task's stack belongs to a runtime or to a library of primitives.
//! - [`future_type::of_body`] is the way back, from a future's own function to its type. It is for futures behind `dyn Future`.
//!
//! It works on demangled names, from either mangling scheme, and from debug information. Neither addresses nor files are read.
//!
//! ```
//! use pertask_executors::{Concrete, Role, future_type};
//!
//! let name = "<tokio::runtime::task::harness::Harness<core::pin::Pin<alloc::boxed::Box<app::Job>>, alloc::sync::Arc<tokio::H>>>::poll";
//! let Role::PollsTask { executor, future: Some(future), .. } = Role::of(name, None) else { panic!("it polls a task") };
//! assert_eq!(executor, "tokio");
//! assert_eq!(Concrete::of(future), Concrete::Future("app::Job"));
//! assert_eq!(future_type::words("app::Job"), "app::Job");
//! ```

#![forbid(unsafe_code)]

mod concrete;
pub mod future_type;
mod leaves;
mod name;
mod role;
mod tables;

pub use concrete::Concrete;
pub use leaves::is_primitive;
pub use role::Role;

/// The README's example compiles, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
