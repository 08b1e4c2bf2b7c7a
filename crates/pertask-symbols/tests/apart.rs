//! Debug information that stands apart from the program: split, linked, compressed by dwz, or collected in folders; and
//! addresses that another process recorded.

#![cfg(target_os = "linux")]

mod support;

use pertask_symbols::{Module, ModuleRange, Reason, Symbolizer, SymbolizerOptions};
use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use support::{Loaded, Place, RUST, has_all, library, modules, names, only, run};

/// The functions at the addresses of `shown`, wherever something is inlined.
fn inlined(symbolizer: &mut Symbolizer, loaded: &Loaded) -> Option<Vec<String>> {
    let all = (0..64).map(|at| symbolizer.frames(loaded.shown() + at));
    let found = all.into_iter().find(|frames| frames.len() == 2)?;
    Some(names(&found).into_iter().map(str::to_owned).collect())
}

#[test]
fn split_debug_information_is_read_from_its_file_or_its_package() {
    let place = Place::new("split");
    // GNU dwp makes no packages of version 5 (seen in binutils 2.40).
    for (version, packer) in [("-gdwarf-4", "dwp"), ("-gdwarf-5", "llvm-dwp")] {
        let name = format!("split{version}.so");
        let Some(library) = library(&place, &name, &["-g", version, "-gsplit-dwarf"]) else {
            return;
        };
        let loaded = Loaded::load(&library);
        has_all(&mut Symbolizer::new(&modules()), &loaded);
        let package = format!("{}.dwp", library.display());
        if !run(packer, &["-e", library.to_str().unwrap(), "-o", &package]) {
            continue;
        }
        remove_units(&place);
        has_all(&mut Symbolizer::new(&modules()), &loaded);
    }
}

#[test]
fn where_split_debug_information_is_missing_a_remark_says_so_and_no_name_has_anothers_file() {
    let place = Place::new("split-missing");
    let Some(library) = library(&place, "split.so", &["-g", "-gsplit-dwarf"]) else { return };
    let loaded = Loaded::load(&library);
    remove_units(&place);
    let mut symbolizer = Symbolizer::new(&modules());
    for at in 0..16 {
        let frames = symbolizer.frames(loaded.shown() + at);
        assert_eq!(names(&frames), ["shown"]);
        assert_eq!((&frames[0].file, frames[0].line), (&None, None));
    }
    let problem = only(symbolizer.problems());
    assert!(matches!(&problem.reason, Reason::SplitMissing { file } if file.ends_with(".dwo")));
}

fn remove_units(place: &Place) {
    for entry in fs::read_dir(place.at("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "dwo") {
            fs::remove_file(path).unwrap();
        }
    }
}

/// A program of rustc's, as `split-debuginfo` makes it.
#[test]
fn rusts_split_debug_information_is_read() {
    let place = Place::new("rust-split");
    let source = place.at("library.rs");
    fs::write(&source, RUST).unwrap();
    for kind in ["packed", "unpacked"] {
        let library = place.at(&format!("{kind}.so"));
        let split = format!("-Csplit-debuginfo={kind}");
        let (source, out) = (source.to_str().unwrap(), library.to_str().unwrap());
        let arguments = ["--crate-type=cdylib", "--crate-name=app", "--edition=2024"];
        let more = ["-Copt-level=2", "-Cdebuginfo=2", &split, "-o", out, source];
        if !run("rustc", &[&arguments[..], &more[..]].concat()) {
            return;
        }
        let loaded = Loaded::load(&library);
        let mut symbolizer = Symbolizer::new(&modules());
        let all = (0..64).map(|at| symbolizer.frames(loaded.hidden() + at));
        let found = all.into_iter().find(|frames| frames.len() > 1);
        let found = found.unwrap_or_else(|| panic!("{kind}: {:?}", symbolizer.problems()));
        assert_eq!(names(&found)[found.len() - 2..], ["app::parse::inner", "app::parse::run"]);
    }
}

/// Moves the debug information of a library into a file of its own, whose name it then gives.
fn linked(place: &Place, debug: &Path, library: &Path) -> bool {
    let (library, debug) = (library.to_str().unwrap(), debug.to_str().unwrap());
    let link = format!("--add-gnu-debuglink={debug}");
    fs::create_dir_all(place.at(".debug")).unwrap();
    run("objcopy", &["--only-keep-debug", library, debug])
        && run("objcopy", &["--strip-all", &link, library])
}

#[test]
fn a_link_to_debug_information_beside_the_program_is_followed() {
    let place = Place::new("linked");
    for debug in ["library.debug", ".debug/library.debug"] {
        let name = format!("library{}.so", debug.len());
        let Some(library) = library(&place, &name, &["-g"]) else { return };
        if !linked(&place, &place.at(debug), &library) {
            return;
        }
        let loaded = Loaded::load(&library);
        has_all(&mut Symbolizer::new(&modules()), &loaded);
        fs::remove_file(place.at(debug)).unwrap();
        let mut symbolizer = Symbolizer::new(&modules());
        assert!(symbolizer.frames(loaded.hidden()).is_empty());
    }
}

#[test]
fn a_link_to_another_builds_debug_information_is_not_believed() {
    let place = Place::new("linked-other");
    let Some(one) = library(&place, "one.so", &["-g"]) else { return };
    let Some(other) = library(&place, "other.so", &["-g", "-O2"]) else { return };
    let (debug, wrong) = (place.at("one.debug"), place.at("other.debug"));
    if !linked(&place, &debug, &one) || !linked(&place, &wrong, &other) {
        return;
    }
    fs::rename(&wrong, &debug).unwrap();
    let loaded = Loaded::load(&one);
    let mut symbolizer = Symbolizer::new(&modules());
    assert!(symbolizer.frames(loaded.hidden()).is_empty());
}

#[test]
fn what_dwz_has_shared_within_a_file_is_read() {
    let place = Place::new("dwz");
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let Some(library) = library(&place, &format!("dwz{version}.so"), &["-g", version]) else {
            return;
        };
        if !run("dwz", &[library.to_str().unwrap()]) {
            return;
        }
        let loaded = Loaded::load(&library);
        has_all(&mut Symbolizer::new(&modules()), &loaded);
    }
}

#[test]
fn what_dwz_has_shared_between_files_is_read_or_said_to_be_missing() {
    let place = Place::new("dwz-shared");
    let shared = place.at("shared.debug");
    let Some(one) = library(&place, "one.so", &["-g"]) else { return };
    let Some(other) = library(&place, "other.so", &["-g"]) else { return };
    let [one_path, other_path] = [&one, &other].map(|it| it.to_str().unwrap());
    if !run("dwz", &["-m", shared.to_str().unwrap(), one_path, other_path]) || !shared.exists() {
        return;
    }
    let loaded = Loaded::load(&one);
    has_all(&mut Symbolizer::new(&modules()), &loaded);
    fs::remove_file(&shared).unwrap();
    let mut symbolizer = Symbolizer::new(&modules());
    let frames = symbolizer.frames(loaded.hidden());
    assert!(frames.is_empty() || names(&frames) == ["hidden"], "{frames:?}");
    let problem = only(symbolizer.problems());
    assert!(matches!(&problem.reason, Reason::SharedMissing { .. }), "{problem:?}");
}

#[test]
fn addresses_that_were_recorded_have_the_same_functions() {
    let place = Place::new("recorded");
    let Some(library) = library(&place, "library.so", &["-g"]) else { return };
    let loaded = Loaded::load(&library);
    let of_process = modules();
    let recorded: Vec<_> = of_process
        .iter()
        .map(|it| Module::new(it.path.clone(), it.build_id.clone(), it.ranges.clone()))
        .collect();
    let mut now = Symbolizer::new(&of_process);
    let mut later = Symbolizer::of_recorded(&recorded, &SymbolizerOptions::default());
    let own = inlined as *const () as usize as u64;
    let libcs = libc::getenv as *const () as usize as u64;
    for address in [own, libcs, loaded.hidden(), loaded.shown()] {
        assert_eq!(later.frames(address + 1), now.frames(address + 1));
        assert!(!later.frames(address + 1).is_empty());
    }
    has_all(&mut later_of(&recorded), &loaded);
}

fn later_of(recorded: &[Module]) -> Symbolizer {
    Symbolizer::of_recorded(recorded, &SymbolizerOptions::default())
}

#[test]
fn without_a_build_id_nothing_shows_that_a_file_is_the_right_one() {
    let place = Place::new("no-id");
    let Some(library) = library(&place, "library.so", &["-g", "-Wl,--build-id=none"]) else {
        return;
    };
    let loaded = Loaded::load(&library);
    let path = library.to_str().unwrap();
    let module = modules().into_iter().find(|it| it.path == path).unwrap();
    let mut symbolizer = later_of(&[Module::new(path, Vec::new(), module.ranges.clone())]);
    assert_eq!(inlined(&mut symbolizer, &loaded).unwrap(), ["folded", "shown"]);
    let problem = only(symbolizer.problems());
    assert!(matches!(problem.reason, Reason::NotIdentified), "{problem:?}");
}

/// Whether a thread of this process sleeps.
fn sleeps(thread: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('S'))
}

#[test]
fn a_recorded_path_that_is_no_regular_file_is_not_even_opened() {
    let place = Place::new("not-opened");
    let pipe = place.at("pipe");
    let name = CString::new(pipe.to_str().unwrap()).unwrap();
    // SAFETY: a string that ends.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let (tell, told) = std::sync::mpsc::channel();
    let own = pipe.clone();
    // Who opens a pipe to write waits until somebody opens it to read, if only for a moment.
    let writer = std::thread::spawn(move || {
        // SAFETY: it takes nothing and gives a number.
        tell.send(unsafe { libc::gettid() }).unwrap();
        fs::OpenOptions::new().write(true).open(own)
    });
    let thread = told.recv().unwrap();
    while !sleeps(thread) {
        std::thread::yield_now();
    }
    let module = Module::new(pipe.to_str().unwrap(), vec![1; 20], vec![ModuleRange::new(0..9, 0)]);
    let mut symbolizer = later_of(&[module]);
    assert!(symbolizer.frames(1).is_empty());
    let problem = only(symbolizer.problems());
    assert!(matches!(problem.reason, Reason::Unreadable(_)), "{problem:?}");
    // Who was woken does not sleep until it ends.
    let still_waits = sleeps(thread);
    let reader = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&pipe);
    writer.join().unwrap().unwrap();
    drop(reader);
    assert!(still_waits, "somebody has opened the pipe");
}

#[test]
fn a_recorded_path_that_leads_to_the_kernel_or_to_nowhere_certain_is_not_opened() {
    let place = Place::new("refused");
    let Some(library) = library(&place, "library.so", &["-g"]) else { return };
    let loaded = Loaded::load(&library);
    let path = library.to_str().unwrap();
    let module = modules().into_iter().find(|it| it.path == path).unwrap();
    let name = library.file_name().unwrap().to_str().unwrap();
    let file = fs::File::open(&library).unwrap();
    let down = "..".to_owned() + &"/..".repeat(20) + path;
    let (root, fd) = (format!("/proc/self/root{path}"), format!("/dev/fd/{}", file.as_raw_fd()));
    for path in [down, root, fd, format!("{}/../{name}", place.at(".debug").display())] {
        fs::create_dir_all(place.at(".debug")).unwrap();
        assert!(fs::File::open(&path).is_ok(), "{path}");
        let recorded = Module::new(&*path, module.build_id.clone(), module.ranges.clone());
        let mut symbolizer = later_of(std::slice::from_ref(&recorded));
        assert!(symbolizer.frames(loaded.hidden()).is_empty(), "{path}");
        assert!(only(symbolizer.problems()).to_string().contains("outside /dev"));
        // A folder that somebody has named is another matter.
        let mut options = SymbolizerOptions::default();
        options.folders = vec![place.at("")];
        let mut symbolizer = Symbolizer::of_recorded(&[recorded], &options);
        let is_found = !path.starts_with("/dev");
        assert_eq!(symbolizer.frames(loaded.hidden()).is_empty(), !is_found, "{path}");
    }
}

#[test]
fn whatever_is_wrong_with_a_file_it_is_no_panic() {
    let place = Place::new("damaged");
    let flags = ["-g", "-Wl,--build-id=none"];
    let Some(library) = library(&place, "library.so", &flags) else { return };
    let loaded = Loaded::load(&library);
    let path = library.to_str().unwrap();
    let module = modules().into_iter().find(|it| it.path == path).unwrap();
    let whole = fs::read(&library).unwrap();
    let damaged = place.at("damaged.so");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..1 + round % 40 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = (random >> 16) as usize % bytes.len();
            bytes[at] = random as u8;
        }
        fs::write(&damaged, &bytes).unwrap();
        let path = damaged.to_str().unwrap();
        let mut symbolizer = later_of(&[Module::new(path, Vec::new(), module.ranges.clone())]);
        for at in 0..32 {
            symbolizer.frames(loaded.shown() + at);
            symbolizer.frames(loaded.hidden() + at);
        }
    }
}
