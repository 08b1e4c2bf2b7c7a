//! What is known of executors: the functions that poll, the futures that wrap others, and the parts of runtimes.
//!
//! Names are without type arguments. All were seen in stacks: those of tokio, async-task, async-io, async-std 1.13, futures, monoio 0.2, glommio 0.9,
//! compio 0.19 and embassy-executor 0.10.

/// A function of an executor that has the type of a future among its type arguments.
pub(crate) struct Root {
    pub(crate) function: &'static str,
    pub(crate) executor: &'static str,
    pub(crate) polls: Polls,
    /// The place of the future among the type arguments.
    pub(crate) future: usize,
}

/// What such a function polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Polls {
    /// A task. All of the function's time is the task's.
    Task,
    /// Nothing: it drops a task, perhaps while another one is polled. Its time is that of the task that it drops.
    Dropped,
    /// A future that the calling thread waits for. The function may also run the scheduler.
    OneFuture,
}

const fn task(executor: &'static str, function: &'static str) -> Root {
    Root { function, executor, polls: Polls::Task, future: 0 }
}

const fn dropped(executor: &'static str, function: &'static str) -> Root {
    Root { function, executor, polls: Polls::Dropped, future: 0 }
}

const fn one(executor: &'static str, function: &'static str) -> Root {
    Root { function, executor, polls: Polls::OneFuture, future: 0 }
}

/// With `future: impl Future<Output = T>`, whose type comes after `T`.
const fn one_after_output(executor: &'static str, function: &'static str) -> Root {
    Root { function, executor, polls: Polls::OneFuture, future: 1 }
}

/// The functions that poll.
pub(crate) const ROOTS: &[Root] = &[
    // Without link-time optimisation `raw::poll` jumps to the other, and has no frame.
    task("tokio", "tokio::runtime::task::raw::poll"),
    task("tokio", "tokio::runtime::task::harness::Harness::poll"),
    // A task that is aborted, or whose runtime ends, is dropped here.
    dropped("tokio", "tokio::runtime::task::raw::shutdown"),
    dropped("tokio", "tokio::runtime::task::harness::Harness::shutdown"),
    dropped("tokio", "tokio::runtime::task::raw::dealloc"),
    dropped("tokio", "tokio::runtime::task::harness::Harness::dealloc"),
    one("tokio", "tokio::runtime::park::CachedParkThread::block_on"),
    one("tokio", "tokio::park::thread::CachedParkThread::block_on"),
    one("tokio", "tokio::runtime::context::blocking::BlockingRegionGuard::block_on"),
    one("tokio", "tokio::runtime::scheduler::current_thread::CoreGuard::block_on"),
    one("tokio", "tokio::runtime::scheduler::current_thread::CurrentThread::block_on"),
    one("tokio", "tokio::runtime::scheduler::multi_thread::MultiThread::block_on"),
    one("tokio", "tokio::runtime::runtime::Runtime::block_on"),
    one("tokio", "tokio::runtime::runtime::Runtime::block_on_inner"),
    one("tokio", "tokio::runtime::handle::Handle::block_on"),
    one("tokio", "tokio::runtime::handle::Handle::block_on_inner"),
    // async-task 4.7, which smol, async-std and async-executor use.
    task("async-task", "async_task::raw::RawTask::run"),
    one_after_output("futures-lite", "futures_lite::future::block_on"),
    one_after_output("async-io", "async_io::driver::block_on"),
    one("async-std", "async_std::task::builder::Builder::blocking"),
    // futures-executor 0.3. Its pools hold boxed futures.
    task("futures", "futures_executor::thread_pool::Task::run"),
    one("futures", "futures_executor::local_pool::block_on"),
    one("pollster", "pollster::block_on"),
    // The task structure of these two comes from tokio's.
    task("monoio", "monoio::task::raw::poll"),
    task("monoio", "monoio::task::harness::Harness::poll"),
    one("monoio", "monoio::runtime::Runtime::block_on"),
    task("glommio", "glommio::task::raw::RawTask::run"),
    // compio-executor 0.1, of compio 0.19. Earlier ones use async-task.
    task("compio", "compio_executor::task::TaskAlloc::run_future"),
    one("compio", "compio_runtime::Runtime::block_on"),
    one("compio", "compio_runtime::Runtime::block_on_at"),
    task("embassy", "embassy_executor::raw::TaskStorage::poll"),
];

/// Futures that wrap others and say nothing of the task: their names, without type arguments and anonymous parts, and the place of
/// the wrapped future among their type arguments.
pub(crate) const WRAPPERS: &[(&str, usize)] = &[
    ("core::pin::Pin", 0),
    ("alloc::boxed::Box", 0),
    ("core::panic::unwind_safe::AssertUnwindSafe", 0),
    ("futures_util::abortable::Abortable", 0),
    ("futures_util::future::future::catch_unwind::CatchUnwind", 0),
    ("futures_util::future::future::remote_handle::Remote", 0),
    ("futures_util::future::future::fuse::Fuse", 0),
    ("futures_util::future::future::Fuse", 0),
    ("futures_util::future::future::Map", 0),
    ("futures_util::future::future::map::Map", 0),
    ("tokio::runtime::blocking::task::BlockingTask", 0),
    ("tokio::task::coop::unconstrained::Unconstrained", 0),
    ("tokio::task::unconstrained::Unconstrained", 0),
    ("tokio::task::task_local::TaskLocalFuture", 1),
    // By debug information, whose methods lack their type, and by symbols.
    ("tokio::task::local::run_until", 0),
    ("tokio::task::local::LocalSet::run_until", 0),
    ("tokio::task::local::RunUntil", 0),
    ("tokio::time::timeout::Timeout", 0),
    ("tokio_util::task::task_tracker::TrackedFuture", 0),
    ("tokio_metrics::task::Instrumented", 0),
    ("tracing::instrument::Instrumented", 0),
    ("tracing::instrument::WithDispatch", 0),
    ("tracing_futures::Instrumented", 0),
    ("tracing_futures::WithDispatch", 0),
    ("fastrace::future::InSpan", 0),
    ("opentelemetry::trace::context::WithContext", 0),
    ("opentelemetry::context::future_ext::WithContext", 0),
    ("sentry_core::futures::SentryFuture", 0),
    ("async_executor::AsyncCallOnDrop", 0),
    // The future of the caller, which runs beside the executor.
    ("async_executor::run", 1),
    ("async_executor::Executor::run", 1),
    ("async_executor::LocalExecutor::run", 1),
    ("async_std::task::builder::SupportTaskLocals", 0),
    ("pertask::tasks::tracked::Tracked", 0),
    ("pertask::tasks::labels::Labeled", 0),
];

/// Functions that stand between an executor and a future, by the beginning of their names.
pub(crate) const BETWEEN: &[&str] = &[
    "core::",
    "std::",
    "alloc::",
    "__rust_",
    "rust_",
    "tokio::loom::",
    "tokio::runtime::blocking::task::",
    "tokio::runtime::context::",
    "tokio::runtime::coop::",
    "tokio::runtime::scheduler::current_thread::Context::enter",
    "tokio::runtime::scheduler::current_thread::CoreGuard::enter",
    "tokio::runtime::task::",
    "tokio::task::coop::",
    "tokio::task::local::LocalSet::block_on",
    "tokio::task::local::LocalSet::run_until",
    "tokio::task::local::LocalSet::with",
    "tokio::task::task_local::",
    "tokio::util::",
    "tracing::",
    "tracing_core::",
    "async_executor::Executor::run",
    "async_executor::LocalExecutor::run",
    "async_executor::StaticExecutor::run",
    "async_executor::StaticLocalExecutor::run",
    "async_task::",
    "futures_core::",
    "futures_lite::future::",
    "futures_task::",
    "monoio::task::",
    "glommio::task::",
    "compio_executor::UnsafeCell",
    "async_std::task::",
    "pertask::tasks::",
];

/// A function that polls a future of its caller beside a scheduler, which is a closure in its own closure.
pub(crate) const BESIDE: &str = "async_executor::State::run";

/// Futures that are a part of a runtime, by the beginning of their words: tokio's workers are tasks of its blocking pool.
pub(crate) const OWN_FUTURES: &[(&str, &str)] = &[
    ("tokio::runtime::scheduler::", SCHEDULER),
    ("tokio::runtime::thread_pool::", SCHEDULER),
    ("async_global_executor::", "async-global-executor scheduler"),
];

const SCHEDULER: &str = "tokio scheduler";
const IO: &str = "tokio I/O driver";
const IDLE: &str = "tokio idle";

/// Functions of runtimes, by the beginning of their names. Of two that hold, the longer counts.
pub(crate) const PARTS: &[(&str, &str)] = &[
    ("tokio::runtime::", SCHEDULER),
    ("tokio::task::local::", SCHEDULER),
    ("tokio::runtime::io::", IO),
    ("tokio::runtime::driver::", IO),
    ("tokio::runtime::signal::", IO),
    ("tokio::runtime::process::", IO),
    ("mio::poll::", IO),
    ("tokio::runtime::time::", "tokio timers"),
    ("tokio::runtime::time_alt::", "tokio timers"),
    ("tokio::runtime::park::", IDLE),
    ("tokio::runtime::scheduler::multi_thread::park::", IDLE),
    ("tokio::runtime::blocking::", "tokio blocking pool"),
    ("async_executor::", "async-executor scheduler"),
    ("async_global_executor::", "async-global-executor scheduler"),
    ("async_io::", "async-io reactor"),
    ("polling::", "async-io reactor"),
    ("blocking::", "blocking pool"),
    ("futures_executor::", "futures executor"),
    ("monoio::runtime::", "monoio scheduler"),
    ("monoio::scheduler::", "monoio scheduler"),
    ("monoio::driver::", "monoio driver"),
    ("monoio::time::", "monoio timers"),
    ("glommio::executor::", "glommio scheduler"),
    ("glommio::reactor::", "glommio reactor"),
    ("glommio::sys::", "glommio reactor"),
    ("compio_runtime::", "compio scheduler"),
    ("compio_executor::", "compio scheduler"),
    ("compio_driver::", "compio driver"),
    ("embassy_executor::", "embassy scheduler"),
];
