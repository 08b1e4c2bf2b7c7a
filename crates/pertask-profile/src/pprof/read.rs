//! Reads pprof files of any program in bounded memory, so that nobody has to trust a file to open it.
//!
//! The table of strings may come last, so the reader goes through the file twice: first for the tables, then for the samples.

use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::read::MultiGzDecoder;
use prost::Message;

use super::super::builder::MOST_REMARKS;
use super::super::{
    Function, FunctionId, Line, Location, LocationId, Lost, Mapping, MappingId, Profile, Sample,
};
use super::fields::{Field, Fields};
use super::labels::{self, Taken};
use super::{LOST, MECHANISM, REMARK, ReadError, message};

/// How large a pprof file may be to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// The most unpacked bytes of the file.
    pub bytes: u64,
    /// The most bytes of one sample, location or other such part.
    pub part_bytes: u64,
    /// The most samples.
    pub samples: u64,
    /// The most strings.
    pub strings: u64,
    /// The most bytes of one string.
    pub string_bytes: u64,
    /// The most locations, and the most functions, and the most mappings.
    pub locations: u64,
    /// The most frames of one stack, inlined functions included. (A few bytes can repeat a long list of them.)
    pub depth: u64,
}

impl Default for ReadLimits {
    /// Returns limits that suffice for any profile that a program makes of itself, within some hundred megabytes of memory.
    fn default() -> Self {
        Self {
            bytes: 128 << 20,
            part_bytes: 1 << 20,
            samples: 1 << 20,
            strings: 1 << 20,
            string_bytes: 64 << 10,
            locations: 1 << 20,
            depth: 4_096,
        }
    }
}

impl Profile {
    /// Reads a pprof file, gzip'd or not, within [`ReadLimits::default`].
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, is damaged, is too large, or does not contain CPU time.
    pub fn from_pprof(reader: impl Read) -> Result<Self, ReadError> {
        Self::from_pprof_within(reader, &ReadLimits::default())
    }

    /// Reads a pprof file, gzip'd or not, within the given limits.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, is damaged, exceeds a limit, or does not contain CPU time.
    pub fn from_pprof_within(reader: impl Read, limits: &ReadLimits) -> Result<Self, ReadError> {
        let bytes = unpacked(reader, limits)?;
        let mut tables = Tables::new(limits);
        tables.read(&bytes)?;
        tables.profile(&bytes)
    }
}

/// Reads and unpacks the whole file.
fn unpacked(mut reader: impl Read, limits: &ReadLimits) -> Result<Vec<u8>, ReadError> {
    let mut magic = Vec::new();
    reader.by_ref().take(2).read_to_end(&mut magic).map_err(ReadError::Read)?;
    // The packed file has a limit too, because any number of empty gzip files in a row unpack to nothing.
    let whole = magic.chain(reader.take(limits.bytes));
    let bytes = match &magic[..] {
        [] => return Err(ReadError::Empty),
        [0x1f, 0x8b] => within(MultiGzDecoder::new(whole), limits).map_err(unpacking)?,
        _ => within(whole, limits).map_err(ReadError::Read)?,
    };
    if bytes.len() as u64 > limits.bytes {
        return Err(ReadError::TooLarge { what: "unpacked bytes", limit: limits.bytes });
    }
    if bytes.is_empty() { Err(ReadError::Empty) } else { Ok(bytes) }
}

/// Reads one byte more than the limit at most.
fn within(reader: impl Read, limits: &ReadLimits) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limits.bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Tells a damaged gzip from a reader that failed.
fn unpacking(error: std::io::Error) -> ReadError {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::InvalidInput | ErrorKind::InvalidData => {
            ReadError::Gzip(error)
        }
        _ => ReadError::Read(error),
    }
}

/// Everything except the samples. Strings are read; the rest is still as in the file.
struct Tables<'a> {
    limits: &'a ReadLimits,
    strings: Vec<Arc<str>>,
    sample_types: Vec<message::ValueType>,
    mappings: Ids<message::Mapping>,
    functions: Ids<message::Function>,
    locations: Ids<message::Location>,
    comments: Vec<i64>,
    head: message::Profile,
}

/// The items of a table, and the index of each by the file's own id.
struct Ids<T> {
    index: HashMap<u64, u32>,
    items: Vec<T>,
}

/// What the values of a sample mean: which one is the count, and which one the CPU time, with its unit in nanoseconds.
struct Columns {
    count: Option<usize>,
    cpu: Option<(usize, u64)>,
    period_ns: u64,
}

impl<'a> Tables<'a> {
    fn new(limits: &'a ReadLimits) -> Self {
        Self {
            limits,
            strings: Vec::new(),
            sample_types: Vec::new(),
            mappings: Ids::new(),
            functions: Ids::new(),
            locations: Ids::new(),
            comments: Vec::new(),
            head: message::Profile::default(),
        }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        for field in Fields(bytes) {
            match field.map_err(|why| malformed("the file", why))? {
                (tag, Field::Bytes(part)) => self.part(tag, part)?,
                (tag, Field::Varint(number)) => self.number(tag, number.cast_signed())?,
                (_, Field::Fixed) => (),
            }
        }
        Ok(())
    }

    fn part(&mut self, tag: u64, part: &[u8]) -> Result<(), ReadError> {
        let limits = self.limits;
        let room = |what, len: usize, limit| room(what, len as u64, limit);
        room("bytes in one part", part.len().saturating_sub(1), limits.part_bytes)?;
        match tag {
            1 => {
                room("sample types", self.sample_types.len(), 64)?;
                self.sample_types.push(decoded("sample type", self.sample_types.len(), part)?);
            }
            3 => {
                room("mappings", self.mappings.items.len(), limits.locations)?;
                let item: message::Mapping = decoded("mapping", self.mappings.items.len(), part)?;
                self.mappings.push("mapping", item.id, item)?;
            }
            4 => {
                room("locations", self.locations.items.len(), limits.locations)?;
                let item: message::Location =
                    decoded("location", self.locations.items.len(), part)?;
                self.locations.push("location", item.id, item)?;
            }
            5 => {
                room("functions", self.functions.items.len(), limits.locations)?;
                let item: message::Function =
                    decoded("function", self.functions.items.len(), part)?;
                self.functions.push("function", item.id, item)?;
            }
            6 => {
                room("strings", self.strings.len(), limits.strings)?;
                room("bytes in one string", part.len().saturating_sub(1), limits.string_bytes)?;
                self.strings.push(String::from_utf8_lossy(part).into());
            }
            11 => self.head.period_type = Some(decoded("period type", 0, part)?),
            13 => {
                // Packed numbers have no keys.
                let mut packed = Fields(part);
                while !packed.0.is_empty() {
                    let number = packed.varint().map_err(|why| malformed("comments", why))?;
                    self.number(13, number.cast_signed())?;
                }
            }
            _ => (),
        }
        Ok(())
    }

    fn number(&mut self, tag: u64, number: i64) -> Result<(), ReadError> {
        match tag {
            9 => self.head.time_nanos = number,
            10 => self.head.duration_nanos = number,
            12 => self.head.period = number,
            13 => {
                room("comments", self.comments.len() as u64, 4_096)?;
                self.comments.push(number);
            }
            _ => (),
        }
        Ok(())
    }

    fn profile(&self, bytes: &[u8]) -> Result<Profile, ReadError> {
        let columns = self.columns()?;
        let (mechanism, lost, remarks) = self.comments()?;
        Ok(Profile {
            start: start(self.head.time_nanos)?,
            duration_ns: unsigned(self.head.duration_nanos, "the duration")?,
            mechanism,
            period_ns: columns.period_ns,
            samples: self.samples(bytes, &columns)?,
            locations: self.each(&self.locations.items, "location", Self::location)?,
            functions: self.each(&self.functions.items, "function", Self::function)?,
            mappings: self.each(&self.mappings.items, "mapping", Self::mapping)?,
            lost,
            remarks,
        })
    }

    fn each<T, U>(
        &self,
        items: &[T],
        what: &str,
        convert: impl Fn(&Self, &T) -> Result<U, String>,
    ) -> Result<Vec<U>, ReadError> {
        let items = items.iter().enumerate();
        items
            .map(|(at, item)| {
                convert(self, item).map_err(|why| malformed(&format!("{what} {at}"), &why))
            })
            .collect()
    }

    fn samples(&self, bytes: &[u8], columns: &Columns) -> Result<Vec<Sample>, ReadError> {
        let mut samples = Vec::new();
        // Sums of what is read must not overflow.
        let mut sum = Sample::default();
        for field in Fields(bytes) {
            let Ok((2, Field::Bytes(part))) = field else { continue };
            let at = samples.len();
            room("samples", at as u64, self.limits.samples)?;
            let wrong = |why: String| malformed(&format!("sample {at}"), &why);
            let message = decoded("sample", at, part)?;
            room("frames in one stack", self.depth(&message).saturating_sub(1), self.limits.depth)?;
            let sample = self.sample(&message, columns).map_err(wrong)?;
            sum.count = added(sum.count, sample.count).map_err(wrong)?;
            sum.cpu_ns = added(sum.cpu_ns, sample.cpu_ns).map_err(wrong)?;
            samples.push(sample);
        }
        Ok(samples)
    }

    /// Returns the number of frames of the sample's stack. A location without functions is one frame.
    fn depth(&self, message: &message::Sample) -> u64 {
        let location =
            |id| self.locations.index.get(id).map(|at| &self.locations.items[*at as usize]);
        let lines = |id| location(id).map_or(1, |it| it.line.len().max(1) as u64);
        message.location_id.iter().map(lines).fold(0, u64::saturating_add)
    }

    fn sample(&self, message: &message::Sample, columns: &Columns) -> Result<Sample, String> {
        if message.value.len() != self.sample_types.len() {
            let (values, types) = (message.value.len(), self.sample_types.len());
            return Err(format!(
                "it needs a value for each sample type ({types}), and has {values}"
            ));
        }
        let stack = message.location_id.iter();
        let stack = stack.map(|id| self.locations.get(*id, "location").map(LocationId));
        let (count, cpu_ns) = columns.of(&message.value)?;
        let mut sample =
            Sample { count, cpu_ns, stack: stack.collect::<Result<_, _>>()?, ..Sample::default() };
        for label in &message.label {
            let key = self.string(label.key)?;
            if !key.is_empty() {
                labels::take(&mut sample, &key, self.value(&key, label)?);
            }
        }
        Ok(sample)
    }

    /// Returns a label's value. The format writes an empty text and the number 0 alike.
    fn value(&self, key: &str, label: &message::Label) -> Result<Taken, String> {
        let unit = self.string(label.num_unit)?;
        let is_number = matches!(key, "task" | "parent" | "tid");
        Ok(match label {
            message::Label { str: 0, num: 0, .. } if unit.is_empty() && !is_number => {
                Taken::Text(unit)
            }
            message::Label { str: 0, num, .. } if unit.is_empty() => {
                Taken::Number(num.cast_unsigned())
            }
            message::Label { str: 0, num, .. } => Taken::Text(format!("{num} {unit}").into()),
            _ => Taken::Text(self.string(label.str)?),
        })
    }

    fn location(&self, message: &message::Location) -> Result<Location, String> {
        let mapping = (message.mapping_id != 0).then_some(message.mapping_id);
        let mapping = mapping.map(|id| self.mappings.get(id, "mapping")).transpose()?;
        // A line without a function says nothing.
        let lines = message.line.iter().filter(|line| line.function_id != 0);
        let lines = lines.map(|line| {
            let function = FunctionId(self.functions.get(line.function_id, "function")?);
            Ok(Line { function, line: line_number(line.line) })
        });
        let lines = lines.collect::<Result<_, String>>()?;
        Ok(Location { address: message.address, mapping: mapping.map(MappingId), lines })
    }

    fn function(&self, message: &message::Function) -> Result<Function, String> {
        Ok(Function {
            name: self.string(message.name)?,
            system_name: self.string(message.system_name)?,
            file: self.string(message.filename)?,
            start_line: line_number(message.start_line),
        })
    }

    fn mapping(&self, message: &message::Mapping) -> Result<Mapping, String> {
        Ok(Mapping {
            start: message.memory_start,
            end: message.memory_limit,
            offset: message.file_offset,
            file: self.string(message.filename)?,
            build_id: self.string(message.build_id)?,
        })
    }

    /// Returns the mechanism, the losses and the remarks from the comments that we write.
    fn comments(&self) -> Result<(String, Lost, Vec<String>), ReadError> {
        let (mut mechanism, mut lost, mut remarks) = (String::new(), Lost::default(), Vec::new());
        for comment in &self.comments {
            let comment = self.string(*comment).map_err(|why| malformed("a comment", &why))?;
            if let Some(words) = comment.strip_prefix(MECHANISM) {
                mechanism = words.to_owned();
            }
            let remark = comment.strip_prefix(REMARK).filter(|_| remarks.len() < MOST_REMARKS);
            remarks.extend(remark.map(str::to_owned));
            let count = comment.strip_prefix(LOST).and_then(|lost| lost.split_once('='));
            if let Some((name, Ok(count))) = count.map(|(name, count)| (name, count.parse())) {
                let parts = lost.parts().into_iter().filter(|part| part.key == name);
                parts.for_each(|part| *part.count = count);
            }
        }
        Ok((mechanism, lost, remarks))
    }

    fn columns(&self) -> Result<Columns, ReadError> {
        let named = |value: &message::ValueType| -> Result<_, String> {
            Ok((self.string(value.kind)?, self.string(value.unit)?))
        };
        let types: Result<Vec<_>, _> = self.sample_types.iter().map(named).collect();
        let types = types.map_err(|why| malformed("a sample type", &why))?;
        let period = self.head.period_type.as_ref().map(named).transpose();
        let period = period.map_err(|why| malformed("the period type", &why))?;
        let period_ns = period.and_then(|(kind, unit)| cpu_unit_ns(&kind, &unit));
        let period = unsigned(self.head.period, "the period")?;
        let columns = Columns {
            count: types.iter().position(|(kind, unit)| &**kind == "samples" && &**unit == "count"),
            cpu: (0..)
                .zip(&types)
                .find_map(|(at, (kind, unit))| Some((at, cpu_unit_ns(kind, unit)?))),
            period_ns: period_ns.map_or(0, |unit| period.saturating_mul(unit)),
        };
        if columns.cpu.is_none() && (columns.count.is_none() || columns.period_ns == 0) {
            let found = types.iter().map(|(kind, unit)| format!("{kind}/{unit}")).collect();
            return Err(ReadError::NotCpuTime { found });
        }
        Ok(columns)
    }

    fn string(&self, index: i64) -> Result<Arc<str>, String> {
        let string = usize::try_from(index).ok().and_then(|index| self.strings.get(index));
        match string {
            Some(string) => Ok(string.clone()),
            // Some writers leave out the empty string, which index 0 means.
            None if index == 0 => Ok("".into()),
            None => Err(format!("string {index} of {}", self.strings.len())),
        }
    }
}

impl Columns {
    /// Returns a sample's count and CPU time. If the file lacks one of them, it follows from the period.
    fn of(&self, values: &[i64]) -> Result<(u64, u64), String> {
        let value = |at: usize| {
            match values.get(at).map(|value| u64::try_from(*value)) {
            Some(Ok(value)) => Ok(value),
            _ => Err("a negative value: the file is the difference of two profiles, which cannot be read".to_owned()),
        }
        };
        let cpu_ns = self.cpu.map(|(at, unit)| Ok::<_, String>(value(at)?.saturating_mul(unit)));
        Ok(match (self.count, cpu_ns.transpose()?) {
            (Some(count), Some(cpu_ns)) => (value(count)?, cpu_ns),
            (Some(count), None) => (value(count)?, value(count)?.saturating_mul(self.period_ns)),
            (None, Some(cpu_ns)) => (cpu_ns / self.period_ns.max(1), cpu_ns),
            (None, None) => (0, 0),
        })
    }
}

impl<T> Ids<T> {
    fn new() -> Self {
        Self { index: HashMap::new(), items: Vec::new() }
    }

    fn push(&mut self, what: &str, id: u64, item: T) -> Result<(), ReadError> {
        let next = self.items.len() as u32;
        if id == 0 || self.index.insert(id, next).is_some() {
            return Err(malformed(
                &format!("{what} {next}"),
                &format!("its id {id} is 0 or already taken"),
            ));
        }
        self.items.push(item);
        Ok(())
    }

    fn get(&self, id: u64, what: &str) -> Result<u32, String> {
        self.index.get(&id).copied().ok_or_else(|| format!("there is no {what} with the id {id}"))
    }
}

fn decoded<T: Message + Default>(what: &str, at: usize, part: &[u8]) -> Result<T, ReadError> {
    T::decode(part).map_err(|why| malformed(&format!("{what} {at}"), &why.to_string()))
}

fn malformed(part: &str, why: &str) -> ReadError {
    ReadError::Malformed { part: part.to_owned(), why: why.to_owned() }
}

/// Returns an error if there is no room for one more.
fn room(what: &'static str, len: u64, limit: u64) -> Result<(), ReadError> {
    if len < limit { Ok(()) } else { Err(ReadError::TooLarge { what, limit }) }
}

fn cpu_unit_ns(kind: &str, unit: &str) -> Option<u64> {
    let unit = match unit {
        "nanoseconds" => 1,
        "microseconds" => 1_000,
        "milliseconds" => 1_000_000,
        "seconds" => 1_000_000_000,
        _ => return None,
    };
    (kind == "cpu").then_some(unit)
}

fn start(nanos: i64) -> Result<SystemTime, ReadError> {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    let start =
        if nanos < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    start.ok_or_else(|| malformed("the time", "it lies outside this system's calendar"))
}

fn unsigned(number: i64, part: &str) -> Result<u64, ReadError> {
    u64::try_from(number).map_err(|_| malformed(part, "it is negative"))
}

/// Converts a line's number, and returns 0 (unknown) for what cannot be one.
fn line_number(line: i64) -> u32 {
    u32::try_from(line).unwrap_or(0)
}

fn added(sum: u64, more: u64) -> Result<u64, String> {
    let sum = sum.checked_add(more).filter(|sum| i64::try_from(*sum).is_ok());
    sum.ok_or_else(|| "its sum with the samples before it exceeds 64 bits".to_owned())
}
