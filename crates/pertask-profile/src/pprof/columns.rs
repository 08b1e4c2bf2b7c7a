//! What the values of a sample mean: which one is the count, which one the CPU time, and which are times off the CPU.
//!
//! The format leaves names and units to its writers, so those that are in use for CPU time and for counts are all taken.

use std::sync::Arc;

use super::super::State;
use super::ReadError;
use super::tables::malformed;
use super::write::{ALLOCATIONS, OFF_CPU};

/// Which values of a sample are its counts and its times, the latter with their units in nanoseconds.
#[derive(Debug)]
pub(super) struct Columns {
    count: Option<usize>,
    cpu: Option<(usize, u64)>,
    /// The number of waits, in a file of ours.
    waits: Option<usize>,
    /// Time off the CPU, by state, with its unit in nanoseconds.
    off_cpu: Vec<(State, usize, u64)>,
    /// The number of allocations and their bytes, in a file of ours.
    allocations: Option<[usize; 2]>,
    /// The CPU time between two samples, or 0.
    pub(super) period_ns: u64,
}

/// A kind and its unit, such as `cpu` and `nanoseconds`.
pub(super) type Type = (Arc<str>, Arc<str>);

impl Columns {
    /// Finds the columns by the names of the types. `period` is the CPU time between two samples, in units of `period_type`.
    ///
    /// Time off the CPU is read from our own files alone. Elsewhere, `blocked` and `waiting` may be of threads, or of anything.
    pub(super) fn of(
        is_ours: bool,
        types: &[Type],
        period_type: Option<&Type>,
        period: u64,
    ) -> Result<Self, ReadError> {
        let period_unit = period_type.and_then(cpu_unit_ns);
        let is_wait = |of: &Type| is_ours && is(of, "waits") && of.1.starts_with("count");
        let off_cpu = OFF_CPU.into_iter().filter(|_| is_ours);
        let is_type = |(kind, unit): (&str, &str)| {
            types.iter().position(|of| is_ours && (&*of.0, &*of.1) == (kind, unit))
        };
        let [objects, space] = ALLOCATIONS.map(is_type);
        let columns = Self {
            allocations: objects.zip(space).map(|(objects, space)| [objects, space]),
            count: count_column(types),
            cpu: (0..).zip(types).find_map(|(at, of)| Some((at, cpu_unit_ns(of)?))),
            waits: types.iter().position(is_wait),
            off_cpu: off_cpu.filter_map(|state| off_cpu_column(types, state)).collect(),
            period_ns: period_unit.map_or(0, |unit| period.saturating_mul(unit)),
        };
        if columns.cpu.is_none() && (columns.count.is_none() || columns.period_ns == 0) {
            let found = types.iter().map(|(kind, unit)| format!("{kind}/{unit}")).collect();
            return Err(ReadError::NotCpuTime { found });
        }
        Ok(columns)
    }

    /// Returns whether the file says how many samples there are.
    pub(super) fn has_counts(&self) -> bool {
        self.count.is_some()
    }

    /// Returns a sample's count and CPU time. If the file has only counts, the CPU time follows from the period. A count that the
    /// file does not have is 0: CPU time does not say how many samples it came from. Both are negative in a difference.
    pub(super) fn values(&self, at: usize, values: &[i64]) -> Result<[i128; 2], ReadError> {
        let value = |column: usize| value(at, values, column);
        let count = self.count.map_or(Ok(0), value)?;
        let time_ns = match self.cpu {
            Some((column, unit)) => value(column)? * i128::from(unit),
            None => count * i128::from(self.period_ns),
        };
        Ok([count, time_ns])
    }

    /// Returns a sample's count and time for each state off the CPU in which it has any.
    pub(super) fn off_cpu_values(
        &self,
        at: usize,
        values: &[i64],
    ) -> Result<Vec<(State, [i128; 2])>, ReadError> {
        let mut found = Vec::new();
        for (state, column, unit) in &self.off_cpu {
            let time_ns = value(at, values, *column)? * i128::from(*unit);
            let waits = self.waits.filter(|_| *state == State::Waiting);
            let count = waits.map_or(Ok(0), |column| value(at, values, column))?;
            if time_ns != 0 || count != 0 {
                found.push((*state, [count, time_ns]));
            }
        }
        Ok(found)
    }
}

impl Columns {
    /// Returns whether the file is of allocations, too.
    pub(super) fn has_allocations(&self) -> bool {
        self.allocations.is_some()
    }

    /// Returns the number and the bytes of a sample's allocations, if it has any. In a difference they may be negative.
    pub(super) fn allocated(
        &self,
        at: usize,
        values: &[i64],
    ) -> Result<Option<[i128; 2]>, ReadError> {
        let Some([objects, space]) = self.allocations else { return Ok(None) };
        let numbers = [value(at, values, objects)?, value(at, values, space)?];
        Ok(Some(numbers).filter(|numbers| *numbers != [0, 0]))
    }
}

fn value(at: usize, values: &[i64], column: usize) -> Result<i128, ReadError> {
    match values.get(column) {
        Some(value) => Ok(i128::from(*value)),
        None => Err(malformed(&format!("sample {at}"), "a value is missing")),
    }
}

fn is((kind, _): &Type, name: &str) -> bool {
    plain(kind) == name
}

fn off_cpu_column(types: &[Type], state: State) -> Option<(State, usize, u64)> {
    let at = types.iter().position(|of| is(of, state.name()))?;
    Some((state, at, unit_ns(&types[at].1)?))
}

/// Returns the column of counts. Where a file counts other things, too, those of the CPU come first.
fn count_column(types: &[Type]) -> Option<usize> {
    let units = ["", "count", "counts", "sample", "samples"];
    let counts = |(kind, unit): &Type, wanted: &[&str]| {
        wanted.contains(&&*plain(kind)) && units.contains(&&*plain(unit))
    };
    let names: [&[&str]; 3] =
        [&["cpusample", "cpusamples"], &["sample", "samples"], &["count", "counts"]];
    names.iter().find_map(|wanted| types.iter().position(|of| counts(of, wanted)))
}

fn cpu_unit_ns((kind, unit): &Type) -> Option<u64> {
    let is_cpu = matches!(&*plain(kind), "cpu" | "cputime" | "oncpu" | "oncputime" | "processcpu");
    unit_ns(unit).filter(|_| is_cpu)
}

fn unit_ns(unit: &str) -> Option<u64> {
    Some(match &*plain(unit) {
        "ns" | "nanos" | "nanosecond" | "nanoseconds" => 1,
        "us" | "µs" | "μs" | "micros" | "microsecond" | "microseconds" => 1_000,
        "ms" | "millis" | "millisecond" | "milliseconds" => 1_000_000,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000_000,
        _ => return None,
    })
}

/// Returns a name in lower case, without what separates its words: `CPU time`, `cpu-time` and `cpu_time` are one.
fn plain(name: &str) -> String {
    let chars = name.chars().take(32).filter(|c| !matches!(c, ' ' | '-' | '_' | '.'));
    chars.flat_map(char::to_lowercase).collect()
}
