//! What the values of a sample mean: which one is the count, and which one the CPU time.
//!
//! The format leaves names and units to its writers, so those that are in use for CPU time and for counts are all taken.

use std::sync::Arc;

use super::ReadError;
use super::tables::malformed;

/// Which values of a sample are its count and its CPU time, the latter with its unit in nanoseconds.
#[derive(Debug)]
pub(super) struct Columns {
    count: Option<usize>,
    cpu: Option<(usize, u64)>,
    /// The CPU time between two samples, or 0.
    pub(super) period_ns: u64,
}

/// A kind and its unit, such as `cpu` and `nanoseconds`.
pub(super) type Type = (Arc<str>, Arc<str>);

impl Columns {
    /// Finds the columns by the names of the types. `period` is the CPU time between two samples, in units of `period_type`.
    pub(super) fn of(
        types: &[Type],
        period_type: Option<&Type>,
        period: u64,
    ) -> Result<Self, ReadError> {
        let period_unit = period_type.and_then(cpu_unit_ns);
        let columns = Self {
            count: count_column(types),
            cpu: (0..).zip(types).find_map(|(at, of)| Some((at, cpu_unit_ns(of)?))),
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
        let value = |column: usize| match values.get(column) {
            Some(value) => Ok(i128::from(*value)),
            None => Err(malformed(&format!("sample {at}"), "a value is missing")),
        };
        let count = self.count.map_or(Ok(0), value)?;
        let cpu_ns = match self.cpu {
            Some((column, unit)) => value(column)? * i128::from(unit),
            None => count * i128::from(self.period_ns),
        };
        Ok([count, cpu_ns])
    }
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
    let unit = match &*plain(unit) {
        "ns" | "nanos" | "nanosecond" | "nanoseconds" => 1,
        "us" | "µs" | "μs" | "micros" | "microsecond" | "microseconds" => 1_000,
        "ms" | "millis" | "millisecond" | "milliseconds" => 1_000_000,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000_000,
        _ => return None,
    };
    is_cpu.then_some(unit)
}

/// Returns a name in lower case, without what separates its words: `CPU time`, `cpu-time` and `cpu_time` are one.
fn plain(name: &str) -> String {
    let chars = name.chars().take(32).filter(|c| !matches!(c, ' ' | '-' | '_' | '.'));
    chars.flat_map(char::to_lowercase).collect()
}
