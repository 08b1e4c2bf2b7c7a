//! Samples that are written without names: they get the same names later, and writing them needs little memory.

#![cfg(target_os = "linux")]

mod support;

use pertask::profile::{Profile, Sample};
use pertask::sampler::{RawProfile, ResolveOptions, Sampler, SamplerOptions, resolve};
use pertask::{LabelExt, TaskExt, scope};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use support::alone;

/// The system's allocator, which says how much is in use.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: it is the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: by the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: by the caller's contract.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Returns how much more than before was in use at most, and how much more is in use after.
fn heap_of<T>(run: impl FnOnce() -> T) -> (usize, usize, T) {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = run();
    let (peak, after) = (PEAK.load(Relaxed), NOW.load(Relaxed));
    (peak.saturating_sub(before), after.saturating_sub(before), result)
}

#[inline(never)]
fn spin(until: Instant) -> u64 {
    let mut sum = 0;
    while Instant::now() < until {
        sum = black_box((0..10_000_u64).fold(sum, |a, b| black_box(a ^ b)));
    }
    sum
}

fn spun(until: Instant) {
    black_box(spin(until));
}

/// Runs `work` until it has been sampled so often.
fn sampled(least: usize, work: impl Fn(Instant)) -> RawProfile {
    for longer in 0..8 {
        let sampler = Sampler::start(SamplerOptions::with_frequency(997)).unwrap();
        let run = async { work(Instant::now() + Duration::from_millis(100 << longer)) };
        let run = async {
            let _scope = scope!("busy");
            run.await;
        };
        futures::executor::block_on(run.labels([("tenant", "acme")]).task("GET /"));
        let raw = sampler.stop();
        if raw.samples.iter().filter(|it| it.task.is_some() && it.complete).count() >= least {
            return raw;
        }
    }
    panic!("the thread is not sampled");
}

fn unresolved(raw: &RawProfile) -> Profile {
    let mut file = Vec::new();
    raw.write_pprof_unresolved(&mut file).unwrap();
    Profile::from_pprof(&file[..]).unwrap()
}

/// The functions of a sample, innermost first, and `+` for an address without.
fn functions<'p>(profile: &'p Profile, sample: &Sample) -> Vec<&'p str> {
    let mut names = Vec::new();
    for location in sample.stack.iter().filter_map(|id| profile.location(*id)) {
        let lines = location.lines.iter().filter_map(|line| profile.function(line.function));
        names.extend(lines.map(|function| &*function.name));
        names.extend(location.lines.is_empty().then_some("+"));
    }
    names
}

/// Everything that samples say, whatever the order of the tables.
fn content(profile: &Profile) -> BTreeMap<String, (u64, u64)> {
    let mut all = BTreeMap::new();
    for sample in &profile.samples {
        let Sample { task, thread, scopes, labels, complete, .. } = sample;
        let stack = functions(profile, sample);
        let key = format!("{stack:?} {task:?} {thread:?} {scopes:?} {labels:?} {complete}");
        let sum: &mut (u64, u64) = all.entry(key).or_default();
        *sum = (sum.0 + sample.count, sum.1 + sample.time_ns);
    }
    all
}

#[test]
fn names_that_are_found_later_are_those_that_are_found_at_once() {
    let _alone = alone();
    let raw = sampled(5, spun);
    let (at_once, written) = (raw.resolve(), unresolved(&raw));
    let named = |profile: &Profile| {
        let all = profile.samples.iter().map(|sample| functions(profile, sample).concat());
        all.filter(|names| names.contains("unresolved::spin")).count()
    };
    assert_eq!(named(&written), 0);
    assert!(named(&at_once) > 0);
    let later = resolve(&written, &ResolveOptions::default());
    assert_eq!(content(&later), content(&at_once));
    assert_eq!((later.lost, later.duration_ns), (at_once.lost, at_once.duration_ns));
    assert_eq!((later.start, &later.mechanism), (at_once.start, &at_once.mechanism));
    assert_eq!(later.task_root, None);
    // Names that are there already stay, and stacks end where they ended.
    assert_eq!(content(&resolve(&later, &ResolveOptions::default())), content(&later));
}

#[test]
fn a_file_of_another_build_gives_no_names_and_a_remark_names_both_build_ids() {
    let _alone = alone();
    let raw = sampled(5, spun);
    let mut written = unresolved(&raw);
    let program = written.mappings[0].clone();
    for mapping in written.mappings.iter_mut().filter(|it| it.file == program.file) {
        mapping.build_id = "00112233".into();
    }
    let named = resolve(&written, &ResolveOptions::default());
    assert!(!content(&named).keys().any(|key| key.contains("unresolved::spin")));
    let said = named.remarks.iter().find(|it| it.contains("00112233")).expect("a remark");
    assert!(said.contains(&*program.file) && said.contains(&*program.build_id), "{said}");
}

#[test]
fn writing_without_names_needs_little_memory_and_names_give_theirs_back() {
    let _alone = alone();
    let mut raw = sampled(5, spun);
    // As many as a long session has.
    let some = raw.samples.clone();
    for at in 0..100_000 {
        let mut sample = some[at % some.len()].clone();
        sample.task = sample.task.map(|task| task + (at % 25_000) as u64);
        raw.samples.push(sample);
    }
    let (peak, left, ()) = heap_of(|| raw.write_pprof_unresolved(std::io::sink()).unwrap());
    assert!(peak < 8 << 20, "writing took {peak} bytes");
    assert!(left < 1 << 20, "{left} bytes stay");
    let (_, left, ()) = heap_of(|| drop(raw.resolve()));
    assert!(left < 1 << 20, "{left} bytes stay");
}

#[test]
fn with_too_little_memory_there_are_fewer_names_and_a_remark() {
    let _alone = alone();
    let raw = sampled(5, spun);
    let mut options = ResolveOptions::default();
    options.memory_bytes = 1_000;
    let profile = raw.resolve_with(&options);
    assert_eq!(profile.samples.iter().map(|it| it.time_ns).sum::<u64>(), raw.carried_cpu_ns());
    let said = profile.remarks.iter().find(|it| it.contains("raise the limit"));
    assert!(said.is_some(), "{:?}", profile.remarks);
}

/// Code that counts its argument down, on a page that no file has.
#[cfg(target_arch = "x86_64")]
fn generated_code() -> extern "C" fn(u64) {
    // mov rax, rdi; dec rax; jnz -5; ret
    const CODE: [u8; 9] = [0x48, 0x89, 0xf8, 0x48, 0xff, 0xc8, 0x75, 0xfb, 0xc3];
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let access = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    // SAFETY: new memory, which is filled with a function of that type before it is called.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0);
        assert_ne!(page, libc::MAP_FAILED);
        page.cast::<[u8; 9]>().write(CODE);
        std::mem::transmute::<*mut libc::c_void, extern "C" fn(u64)>(page)
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn code_that_no_file_holds_is_called_that_or_has_its_compilers_name() {
    let _alone = alone();
    let code = generated_code();
    let raw = sampled(5, |until| {
        while Instant::now() < until {
            code(1_000_000);
        }
    });
    let innermost = |profile: &Profile| -> Vec<String> {
        let own = profile.samples.iter().filter(|it| it.task.is_some() && it.count > 0);
        own.map(|sample| functions(profile, sample)[0].to_owned()).collect()
    };
    for profile in [raw.resolve(), unresolved(&raw)] {
        let names = innermost(&profile);
        assert!(names.iter().any(|name| name == "[anonymous code]"), "{names:?}");
    }
    let list = format!("/tmp/perf-{}.map", std::process::id());
    let line = format!("{:x} 9 wasm[0]::function[3]\n", code as *const () as usize);
    std::fs::write(&list, line).unwrap();
    let (named, written) = (raw.resolve(), unresolved(&raw));
    std::fs::remove_file(&list).unwrap();
    // The name is in the file: who reads it has no such list.
    for profile in [named, resolve(&written, &ResolveOptions::default())] {
        let names = innermost(&profile);
        assert!(names.iter().any(|name| name == "wasm[0]::function[3]"), "{names:?}");
        assert!(!names.iter().any(|name| name == "[anonymous code]"), "{names:?}");
    }
    // No table says how to unwind through such code, so nobody can say that its callers are all there.
    let of_code = |sample: &&Sample| functions(&written, sample)[0].starts_with("wasm");
    assert!(!written.samples.iter().filter(of_code).any(|sample| sample.complete));
}

/// A jitdump with one function, as a compiler writes it.
#[cfg(target_arch = "x86_64")]
fn jitdump(function: u64, name: &str) -> Vec<u8> {
    let mut record = [0_u8; 16].to_vec();
    record.extend([function, 9, 1].iter().flat_map(|number| number.to_ne_bytes()));
    record.extend(name.bytes().chain([0]));
    let mut dump = [0x4a69_5444_u32, 1, 40, 62, 0, 0].map(u32::to_ne_bytes).concat();
    dump.extend([0; 16]);
    dump.extend([0_u32, record.len() as u32 + 16].iter().flat_map(|word| word.to_ne_bytes()));
    dump.extend([0; 8]);
    dump.extend(record);
    dump
}

#[test]
#[cfg(target_arch = "x86_64")]
fn code_that_no_file_holds_has_its_name_in_a_jitdump() {
    use std::os::fd::AsRawFd;
    let _alone = alone();
    let code = generated_code();
    let path = std::env::temp_dir().join(format!("jit-{}.dump", std::process::id()));
    std::fs::write(&path, jitdump(code as *const () as u64, "jitted")).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let access = libc::PROT_READ | libc::PROT_EXEC;
    // SAFETY: a new mapping, where the kernel likes. Nobody reads there.
    let page = unsafe {
        libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
    };
    let raw = sampled(5, |until| {
        while Instant::now() < until {
            code(1_000_000);
        }
    });
    let profile = unresolved(&raw);
    std::fs::remove_file(&path).unwrap();
    // SAFETY: the mapping of this test.
    unsafe { libc::munmap(page, 4096) };
    let names = profile.samples.iter().map(|sample| functions(&profile, sample).concat());
    let names: Vec<_> = names.collect();
    assert!(names.iter().any(|name| name.starts_with("jitted")), "{names:?}");
}
