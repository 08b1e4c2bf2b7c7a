//! Per-task data for performance monitoring, for tasks that the kernel cannot see.
//!
//! Linux perf attaches *PMU-specific data* to each thread: a reference-counted, RCU-protected object. It is attached for one
//! task or for the whole system, inherited over fork, dropped at exit, and saved and restored at each context switch. This
//! crate is that system for tasks in user space: async tasks, fibers, jobs.
//!
//! The crate knows no clock, no runtime and no file format. A [`Pmu`] decides what is measured. Each thread that runs tasks has
//! a [`Cpu`], and its executor tells the `Cpu` which task runs. A caller that wants counts attaches an [`Event`].
//!
//! ```
//! use pertask_core::{Cpu, Edge, Inherit, Pmu, Switch, System};
//! use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
//!
//! /// Counts how often each task is switched in.
//! struct Turns;
//!
//! impl Pmu for Turns {
//!     const NAME: &'static str = "turns";
//!     type Data = AtomicU64;
//!     type CpuData = ();
//!     type Count = u64;
//!
//!     fn sched_in(&self, switch: Switch<'_, Self>) {
//!         // Other edges of a run are those where a nested task takes over for a while.
//!         if let (Some(turns), Edge::Turn) = (switch.data, switch.edge) {
//!             turns.fetch_add(1, Relaxed);
//!         }
//!     }
//!     fn sched_out(&self, _: Switch<'_, Self>) {}
//!     fn read(&self, turns: &AtomicU64) -> u64 {
//!         turns.load(Relaxed)
//!     }
//! }
//!
//! let system = System::leak();
//! let turns = system.register(Turns)?;
//!
//! // This thread will run tasks.
//! let cpu = Cpu::new(system);
//! let site = cpu.site(Some("worker"), std::panic::Location::caller());
//! let mut task = cpu.fork(site);
//!
//! // No event is attached, so a run costs next to nothing and counts nothing.
//! cpu.run(&mut task, || {});
//!
//! let event = turns.attach_task(&task.handle(), Inherit::Children)?;
//! let mut child = cpu.run(&mut task, || cpu.fork(site));
//! cpu.run(&mut child, || {});
//! drop(child);
//! drop(task);
//! // Counts outlive the tasks, and include the children's.
//! assert_eq!(event.read(), 2);
//! # Ok::<(), pertask_core::Error>(())
//! ```

#![deny(unsafe_code)]

mod primitive;

// Memory: which reader may still hold an object, and when it is freed.
#[allow(unsafe_code)]
mod membarrier;
#[allow(unsafe_code)]
pub mod rcu;
mod refcount;

// What each CPU keeps for itself.
#[allow(unsafe_code)]
mod books;
#[allow(unsafe_code)]
mod magazine;
mod per_cpu;

// Data: where it is allocated, what it holds, and the word that points to it.
mod count;
#[allow(unsafe_code)]
mod ctx_cache;
#[allow(unsafe_code)]
mod ctx_data;
#[cfg(any(pertask_loom, pertask_shuttle))]
#[allow(unsafe_code)]
mod quarantine;
#[allow(unsafe_code)]
mod slot;

// Tasks: what they are, where they were spawned, and the table that lists them.
mod links;
#[allow(unsafe_code)]
mod path;
mod site;
#[allow(unsafe_code)]
mod start_time;
#[allow(unsafe_code)]
mod task;
#[allow(unsafe_code)]
mod task_table;

// PMUs and events: what is measured, and for whom.
mod active;
mod event;
#[allow(unsafe_code)]
mod family;
mod foreign;
mod global;
mod global_mask;
#[allow(unsafe_code)]
mod pmu;
mod snapshot;
#[allow(unsafe_code)]
mod tally;
mod turn;

// CPUs: where tasks run.
#[allow(unsafe_code)]
mod cpu;
#[cfg(not(any(pertask_loom, pertask_shuttle)))]
#[allow(unsafe_code)]
mod local;

mod error;
#[allow(unsafe_code)]
mod system;

// The models need private items, so they are part of the crate; their files are beside `src`.
#[cfg(all(test, pertask_loom))]
#[allow(unsafe_code)]
#[path = "../models/mod.rs"]
mod models;

pub use active::MAX_PMUS;
/// The crate that defines `Zeroable`, which a [`Pmu`]'s data must implement.
pub use bytemuck;
pub use count::Count;
pub use cpu::{Cpu, CpuRecord};
pub use ctx_cache::CtxCache;
pub use error::Error;
pub use event::{Event, Inherit, Target};
pub use foreign::swallowed_panics;
pub use path::{MAX_DEPTH, MAX_PATHS, SpawnPath};
pub use pmu::{Edge, Pmu, PmuHandle, Retention, Switch};
pub use site::{MAX_SITES, Site};
pub use snapshot::{Live, PathCounts};
pub use system::System;
pub use task::{OwnedTask, Task, TaskId};

/// Runs the README's example as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
