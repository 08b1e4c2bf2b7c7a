//! What debug information says of a function beyond the linker's name: its name with type arguments, and where it is declared.

use crate::contents::Bytes;
use gimli::{Attribute, AttributeValue, DebugInfoOffset, Reader as _, UnitOffset, UnitRef};
use std::sync::Arc;

/// How a function stands in the debug information.
///
/// Symbols of the old mangling lack type arguments. Debug information has them, even where it has line tables only (rustc 1.95).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Declaration {
    /// The function's name in its module, with type arguments: `poll<app::serve::{async_fn_env#0}, app::Handle>`. A name of many
    /// kilobytes is cut.
    pub name: Arc<str>,
    /// The source file in which it is declared, if that is known.
    pub file: Option<Arc<str>>,
    /// The line in that file, if it is known.
    pub line: Option<u32>,
}

/// The most bytes of a name. Types of futures can be far longer, and their beginnings tell enough.
const LONGEST: usize = 8 << 10;

/// How often a function's entry may refer to another one.
const MOST_ORIGINS: u32 = 8;

/// A declaration as it is read.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    pub(crate) name: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
}

impl Declared {
    /// Reads the entry of a function, or of a call that was inlined.
    pub(crate) fn read(unit: UnitRef<'_, Bytes>, entry: UnitOffset) -> Result<Self, gimli::Error> {
        let mut declared = Self::default();
        declared.add(unit, entry, MOST_ORIGINS)?;
        Ok(declared)
    }

    /// Adds what an entry says, and what the entry says that it refers to.
    fn add(
        &mut self,
        unit: UnitRef<'_, Bytes>,
        entry: UnitOffset,
        origins: u32,
    ) -> Result<(), gimli::Error> {
        let entry = unit.entry(entry)?;
        if let (None, Some(name)) = (&self.name, entry.attr_value(gimli::DW_AT_name)) {
            self.name = Some(text(unit, name)?);
        }
        let line = entry.attr(gimli::DW_AT_decl_line).and_then(Attribute::udata_value);
        if let (None, Some(line)) = (self.line, line) {
            self.line = u32::try_from(line).ok();
            self.file = match entry.attr_value(gimli::DW_AT_decl_file) {
                Some(AttributeValue::FileIndex(at)) => file(unit, at)?,
                _ => None,
            };
        }
        let origin = entry.attr_value(gimli::DW_AT_abstract_origin);
        let origin = origin.or_else(|| entry.attr_value(gimli::DW_AT_specification));
        match origin.filter(|_| origins > 0 && (self.name.is_none() || self.line.is_none())) {
            Some(AttributeValue::UnitRef(at)) => self.add(unit, at, origins - 1),
            Some(AttributeValue::DebugInfoRef(at)) => self.add_elsewhere(unit, at, origins - 1),
            _ => Ok(()),
        }
    }

    /// Adds what an entry of another unit says.
    fn add_elsewhere(
        &mut self,
        from: UnitRef<'_, Bytes>,
        entry: DebugInfoOffset,
        origins: u32,
    ) -> Result<(), gimli::Error> {
        let mut headers = from.dwarf.units();
        while let Some(header) = headers.next()? {
            let Some(at) = entry.to_unit_offset(&header) else { continue };
            let unit = from.dwarf.unit(header)?;
            return self.add(UnitRef::new(from.dwarf, &unit), at, origins);
        }
        Ok(())
    }
}

/// Reads a text, up to its most bytes.
fn text(unit: UnitRef<'_, Bytes>, value: AttributeValue<Bytes>) -> Result<String, gimli::Error> {
    let mut text = unit.attr_string(value)?.to_string_lossy()?.into_owned();
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    Ok(text)
}

/// Reads the path of a file, as its line table has it.
fn file(unit: UnitRef<'_, Bytes>, at: u64) -> Result<Option<String>, gimli::Error> {
    let Some(lines) = &unit.line_program else { return Ok(None) };
    let header = lines.header();
    let Some(file) = header.file(at) else { return Ok(None) };
    let mut path = String::new();
    if let Some(folder) = &unit.comp_dir {
        path.push_str(&folder.to_string_lossy()?);
    }
    if file.directory_index() != 0
        && let Some(folder) = file.directory(header)
    {
        push(&mut path, &text(unit, folder)?);
    }
    push(&mut path, &text(unit, file.path_name())?);
    Ok(Some(path))
}

/// Puts a path after the folder that it begins in, or in its place if it begins at the root.
fn push(path: &mut String, part: &str) {
    if part.starts_with('/') {
        path.clear();
    } else if !path.is_empty() && !path.ends_with('/') {
        path.push('/');
    }
    path.push_str(part);
}

#[cfg(test)]
mod tests {
    use super::push;

    #[test]
    fn a_path_from_the_root_replaces_the_folder() {
        let joined = |parts: &[&str]| {
            let mut path = String::new();
            parts.iter().for_each(|part| push(&mut path, part));
            path
        };
        assert_eq!(joined(&["/home/app", "src", "main.rs"]), "/home/app/src/main.rs");
        assert_eq!(joined(&["/home/app", "/rustc/library", "lib.rs"]), "/rustc/library/lib.rs");
        assert_eq!(joined(&["src/main.rs"]), "src/main.rs");
    }
}
