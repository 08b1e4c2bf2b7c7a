//! pprof, a gzip'd `profile.proto`, which `go tool pprof`, Pyroscope and Parca read. It keeps everything that a profile has.
//!
//! A sample has these labels, where they apply:
//!
//! - the numbers `task`, `parent` and `tid`;
//! - the strings `task_name`, `site` (`file:line`) and `thread`;
//! - a string `scope` for each scope, the outermost first;
//! - `stack` with the value `incomplete`;
//! - the user's own labels. If a user's key is one of ours, it is written with `user.` before it, and read without. A label with
//!   an empty key is left out.
//!
//! A comment says that we wrote the file. Labels have these meanings in such files alone.

mod columns;
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

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::{Compression, write::GzEncoder};
use prost::Message;

use super::{Function, Line, Location, LocationId, Mapping, Profile, Sample};
use labels::Value;

pub use limits::ReadLimits;
pub use read_error::ReadError;

/// The comment by which the reader knows a file of ours.
const OURS: &str = "written by pertask";
/// The beginnings of the other comments that it understands.
const MECHANISM: &str = "mechanism: ";
const LOST: &str = "lost: ";
const REMARK: &str = "remark: ";

impl Profile {
    /// Writes the profile as gzip'd pprof.
    ///
    /// # Errors
    ///
    /// Returns the errors of `writer`.
    pub fn write_pprof(&self, writer: impl Write) -> io::Result<()> {
        let mut gzip = GzEncoder::new(writer, Compression::default());
        gzip.write_all(&Encoder::default().profile(self).encode_to_vec())?;
        gzip.finish()?.flush()
    }
}

/// Makes the messages, and collects the table of their strings.
#[derive(Default)]
struct Encoder {
    strings: HashMap<String, i64>,
}

impl Encoder {
    fn profile(mut self, profile: &Profile) -> message::Profile {
        // The format wants the empty string first.
        self.string("");
        let cpu = self.value_type("cpu", "nanoseconds");
        let count = profile.has_counts.then(|| self.value_type("samples", "count"));
        let mut out = message::Profile {
            sample_type: count.into_iter().chain([cpu]).collect(),
            sample: profile.samples.iter().map(|sample| self.sample(profile, sample)).collect(),
            mapping: (1..).zip(&profile.mappings).map(|(id, it)| self.mapping(id, it)).collect(),
            location: (1..)
                .zip(&profile.locations)
                .map(|(id, it)| location(profile, id, it))
                .collect(),
            function: (1..).zip(&profile.functions).map(|(id, it)| self.function(id, it)).collect(),
            string_table: Vec::new(),
            time_nanos: since_epoch(profile.start),
            duration_nanos: signed(profile.duration_ns),
            period_type: Some(cpu),
            period: signed(profile.period_ns),
            comment: self.comments(profile),
            default_sample_type: cpu.kind,
        };
        say_what_is_symbolized(&mut out);
        out.string_table = self.into_table();
        out
    }

    fn sample(&mut self, profile: &Profile, sample: &Sample) -> message::Sample {
        let known = |id: &&LocationId| profile.location(**id).is_some();
        let count = profile.has_counts.then(|| signed(sample.count));
        message::Sample {
            location_id: sample.stack.iter().filter(known).map(|id| u64::from(id.0) + 1).collect(),
            value: count.into_iter().chain([signed(sample.cpu_ns)]).collect(),
            label: labels::of(sample)
                .into_iter()
                .map(|(key, value)| self.label(&key, value))
                .collect(),
        }
    }

    fn label(&mut self, key: &str, value: Value<'_>) -> message::Label {
        let label = message::Label { key: self.string(key), ..message::Label::default() };
        match value {
            Value::Number(num) => message::Label { num: num as i64, ..label },
            Value::Text(text) => message::Label { str: self.string(&text), ..label },
        }
    }

    fn mapping(&mut self, id: u64, mapping: &Mapping) -> message::Mapping {
        message::Mapping {
            id,
            memory_start: mapping.start,
            memory_limit: mapping.end,
            file_offset: mapping.offset,
            filename: self.string(&mapping.file),
            build_id: self.string(&mapping.build_id),
            ..message::Mapping::default()
        }
    }

    fn function(&mut self, id: u64, function: &Function) -> message::Function {
        message::Function {
            id,
            name: self.string(&function.name),
            system_name: self.string(&function.system_name),
            filename: self.string(&function.file),
            start_line: function.start_line.into(),
        }
    }

    fn comments(&mut self, profile: &Profile) -> Vec<i64> {
        let mut lost = profile.lost;
        let lost = lost.parts().into_iter().filter(|part| *part.count != 0);
        let lost = lost.map(|part| format!("{LOST}{}={}", part.key, part.count));
        let mechanism =
            (!profile.mechanism.is_empty()).then(|| format!("{MECHANISM}{}", profile.mechanism));
        let remarks = profile.remarks.iter().map(|remark| format!("{REMARK}{remark}"));
        let ours = [OURS.to_owned()].into_iter().chain(mechanism);
        let comments = ours.chain(lost).chain(remarks);
        comments.map(|comment| self.string(&comment)).collect()
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> message::ValueType {
        message::ValueType { kind: self.string(kind), unit: self.string(unit) }
    }

    fn string(&mut self, string: &str) -> i64 {
        if let Some(at) = self.strings.get(string) {
            return *at;
        }
        let next = self.strings.len() as i64;
        self.strings.insert(string.to_owned(), next);
        next
    }

    fn into_table(self) -> Vec<String> {
        let mut strings: Vec<_> = self.strings.into_iter().collect();
        strings.sort_unstable_by_key(|(_, at)| *at);
        strings.into_iter().map(|(string, _)| string).collect()
    }
}

fn location(profile: &Profile, id: u64, location: &Location) -> message::Location {
    let mapping = location.mapping.filter(|id| profile.mapping(*id).is_some());
    message::Location {
        id,
        mapping_id: mapping.map_or(0, |id| u64::from(id.0) + 1),
        address: location.address,
        line: location.lines.iter().map(|it| line(profile, it)).collect(),
    }
}

fn line(profile: &Profile, line: &Line) -> message::Line {
    let known = profile.function(line.function).is_some();
    let function_id = if known { u64::from(line.function.0) + 1 } else { 0 };
    message::Line { function_id, line: line.line.into() }
}

/// Marks the mappings whose locations have names, so that readers do not look for symbols again.
fn say_what_is_symbolized(out: &mut message::Profile) {
    for location in &out.location {
        let Some(mapping) = (location.mapping_id as usize).checked_sub(1) else { continue };
        if let (Some(mapping), false) = (out.mapping.get_mut(mapping), location.line.is_empty()) {
            mapping.has_functions = true;
            mapping.has_filenames = true;
            mapping.has_line_numbers = true;
            mapping.has_inline_frames = true;
        }
    }
}

/// Converts a number to the format's signed ones, and stops at the largest: some hundred years of CPU time.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn since_epoch(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    }
}
