//! Shows which async task spends the CPU time.
//!
//! Three lines show it, on any executor and on stable Rust:
//!
//! ```
//! use pertask::TaskExt; // 1
//!
//! let session = pertask::Session::start()?; // 2
//! futures::executor::block_on(async {
//!     async { std::hint::black_box((0..1_000_000).sum::<u64>()) }.task("sum").await; // 3
//! });
//! println!("{}", session.stop());
//! # Ok::<(), pertask::Error>(())
//! ```
//!
//! - [`TaskExt::task`] makes any future a task. A task costs next to nothing until a session attaches to it.
//! - [`Session`] attaches to all tasks, or to some, while the program runs, and detaches again.
//! - [`Report`] says where the process's CPU time went: tasks by spawn site, workers outside tasks, other threads.
//! - [`LabelExt::labels`] gives a task labels, such as a tenant's name, which the tasks that it spawns inherit. [`scope!`]
//!   names a part of a task's work.
//! - [`Alloc`] is a global allocator that lets sessions count what each task allocates and frees.
//! - `pertask::tokio` (feature `tokio`) has tokio's spawn functions, with tokio's return types.
//! - `pertask::tracing` (feature `tracing`) turns spans into scopes.
//! - `pertask::sampler` (feature `sampler`) samples where in the code each thread and task spends its CPU time.
//! - `pertask::watch` (feature `sampler`) catches polls that block their worker, while they last.
//! - `pertask::agent` (feature `agent`) lets a terminal and other tools do all of it while the program runs.
//! - `pertask::profile` (feature `profile`) is a sampled profile. It writes pprof, folded stacks, flamegraphs, the
//!   Firefox Profiler's format and speedscope's.
//! - `pertask::otel` (feature `otel`) tells profilers outside the process which task each thread runs.
//! - `pertask::symbols` (feature `symbols`) names the functions at addresses.
//!
//! # Features
//!
//! | feature | brings |
//! | --- | --- |
//! | `table` (default) | the report as text, by `Display` |
//! | `http` | `pertask::agent::respond`, which answers requests of the program's own server: axum, hyper, tower |
//! | `json` | the report as JSON |
//! | `agent` | `pertask::agent`: a terminal and other tools measure the process while it runs; with `json`, `metrics` and `profiler` |
//! | `metrics` | `pertask::metrics`, which answers scrapes of Prometheus |
//! | `otel` | `pertask::otel`: OpenTelemetry's thread context, for profilers outside the process |
//! | `tokio` | `pertask::tokio`; with `--cfg tokio_unstable` it sees every task of a runtime |
//! | `tracing` | `pertask::tracing` |
//! | `sampler` | `pertask::sampler`, whose samples hold addresses, and `pertask::watch` |
//! | `profiler` | `sampler`, `symbols`, and `profile` with each of its formats (`pprof`, `flamegraph`, `firefox`, `speedscope`) |
//!
//! # Guides
//!
//! The repository has [a guide to using pertask in a service][using], and pages on [sampling], [the clock][clock] and
//! [what it costs][costs].
//!
//! [using]: https://github.com/pertask/pertask/blob/main/docs/USING.md
//! [sampling]: https://github.com/pertask/pertask/blob/main/docs/SAMPLING.md
//! [clock]: https://github.com/pertask/pertask/blob/main/docs/CLOCK.md
//! [costs]: https://github.com/pertask/pertask/blob/main/docs/COSTS.md
//!
//! The data behind it is [`pertask_core`]'s: Linux perf's per-task data, for tasks that the kernel cannot see.

#![deny(unsafe_code)]

// In order of dependency: a module uses those before it.
mod error;
#[allow(unsafe_code)]
mod interned;
mod os;
mod sync;

mod pmus;
mod tasks;

mod report;
mod sessions;

#[cfg(feature = "sampler")]
pub mod sampler;

#[cfg(feature = "sampler")]
pub mod watch;

#[cfg(feature = "metrics")]
pub mod metrics;

#[cfg(feature = "otel")]
pub mod otel;

#[cfg(feature = "agent")]
pub mod agent;

#[allow(unsafe_code)]
mod machine;

#[cfg(feature = "agent")]
pub use agent::init;
pub use error::Error;
pub use machine::{Machine, Offer};
pub use pertask_core::{self as core, Event, Inherit, Target, Task, TaskId};
#[cfg(feature = "profile")]
pub use pertask_profile as profile;
#[cfg(feature = "symbols")]
pub use pertask_symbols as symbols;
pub use pmus::call_stack::{
    CallStack, CallStackCpu, CallStackData, CallStacks, MAX_SCOPES, Scope, ScopeName,
    current_scopes,
};
pub use pmus::counters::{
    Counter, CounterCounts, CounterEvent, CounterSource, Counters, CountersCpu, CountersData,
    CountersLost, CountersPmu, UnknownEvent,
};
pub use pmus::cpu_time::{CpuTime, CpuTimeCount, CpuTimeCpu, CpuTimeData};
pub use pmus::life::{Life, LifeCount, LifeData};
pub use pmus::memory::alloc::Alloc;
pub use pmus::memory::count::MemoryCount;
pub use pmus::wake::{Latencies, WakeData, WakeLatency};
pub use report::derived::{Ratio, ipc, mpki};
pub use report::{
    BlockedLabel, BlockedReport, BlockedRow, BlockedState, LabelReport, LabelValueReport,
    LifeReport, Lost, ProcessMemory, Report, SCHEMA, SiteReport, SpawnSite, StackFrame, TaskReport,
    ThreadReport, TreeReport, Usage, WakeBucket, WakeReport,
};
#[cfg(feature = "table")]
pub use report::{Table, TableStyle};
pub use sessions::{Session, SessionOptions};
pub use tasks::accounts::{MAX_LABEL_SETS, label_sets_without_place};
pub use tasks::job::{Job, run};
pub use tasks::label_set::Labels;
pub use tasks::labels::{LabelExt, Labeled};
#[cfg(feature = "tokio")]
pub use tasks::tokio;
#[cfg(feature = "tracing")]
pub use tasks::tracing;
pub use tasks::tracked::{TaskExt, Tracked};
