//! What the tests share: libraries that they build and load.
#![allow(dead_code, reason = "each file of tests uses a part of it")]

use pertask_symbols::{Frame, Module, Problem, Symbolizer};
use std::ffi::{CString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Not caught with the output of a test that passes.
pub fn loudly(message: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// The modules that are mapped now.
pub fn modules() -> Vec<Module> {
    Module::of_this_process().expect("memory that can be read")
}

/// A directory for one test.
pub struct Place(PathBuf);

impl Place {
    pub fn new(name: &str) -> Self {
        let name = format!("pertask-symbols-{name}-{}", std::process::id());
        let place = std::env::temp_dir().join(name);
        fs::create_dir_all(&place).unwrap();
        Self(fs::canonicalize(place).unwrap())
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns whether a program is installed, and runs it.
///
/// # Panics
/// If it fails.
pub fn run(program: &str, arguments: &[&str]) -> bool {
    match Command::new(program).args(arguments).output() {
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{program} {arguments:?}: {}: {said}", done.status);
            true
        }
        Err(error) => {
            loudly(&format!("SKIPPED: there is no {program}: {error}"));
            false
        }
    }
}

/// In this library of Rust, `run` has another function inlined, and `where_hidden` tells its address.
pub const RUST: &str = "
pub mod parse {
    #[inline(always)]
    fn inner(x: u64) -> u64 { std::hint::black_box(x).wrapping_mul(3) }
    #[inline(never)]
    pub fn run(x: u64) -> u64 { std::hint::black_box(inner(x) + 1) }
}
#[unsafe(no_mangle)]
pub extern \"C\" fn where_hidden() -> usize {
    std::hint::black_box(parse::run(1));
    parse::run as *const () as usize
}
";

/// `hidden` is on lines 1 to 3, and is called on line 7; `shown` is the only one that others can link to, but for what tells
/// the other's address.
pub const LIBRARY: &str = "__attribute__((noinline)) static int hidden(volatile int *x) {
  return *x + 3;
}
static inline __attribute__((always_inline)) int folded(volatile int *x) {
  return *x * 7;
}
int shown(volatile int *x) { return hidden(x) + folded(x); }
void *where_hidden(void) { return (void *)hidden; }
";

/// A library of the source above, if there is a compiler.
pub fn library(place: &Place, name: &str, flags: &[&str]) -> Option<PathBuf> {
    let (source, library) = (place.at("library.c"), place.at(name));
    fs::write(&source, LIBRARY).unwrap();
    let always = ["-shared", "-fPIC", "-O1", "-fomit-frame-pointer", "-Wl,--build-id", "-o"];
    let mut arguments = always.to_vec();
    arguments.extend([library.to_str().unwrap(), source.to_str().unwrap()]);
    arguments.extend(flags);
    run("cc", &arguments).then_some(library)
}

/// A library in this process, for good.
pub struct Loaded(*mut c_void);

impl Loaded {
    pub fn find(name: &str, flags: c_int) -> Option<Self> {
        let name = CString::new(name).unwrap();
        // SAFETY: a string that ends, and a library whose constructors are the compiler's.
        let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
        (!handle.is_null()).then_some(Self(handle))
    }

    pub fn load(path: &Path) -> Self {
        Self::find(path.to_str().unwrap(), libc::RTLD_NOW).expect("it can be loaded")
    }

    pub fn symbol(&self, name: &str) -> Option<u64> {
        let name = CString::new(name).unwrap();
        // SAFETY: a handle of a library that stays, and a string that ends.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr().cast::<c_char>()) };
        (!address.is_null()).then_some(address.addr() as u64)
    }

    pub fn shown(&self) -> u64 {
        self.symbol("shown").unwrap()
    }

    pub fn hidden(&self) -> u64 {
        let tell = self.symbol("where_hidden").unwrap() as usize;
        // SAFETY: it is the function of that type in the source above.
        let tell = unsafe { std::mem::transmute::<usize, extern "C" fn() -> usize>(tell) };
        tell() as u64
    }
}

pub fn names(frames: &[Frame]) -> Vec<&str> {
    frames.iter().map(|frame| &*frame.function).collect()
}

/// Asserts that both functions are found with file and line, and that nothing lacks.
pub fn has_all(symbolizer: &mut Symbolizer, loaded: &Loaded) {
    let hidden = symbolizer.frames(loaded.hidden());
    assert_eq!(names(&hidden), ["hidden"], "{:?}", symbolizer.problems());
    assert!(hidden[0].file.as_deref().is_some_and(|file| file.ends_with("/library.c")));
    assert!(matches!(hidden[0].line, Some(1..=3)), "{hidden:?}");
    let all = (0..64).map(|at| symbolizer.frames(loaded.shown() + at));
    let folded = all.into_iter().find(|frames| frames.len() == 2).expect("what is inlined");
    assert_eq!(names(&folded), ["folded", "shown"]);
    assert_eq!((folded[0].line, folded[1].line), (Some(5), Some(7)));
    assert!(symbolizer.problems().is_empty(), "{:?}", symbolizer.problems());
}

/// Asserts that `shown` has its name, and nothing else.
pub fn has_name_only(symbolizer: &mut Symbolizer, loaded: &Loaded) {
    let shown = symbolizer.frames(loaded.shown());
    assert_eq!(names(&shown), ["shown"]);
    assert_eq!((&shown[0].file, shown[0].line), (&None, None));
}

pub fn only(problems: &[Problem]) -> &Problem {
    assert_eq!(problems.len(), 1, "{problems:?}");
    loudly(&format!("says: {}", problems[0]));
    &problems[0]
}
