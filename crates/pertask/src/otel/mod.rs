//! What the running task is, for profilers outside the process: OpenTelemetry's thread context and process context.
//!
//! A profiler in the kernel, such as [OpenTelemetry's eBPF profiler][profiler], sees threads and no tasks. With [`publish`], it finds the
//! running task's name, its spawn site and its labels in the memory of each thread that it interrupts:
//!
//! | attribute | |
//! | --- | --- |
//! | `pertask.task.name` | the task's name, if it has one |
//! | `pertask.task.site` | where it was spawned: `src/main.rs:42` |
//! | each label's key | the label's value |
//!
//! ```no_run
//! pertask::otel::publish([("service.name", "shop")])?;
//! # Ok::<(), pertask::otel::PublishError>(())
//! ```
//!
//! The profiler finds the memory by a symbol that the program must export, which the linker does only if it is told to. So the program
//! needs a `build.rs` with this line:
//!
//! ```
//! println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol=otel_thread_ctx_v1");
//! ```
//!
//! The layouts are those of [OTEP 4947] (thread context) and [OTEP 4719] (process context, version 2), as they were in July 2026. Trace and span
//! are left empty. Only one library of a program can have the symbol and publish a process context.
//!
//! [profiler]: https://github.com/open-telemetry/opentelemetry-ebpf-profiler
//! [OTEP 4947]: https://github.com/open-telemetry/opentelemetry-specification/blob/main/oteps/profiles/4947-thread-ctx.md
//! [OTEP 4719]: https://github.com/open-telemetry/opentelemetry-specification/blob/main/oteps/profiles/4719-process-ctx.md

#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("the feature `otel` is for Linux on x86_64 and aarch64");

mod error;
mod keys;
#[allow(unsafe_code)]
mod mapping;
mod payload;
mod pmu;
mod process;
mod record;
#[allow(unsafe_code)]
mod slot;

pub use error::PublishError;

use crate::tasks::accounts;

/// Publishes the running task of each thread, as long as the program runs.
///
/// `resource` describes the program, by [OpenTelemetry's names][names]: `service.name`, `service.version`, `deployment.environment.name`. A
/// later call replaces it. In a forked child, nothing is published until it calls this itself.
///
/// Each poll of a task then costs some 10 ns where the last task on this thread was of the same path and labels, some 50 ns otherwise, and as much
/// again for each change of labels in the poll.
///
/// [names]: https://opentelemetry.io/docs/specs/semconv/resource/
///
/// # Errors
/// Returns [`PublishError`]: why readers find no tasks.
pub fn publish<K: Into<String>, V: Into<String>>(
    resource: impl IntoIterator<Item = (K, V)>,
) -> Result<(), PublishError> {
    if !slot::is_exported() {
        return Err(PublishError::NotExported);
    }
    let resource = resource.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    process::publish(resource, keys::names())?;
    // First those that come, and then those that are there: so none is missed.
    accounts::watch_new_labels(keys::learn);
    accounts::for_each_labels(keys::learn);
    pmu::attach().map_err(PublishError::Attach)
}

/// How many attributes were left out since the program began: those of records beyond 640 bytes, and keys beyond 256.
#[must_use]
pub fn left_out() -> u64 {
    record::left_out() + keys::left_out()
}

/// Whether the program exports the symbol by which readers find a thread's context, and the remedy if not.
pub(crate) fn is_exported() -> Result<(), String> {
    if slot::is_exported() { Ok(()) } else { Err(PublishError::NotExported.to_string()) }
}
