//! A file for a sampled profile, whose format follows from the end of its name.

use std::{
    io::{self, Write},
    path::PathBuf,
    str::FromStr,
};

use pertask::{
    profile::{FlamegraphOptions, Profile, RootBy, Weight},
    sampler::RawProfile,
};

use crate::{
    error::Error,
    output::note,
    replace::{probe, replace},
};

/// The names that [`ProfilePath`] accepts, for error messages.
const ENDINGS: &str = "the name must end in .pb.gz (pprof), .svg (flamegraph), .folded (folded stacks), .speedscope.json (speedscope) or .json (Firefox Profiler)";

/// A file for a profile. The end of its name decides the format.
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
    Speedscope,
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
            (".speedscope.json", Format::Speedscope),
            (".json", Format::Firefox),
        ];
        let found = of_ending.into_iter().find(|(ending, _)| lower.ends_with(ending));
        found.map(|(_, format)| Self { path: path.into(), format }).ok_or(ENDINGS)
    }
}

impl ProfilePath {
    /// Tries whether the file can be written, and changes nothing.
    ///
    /// The command tries this before it measures, so that a bad path costs no run.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Open`] if the file cannot be written.
    pub fn probe(&self) -> Result<(), Error> {
        probe(&self.path).map_err(|cause| Error::Open { path: self.path.clone(), cause })
    }

    /// Returns whether the file has the format that needs no names.
    pub fn is_pprof(&self) -> bool {
        self.format == Format::Pprof
    }

    /// Replaces the file with the profile, and says so on stderr.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Replace`] if the profile cannot be written as a whole. An old file is then as it was.
    pub fn write(&self, profile: &Profile) -> Result<(), Error> {
        self.replace(|to| self.format.write(profile, to))?;
        if let Some(line) = self.left_out(profile) {
            note(format_args!("{line}"));
        }
        if self.format != Format::Pprof && !profile.allocations.is_empty() {
            note(format_args!(
                "{} has no allocations; a .pb.gz file keeps them for go tool pprof -sample_index=alloc_space",
                self.path.display()
            ));
        }
        Ok(())
    }

    /// Returns a line that says which time the file has no place for, if there is any. Readers of folded stacks take all of it for CPU time.
    fn left_out(&self, profile: &Profile) -> Option<String> {
        let mut others = profile.times();
        others.on_cpu_ns = 0;
        (self.format == Format::Folded && others.sum() > 0).then(|| {
            format!(
                "{} has CPU time alone; not in it: {others} (a .pb.gz file keeps that for pertask report --state waiting, or life)",
                self.path.display()
            )
        })
    }

    /// Replaces the file with the samples as pprof, without names of functions, and says so on stderr.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Replace`] if the samples cannot be written as a whole. An old file is then as it was.
    pub fn write_unresolved(&self, sampled: &RawProfile) -> Result<(), Error> {
        self.replace(|to| sampled.write_pprof_unresolved(to))
    }

    fn replace(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
        replace(&self.path, write)?;
        note(format_args!("profile written to {}", self.path.display()));
        Ok(())
    }
}

impl Format {
    fn write(self, profile: &Profile, to: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Pprof => profile.write_pprof(to),
            // What was recorded with waits is shown with them.
            Self::Flamegraph => {
                let whole_life = !profile.off_cpu.is_empty();
                let options = FlamegraphOptions { whole_life, ..FlamegraphOptions::default() };
                profile.write_flamegraph(&options, to)
            }
            Self::Folded => profile.write_folded(RootBy::TaskName, Weight::Time, to),
            Self::Speedscope => {
                profile.write_speedscope("pertask", RootBy::TaskName, Weight::Time, to)
            }
            Self::Firefox => profile.write_firefox("pertask", to),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pertask::profile::{ProfileBuilder, Sample, State};

    use super::*;

    #[test]
    fn folded_stacks_say_what_is_left_out_of_them() {
        let file = |name: &str| name.parse::<ProfilePath>().expect("a format");
        let mut builder = ProfileBuilder::new("by hand", 1);
        let cpu = Sample { time_ns: 5_000_000, ..Sample::default() };
        builder.add(cpu.clone());
        let without = builder.finish(Duration::ZERO);
        let waits = Sample { state: State::Waiting, time_ns: 1_500_000_000, ..cpu };
        let with = Profile { off_cpu: vec![waits], ..without.clone() };
        let said = "p.folded has CPU time alone; not in it: 1.50 s of waiting time (a .pb.gz file keeps that for pertask report --state waiting, or life)";
        assert_eq!(file("p.folded").left_out(&with).as_deref(), Some(said));
        assert_eq!(file("p.folded").left_out(&without), None);
        for name in ["p.pb.gz", "p.svg", "p.json", "p.speedscope.json"] {
            assert_eq!(file(name).left_out(&with), None, "{name}");
        }
    }

    #[test]
    fn the_ending_says_the_format() {
        let format = |name: &str| name.parse::<ProfilePath>().map(|path| path.format);
        assert_eq!(format("a/b.pb.gz"), Ok(Format::Pprof));
        assert_eq!(format("b.SVG"), Ok(Format::Flamegraph));
        assert_eq!(format("b.folded"), Ok(Format::Folded));
        assert_eq!(format("b.Speedscope.json"), Ok(Format::Speedscope));
        assert_eq!(format("b.json"), Ok(Format::Firefox));
        assert_eq!(format("speedscope.json"), Ok(Format::Firefox));
        for name in ["b.txt", "pb", "-", "svg"] {
            assert_eq!(format(name), Err(ENDINGS), "{name}");
        }
    }
}
