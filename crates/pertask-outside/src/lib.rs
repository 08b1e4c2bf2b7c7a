//! Samples of another process: where its threads spend CPU time, with whole call stacks.
//!
//! The kernel's perf events interrupt each thread of the process when it has used a period of CPU time, and write its registers and the
//! top of its stack (the most recent frames) into a ring for each CPU. A [`Recorder`] reads the rings and unwinds the stacks with the unwind tables of the
//! process's own files, so the process needs neither a change nor frame pointers. New threads are followed.
//!
//! ```no_run
//! use pertask_outside::{RecordOptions, Recorder};
//! use std::time::{Duration, Instant};
//!
//! let mut recorder = Recorder::attach(4711, &RecordOptions::default())?;
//! let end = Instant::now() + Duration::from_secs(5);
//! while recorder.is_alive() && Instant::now() < end {
//!     recorder.turn(Duration::from_millis(100))?;
//! }
//! let profile = recorder.finish();
//! println!("{} samples by {}", profile.whole().samples, profile.mechanism);
//! # Ok::<(), pertask_outside::Error>(())
//! ```
//!
//! The same user may record a process, and so may root; the kernel's `perf_event_paranoid` can forbid it, or leave out time in the kernel.
//! That time is then in the profile as `(kernel, not sampled)`, by thread.

#![deny(unsafe_code)]

#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("pertask-outside is for Linux on x86_64 and aarch64");

mod allowed;
#[cfg(target_arch = "x86_64")]
mod code;
mod error;
#[allow(unsafe_code)]
mod event;
mod identity;
mod kept;
mod landing_pads;
#[allow(unsafe_code)]
mod launch;
mod options;
#[cfg(feature = "perf-data")]
mod perf_check;
#[cfg(feature = "perf-data")]
mod perf_data;
mod record;
mod recorder;
mod registers;
#[allow(unsafe_code)]
mod ring;
mod saved;
mod space;
mod tables;
mod target;
mod tokio;

pub use allowed::Allowed;
pub use error::Error;
pub use launch::Launch;
pub use options::RecordOptions;
#[cfg(feature = "perf-data")]
pub use perf_data::{PerfDataOptions, is_perf_data, read_perf_data};
pub use recorder::Recorder;

/// The README's example compiles, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
