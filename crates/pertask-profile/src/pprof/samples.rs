//! Reads the samples of a pprof file, field by field, within bounds.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use prost::Message;

use super::super::{Allocation, Location, LocationId, Lost, Sample, State};
use super::columns::Columns;
use super::fields::{Field, Fields};
use super::labels::{Given, Labels, Taken};
use super::limits::{Held, ReadLimits};
use super::tables::{Tables, malformed};
use super::{ReadError, message};

/// The most texts of numbers that are looked up. Where there are more, few are alike.
const MOST_NUMBERS: usize = 1 << 16;

/// Reads samples, and counts what they lose.
pub(super) struct Samples<'a> {
    tables: &'a Tables<'a>,
    locations: &'a [Location],
    columns: &'a Columns,
    limits: &'a ReadLimits,
    labels: Labels,
    /// Stacks that were cut.
    pub(super) lost: Lost,
    held: Held,
    pub(super) allocations: Vec<Allocation>,
    /// Whether there are allocations whose numbers are negative.
    pub(super) has_less_allocations: bool,
    /// Sums of what is read must not overflow.
    sum: (u64, u64),
    /// Texts of some numbers, of which many labels may have the same.
    numbers: HashMap<(i64, i64), Arc<str>>,
}

/// A sample's numbers as they stand in the file.
#[derive(Default)]
struct Parts {
    values: Vec<i64>,
    stack: Vec<LocationId>,
    /// Frames of the stack so far, and whether there was no room for one.
    depth: u64,
    is_cut: bool,
    labels: u64,
}

impl<'a> Samples<'a> {
    pub(super) fn new(
        tables: &'a Tables<'a>,
        locations: &'a [Location],
        columns: &'a Columns,
        limits: &'a ReadLimits,
        labels: Labels,
    ) -> Self {
        Self {
            tables,
            locations,
            columns,
            limits,
            labels,
            lost: Lost::default(),
            held: Held::default(),
            allocations: Vec::new(),
            has_less_allocations: false,
            sum: (0, 0),
            numbers: HashMap::new(),
        }
    }

    /// Returns the samples, and those whose numbers are negative. A sample with numbers of both kinds becomes two.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(Vec<Sample>, Vec<Sample>), ReadError> {
        let (mut samples, mut less) = (Vec::new(), Vec::new());
        let mut parts = Parts::default();
        let fields = Fields(bytes).filter_map(|field| match field {
            Ok((2, Field::Bytes(part))) => Some(part),
            _ => None,
        });
        for (at, part) in fields.enumerate() {
            for (sample, signs) in self.sample(at, part, &mut parts)? {
                if signs.iter().all(|sign| *sign >= 0) {
                    samples.push(sample);
                } else if signs.iter().all(|sign| *sign <= 0) {
                    less.push(sample);
                } else {
                    self.held.add(parts.depth, parts.labels, self.limits)?;
                    samples.push(only(sample.clone(), signs.map(|sign| sign > 0)));
                    less.push(only(sample, signs.map(|sign| sign < 0)));
                }
            }
        }
        Ok((samples, less))
    }

    /// Returns a sample without the signs of its count and its time, and those: one for each state in which it has any time.
    fn sample(
        &mut self,
        at: usize,
        part: &[u8],
        parts: &mut Parts,
    ) -> Result<Vec<(Sample, [i128; 2])>, ReadError> {
        let wrong = |why: &str| malformed(&format!("sample {at}"), why);
        parts.clear();
        let mut sample = self.fields(part, parts, wrong)?;
        let (values, types) = (parts.values.len(), self.tables.sample_types.len());
        if values != types {
            let why = format!("it needs a value for each sample type ({types}), and has {values}");
            return Err(wrong(&why));
        }
        sample.stack = parts.stack.as_slice().into();
        let states = self.states(at, &parts.values)?;
        if let Some(numbers) = self.columns.allocated(at, &parts.values)? {
            self.held.add(parts.depth, parts.labels, self.limits)?;
            match numbers.map(u64::try_from) {
                [Ok(count), Ok(bytes)] => {
                    let complete = sample.complete && !parts.is_cut;
                    let sample = Sample { count, complete, ..sample.clone() };
                    self.allocations.push(Allocation { bytes, sample });
                }
                _ => self.has_less_allocations = true,
            }
            // Without any time, that is all it is.
            if matches!(states[..], [(State::OnCpu, [0, 0])]) {
                return Ok(Vec::new());
            }
        }
        let mut samples = Vec::with_capacity(states.len());
        let last = states.len() - 1;
        for (nth, (state, values)) in states.into_iter().enumerate() {
            self.held.add(parts.depth, parts.labels, self.limits)?;
            let size = |value: i128| u64::try_from(value.unsigned_abs()).unwrap_or(u64::MAX);
            let [count, time_ns] = values.map(size);
            // The last one, most often the only one, takes the stack and the labels.
            let sample = if nth == last { mem::take(&mut sample) } else { sample.clone() };
            let mut of_state = Sample { state, count, time_ns, ..sample };
            self.count(&mut of_state, parts).map_err(wrong)?;
            samples.push((of_state, values.map(i128::signum)));
        }
        Ok(samples)
    }

    /// Returns the states in which a sample has any count or time, with those. There is at least one.
    fn states(&self, at: usize, values: &[i64]) -> Result<Vec<(State, [i128; 2])>, ReadError> {
        let on_cpu = self.columns.values(at, values)?;
        let mut states = self.columns.off_cpu_values(at, values)?;
        // A sample without any time is one of no CPU time.
        if states.is_empty() || on_cpu != [0, 0] {
            states.insert(0, (State::OnCpu, on_cpu));
        }
        Ok(states)
    }

    /// Reads the fields of a sample: its labels, and its numbers as parts.
    fn fields(
        &mut self,
        part: &[u8],
        parts: &mut Parts,
        wrong: impl Fn(&str) -> ReadError,
    ) -> Result<Sample, ReadError> {
        let (mut sample, mut given) = (Sample::default(), Given::default());
        for field in Fields(part) {
            match field.map_err(&wrong)? {
                (1, field) => numbers(field, |id| self.frame(parts, id)),
                (2, field) => numbers(field, |value| parts.value(value)),
                (3, Field::Bytes(label)) => self.label(label).map(|label| {
                    parts.labels += 1;
                    if let Some((key, value)) = label {
                        self.labels.take(&mut sample, &mut given, &key, value);
                    }
                }),
                _ => Ok(()),
            }
            .map_err(|why| wrong(&why))?;
        }
        self.labels.finish(&mut sample, given);
        sample.labels.shrink_to_fit();
        sample.scopes.shrink_to_fit();
        Ok(sample)
    }

    /// Adds a sample to the sums and, if its stack was cut, to what is lost.
    fn count(&mut self, sample: &mut Sample, parts: &Parts) -> Result<(), &'static str> {
        let add = |sum: u64, more: u64| {
            let sum = sum.checked_add(more).filter(|sum| i64::try_from(*sum).is_ok());
            sum.ok_or("its sum with the samples before it exceeds 64 bits")
        };
        self.sum = (add(self.sum.0, sample.count)?, add(self.sum.1, sample.time_ns)?);
        if parts.is_cut {
            // What is lost is counted in samples, and waits are none.
            if sample.state == State::OnCpu {
                self.lost.stacks_cut += sample.count.max(1);
                self.lost.stacks_incomplete += if sample.complete { sample.count } else { 0 };
            }
            sample.complete = false;
        }
        Ok(())
    }

    /// Adds a location to the stack if there is room for its functions. A location without functions is one frame.
    fn frame(&self, parts: &mut Parts, id: u64) -> Result<(), String> {
        let Some(at) = self.tables.locations.get(id) else {
            return Err(format!("there is no location with the id {id}"));
        };
        let lines = |message: &message::Location| message.line.len().max(1) as u64;
        let depth = parts.depth + lines(&self.tables.locations.items[at as usize]);
        // The first location has been cut to the limit if that is what it takes.
        parts.is_cut |= depth > self.limits.depth;
        if parts.is_cut && !parts.stack.is_empty() {
            return Ok(());
        }
        parts.depth += self.locations[at as usize].lines.len().max(1) as u64;
        parts.stack.push(LocationId(at));
        Ok(())
    }

    /// Returns a label's key and value. A label without a key says nothing.
    fn label(&mut self, part: &[u8]) -> Result<Option<(Arc<str>, Taken)>, String> {
        let label = message::Label::decode(part).map_err(|why| why.to_string())?;
        let key = self.tables.string(label.key)?;
        if key.is_empty() {
            return Ok(None);
        }
        let value = self.value(&key, &label)?;
        Ok(Some((key, value)))
    }

    /// Returns a label's value. The format writes an empty text and the number 0 alike.
    fn value(&mut self, key: &str, label: &message::Label) -> Result<Taken, String> {
        if label.str != 0 {
            return Ok(Taken::Text(self.tables.string(label.str)?));
        }
        let unit = self.tables.string(label.num_unit)?;
        let is_number = self.labels.has_numbers(key);
        if unit.is_empty() && (is_number || (label.num != 0 && self.labels.is_ours(key))) {
            return Ok(Taken::Number(label.num.cast_unsigned()));
        }
        if unit.is_empty() && label.num == 0 {
            return Ok(Taken::Text(unit));
        }
        Ok(Taken::Text(self.number(label, &unit)))
    }

    /// Returns a number as text.
    fn number(&mut self, label: &message::Label, unit: &str) -> Arc<str> {
        let key = (label.num, label.num_unit);
        if let Some(text) = self.numbers.get(&key) {
            return text.clone();
        }
        let text: Arc<str> = match unit {
            "" => label.num.to_string().into(),
            unit => format!("{} {unit}", label.num).into(),
        };
        if self.numbers.len() < MOST_NUMBERS {
            self.numbers.insert(key, text.clone());
        }
        text
    }
}

impl Parts {
    fn clear(&mut self) {
        self.values.clear();
        self.stack.clear();
        (self.depth, self.is_cut, self.labels) = (0, false, 0);
    }

    /// Adds a value. There are no more sample types than that, so that one more is enough to find what is wrong.
    fn value(&mut self, value: u64) -> Result<(), String> {
        if self.values.len() < 128 {
            self.values.push(value.cast_signed());
        }
        Ok(())
    }
}

/// Returns the sample with its count, its time, both or neither.
fn only(sample: Sample, [count, time]: [bool; 2]) -> Sample {
    let (count, time_ns) = (sample.count * u64::from(count), sample.time_ns * u64::from(time));
    Sample { count, time_ns, ..sample }
}

/// Calls `take` with each number of a field that is packed or not.
fn numbers(
    field: Field<'_>,
    mut take: impl FnMut(u64) -> Result<(), String>,
) -> Result<(), String> {
    match field {
        Field::Varint(number) => take(number),
        Field::Bytes(part) => {
            let mut packed = Fields(part);
            while !packed.0.is_empty() {
                take(packed.varint()?)?;
            }
            Ok(())
        }
        Field::Fixed => Ok(()),
    }
}
