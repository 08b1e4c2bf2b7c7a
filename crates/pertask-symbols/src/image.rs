//! A module's symbols: those of its file, or of the files that have its debug information.

use crate::contents::{Contents, Limited, Source, malformed, take_room};
use crate::debug::{Debug, Found, Places};
use crate::declaration::{Declaration, Declared};
use crate::demangle::demangled;
use crate::files::{self, Elf, Place};
use crate::frame::{Frame, Names};
use crate::maps::mappings;
use crate::memory::Memory;
use crate::module::{Module, ModuleRange};
use crate::numbering::Numbering;
use crate::problem::Reason;
use crate::regular::open_regular;
use crate::symbolizer::Origin;
use crate::table::Table;
use gimli::DwLang;
use object::{Object as _, ObjectSegment as _, ReadRef};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A module's symbols.
pub(crate) struct Image {
    debug: Option<Debug>,
    table: Table,
    numbering: Numbering,
    /// The name of a file with its debug information.
    link: Option<Vec<u8>>,
}

/// Where to look for the files of modules.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    pub(crate) origin: Origin,
    /// Folders that somebody has named.
    pub(crate) folders: Vec<PathBuf>,
}

/// An image, and what it lacks.
type Lacking = (Image, Vec<Reason>);

impl Search {
    /// Reads the module's file.
    pub(crate) fn image(&self, module: &Module, room_bytes: &mut usize) -> Result<Lacking, Reason> {
        if module.path == "[vdso]" {
            let whole =
                kernels_page().ok_or_else(|| Reason::Unreadable(io::ErrorKind::Other.into()))?;
            // Nobody expects lines in the kernel's page.
            let source = (Source::Whole(&whole), Path::new(&module.path));
            let image = self.read(&whole[..], source, module, room_bytes);
            return image.map(|(image, _)| (image, Vec::new()));
        }
        let mut found = None;
        let mut refused = files::refusal(module, self.origin).map(Reason::Unreadable);
        for place in files::of_module(module, self.origin, &self.folders) {
            match self.read_at(&place, module, room_bytes) {
                Ok(image) => {
                    found = Some(image);
                    break;
                }
                Err(reason) if refused.as_ref().is_none_or(|it| says_more(&place, &reason, it)) => {
                    refused = Some(reason);
                }
                Err(_) => (),
            }
        }
        let lacks_debug_info = |(_, lacks): &Lacking| lacks.iter().any(Reason::is_without_lines);
        if found.as_ref().is_some_and(|found| !lacks_debug_info(found)) {
            return found.ok_or(Reason::Replaced);
        }
        let apart = self.apart(module, found.as_ref().map(|(image, _)| image), room_bytes);
        match (found, apart) {
            (None, Some(apart)) => Ok(apart),
            (Some((image, _)), Some((debug, lacks))) => {
                Ok((Image { numbering: image.numbering, ..debug }, lacks))
            }
            (Some(found), None) => Ok(found),
            (None, None) => Err(refused.unwrap_or(Reason::Replaced)),
        }
    }

    /// Reads the file with debug information that stands apart from the module's own file.
    fn apart(
        &self,
        module: &Module,
        own: Option<&Image>,
        room_bytes: &mut usize,
    ) -> Option<Lacking> {
        let link = own.and_then(|image| image.link.as_deref());
        // Without a build id, nothing shows that the file is the right one.
        let places = files::with_debug_info(module, self.origin, &self.folders, link).into_iter();
        let mut places = places.filter(|_| !module.build_id.is_empty());
        let adds = |(image, lacks): &Lacking| {
            own.is_none() || image.debug.is_some() || !lacks.iter().any(Reason::is_stripped)
        };
        places
            .find_map(|path| self.read_at(&Place::Path(path), module, room_bytes).ok().filter(adds))
    }

    fn read_at(
        &self,
        place: &Place,
        module: &Module,
        room_bytes: &mut usize,
    ) -> Result<Lacking, Reason> {
        let path = match place {
            Place::Path(path) => path,
            Place::RunningProgram => {
                let whole = Contents::of_running_program().map_err(Reason::Unreadable)?;
                let source = (Source::Whole(&whole), Path::new(files::path(module)));
                return self.read(&whole[..], source, module, room_bytes);
            }
        };
        let file = open_regular(path).map_err(Reason::Unreadable)?;
        let limited = Limited::new(&file, *room_bytes);
        let room = *room_bytes;
        let read = self.read(&limited, (Source::File(&limited), path), module, room_bytes);
        read.map_err(|reason| {
            // What was read of it is dropped.
            *room_bytes = room;
            limited.refusal().unwrap_or(reason).of_file(path)
        })
    }

    fn read<'d, R: ReadRef<'d>>(
        &self,
        data: R,
        (source, file): (Source<'_>, &Path),
        module: &Module,
        room_bytes: &mut usize,
    ) -> Result<Lacking, Reason> {
        let elf = Elf::parse(data).map_err(malformed)?;
        let mut lacks: Vec<_> = self.check(&elf, data, module)?.into_iter().collect();
        let link = elf.gnu_debuglink().ok().flatten().map(|(name, _)| name.to_vec());
        let places = Places { module: files::path(module), file, folders: &self.folders };
        let held = source.held_bytes();
        take_room(held as u64, room_bytes).map_err(Reason::of_table)?;
        let room = *room_bytes;
        let debug = match Debug::read(&elf, source, &places, room_bytes) {
            Ok((debug, reason)) => {
                lacks.extend(reason);
                Some(debug)
            }
            Err(reason) => {
                // What was read of it is dropped.
                *room_bytes = room;
                lacks.push(reason);
                None
            }
        };
        let room = *room_bytes;
        let (table, table_lacks) = match Table::read(data, source, room_bytes) {
            Ok(table) => (table, None),
            Err(reason) => {
                *room_bytes = room;
                (Table::default(), Some(reason))
            }
        };
        *room_bytes += held;
        if debug.is_none() && table.is_empty() {
            // What is too large is there, and what is damaged may be.
            lacks.retain(|reason| !reason.is_without_lines());
            lacks.extend(table_lacks);
            if lacks.is_empty() {
                lacks.push(Reason::Stripped);
            }
        }
        let numbering = match self.origin {
            Origin::ThisProcess => Numbering::with_bias(module.bias),
            Origin::Recorded => Numbering::of(&elf),
        };
        Ok((Image { debug, table, numbering, link }, lacks))
    }

    /// Refuses a file that is not the one that is mapped, or was when the profile was recorded.
    fn check<'d, R: ReadRef<'d>>(
        &self,
        elf: &Elf<'d, R>,
        data: R,
        module: &Module,
    ) -> Result<Option<Reason>, Reason> {
        let found = elf.build_id().ok().flatten().unwrap_or_default();
        match (&*module.build_id, self.origin) {
            ([], Origin::ThisProcess) if same_beginning(elf, data, module) => Ok(None),
            ([], Origin::ThisProcess) => Err(Reason::Replaced),
            ([], Origin::Recorded) => Ok(Some(Reason::NotIdentified)),
            (wanted, _) if wanted == found => Ok(None),
            (wanted, _) => Err(Reason::OtherBuild {
                file: String::new(),
                found: found.to_vec(),
                wanted: wanted.to_vec(),
            }),
        }
    }
}

impl Image {
    /// Returns the functions at an address of the process.
    pub(crate) fn frames(
        &mut self,
        address: u64,
        range: &ModuleRange,
        room_bytes: &mut usize,
        names: &mut Names,
    ) -> Vec<Frame> {
        let Some(address) = self.numbering.of_address(address, range) else { return Vec::new() };
        let mut frames = Vec::new();
        if let Some(debug) = &mut self.debug {
            let table = &self.table;
            let add = |found: Found<'_>| {
                let named = found.name.as_ref().map(|(name, language)| (&**name, *language));
                let Some((name, language)) = named.or_else(|| Some((table.at(address)?, None)))
                else {
                    return;
                };
                let file = found.file.map(|file| names.of(file));
                frames.push(Frame { file, line: found.line, ..frame(name, language, names) });
            };
            // If the debug information is damaged, the functions found so far are still right.
            let _ = debug.find(address, room_bytes, add);
        }
        self.complete_outermost(address, names, &mut frames);
        if frames.is_empty() {
            frames.extend(self.table.at(address).map(|name| frame(name, None, names)));
        }
        frames
    }

    /// Returns how debug information declares the functions at an address of the process, the innermost first.
    pub(crate) fn declarations(
        &mut self,
        address: u64,
        range: &ModuleRange,
        room_bytes: &mut usize,
        names: &mut Names,
    ) -> Vec<Option<Declaration>> {
        let Some(address) = self.numbering.of_address(address, range) else { return Vec::new() };
        let found = self.debug.as_mut().map(|debug| debug.declarations(address, room_bytes));
        let declared = |Declared { name, file, line }| {
            let file = file.map(|file| names.of(&file));
            name.map(|name| Declaration { name: names.of(&name), file, line })
        };
        found.and_then(Result::ok).unwrap_or_default().into_iter().map(declared).collect()
    }

    /// Returns how many functions the symbol table has where the code of this address is.
    pub(crate) fn functions_at(&self, address: u64, range: &ModuleRange) -> usize {
        let address = self.numbering.of_address(address, range);
        address.map_or(0, |address| self.table.functions_at(address))
    }

    /// Returns the first file of split debug information that was missing so far.
    pub(crate) fn missing(&self) -> Option<&str> {
        self.debug.as_ref().and_then(|debug| debug.split.missing.as_deref())
    }

    /// Gives the outermost function its whole name, if debug information has only the last word of it.
    ///
    /// That is what rustc writes with `debug = "line-tables-only"` for a function into which others are inlined (seen in 1.95).
    /// Such a name is followed only if the symbol table agrees: another function may have the same code, and its symbol.
    fn complete_outermost(&self, address: u64, names: &mut Names, frames: &mut [Frame]) {
        let Some(outermost) = frames.last_mut() else { return };
        let Some(symbol) =
            self.table.at(address).filter(|symbol| **symbol != *outermost.system_name)
        else {
            return;
        };
        let whole = demangled(symbol, None);
        if is_bare(&outermost.function)
            && is_same(last_word(&whole), last_word(&outermost.function))
        {
            outermost.function = names.of(&whole);
            outermost.system_name = names.of(symbol);
        }
    }
}

/// Whether a reason says more than the one before: a file of another build says more than one that is not there.
fn says_more(place: &Place, reason: &Reason, before: &Reason) -> bool {
    let is_there = reason.is_other_build() && *place != Place::RunningProgram;
    is_there && matches!(before, Reason::Unreadable(_))
}

/// Whether both words name one function, or are what compilers call functions without a name.
fn is_same(symbols: &str, debug: &str) -> bool {
    symbols == debug || symbols.starts_with('{') && debug.starts_with('{')
}

/// Whether a name has no module. It may have type arguments, which have modules.
fn is_bare(name: &str) -> bool {
    name.split('<').next().is_some_and(|name| !name.is_empty() && !name.contains("::"))
}

/// The last word of a path, without generic arguments: `run` of `<app::Worker<T>>::run::<u32>`.
fn last_word(path: &str) -> &str {
    let end = if path.ends_with('>') { opening(path) } else { path.len() };
    let path = path[..end].trim_end_matches("::");
    path.rsplit("::").next().unwrap_or(path)
}

/// Where the angle bracket opens that closes at the end of a path.
fn opening(path: &str) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in path.bytes().enumerate().rev() {
        match byte {
            // An arrow closes nothing.
            b'>' if !path[..at].ends_with('-') => depth += 1,
            b'<' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return at;
        }
    }
    path.len()
}

fn frame(name: &str, language: Option<DwLang>, names: &mut Names) -> Frame {
    Frame {
        function: names.of(&demangled(name, language)),
        system_name: names.of(name),
        file: None,
        line: None,
    }
}

/// Returns the kernel's page of code, as it is mapped into this process.
fn kernels_page() -> Option<Contents> {
    let all = mappings().ok()?;
    let page = all.into_iter().find(|mapping| mapping.path == "[vdso]")?;
    Some(Contents::small(memory(page.range)?))
}

/// Returns whether the file begins like the mapped one.
///
/// The first page says where the file's sections and segments are, so nearly any change of the file changes it.
fn same_beginning<'d, R: ReadRef<'d>>(elf: &Elf<'d, R>, data: R, module: &Module) -> bool {
    const PAGE: u64 = 4096;
    let first = elf.segments().find(|segment| segment.file_range().0 == 0);
    let Some(start) = first.map(|segment| segment.address().wrapping_add(module.bias)) else {
        return false;
    };
    let length = PAGE.min(data.len().unwrap_or(0));
    let mapped = start.checked_add(length).and_then(|end| memory(start..end));
    mapped.is_some() && mapped.as_deref() == data.read_bytes_at(0, length).ok()
}

/// Returns this process's memory at these addresses, if all of it is mapped.
fn memory(addresses: Range<u64>) -> Option<Vec<u8>> {
    Memory::open().ok()?.read(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_module_is_bare_whatever_its_type_arguments_are() {
        assert!(is_bare("poll<app::serve::{async_fn_env#0}, app::Handle>") && is_bare("main"));
        assert!(!is_bare("app::main") && !is_bare("<app::Own as core::future::Future>::poll"));
    }

    #[test]
    fn the_last_word_of_a_path_is_the_functions_own() {
        for (path, word) in [
            ("run", "run"),
            ("app::parse::run", "run"),
            ("run<u32>", "run"),
            ("app::run::<u32>", "run"),
            ("<app::Worker<T> as core::future::Future>::poll", "poll"),
            ("app::call::<fn(u32) -> Vec<u8>>", "call"),
            ("app::run::{{closure}}", "{{closure}}"),
            ("", ""),
        ] {
            assert_eq!(last_word(path), word, "{path}");
        }
    }
}
