//! Writes pprof piece by piece. Protobuf lets the pieces stand in any order, so nothing but the names is kept.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::{Compression, write::GzEncoder};
use prost::Message;

use super::super::{
    Allocation, Function, FunctionId, Line, Location, LocationId, Mapping, MappingId, Profile,
    Sample, State,
};
use super::labels::{self, Value};
use super::{LOST, MECHANISM, OURS, REMARK, TASK_ROOT, message};

/// What a file's samples have beside their number and their CPU time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PprofTypes {
    /// Time off the CPU: waiting, being ready and being blocked, and the number of waits.
    pub off_cpu: bool,
    /// Allocations, and their bytes.
    pub allocations: bool,
}

/// The types of allocations, as Go calls them: their number, and their bytes.
pub(super) const ALLOCATIONS: [(&str, &str); 2] =
    [("alloc_objects", "count"), ("alloc_space", "bytes")];

/// The states off the CPU, in the order of their values.
pub(super) const OFF_CPU: [State; 3] = [State::Waiting, State::Ready, State::Blocked];

/// Writes a profile as gzip'd pprof while its samples are still to come, so that it is never in memory as a whole.
///
/// The writer keeps one copy of each name that it has written, and nothing else that grows. What a location or a sample refers
/// to is written before it. References to what was not written are left out. Equal samples are better added up by the caller:
/// each call writes one.
///
/// ```
/// use pertask_profile::{Location, Mapping, PprofWriter, Profile, ProfileBuilder, Sample};
///
/// let mut writer = PprofWriter::new(Vec::new())?;
/// let program = Mapping { start: 0x1000, end: 0x2000, file: "/bin/app".into(), ..Mapping::default() };
/// let mapping = Some(writer.mapping(&program)?);
/// let place = writer.location(&Location { address: 0x1040, mapping, lines: Vec::new() })?;
/// writer.sample(&Sample { count: 1, time_ns: 1_000_000, stack: vec![place], ..Sample::default() })?;
/// let head = ProfileBuilder::new("by hand", 1_000_000).finish(std::time::Duration::from_secs(1));
/// let file = writer.finish(&head)?;
/// assert_eq!(Profile::from_pprof(&file[..])?.samples[0].stack, [place]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PprofWriter<W: Write> {
    gzip: GzEncoder<W>,
    strings: HashMap<Box<str>, i64>,
    has_counts: bool,
    types: PprofTypes,
    /// Whether a sample of time has been written.
    has_time: bool,
    mappings: u32,
    functions: u32,
    locations: u32,
    /// The bytes of the piece that is being written.
    piece: Vec<u8>,
}

impl<W: Write> PprofWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// Returns the errors of `writer`, as all methods do.
    pub fn new(writer: W) -> io::Result<Self> {
        Self::begin(writer, true, PprofTypes::default())
    }

    /// Begins a file that has more than CPU time.
    ///
    /// # Errors
    ///
    /// Returns the errors of `writer`.
    pub fn with_types(writer: W, types: PprofTypes) -> io::Result<Self> {
        Self::begin(writer, true, types)
    }

    /// Begins a file whose samples have numbers or not.
    pub(super) fn begin(writer: W, has_counts: bool, types: PprofTypes) -> io::Result<Self> {
        let mut new = Self {
            gzip: GzEncoder::new(writer, Compression::default()),
            strings: HashMap::new(),
            has_counts,
            types,
            has_time: false,
            mappings: 0,
            functions: 0,
            locations: 0,
            piece: Vec::new(),
        };
        // The format wants the empty string first.
        new.string("")?;
        let count = has_counts.then(|| new.value_type("samples", "count")).transpose()?;
        let cpu = new.value_type("cpu", "nanoseconds")?;
        let mut sample_type: Vec<_> = count.into_iter().chain([cpu]).collect();
        if types.off_cpu {
            sample_type.push(new.value_type("waits", "count")?);
            for state in OFF_CPU {
                sample_type.push(new.value_type(state.name(), "nanoseconds")?);
            }
        }
        if types.allocations {
            for (kind, unit) in ALLOCATIONS {
                sample_type.push(new.value_type(kind, unit)?);
            }
        }
        new.write(&message::Profile { sample_type, ..message::Profile::default() })?;
        Ok(new)
    }

    /// Writes a mapping whose functions are to be found by who reads the file.
    ///
    /// # Errors
    ///
    /// Returns the errors of the underlying writer.
    pub fn mapping(&mut self, mapping: &Mapping) -> io::Result<MappingId> {
        let mapping = self.mapping_message(mapping)?;
        self.add_mapping(mapping)
    }

    /// Writes a mapping whose locations have names, so that readers do not look for symbols again.
    pub(super) fn named_mapping(&mut self, mapping: &Mapping) -> io::Result<MappingId> {
        let mapping = message::Mapping {
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
            ..self.mapping_message(mapping)?
        };
        self.add_mapping(mapping)
    }

    /// Writes a function.
    ///
    /// # Errors
    ///
    /// Returns the errors of the underlying writer.
    pub fn function(&mut self, function: &Function) -> io::Result<FunctionId> {
        let function = message::Function {
            id: u64::from(self.functions) + 1,
            name: self.string(&function.name)?,
            system_name: self.string(&function.system_name)?,
            filename: self.string(&function.file)?,
            start_line: function.start_line.into(),
        };
        self.write(&message::Profile { function: vec![function], ..message::Profile::default() })?;
        self.functions += 1;
        Ok(FunctionId(self.functions - 1))
    }

    /// Writes a location.
    ///
    /// # Errors
    ///
    /// Returns the errors of the underlying writer.
    pub fn location(&mut self, location: &Location) -> io::Result<LocationId> {
        let mapping = location.mapping.filter(|id| id.0 < self.mappings);
        let location = message::Location {
            id: u64::from(self.locations) + 1,
            mapping_id: mapping.map_or(0, |id| u64::from(id.0) + 1),
            address: location.address,
            line: location.lines.iter().map(|it| self.line(it)).collect(),
        };
        self.write(&message::Profile { location: vec![location], ..message::Profile::default() })?;
        self.locations += 1;
        Ok(LocationId(self.locations - 1))
    }

    /// Writes one or more samples that are equal in everything.
    ///
    /// # Errors
    ///
    /// Returns the errors of the underlying writer.
    pub fn sample(&mut self, sample: &Sample) -> io::Result<()> {
        self.has_time = true;
        self.write_sample(sample, self.values(sample, [0, 0]))
    }

    /// Writes allocations that are equal in everything.
    ///
    /// # Errors
    ///
    /// Returns the errors of the underlying writer.
    pub fn allocation(&mut self, allocation: &Allocation) -> io::Result<()> {
        let Allocation { bytes, sample } = allocation;
        let values = self.values(&Sample::default(), [signed(sample.count), signed(*bytes)]);
        self.write_sample(sample, values)
    }

    fn write_sample(&mut self, sample: &Sample, value: Vec<i64>) -> io::Result<()> {
        let known = |id: &&LocationId| id.0 < self.locations;
        let location_id = sample.stack.iter().filter(known).map(|id| u64::from(id.0) + 1).collect();
        let labels = labels::of(sample).into_iter();
        let label = labels.map(|(key, value)| self.label(&key, value)).collect::<Result<_, _>>()?;
        let sample = vec![message::Sample { location_id, value, label }];
        self.write(&message::Profile { sample, ..message::Profile::default() })
    }

    /// Ends the file, with everything of `head` but its samples and its tables. Returns the underlying writer.
    ///
    /// # Errors
    ///
    /// Returns the errors of the underlying writer.
    pub fn finish(mut self, head: &Profile) -> io::Result<W> {
        let cpu = self.value_type("cpu", "nanoseconds")?;
        let has_only_allocations = self.types.allocations && !self.has_time;
        let shown = match head.state {
            _ if has_only_allocations => self.string(ALLOCATIONS[1].0)?,
            State::OnCpu => cpu.kind,
            state => self.string(state.name())?,
        };
        let end = message::Profile {
            time_nanos: since_epoch(head.start),
            duration_nanos: signed(head.duration_ns),
            period_type: Some(cpu),
            period: signed(head.period_ns),
            comment: self.comments(head)?,
            default_sample_type: shown,
            ..message::Profile::default()
        };
        self.write(&end)?;
        let mut writer = self.gzip.finish()?;
        writer.flush()?;
        Ok(writer)
    }

    /// The values of a sample. In a file of CPU time alone, a sample of another state has none.
    fn values(&self, sample: &Sample, allocated: [i64; 2]) -> Vec<i64> {
        let (count, time_ns) = (signed(sample.count), signed(sample.time_ns));
        let of = |state: State, value: i64| if sample.state == state { value } else { 0 };
        let mut values = Vec::with_capacity(8);
        values.extend(self.has_counts.then(|| of(State::OnCpu, count)));
        values.push(of(State::OnCpu, time_ns));
        if self.types.off_cpu {
            values.push(of(State::Waiting, count));
            values.extend(OFF_CPU.map(|state| of(state, time_ns)));
        }
        if self.types.allocations {
            values.extend(allocated);
        }
        values
    }

    fn add_mapping(&mut self, mapping: message::Mapping) -> io::Result<MappingId> {
        self.write(&message::Profile { mapping: vec![mapping], ..message::Profile::default() })?;
        self.mappings += 1;
        Ok(MappingId(self.mappings - 1))
    }

    fn mapping_message(&mut self, mapping: &Mapping) -> io::Result<message::Mapping> {
        Ok(message::Mapping {
            id: u64::from(self.mappings) + 1,
            memory_start: mapping.start,
            memory_limit: mapping.end,
            file_offset: mapping.offset,
            filename: self.string(&mapping.file)?,
            build_id: self.string(&mapping.build_id)?,
            ..message::Mapping::default()
        })
    }

    fn line(&self, line: &Line) -> message::Line {
        let known = line.function.0 < self.functions;
        let function_id = if known { u64::from(line.function.0) + 1 } else { 0 };
        message::Line { function_id, line: line.line.into() }
    }

    fn label(&mut self, key: &str, value: Value<'_>) -> io::Result<message::Label> {
        let label = message::Label { key: self.string(key)?, ..message::Label::default() };
        Ok(match value {
            Value::Number(num) => message::Label { num: num as i64, ..label },
            Value::Text(text) => message::Label { str: self.string(&text)?, ..label },
        })
    }

    fn comments(&mut self, head: &Profile) -> io::Result<Vec<i64>> {
        let mut lost = head.lost;
        let lost = lost.parts().into_iter().filter(|part| *part.count != 0);
        let lost = lost.map(|part| format!("{LOST}{}={}", part.key, part.count));
        let mechanism =
            (!head.mechanism.is_empty()).then(|| format!("{MECHANISM}{}", head.mechanism));
        let root = head.task_root.as_ref();
        let root = root.map(|root| format!("{TASK_ROOT}{} {}", root.functions, root.file));
        let remarks = head.remarks.iter().map(|remark| format!("{REMARK}{remark}"));
        let ours = [OURS.to_owned()].into_iter().chain(mechanism);
        let comments = ours.chain(root).chain(lost).chain(remarks);
        comments.map(|comment| self.string(&comment)).collect()
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> io::Result<message::ValueType> {
        Ok(message::ValueType { kind: self.string(kind)?, unit: self.string(unit)? })
    }

    /// Returns the number of a string, which is written now if it is new.
    fn string(&mut self, string: &str) -> io::Result<i64> {
        if let Some(at) = self.strings.get(string) {
            return Ok(*at);
        }
        let next = self.strings.len() as i64;
        self.strings.insert(string.into(), next);
        let string_table = vec![string.to_owned()];
        self.write(&message::Profile { string_table, ..message::Profile::default() })?;
        Ok(next)
    }

    /// Writes the fields that are not empty. A reader joins all pieces to one message.
    fn write(&mut self, piece: &message::Profile) -> io::Result<()> {
        self.piece.clear();
        piece.encode(&mut self.piece).map_err(io::Error::other)?;
        self.gzip.write_all(&self.piece)
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
