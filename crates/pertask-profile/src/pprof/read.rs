//! Reads pprof files of any program in bounded memory, so that nobody has to trust a file to open it.
//!
//! The table of strings may come last, so the reader goes through the file twice: first for the tables, then for the samples.
//! What is wrong beside the samples is a remark. What leaves their figures in doubt is an error.

use std::io::Read;
use std::mem;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::builder::MOST_REMARKS;
use super::super::{
    Function, FunctionId, Line, Location, Lost, Mapping, MappingId, Profile, Sample, State,
};
use super::columns::Columns;
use super::labels::Labels;
use super::limits::ReadLimits;
use super::origin::Origin;
use super::samples::Samples;
use super::tables::{Tables, malformed};
use super::{ReadError, message, prune, unpack};

impl Profile {
    /// Reads a pprof file, gzip'd or not, within [`ReadLimits::default`].
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, is damaged, is too large, does not contain CPU time, or is the difference of two
    /// profiles, which [`PprofFile`](super::super::PprofFile) reads.
    pub fn from_pprof(reader: impl Read) -> Result<Self, ReadError> {
        Self::from_pprof_within(reader, &ReadLimits::default())
    }

    /// Reads a pprof file, gzip'd or not, within the given limits.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, is damaged, exceeds a limit, does not contain CPU time, or is the difference of two
    /// profiles, which [`PprofFile`](super::super::PprofFile) reads.
    pub fn from_pprof_within(reader: impl Read, limits: &ReadLimits) -> Result<Self, ReadError> {
        let signed = signed(reader, limits)?;
        if signed.is_difference() { Err(ReadError::Difference) } else { Ok(signed.profile) }
    }
}

/// What a file holds: a profile, and samples whose numbers are negative there.
pub(super) struct Signed {
    pub(super) profile: Profile,
    /// These samples, with numbers that are not negative. They use the profile's tables.
    pub(super) less: Vec<Sample>,
    /// Whether there are allocations whose numbers are negative.
    has_less_allocations: bool,
}

impl Signed {
    pub(super) fn is_difference(&self) -> bool {
        !self.less.is_empty() || self.has_less_allocations
    }
}

/// Reads a profile or a difference of two.
pub(super) fn signed(reader: impl Read, limits: &ReadLimits) -> Result<Signed, ReadError> {
    let bytes = unpack::unpacked(reader, limits)?;
    let tables = Tables::read(&bytes, limits)?;
    Reader { tables: &tables, limits, remarks: Remarks::default() }.signed(&bytes)
}

struct Reader<'a> {
    tables: &'a Tables<'a>,
    limits: &'a ReadLimits,
    remarks: Remarks,
}

/// What is wrong beside the samples.
#[derive(Default)]
struct Remarks {
    /// Locations whose mapping is missing, and lines whose function is.
    without_mapping: u64,
    without_function: u64,
    texts: Vec<String>,
}

impl Reader<'_> {
    fn signed(mut self, bytes: &[u8]) -> Result<Signed, ReadError> {
        let origin = Origin::of(self.tables)?;
        let columns = self.columns(origin.is_ours)?;
        let duration_ns = self.unsigned(self.tables.head.duration_nanos, "duration");
        let mut locations = each(&self.tables.locations.items, "location", |it| self.location(it))?;
        let functions = each(&self.tables.functions.items, "function", |it| self.function(it))?;
        let mappings = each(&self.tables.mappings.items, "mapping", |it| self.mapping(it))?;
        let labels = Labels::of_file(origin.is_ours);
        let mut reader = Samples::new(self.tables, &locations, &columns, self.limits, labels);
        let (mut samples, mut less) = reader.read(bytes)?;
        let allocations = mem::take(&mut reader.allocations);
        let has_less_allocations = reader.has_less_allocations;
        let lost = lost(origin.lost, reader.lost, self.tables.cut.len() as u64);
        self.drop_frames(&mut locations, &functions, [&mut samples, &mut less])?;
        let (samples, off_cpu) = Profile::by_cpu(samples);
        let profile = Profile {
            start: start(self.tables.head.time_nanos.unwrap_or(0))?,
            duration_ns,
            mechanism: origin.mechanism,
            period_ns: columns.period_ns,
            samples,
            state: State::OnCpu,
            off_cpu,
            allocations,
            has_allocations: columns.has_allocations(),
            has_counts: columns.has_counts(),
            locations,
            functions,
            mappings,
            lost,
            remarks: self.remarks.before(origin.remarks),
            task_root: origin.task_root.filter(|_| origin.is_ours),
        };
        Ok(Signed { profile, less, has_less_allocations })
    }

    fn columns(&mut self, is_ours: bool) -> Result<Columns, ReadError> {
        let types: Result<Vec<_>, _> =
            self.tables.sample_types.iter().map(|of| self.tables.named(of)).collect();
        let types = types.map_err(|why| malformed("a sample type", &why))?;
        let period_type = self.tables.head.period_type.map(|of| self.tables.named(&of)).transpose();
        let period_type = period_type.map_err(|why| malformed("the period type", &why))?;
        let period = self.unsigned(self.tables.head.period, "period");
        Columns::of(is_ours, &types, period_type.as_ref(), period)
    }

    /// Returns a number that cannot be negative, or 0 for none.
    fn unsigned(&mut self, number: Option<i64>, what: &str) -> u64 {
        u64::try_from(number.unwrap_or(0)).unwrap_or_else(|_| {
            self.remarks.texts.push(format!("the file's {what} is negative, and was ignored"));
            0
        })
    }

    fn location(&mut self, message: &message::Location) -> Result<Location, String> {
        let mapping =
            (message.mapping_id != 0).then(|| self.tables.mappings.get(message.mapping_id));
        self.remarks.without_mapping += u64::from(mapping == Some(None));
        // The innermost functions come first.
        let most = usize::try_from(self.limits.depth).unwrap_or(usize::MAX).max(1);
        let lines = message.line.iter().take(most);
        // A line without a function says nothing.
        let lines = lines.filter(|line| line.function_id != 0).filter_map(|line| {
            let function = self.tables.functions.get(line.function_id);
            self.remarks.without_function += u64::from(function.is_none());
            Some(Line { function: FunctionId(function?), line: line_number(line.line) })
        });
        let lines: Vec<_> = lines.collect();
        let mapping = mapping.flatten().map(MappingId);
        Ok(Location { address: message.address, mapping, lines })
    }

    fn function(&self, message: &message::Function) -> Result<Function, String> {
        Ok(Function {
            name: self.tables.string(message.name)?,
            system_name: self.tables.string(message.system_name)?,
            file: self.tables.string(message.filename)?,
            start_line: line_number(message.start_line),
        })
    }

    fn mapping(&self, message: &message::Mapping) -> Result<Mapping, String> {
        Ok(Mapping {
            start: message.memory_start,
            end: message.memory_limit,
            offset: message.file_offset,
            file: self.tables.string(message.filename)?,
            build_id: self.tables.string(message.build_id)?,
        })
    }

    fn drop_frames(
        &mut self,
        locations: &mut [Location],
        functions: &[Function],
        samples: [&mut [Sample]; 2],
    ) -> Result<(), ReadError> {
        let string =
            |index, what| self.tables.string(index).map_err(|why: String| malformed(what, &why));
        let (drop_at, keep_at) = (self.tables.head.drop_frames, self.tables.head.keep_frames);
        let (drop, keep) = (string(drop_at, "drop_frames")?, string(keep_at, "keep_frames")?);
        if drop.is_empty() {
            return Ok(());
        }
        let is_cut = [drop_at, keep_at].into_iter().any(|at| self.tables.is_cut(at));
        let pattern = match is_cut {
            true => Err("its pattern is longer than the limit on strings"),
            false => prune::Pattern::of(&drop, &keep, functions),
        };
        let remark = match pattern {
            Ok(pattern) => match pattern.prune(locations, functions, samples) {
                0 => return Ok(()),
                _ => "as the file asks, some frames are left out, with what they called; their callers have that time".to_owned(),
            },
            Err(why) => format!("the file asks to leave some frames out, but {why}; they are shown"),
        };
        self.remarks.texts.push(remark);
        Ok(())
    }
}

impl Remarks {
    /// Returns these remarks, and then those of the file.
    fn before(mut self, file: Vec<String>) -> Vec<String> {
        let missing = [
            (self.without_mapping, "location", "names a mapping", "name a mapping"),
            (self.without_function, "line", "names a function", "name a function"),
        ];
        for (count, what, names, name) in missing.into_iter().filter(|(count, ..)| *count > 0) {
            let counted = pertask_text::human::counted(count, what);
            let verb = if count == 1 { names } else { name };
            self.texts.push(format!(
                "{counted} of the file {verb} that it does not have; samples and times are not touched by that"
            ));
        }
        self.texts.extend(file);
        self.texts.truncate(MOST_REMARKS);
        self.texts
    }
}

fn each<T, U>(
    items: &[T],
    what: &str,
    mut convert: impl FnMut(&T) -> Result<U, String>,
) -> Result<Vec<U>, ReadError> {
    let items = items.iter().enumerate();
    items
        .map(|(at, item)| convert(item).map_err(|why| malformed(&format!("{what} {at}"), &why)))
        .collect()
}

/// Adds what was lost while reading to what the file lacks.
fn lost(mut lost: Lost, reading: Lost, cut: u64) -> Lost {
    lost.texts_cut = lost.texts_cut.saturating_add(cut);
    lost.stacks_cut = lost.stacks_cut.saturating_add(reading.stacks_cut);
    lost.stacks_incomplete = lost.stacks_incomplete.saturating_add(reading.stacks_incomplete);
    lost
}

fn start(nanos: i64) -> Result<SystemTime, ReadError> {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    let start =
        if nanos < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    start.ok_or_else(|| malformed("the time", "it lies outside this system's calendar"))
}

/// Converts a line's number, and returns 0 (unknown) for what cannot be one.
fn line_number(line: i64) -> u32 {
    u32::try_from(line).unwrap_or(0)
}
