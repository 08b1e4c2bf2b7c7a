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
//! - [`Module::of_this_process`] lists the program and the libraries, as they are mapped. It reads the process's own memory and
//!   no file. What it is made of is there, too: [`mappings`], [`Memory`] and [`MappedElf`], which has the sections that an
//!   unwinder needs. With [`mappings_of`] and [`MappedFiles`] it works for other processes.
//! - A `Symbolizer` (feature `names`) finds the functions at an address, each as a `Frame`: several where calls are inlined.
//!   It reads the modules' files. What a file lacks is a `Problem`, with what to do about it. `Symbolizer::declarations` has the
//!   type arguments of those functions, and where each is declared.
//! - `MappedElf::symbols` (feature `names`) goes the other way: from names to addresses in another process.
//! - `GeneratedCode` (feature `names`) names code that no file holds, as a compiler at run time makes it.

#![deny(unsafe_code)]

mod elf;
mod maps;
#[allow(unsafe_code)]
mod memory;
mod module;
mod regular;

#[cfg(feature = "names")]
#[allow(unsafe_code)]
mod contents;
#[cfg(feature = "names")]
mod debug;
#[cfg(feature = "names")]
mod declaration;
#[cfg(feature = "names")]
mod demangle;
#[cfg(feature = "names")]
mod files;
#[cfg(feature = "names")]
mod frame;
#[cfg(feature = "names")]
mod generated;
#[cfg(feature = "names")]
mod image;
#[cfg(feature = "names")]
mod jitdump;
#[cfg(feature = "names")]
mod numbering;
#[cfg(feature = "names")]
mod problem;
#[cfg(feature = "names")]
mod shared;
#[cfg(feature = "names")]
mod split;
#[cfg(feature = "names")]
mod symbolizer;
#[cfg(feature = "names")]
mod symbols;
#[cfg(feature = "names")]
mod table;

#[cfg(feature = "names")]
pub use declaration::Declaration;
pub use elf::{MappedElf, UnwindSections, mappings_around};
#[cfg(feature = "names")]
pub use frame::Frame;
#[cfg(feature = "names")]
pub use generated::{ANONYMOUS_CODE, GeneratedCode};
pub use maps::{Mapping, mappings, mappings_of};
pub use memory::{MappedFiles, Memory};
pub use module::{Module, ModuleRange};
#[cfg(feature = "names")]
pub use problem::{Problem, Reason};
pub use regular::open_regular;
#[cfg(feature = "names")]
pub use symbolizer::{Symbolizer, SymbolizerOptions};
#[cfg(feature = "names")]
pub use symbols::Symbol;

/// The README's example compiles, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
