//! What a waiting task's stack has below the function that its author called.
//!
//! A stack that was taken where a future leaves its waker begins with the waker itself, and with what keeps wakers: queues, semaphores,
//! timers, drivers. People know the function that they have called, `Mutex::lock` or `sleep`. So of the frames that belong to a runtime
//! or a library of primitives, only the outermost is shown.

/// Crates whose futures wait by themselves: the standard library's, runtimes, and libraries of channels, locks and combinators.
///
/// A library that waits by one of these, as clients of databases do, is not among them: its own functions say what the task waits for.
const CRATES: &[&str] = &[
    "alloc",
    "async_broadcast",
    "async_channel",
    "async_executor",
    "async_io",
    "async_lock",
    "async_net",
    "async_once_cell",
    "async_process",
    "async_signal",
    "async_std",
    "async_task",
    "atomic_waker",
    "blocking",
    "core",
    "event_listener",
    "event_listener_strategy",
    "flume",
    "futures",
    "futures_channel",
    "futures_core",
    "futures_executor",
    "futures_intrusive",
    "futures_lite",
    "futures_timer",
    "futures_util",
    "kanal",
    "mio",
    "parking",
    "pertask",
    "piper",
    "pollster",
    "smol",
    "std",
    "thingbuf",
    "tokio",
    "tokio_stream",
    "tokio_util",
    "want",
];

/// Whether a function, by its name with or without its crate's hash, belongs to a runtime or to a library of primitives.
///
/// ```
/// use pertask_executors::is_primitive;
///
/// assert!(is_primitive("<tokio::time::sleep::Sleep as core::future::future::Future>::poll"));
/// assert!(is_primitive("<&mut F as core::future::future::Future>::poll"));
/// assert!(is_primitive("__rust_try"));
/// assert!(!is_primitive("service::handlers::get_user::{{closure}}"));
/// assert!(!is_primitive("<service::Stream<T> as futures_core::stream::Stream>::poll_next"));
/// ```
#[must_use]
pub fn is_primitive(function: &str) -> bool {
    // The compiler's own frame around what may panic, as in std's `catch_unwind`. In optimized code it is inlined.
    if function.starts_with("__rust_try") {
        return true;
    }
    let mut name = function;
    loop {
        let rest = name.trim_start_matches(['<', '&', '*', '(', '[', ' ']);
        let rest = ["mut ", "const ", "dyn ", "impl "]
            .iter()
            .find_map(|word| rest.strip_prefix(word))
            .unwrap_or(rest);
        if rest == name {
            break;
        }
        name = rest;
    }
    let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
    let (first, rest) = name.split_at(end);
    match rest.starts_with("::") || rest.starts_with('[') {
        true => CRATES.contains(&first),
        // A type parameter, or the name alone of a method that was inlined: nothing says whose it is.
        false => function.starts_with('<'),
    }
}
