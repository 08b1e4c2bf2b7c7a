//! Where a module's file may be, and where its debug information may be if the file has none.

use crate::module::Module;
use crate::symbolizer::Origin;
use object::LittleEndian;
use object::read::elf::ElfFile64;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// An ELF file of this machine's kind.
pub(crate) type Elf<'d, R> = ElfFile64<'d, LittleEndian, R>;

/// A place where a file may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Path(PathBuf),
    /// The file of the program that runs this code, whatever its name leads to by now.
    RunningProgram,
}

/// Returns why the path that a profile has for a module is not opened, if it is not.
pub(crate) fn refusal(module: &Module, origin: Origin) -> Option<io::Error> {
    // Reading there may have effects, and no program that was recorded has its code there.
    const KERNELS: [&str; 3] = ["/dev", "/proc", "/sys"];
    let own = Path::new(path(module));
    let leads_up = own.components().any(|part| part == Component::ParentDir);
    let is_refused =
        !own.is_absolute() || leads_up || KERNELS.iter().any(|folder| own.starts_with(folder));
    (origin == Origin::Recorded && is_refused).then(|| {
        let why =
            "a profile's path is opened only if it is absolute and outside /dev, /proc and /sys";
        io::Error::new(io::ErrorKind::InvalidInput, why)
    })
}

/// Returns the path of the module's file.
pub(crate) fn path(module: &Module) -> &str {
    module.path.trim_end_matches(" (deleted)")
}

/// Returns places that may have the mapped file. Who reads them compares build ids.
pub(crate) fn of_module(module: &Module, origin: Origin, folders: &[PathBuf]) -> Vec<Place> {
    let own = Path::new(path(module));
    let mut places: Vec<_> = in_folders(own, folders).map(Place::Path).collect();
    if origin == Origin::Recorded {
        let is_opened = refusal(module, origin).is_none();
        places.extend(is_opened.then(|| Place::Path(own.to_owned())));
        return places;
    }
    if std::fs::read_link("/proc/self/exe").is_ok_and(|program| program == own) {
        places.push(Place::RunningProgram);
    }
    places.push(Place::Path(own.to_owned()));
    // The kernel has links to the mapped files. The build id tells whether a link leads to the right file.
    if !module.build_id.is_empty() {
        places.push(Place::RunningProgram);
        let links = module.ranges.iter().map(|range| &range.addresses);
        let links = links.map(|it| format!("/proc/self/map_files/{:x}-{:x}", it.start, it.end));
        places.extend(links.map(|link| Place::Path(link.into())));
    }
    places
}

/// Returns paths of files that may have the module's debug information, if its own file has none.
///
/// `link` is the name that the file itself gives.
pub(crate) fn with_debug_info(
    module: &Module,
    origin: Origin,
    folders: &[PathBuf],
    link: Option<&[u8]>,
) -> Vec<PathBuf> {
    let mut places: Vec<_> = by_build_id(&module.build_id, folders).collect();
    let own = Path::new(path(module));
    let Some(name) = own.file_name() else { return places };
    let mut debug_name = name.to_owned();
    debug_name.push(".debug");
    places.extend(folders.iter().map(|folder| folder.join(&debug_name)));
    let link = link.map(|link| Path::new(std::ffi::OsStr::from_bytes(link)));
    let Some(link) = link.filter(|link| link.components().count() == 1) else { return places };
    if refusal(module, origin).is_none() {
        let beside = own.parent().unwrap_or(Path::new("/"));
        let below = Path::new(INSTALLED).join(beside.strip_prefix("/").unwrap_or(beside));
        places.extend([beside.join(link), beside.join(".debug").join(link), below.join(link)]);
    }
    places.extend(folders.iter().map(|folder| folder.join(link)));
    places
}

/// Where distributions install debug information.
const INSTALLED: &str = "/usr/lib/debug";

/// Returns where debug information with this build id may be.
pub(crate) fn by_build_id(build_id: &[u8], folders: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    let digits: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = digits.split_at_checked(2);
    let name = name.map(|(first, rest)| format!(".build-id/{first}/{rest}.debug"));
    let all = folders.iter().map(PathBuf::as_path).chain([Path::new(INSTALLED)]);
    all.filter_map(move |folder| Some(folder.join(name.as_ref()?)))
}

/// Returns where a file may be in folders that somebody has named: below its whole path, or by its name.
fn in_folders(own: &Path, folders: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    let whole = own.strip_prefix("/").unwrap_or(own);
    let ways = [Some(whole), own.file_name().map(Path::new)];
    folders.iter().flat_map(move |folder| ways.into_iter().flatten().map(|way| folder.join(way)))
}
