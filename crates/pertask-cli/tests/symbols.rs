//! A profile that was written without names, and `pertask report`, which finds them: on the same machine, or from copies of the
//! program's files.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use pertask::profile::{Location, Mapping, ProfileBuilder, Sample};
use support::after_requests;

const PERTASK: &str = env!("CARGO_BIN_EXE_pertask");

/// A function of the demo's routes.
const FUNCTION: &str = "pertask::demo::routes::";

/// So many requests to each route are met by some samples, at a thousand a second.
const REQUESTS: usize = 20;

/// A folder of one test, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("pertask-symbols-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Records the demo, run from this file, without names.
fn record(program: &Path, profile: &Path) {
    let mut demo = Command::new(program);
    demo.args(["demo", "-F", "997", "--unresolved", "-o"]).arg(profile);
    let output = after_requests(REQUESTS, &mut demo);
    assert!(output.status.success(), "{output:?}");
}

/// A profile of a copy of the command that is no longer at its place, and the copy's path, for all tests.
fn of_moved_program() -> &'static (PathBuf, PathBuf, Vec<u8>) {
    static RECORDED: OnceLock<(PathBuf, PathBuf, Vec<u8>)> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let folder = Folder::new("moved");
        let (program, profile) = (folder.at("service"), folder.at("profile.pb.gz"));
        fs::copy(PERTASK, &program).expect("a copy");
        record(&program, &profile);
        let bytes = fs::read(&profile).expect("a profile");
        (program, profile, bytes)
    })
}

/// The report of these bytes: functions, and what is said above them.
fn report(profile: &[u8], arguments: &[&str]) -> String {
    let folder = Folder::new(&format!("report-{:?}", std::thread::current().id()));
    let file = folder.at("profile.pb.gz");
    fs::write(&file, profile).expect("a file");
    let mut command = Command::new(PERTASK);
    command.arg("report").arg(&file).args(["--by", "function", "--top", "0"]).args(arguments);
    let output = command.output().expect("to run");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_profile_without_names_gets_them_where_the_program_is() {
    let folder = Folder::new("same");
    let profile = folder.at("profile.pb.gz");
    record(Path::new(PERTASK), &profile);
    let bytes = fs::read(&profile).expect("a profile");
    let named = report(&bytes, &[]);
    assert!(named.contains(FUNCTION), "{named}");
    // Stacks of tasks end where they are polled: nothing of the runtime is in them.
    let of_tasks = report(&bytes, &["--task", "GET /hash"]);
    assert!(of_tasks.contains(FUNCTION), "{of_tasks}");
    assert!(!of_tasks.contains("std::sys::thread") && !of_tasks.contains("_start"), "{of_tasks}");
    let unnamed = report(&bytes, &["--no-symbols"]);
    assert!(!unnamed.contains(FUNCTION), "{unnamed}");
    assert!(unnamed.contains("pertask+0x"), "{unnamed}");
}

#[test]
fn where_the_program_is_not_its_functions_have_addresses_and_a_remark_says_so() {
    let (program, _, profile) = of_moved_program();
    let text = report(profile, &[]);
    assert!(!text.contains(FUNCTION) && text.contains("service+0x"), "{text}");
    let remark = format!("no symbols of {}: it cannot be read", program.display());
    assert!(text.contains(&remark), "{text}");
}

#[test]
fn a_copy_of_the_program_is_found_by_its_name_and_by_its_path() {
    let (program, _, profile) = of_moved_program();
    let folder = Folder::new("copies");
    fs::copy(PERTASK, folder.at("service")).expect("a copy");
    let named = report(profile, &["--symbols", text(&folder.0)]);
    assert!(named.contains(FUNCTION), "{named}");
    let whole = folder.at("root").join(program.strip_prefix("/").expect("a root"));
    fs::create_dir_all(whole.parent().expect("a folder")).expect("a folder");
    fs::rename(folder.at("service"), &whole).expect("a copy");
    assert!(report(profile, &["--symbols", text(&folder.at("root"))]).contains(FUNCTION));
}

#[test]
fn debug_information_alone_is_found_by_its_build_id() {
    let (_, _, profile) = of_moved_program();
    let folder = Folder::new("build-id");
    let read = Command::new("readelf").args(["-n", PERTASK]).output();
    let Ok(notes) = read.map(|it| String::from_utf8_lossy(&it.stdout).into_owned()) else { return };
    let Some((_, id)) = notes.split_once("Build ID: ") else { return };
    let id = id.split_whitespace().next().expect("digits");
    let file = folder.at(&format!(".build-id/{}/{}.debug", &id[..2], &id[2..]));
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    let mut keep = Command::new("objcopy");
    keep.args(["--only-keep-debug", PERTASK]).arg(&file);
    if !keep.status().is_ok_and(|status| status.success()) {
        return eprintln!("SKIPPED: no objcopy");
    }
    let named = report(profile, &["--symbols", text(&folder.0)]);
    assert!(named.contains(FUNCTION), "{named}");
}

#[test]
fn a_file_of_another_build_is_refused_and_both_build_ids_are_named() {
    let (program, _, profile) = of_moved_program();
    let folder = Folder::new("other");
    // Some other program with a build id of its own.
    let this = std::env::current_exe().expect("this program");
    fs::copy(this, folder.at("service")).expect("a copy");
    let text = report(profile, &["--symbols", text(&folder.0)]);
    assert!(!text.contains(FUNCTION) && text.contains("service+0x"), "{text}");
    let remark =
        format!("no symbols of {}: the build id of the code that ran is ", program.display());
    let said = text.split_once(&remark).unwrap_or_else(|| panic!("{text}")).1;
    let said = said.lines().next().expect("a line");
    assert!(said.contains(folder.at("service").to_str().expect("UTF-8")), "{said}");
    let ids = said.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == 40);
    assert_eq!(ids.collect::<std::collections::BTreeSet<_>>().len(), 2, "{said}");
}

#[test]
fn viewers_need_names() {
    let output = Command::new(PERTASK).args(["demo", "--unresolved", "-o", "x.svg"]).output();
    let output = output.expect("to run");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--unresolved writes .pb.gz files alone"), "{said}");
}

/// A profile of an address in a file of this name.
fn of_file(path: &Path) -> Vec<u8> {
    let mut builder = ProfileBuilder::new("by hand", 1_000_000);
    let file = builder.text(text(path));
    let mapping = Mapping { start: 0x1000, end: 0x9000, file, ..Mapping::default() };
    let mapping = builder.mapping(mapping);
    let location = Location { address: 0x1040, mapping, ..Location::default() };
    let stack = vec![builder.location(location)];
    builder.add(Sample { count: 1, time_ns: 1_000_000, stack, ..Sample::default() });
    let mut bytes = Vec::new();
    builder.finish(Duration::from_secs(1)).write_pprof(&mut bytes).expect("memory");
    bytes
}

#[test]
fn what_a_profile_calls_a_file_may_be_anything() {
    let folder = Folder::new("anything");
    let pipe = folder.at("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("to run");
    assert!(made.success());
    fs::write(folder.at("words"), "no program").expect("a file");
    let strange = ["/dev/zero", "/proc/self/mem", "/proc/self/maps", "..", "[vdso]", "//anon"];
    let own = [pipe, folder.at("words"), folder.0.clone(), PathBuf::from("\u{1b}[31mred")];
    for path in own.into_iter().chain(strange.map(PathBuf::from)) {
        let said = report(&of_file(&path), &[]);
        assert!(said.contains("1.00 ms of CPU time in 1 sample"), "{}: {said}", path.display());
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
}
