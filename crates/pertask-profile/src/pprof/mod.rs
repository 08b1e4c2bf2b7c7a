//! pprof, a gzip'd `profile.proto`, which `go tool pprof`, Pyroscope and Parca read. It keeps everything that a profile has.
//!
//! A sample has these labels, where they apply:
//!
//! - the numbers `task`, `parent` and `tid`;
//! - the strings `task_name`, `site` (`file:line`) and `thread`;
//! - of waits, the strings `woken_by` and `woken_by_site`: the name and the site of the tasks that ended them;
//! - of waits that went on, the strings `held_by` and `held_by_site`: those of the tasks that held the lock that was waited for;
//! - a string `scope` for each scope, the outermost first;
//! - `stack` with the value `incomplete`;
//! - the user's own labels. If a user's key is one of ours, it is written with `user.` before it, and read without. A label with
//!   an empty key is left out.
//!
//! Its values are the number of samples and the CPU time. A file that has time off the CPU has four more: the number of waits, and the
//! times of waiting, being ready and being blocked. Each sample has one of the four times. A file that has allocations has their number and
//! their bytes, under the names that Go gives them.
//!
//! A comment says that we wrote the file. Labels have these meanings in such files alone, and so have values that are not CPU time.

mod columns;
mod difference;
mod fields;
mod foreign;
mod labels;
mod limits;
mod message;
mod origin;
mod prune;
mod read;
mod read_error;
mod samples;
mod tables;
mod unpack;
mod write;

use std::collections::HashSet;
use std::io::{self, Write};

use super::{Location, MappingId, Profile, State};

pub use difference::{PprofDifference, PprofFile};
pub use limits::ReadLimits;
pub use read_error::ReadError;
pub use write::{PprofTypes, PprofWriter};

/// The comment by which the reader knows a file of ours.
const OURS: &str = "written by pertask";
/// The beginnings of the other comments that it understands.
const MECHANISM: &str = "mechanism: ";
const LOST: &str = "lost: ";
const REMARK: &str = "remark: ";
const TASK_ROOT: &str = "task root: ";

impl Profile {
    /// Writes the profile as gzip'd pprof.
    ///
    /// # Errors
    ///
    /// Returns the errors of `writer`.
    pub fn write_pprof(&self, writer: impl Write) -> io::Result<()> {
        let all = || self.samples.iter().chain(&self.off_cpu);
        let has_off_cpu = all().any(|sample| sample.state != State::OnCpu);
        let types = PprofTypes { off_cpu: has_off_cpu, allocations: self.has_allocations };
        let mut writer = PprofWriter::begin(writer, self.has_counts, types)?;
        let named = |location: &Location| location.mapping.filter(|_| !location.lines.is_empty());
        let named: HashSet<_> = self.locations.iter().filter_map(named).collect();
        for (id, mapping) in (0..).zip(&self.mappings) {
            match named.contains(&MappingId(id)) {
                true => writer.named_mapping(mapping)?,
                false => writer.mapping(mapping)?,
            };
        }
        self.functions.iter().try_for_each(|it| writer.function(it).map(drop))?;
        self.locations.iter().try_for_each(|it| writer.location(it).map(drop))?;
        all().try_for_each(|it| writer.sample(it))?;
        self.allocations.iter().try_for_each(|it| writer.allocation(it))?;
        writer.finish(self).map(drop)
    }
}
