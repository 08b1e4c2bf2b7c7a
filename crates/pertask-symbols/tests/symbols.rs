//! Symbols: the right names, files and lines, from every place where they may be; and from no wrong file.

#![cfg(target_os = "linux")]

mod support;

use pertask_symbols::{
    Frame, MappedElf, MappedFiles, Memory, Module, Reason, Symbolizer, SymbolizerOptions,
    mappings_of,
};
use std::ffi::{CString, c_int, c_void};
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use support::{
    Loaded, Place, RUST, has_all, has_name_only, library, loudly, modules, names, only, run,
};

/// An address in the call of this function.
#[inline(never)]
fn here() -> u64 {
    let mut frames = [std::ptr::null_mut::<c_void>(); 4];
    unsafe extern "C" {
        fn backtrace(buffer: *mut *mut c_void, size: c_int) -> c_int;
    }
    // SAFETY: a buffer of the size that is given.
    let count = unsafe { backtrace(frames.as_mut_ptr(), 4) };
    assert!(count >= 2);
    black_box(frames[1].addr() as u64 - 1)
}

fn own(address: u64) -> Arc<[Frame]> {
    Symbolizer::new(&modules()).frames(address)
}

fn address(function: *const ()) -> u64 {
    function.addr() as u64
}

fn is_here(frame: &Frame, line: u32) {
    let file = frame.file.as_deref().expect("a file");
    assert!(file.ends_with("crates/pertask-symbols/tests/symbols.rs"), "{file}");
    assert!(Path::new(file).is_absolute(), "{file}");
    assert_eq!(frame.line, Some(line));
}

#[inline(never)]
fn plain() -> (u64, u32) {
    // It does something after the call, so that the call's frame is its own.
    (black_box(here()), line!())
}

#[test]
fn a_function_has_its_name_its_file_and_the_line_that_runs() {
    let (address, line) = plain();
    let frames = own(address);
    assert_eq!(frames.len(), 1, "{frames:?}");
    assert_eq!(&*frames[0].function, "symbols::plain");
    assert!(frames[0].system_name.starts_with("_"), "{frames:?}");
    assert!(frames[0].system_name.contains("plain"), "{frames:?}");
    is_here(&frames[0], line);
}

#[inline(always)]
fn innermost() -> (u64, u32) {
    (here(), line!())
}

#[inline(always)]
fn between() -> ((u64, u32), u32) {
    (innermost(), line!())
}

#[inline(never)]
fn outermost() -> (((u64, u32), u32), u32) {
    (between(), line!())
}

#[test]
fn what_is_inlined_comes_before_what_it_is_inlined_in() {
    let (((address, inner), middle), outer) = outermost();
    let frames = own(address);
    let names: Vec<_> = frames.iter().map(|frame| &*frame.function).collect();
    assert_eq!(names, ["symbols::innermost", "symbols::between", "symbols::outermost"]);
    for (frame, line) in frames.iter().zip([inner, middle, outer]) {
        is_here(frame, line);
    }
}

#[inline(never)]
fn generic<T: Default, F: Fn(T) -> u64>(f: F) -> u64 {
    black_box(f(T::default()))
}

#[test]
fn names_of_generics_closures_and_futures_are_for_people() {
    // Where these tests are optimized, it may be inlined in others.
    let innermost = |address| own(address).first().expect("a function").function.to_string();
    let closure = innermost(generic(|_: u32| black_box(here())));
    assert!(closure.contains("closures_and_futures_are_for_people::{{closure}}"), "{closure}");
    let of_generic = own(address(generic::<u32, fn(u32) -> u64> as *const ()));
    let generic = of_generic.last().expect("a function").function.to_string();
    assert!(generic.starts_with("symbols::generic"), "{generic}");
    async fn future() -> u64 {
        black_box(here())
    }
    let future = innermost(futures::executor::block_on(future()));
    assert!(future.contains("::future::{{closure}}"), "{future}");
    for name in [generic, future] {
        let hash =
            name.rsplit("::").next().is_some_and(|last| last.starts_with('h') && last.len() == 17);
        assert!(!hash, "{name}");
    }
}

#[inline(never)]
extern "C" fn looked_for_by_its_name() {
    black_box(());
}

/// As the recorder of another process looks for them.
#[test]
fn addresses_are_found_by_names_in_the_files_of_a_process() {
    looked_for_by_its_name();
    let process = std::process::id();
    let mapped = mappings_of(process).unwrap();
    let memory = Memory::Files(MappedFiles::of(process, &mapped));
    let wanted = b"looked_for_by_its_name";
    let is_wanted = |name: &[u8]| name.windows(wanted.len()).any(|part| part == wanted);
    let found: Vec<_> =
        MappedElf::all(&mapped, &memory).flat_map(|image| image.symbols(is_wanted)).collect();
    // Another test may have mapped a copy.
    let here = address(looked_for_by_its_name as *const ());
    let [symbol] = found.iter().filter(|it| it.addresses.start == here).collect::<Vec<_>>()[..]
    else {
        panic!("{here:#x} {found:#x?}");
    };
    assert!(symbol.name.ends_with("symbols::looked_for_by_its_name"), "{symbol:?}");
    assert!(!symbol.addresses.is_empty(), "{symbol:?}");
}

#[test]
fn a_function_of_the_c_library_is_found_there() {
    let modules = modules();
    let mut symbolizer = Symbolizer::new(&modules);
    let address = address(libc::getenv as *const ());
    let frames = symbolizer.frames(address + 1);
    assert_eq!(frames.last().map(|frame| &*frame.function), Some("getenv"));
    let module = &modules[symbolizer.module(address).expect("a module")];
    assert!(module.path.contains("libc"), "{}", module.path);
}

#[test]
fn the_kernels_page_has_names() {
    let library = Loaded::find("linux-vdso.so.1", libc::RTLD_NOW | libc::RTLD_NOLOAD);
    let names = ["__vdso_clock_gettime", "__kernel_clock_gettime"];
    let found = library.and_then(|library| names.iter().find_map(|name| library.symbol(name)));
    let Some(address) = found else { return loudly("SKIPPED: no clock in the vDSO") };
    let modules = modules();
    let mut symbolizer = Symbolizer::new(&modules);
    let frames = symbolizer.frames(address);
    assert!(frames[0].function.contains("clock_gettime"), "{frames:?}");
    assert_eq!(modules[symbolizer.module(address).expect("a module")].path, "[vdso]");
    assert!(symbolizer.problems().is_empty(), "{:?}", symbolizer.problems());
}

/// In a mount namespace of its own, where an empty file system covers `/proc`.
#[test]
fn without_proc_the_file_that_is_missing_is_named() {
    const COVERED: &str = "PERTASK_SYMBOLS_PROC_IS_COVERED";
    if std::env::var_os(COVERED).is_some() {
        let refused = Module::of_this_process().expect_err("nothing says what is mapped");
        assert_eq!(refused.kind(), std::io::ErrorKind::NotFound);
        return println!("said: {refused}");
    }
    let test = std::env::current_exe().expect("this program");
    let script = r#"mount -t tmpfs none /proc && exec "$0" --exact --nocapture without_proc_the_file_that_is_missing_is_named"#;
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh", "-c", script]).arg(test).env(COVERED, "1");
    let output = shell.output().map(|it| String::from_utf8_lossy(&it.stdout).into_owned());
    match output {
        Ok(text) if text.contains("running 1 test") => {
            let said =
                "/proc/thread-self/maps cannot be read (No such file or directory (os error 2))";
            assert!(text.contains(said) && text.contains("; mount /proc"), "{text}");
        }
        refused => loudly(&format!("SKIPPED: /proc cannot be covered: {refused:?}")),
    }
}

#[test]
fn where_nothing_is_nothing_is_found() {
    let mut symbolizer = Symbolizer::new(&modules());
    let on_stack = 0_u8;
    for address in [0, 1, u64::MAX, (&raw const on_stack).addr() as u64] {
        assert_eq!(symbolizer.module(address), None);
        assert!(symbolizer.frames(address).is_empty());
    }
    assert!(symbolizer.problems().is_empty(), "{:?}", symbolizer.problems());
    assert!(Symbolizer::new(&[]).frames(address(here as *const ())).is_empty());
}

/// A page that may run code, and that no file has.
fn page_of_code() -> u64 {
    let (size, flags) = (64 << 10, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let access = libc::PROT_READ | libc::PROT_EXEC;
    // SAFETY: new memory, where the kernel likes.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), size, access, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    page.addr() as u64
}

#[test]
fn code_beside_a_library_is_not_the_librarys() {
    let place = Place::new("beside");
    let mut beside = None;
    for number in 0..8 {
        // The kernel puts a new mapping below the last one.
        let page = page_of_code();
        let Some(library) = library(&place, &format!("beside{number}.so"), &["-g"]) else { return };
        let loaded = Loaded::load(&library);
        let all = pertask_symbols::mappings().unwrap();
        let before = all.iter().rfind(|mapping| mapping.range.end <= page).unwrap();
        if before.range.end == page && before.path == library.to_str().unwrap() {
            beside = Some((page, loaded));
            break;
        }
    }
    let Some((page, loaded)) = beside else { return loudly("SKIPPED: no page beside a library") };
    let mut symbolizer = Symbolizer::new(&modules());
    assert_eq!(symbolizer.module(page + 16), None, "{page:x} is no file's");
    assert!(symbolizer.frames(page + 16).is_empty());
    assert_eq!(names(&symbolizer.frames(loaded.hidden())), ["hidden"]);
}

// Libraries that the tests build, each with less in it.

/// rustc 1.95 leaves out the module of a function into which something is inlined; the symbol table has it.
#[test]
fn with_line_tables_only_a_function_has_its_module_all_the_same() {
    let place = Place::new("line-tables");
    let (source, library) = (place.at("library.rs"), place.at("library.so"));
    fs::write(&source, RUST).unwrap();
    let (source, library) = (source.to_str().unwrap(), library.to_str().unwrap());
    let kind = ["--crate-type=cdylib", "--crate-name=app", "--edition=2024", "-Copt-level=2"];
    let mut arguments = kind.to_vec();
    arguments.extend(["-Cdebuginfo=line-tables-only", "-o", library, source]);
    if !run("rustc", &arguments) {
        return;
    }
    let loaded = Loaded::load(Path::new(library));
    let start = loaded.hidden();
    let mut symbolizer = Symbolizer::new(&modules());
    let all: Vec<_> = (0..64).map(|at| symbolizer.frames(start + at)).collect();
    let inlined = all.iter().find(|frames| frames.len() > 1).expect("what is inlined");
    for frames in [&all[0], inlined] {
        let outermost = frames.last().expect("a function");
        assert_eq!(&*outermost.function, "app::parse::run", "{frames:?}");
        assert!(outermost.file.as_deref().is_some_and(|file| file.ends_with("/library.rs")));
    }
}

#[test]
fn debug_data_are_read_whatever_their_version_and_compression() {
    let place = Place::new("debug");
    let kinds: [&[&str]; 5] = [
        &["-g"],
        &["-gdwarf-4"],
        &["-gdwarf-5"],
        &["-g", "-gz=zlib", "-Wl,--compress-debug-sections=zlib"],
        &["-g", "-Wl,--compress-debug-sections=zstd"],
    ];
    for (number, flags) in kinds.iter().enumerate() {
        let Some(library) = library(&place, &format!("debug{number}.so"), flags) else { return };
        let loaded = Loaded::load(&library);
        has_all(&mut Symbolizer::new(&modules()), &loaded);
    }
}

#[test]
fn a_symbol_table_alone_gives_names() {
    let place = Place::new("table");
    let Some(library) = library(&place, "table.so", &[]) else { return };
    let loaded = Loaded::load(&library);
    let mut symbolizer = Symbolizer::new(&modules());
    has_name_only(&mut symbolizer, &loaded);
    assert_eq!(names(&symbolizer.frames(loaded.hidden())), ["hidden"]);
    let problem = only(symbolizer.problems());
    assert!(matches!(problem.reason, Reason::NoDebugInfo), "{problem:?}");
}

#[test]
fn what_is_stripped_is_not_given_its_neighbours_name() {
    let place = Place::new("stripped");
    let Some(library) = library(&place, "stripped.so", &["-g", "-s"]) else { return };
    let loaded = Loaded::load(&library);
    let mut symbolizer = Symbolizer::new(&modules());
    has_name_only(&mut symbolizer, &loaded);
    assert!(symbolizer.frames(loaded.hidden()).is_empty());
}

// Files that are not the ones that are mapped.

/// A library that is loaded, then replaced by another: nothing of the other may be believed.
fn is_refused_when_replaced(name: &str, flags: &[&str]) {
    let place = Place::new(name);
    let Some(library) = library(&place, "library.so", flags) else { return };
    let loaded = Loaded::load(&library);
    let other: Vec<_> = flags.iter().copied().chain(["-O2", "-Dhidden=another"]).collect();
    let Some(other) = self::library(&place, "other.so", &other) else { return };
    let mut modules = modules();
    let mut symbolizer = Symbolizer::new(&modules);
    has_all(&mut symbolizer, &loaded);

    fs::rename(&other, &library).unwrap();
    // As they were read before: a mapping's own name says now that its file was removed.
    let path = library.to_str().unwrap();
    let module = modules.iter_mut().find(|module| module.path == path).unwrap();
    // The kernel's link to the mapping leads to the right file, if this user may open it.
    module.ranges[0].addresses.end -= 1;
    let mut symbolizer = Symbolizer::new(&modules);
    assert!(symbolizer.frames(loaded.hidden()).is_empty());
    assert!(symbolizer.frames(loaded.shown()).is_empty());
    let problem = only(symbolizer.problems());
    let refused = matches!(problem.reason, Reason::Replaced | Reason::OtherBuild { .. });
    assert!(refused, "{problem:?}");
    assert_eq!(problem.path, path);
}

#[test]
fn a_file_with_another_build_id_is_not_believed() {
    is_refused_when_replaced("replaced", &["-g"]);
}

#[test]
fn a_file_without_build_id_is_known_by_its_code() {
    is_refused_when_replaced("code", &["-g", "-Wl,--build-id=none"]);
}

#[test]
fn a_file_that_was_removed_is_read_where_the_kernel_keeps_it() {
    let place = Place::new("removed");
    let Some(library) = library(&place, "library.so", &["-g"]) else { return };
    let loaded = Loaded::load(&library);
    fs::remove_file(&library).unwrap();
    let modules = modules();
    let mut symbolizer = Symbolizer::new(&modules);
    let module = &modules[symbolizer.module(loaded.hidden()).unwrap()];
    assert!(module.path.ends_with("library.so (deleted)"), "{}", module.path);
    let addresses = &module.ranges[0].addresses;
    let kept = format!("/proc/self/map_files/{:x}-{:x}", addresses.start, addresses.end);
    if fs::File::open(&kept).is_ok() {
        return has_all(&mut symbolizer, &loaded);
    }
    loudly("the kernel keeps removed files from who is not privileged: no symbols");
    assert!(symbolizer.frames(loaded.hidden()).is_empty());
}

#[test]
fn a_program_that_was_removed_is_read_where_the_kernel_keeps_it() {
    let mut modules = modules();
    let own = std::env::current_exe().unwrap();
    let module = modules.iter_mut().find(|module| Path::new(&module.path) == own).unwrap();
    module.path = "/nowhere/program (deleted)".to_owned();
    let (address, line) = plain();
    let frames = Symbolizer::new(&modules).frames(address);
    is_here(frames.last().expect("a function"), line);
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let place = Place::new("pipe");
    let pipe = place.at("pipe");
    let name = CString::new(pipe.to_str().unwrap()).unwrap();
    // SAFETY: a string that ends.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let mut modules = modules();
    let of_libc = modules.iter_mut().find(|module| module.path.contains("libc.so")).unwrap();
    of_libc.path = pipe.to_str().unwrap().to_owned();
    of_libc.ranges[0].file_offset = u64::MAX;
    let mut symbolizer = Symbolizer::new(&modules);
    // This test does not ask whether the kernel lets us read its link.
    symbolizer.frames(address(libc::getenv as *const ()));
}

#[test]
fn a_truncated_file_costs_its_own_symbols_only() {
    let place = Place::new("truncated");
    let Some(library) = library(&place, "library.so", &["-g"]) else { return };
    let loaded = Loaded::load(&library);
    let whole = fs::read(&library).unwrap();
    let cut = place.at("cut.so");
    let mut modules = modules();
    let path = library.to_str().unwrap().to_owned();
    let module = modules.iter_mut().find(|module| module.path == path).unwrap();
    module.path = cut.to_str().unwrap().to_owned();
    module.ranges[0].addresses.end -= 1;
    for length in [0, 10, 64, 1_000, whole.len() / 2, whole.len() - 1] {
        fs::write(&cut, &whole[..length]).unwrap();
        let mut symbolizer = Symbolizer::new(&modules);
        assert!(symbolizer.frames(loaded.hidden()).is_empty());
        let problem = only(symbolizer.problems());
        assert!(matches!(problem.reason, Reason::Malformed(_) | Reason::Replaced), "{problem:?}");
        let (address, line) = plain();
        is_here(&symbolizer.frames(address)[0], line);
    }
}

// Memory.

#[test]
fn too_little_memory_gives_names_or_nothing_and_says_so() {
    let (address, _) = plain();
    let modules = modules();
    let with_memory = |bytes| {
        let mut options = SymbolizerOptions::default();
        options.memory_bytes = bytes;
        Symbolizer::with_options(&modules, &options)
    };
    let mut symbolizer = with_memory(12 << 20);
    let frames = symbolizer.frames(address);
    assert_eq!(names(&frames), ["symbols::plain"]);
    assert_eq!(frames[0].line, None);
    assert!(matches!(only(symbolizer.problems()).reason, Reason::TooLarge { .. }));
    for bytes in [0, 1, 4_096, 100_000] {
        let mut symbolizer = with_memory(bytes);
        assert!(symbolizer.frames(address).is_empty());
        assert!(!symbolizer.problems().is_empty());
    }
}

#[test]
fn what_is_released_is_read_again_and_lacks_the_same_once() {
    let place = Place::new("released");
    let Some(library) = library(&place, "released.so", &[]) else { return };
    let loaded = Loaded::load(&library);
    let mut symbolizer = Symbolizer::new(&modules());
    for at in 0..4 {
        assert_eq!(names(&symbolizer.frames(loaded.shown() + at)), ["shown"]);
        symbolizer.release();
    }
    only(symbolizer.problems());
}
