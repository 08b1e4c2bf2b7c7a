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

/// What takes the stack itself, in a crate whose name a program may have, too.
const TAKERS: [&str; 2] = ["pertask::pmus::", "pertask::sampler::"];

/// Pointers to futures, each with its crate: as futures they only poll the one that they point to.
const POINTERS: [(&str, &str); 2] = [("core", "::pin::Pin<"), ("alloc", "::boxed::Box<")];

/// Whether a function belongs to a runtime or to a library of primitives, by its name. `None` where the name does not say whose it is: that
/// of a type parameter's method, of a pointer to a future, of C code, or a name without its path.
///
/// ```
/// use pertask_executors::is_primitive;
///
/// let sleep = "<tokio::time::sleep::Sleep as core::future::future::Future>::poll";
/// assert_eq!(is_primitive(sleep), Some(true));
/// assert_eq!(is_primitive("service::handlers::get_user::{{closure}}"), Some(false));
/// assert_eq!(is_primitive("<service::Rows<T> as futures_core::stream::Stream>::poll_next"), Some(false));
/// assert_eq!(is_primitive("<&mut F as core::future::future::Future>::poll"), None);
/// assert_eq!(is_primitive("<core::pin::Pin<P> as core::future::future::Future>::poll"), None);
/// assert_eq!(is_primitive("<alloc[1a2b]::boxed::Box<F> as core[3c4d]::future::future::Future>::poll"), None);
/// assert_eq!(is_primitive("<service::pin::Pin<P> as core::future::future::Future>::poll"), Some(false));
/// assert_eq!(is_primitive("__rust_try"), None);
/// ```
#[must_use]
pub fn is_primitive(function: &str) -> Option<bool> {
    let name = own_part(function);
    if TAKERS.iter().any(|taker| name.starts_with(taker)) {
        return Some(true);
    }
    let is_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let (first, rest) = name.split_at(name.find(|c| !is_of_name(c)).unwrap_or(name.len()));
    let path = rest.find("::").map_or("", |at| &rest[at..]);
    let is_pointer = POINTERS.iter().any(|(of, name)| first == *of && path.starts_with(name));
    if is_pointer && function.ends_with("::Future>::poll") {
        return None;
    }
    // With the crate's hash: `tokio[1a2b]::time::sleep`.
    (rest.starts_with("::") || rest.starts_with('[')).then(|| CRATES.contains(&first))
}

/// The type of a method's name without what stands before it, or the function's own name.
fn own_part(function: &str) -> &str {
    const BEFORE: [&str; 4] = ["mut ", "const ", "dyn ", "impl "];
    let mut name = function;
    loop {
        let rest = name.trim_start_matches(['<', '&', '*', '(', '[', ' ']);
        let word = BEFORE.iter().find_map(|word| rest.strip_prefix(word));
        match word {
            Some(rest) => name = rest,
            None => return rest,
        }
    }
}
