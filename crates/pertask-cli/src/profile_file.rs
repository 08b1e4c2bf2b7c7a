//! A file for a sampled profile: its format by its name's ending, opened before anything is measured.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    path::PathBuf,
    str::FromStr,
};

use pertask::profile::{FlamegraphOptions, Profile, RootBy, Weight};

use crate::error::Error;

/// What [`ProfilePath`] accepts, for error messages and help.
const ENDINGS: &str = "the name must end in .pb.gz (pprof), .svg (flamegraph), .folded (folded stacks) or .json (Firefox Profiler)";

/// A file's name that says in which format a profile is written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfilePath {
    path: PathBuf,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Pprof,
    Flamegraph,
    Folded,
    Firefox,
}

impl FromStr for ProfilePath {
    type Err = &'static str;

    fn from_str(path: &str) -> Result<Self, Self::Err> {
        let lower = path.to_ascii_lowercase();
        let of_ending = [
            (".pb.gz", Format::Pprof),
            (".svg", Format::Flamegraph),
            (".folded", Format::Folded),
            (".json", Format::Firefox),
        ];
        let found = of_ending.into_iter().find(|(ending, _)| lower.ends_with(ending));
        found.map(|(_, format)| Self { path: path.into(), format }).ok_or(ENDINGS)
    }
}

/// A file that a profile will be written to.
pub struct ProfileFile {
    name: ProfilePath,
    file: File,
}

impl ProfileFile {
    /// Opens the file. What it held is kept until a profile replaces it.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] where the file cannot be opened for writing.
    pub fn open(name: &ProfilePath) -> Result<Self, Error> {
        match OpenOptions::new().write(true).create(true).truncate(false).open(&name.path) {
            Ok(file) => Ok(Self { name: name.clone(), file }),
            Err(cause) => Err(Error::Open { path: name.path.clone(), cause }),
        }
    }

    /// Writes the profile. Returns the file's name.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] where it did not arrive as a whole.
    pub fn write(self, profile: &Profile) -> Result<PathBuf, Error> {
        let Self { name: ProfilePath { path, format }, file } = self;
        let written = empty(&file).and_then(|()| format.write(profile, BufWriter::new(file)));
        match written {
            Ok(()) => Ok(path),
            Err(cause) => Err(Error::Write { place: path.display().to_string(), cause }),
        }
    }
}

impl Format {
    fn write(self, profile: &Profile, mut to: impl Write) -> io::Result<()> {
        match self {
            Self::Pprof => profile.write_pprof(&mut to)?,
            Self::Flamegraph => profile.write_flamegraph(&FlamegraphOptions::default(), &mut to)?,
            Self::Folded => profile.write_folded(RootBy::TaskName, Weight::CpuNs, &mut to)?,
            Self::Firefox => profile.write_firefox("pertask", &mut to)?,
        }
        to.flush()
    }
}

/// Drops what a regular file held. A pipe or a device holds nothing and refuses to be cut.
fn empty(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() { file.set_len(0) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_says_the_format() {
        let format = |name: &str| name.parse::<ProfilePath>().map(|path| path.format);
        assert_eq!(format("a/b.pb.gz"), Ok(Format::Pprof));
        assert_eq!(format("b.SVG"), Ok(Format::Flamegraph));
        assert_eq!(format("b.folded"), Ok(Format::Folded));
        assert_eq!(format("b.json"), Ok(Format::Firefox));
        for name in ["b.txt", "pb", "-", "svg"] {
            assert_eq!(format(name), Err(ENDINGS), "{name}");
        }
    }
}
