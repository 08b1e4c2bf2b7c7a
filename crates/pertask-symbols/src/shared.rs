//! Debug information that dwz has moved to a file of its own, because several programs share it.

use crate::contents::{Bytes, Limited, Source, malformed};
use crate::files::{self, Elf};
use crate::problem::Reason;
use crate::regular::open_regular;
use crate::split::kept;
use gimli::{Dwarf, SectionId};
use object::{Object as _, ReadRef};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Adds what the file at `path` shares with others, if it shares anything.
pub(crate) fn add<'d, R: ReadRef<'d>>(
    dwarf: &mut Dwarf<Bytes>,
    elf: &Elf<'d, R>,
    path: &Path,
    folders: &[PathBuf],
    room_bytes: &mut usize,
) -> Result<(), Reason> {
    let Some((name, build_id)) = elf.gnu_debugaltlink().map_err(malformed)? else { return Ok(()) };
    let name = Path::new(OsStr::from_bytes(name));
    // A name may be relative to the file that has it.
    let beside = path.parent().unwrap_or(Path::new("/")).join(name);
    let places = files::by_build_id(build_id, folders).chain([beside.clone()]);
    let read = |place: PathBuf| kept(room_bytes, |room| read(&place, build_id, room));
    let found = { places }.find_map(read);
    let missing = || Reason::SharedMissing { file: beside.display().to_string() };
    dwarf.set_sup(found.ok_or_else(missing)?);
    Ok(())
}

/// Reads the file, if it has this build id.
fn read(path: &Path, build_id: &[u8], room_bytes: &mut usize) -> Option<Dwarf<Bytes>> {
    let file = open_regular(path).ok()?;
    let data = Limited::new(&file, *room_bytes);
    let elf = Elf::parse(&data).ok()?;
    elf.build_id().ok().flatten().filter(|found| *found == build_id)?;
    let source = Source::File(&data);
    let section = |id: SectionId| match elf.section_by_name(id.name()) {
        Some(section) => source.section(&section, room_bytes),
        None => source.bytes(0..0, room_bytes),
    };
    Dwarf::load(section).ok()
}
