//! Finds the modules that are mapped into this process, and the functions, files and lines of addresses in them.
//!
//! ```
//! use pertask_symbols::{Module, Symbolizer};
//!
//! let mut symbols = Symbolizer::new(&Module::of_this_process()?);
//! let address = (std::process::id as fn() -> u32 as *const ()).addr() as u64;
//! for frame in symbols.frames(address).iter() {
//!     println!("{} {}:{}", frame.function, frame.file.as_deref().unwrap_or("?"), frame.line.unwrap_or(0));
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! - A [`Module`] is a program or a library as it is mapped. It is made from the process's own memory, by [`mappings`],
//!   [`Memory`] and [`MappedElf`]. The last one also has the sections that an unwinder needs.
//! - A `Symbolizer` (feature `names`) finds the functions of addresses.

#![deny(unsafe_code)]

mod elf;
mod maps;
#[allow(unsafe_code)]
mod memory;
mod module;

#[cfg(feature = "names")]
mod demangle;
#[cfg(feature = "names")]
mod frame;
#[cfg(feature = "names")]
mod image;
#[cfg(feature = "names")]
mod problem;
#[cfg(feature = "names")]
mod symbolizer;

pub use elf::{MappedElf, UnwindSections};
#[cfg(feature = "names")]
pub use frame::Frame;
pub use maps::{Mapping, mappings};
pub use memory::Memory;
pub use module::{Module, ModuleRange};
#[cfg(feature = "names")]
pub use problem::{Problem, Reason};
#[cfg(feature = "names")]
pub use symbolizer::{Symbolizer, SymbolizerOptions};

/// The README's example compiles, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
