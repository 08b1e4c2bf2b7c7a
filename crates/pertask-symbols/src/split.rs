//! Debug information that the compiler has put into files of its own: a package (`.dwp`) beside the program, or a `.dwo` file
//! for each unit.

use crate::contents::{Bytes, Contents, Limited, Source};
use crate::files::Elf;
use crate::regular::open_regular;
use addr2line::SplitDwarfLoad;
use gimli::{Dwarf, DwarfPackage, Reader as _, SectionId};
use object::{Object as _, ReadRef};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files beside one program.
pub(crate) struct Split {
    /// Where a package may be.
    packages: Vec<PathBuf>,
    /// Where somebody has collected `.dwo` files.
    folders: Vec<PathBuf>,
    /// The package, if it has been looked for, and if there is one.
    package: Option<Option<DwarfPackage<Bytes>>>,
    /// The first file that is missing.
    pub(crate) missing: Option<String>,
}

impl Split {
    /// The files of the program at `path`.
    pub(crate) fn of(path: &str, folders: &[PathBuf]) -> Self {
        let path = Path::new(path);
        let package = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".dwp");
            PathBuf::from(name)
        };
        let name = path.file_name().map(Path::new);
        let collected = folders.iter().filter_map(|folder| Some(package(&folder.join(name?))));
        let packages = collected.chain([package(path)]).collect();
        Self { packages, folders: folders.to_owned(), package: None, missing: None }
    }

    /// Returns the debug information of a unit, or `None` if its file is missing.
    pub(crate) fn load(
        &mut self,
        wanted: &SplitDwarfLoad<Bytes>,
        room_bytes: &mut usize,
    ) -> Option<Arc<Dwarf<Bytes>>> {
        let found = self.packaged(wanted, room_bytes).or_else(|| self.single(wanted, room_bytes));
        if found.is_none() && self.missing.is_none() {
            self.missing = text(wanted.path.as_ref());
        }
        found.map(Arc::new)
    }

    fn packaged(
        &mut self,
        wanted: &SplitDwarfLoad<Bytes>,
        room_bytes: &mut usize,
    ) -> Option<Dwarf<Bytes>> {
        let Self { packages, package, .. } = self;
        let open = |at: &PathBuf| kept(room_bytes, |room| open_package(at, room));
        let package = package.get_or_insert_with(|| packages.iter().find_map(open));
        package.as_ref()?.find_cu(wanted.dwo_id, &wanted.parent).ok()?
    }

    /// Reads a unit's own file.
    fn single(
        &self,
        wanted: &SplitDwarfLoad<Bytes>,
        room_bytes: &mut usize,
    ) -> Option<Dwarf<Bytes>> {
        let path = PathBuf::from(text(wanted.path.as_ref())?);
        let name = path.file_name().map(PathBuf::from)?;
        let folder = PathBuf::from(text(wanted.comp_dir.as_ref()).unwrap_or_default());
        let collected = self.folders.iter().map(|folder| folder.join(&name));
        let mut places = collected.chain([folder.join(&path)]);
        places.find_map(|place| kept(room_bytes, |room| open_unit(&place, wanted, room)))
    }
}

/// Reads something, and gives its room back if that fails.
pub(crate) fn kept<T>(
    room_bytes: &mut usize,
    read: impl FnOnce(&mut usize) -> Option<T>,
) -> Option<T> {
    let mut room = *room_bytes;
    let found = read(&mut room)?;
    *room_bytes = room;
    Some(found)
}

fn open_package(path: &Path, room_bytes: &mut usize) -> Option<DwarfPackage<Bytes>> {
    let file = open_regular(path).ok()?;
    let data = Limited::new(&file, *room_bytes);
    let elf = Elf::parse(&data).ok()?;
    DwarfPackage::load(|id| section(&elf, Source::File(&data), id, room_bytes), nothing()).ok()
}

fn open_unit(
    path: &Path,
    wanted: &SplitDwarfLoad<Bytes>,
    room_bytes: &mut usize,
) -> Option<Dwarf<Bytes>> {
    let file = open_regular(path).ok()?;
    let data = Limited::new(&file, *room_bytes);
    let elf = Elf::parse(&data).ok()?;
    let mut dwarf = Dwarf::load(|id| section(&elf, Source::File(&data), id, room_bytes)).ok()?;
    let header = dwarf.units().next().ok()??;
    // A file that was compiled again since is another unit.
    if dwarf.unit(header).ok()?.dwo_id != Some(wanted.dwo_id) {
        return None;
    }
    dwarf.make_dwo(&wanted.parent);
    Some(dwarf)
}

fn section<'d, R: ReadRef<'d>>(
    elf: &Elf<'d, R>,
    source: Source<'_>,
    id: SectionId,
    room_bytes: &mut usize,
) -> Result<Bytes, gimli::Error> {
    match id.dwo_name().and_then(|name| elf.section_by_name(name)) {
        Some(section) => source.section(&section, room_bytes).map_err(|_| gimli::Error::Io),
        None => Ok(nothing()),
    }
}

fn nothing() -> Bytes {
    Contents::small(Vec::new()).reader()
}

fn text(bytes: Option<&Bytes>) -> Option<String> {
    Some(bytes?.to_string_lossy().ok()?.into_owned())
}
