//! Libraries that are loaded, called, and unloaded again, all the time.

use crate::harness::{
    HZ, options, rounds, sample_enough, skip, start, stop, thread_cpu_ns, torture,
};
use pertask::sampler::{Mechanism, RawProfile, RawSample, Sampler};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

const SOURCE: &str = r"
#include <stdint.h>
__attribute__((noinline)) uint64_t down(int depth, uint64_t rounds, volatile uint64_t *sum) {
    if (depth == 0)
        for (uint64_t i = 0; i < rounds; i++) *sum += i * 31;
    else
        down(depth - 1, rounds, sum);
    *sum += depth;
    return *sum;
}
uint64_t work(uint64_t rounds) {
    volatile uint64_t sum = 0;
    return down(20, rounds, &sum);
}
";

/// Calls back when it is loaded and unloaded, under the loader's lock. The variable is where to.
const WITH_CONSTRUCTOR: &str = r#"
#include <stdlib.h>
static void call(int loaded) {
    const char *at = getenv("PERTASK_TORTURE_HOOK");
    if (at) ((void (*)(int))strtoul(at, 0, 16))(loaded);
}
__attribute__((constructor)) static void loaded(void) { call(1); }
__attribute__((destructor)) static void unloaded(void) { call(0); }
"#;

/// A compiled library of these sources, in a folder of its own. `None` after it has said that there is no compiler.
fn library(name: &str, source: &str) -> Option<PathBuf> {
    let folder = std::env::temp_dir().join(format!("pertask-torture-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (from, to) = (folder.join(format!("{name}.c")), folder.join(format!("lib{name}.so")));
    std::fs::write(&from, source).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&to).arg(&from);
    match cc.output() {
        Ok(done) if done.status.success() => Some(to),
        Ok(done) => panic!("{}", String::from_utf8_lossy(&done.stderr)),
        Err(why) => {
            skip(&format!("cc: {why}"));
            None
        }
    }
}

/// Removes what `library` has made.
struct Cleaned;

impl Drop for Cleaned {
    fn drop(&mut self) {
        let folder = format!("pertask-torture-{}", std::process::id());
        let _ = std::fs::remove_dir_all(std::env::temp_dir().join(folder));
    }
}

/// A library, as long as it is loaded.
struct Loaded(*mut c_void);

impl Loaded {
    fn new(path: &Path) -> Self {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a path, of a library of ours.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        // SAFETY: the loader's own text.
        let why = || unsafe { CStr::from_ptr(libc::dlerror()) };
        assert!(!handle.is_null(), "{:?}", why());
        Self(handle)
    }

    fn symbol(&self, name: &CStr) -> *mut c_void {
        let name: *const c_char = name.as_ptr();
        // SAFETY: an open library, and a name.
        unsafe { libc::dlsym(self.0, name) }
    }

    fn work(&self, amount: u64) -> u64 {
        // SAFETY: a function of that type, called while the library is there.
        unsafe {
            let work: extern "C" fn(u64) -> u64 = std::mem::transmute(self.symbol(c"work"));
            work(amount)
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once, and nobody is in it.
        assert_eq!(unsafe { libc::dlclose(self.0) }, 0);
    }
}

/// Loads it, works in it, unloads it.
fn once(path: &Path, amount: u64) -> u64 {
    Loaded::new(path).work(amount)
}

#[test]
fn loaded_called_and_unloaded_all_the_time() {
    torture(|mechanism| {
        let _cleaned = Cleaned;
        let Some(path) = library("work", SOURCE) else { return };
        let Some(sampler) = start(mechanism) else { return };
        let copies: Vec<_> = (0..3)
            .map(|which| {
                let copy = path.with_file_name(format!("libcopy{which}.so"));
                std::fs::copy(&path, &copy).unwrap();
                copy
            })
            .collect();
        let sums = AtomicU64::new(0);
        thread::scope(|scope| {
            for path in &copies {
                let sums = &sums;
                scope.spawn(move || {
                    for _ in 0..rounds(80) {
                        sums.fetch_add(once(path, 50_000), Relaxed);
                    }
                });
            }
        });
        stop(sampler);
        // It takes a moment until a library is known: long enough is it known, and stacks through it are whole.
        let work = |times| {
            let path = path.clone();
            let busy = move || {
                let loaded = Loaded::new(&path);
                let start_ns = thread_cpu_ns();
                while thread_cpu_ns() - start_ns < (rounds(300_000_000) * times) as u64 {
                    loaded.work(1_000_000);
                }
            };
            thread::spawn(busy).join().unwrap();
        };
        let through = |profile: &RawProfile| through_it(profile).count();
        let Some(profile) = sample_enough(mechanism, 20, work, through) else { return };
        let through: Vec<_> = through_it(&profile).collect();
        let whole = through.iter().filter(|(sample, _)| sample.complete).count();
        let deep = through.iter().filter(|(_, frames)| *frames > 20).count();
        crate::harness::say(&format!("{whole} whole and {deep} deep of {}", through.len()));
        assert!(whole * 2 > through.len() && deep * 2 > through.len(), "{whole}, {deep}");
    });
}

/// The samples that were taken in the library, or below it, and how many of its frames are in each.
fn through_it(profile: &RawProfile) -> impl Iterator<Item = (&RawSample, usize)> {
    let code = profile.modules.iter().filter(|module| module.path.contains("libwork"));
    let ranges: Vec<_> = code.flat_map(|module| &module.ranges).collect();
    let in_it = move |at: &&u64| ranges.iter().any(|range| range.addresses.contains(*at));
    let counted = profile.samples.iter().map(move |sample| {
        let frames = sample.stack.iter().filter(|at| in_it(at)).count();
        (sample, frames)
    });
    counted.filter(|(_, frames)| *frames > 0)
}

/// Where the libraries' constructors and destructors lead.
static HOOK: Mutex<Option<(Mechanism, Vec<Sampler>)>> = Mutex::new(None);

extern "C" fn hook(loaded: c_int) {
    let mut hook = HOOK.lock().unwrap();
    let Some((mechanism, sessions)) = &mut *hook else { return };
    if loaded == 1 {
        sessions.extend(Sampler::start(options(*mechanism, HZ)));
    } else {
        drop(sessions.pop());
    }
}

/// Constructors run under the loader's lock, which the sampler asks for too, many times a second.
#[test]
fn sessions_in_constructors_and_destructors() {
    torture(|mechanism| {
        let _cleaned = Cleaned;
        let Some(path) = library("constructor", WITH_CONSTRUCTOR) else { return };
        let at = format!("{:x}", (hook as extern "C" fn(c_int) as *const ()).addr());
        // SAFETY: the tests' threads that are there do not look at the environment now.
        unsafe { std::env::set_var("PERTASK_TORTURE_HOOK", at) };
        *HOOK.lock().unwrap() = Some((mechanism, Vec::new()));
        let Some(sampler) = start(mechanism) else { return };
        let go_on = AtomicBool::new(true);
        thread::scope(|scope| {
            scope.spawn(|| {
                while go_on.load(Relaxed) {
                    // Others come and go, so that there is much to be done under the locks.
                    drop(Sampler::start(options(mechanism, 99)));
                }
            });
            for _ in 0..rounds(30) {
                drop(Loaded::new(&path));
            }
            go_on.store(false, Relaxed);
        });
        stop(sampler);
    });
}
