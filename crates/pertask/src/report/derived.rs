//! Ratios of counts, as `perf stat` prints them.

use crate::pmus::counters::Counter;

/// A ratio of two counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The ratio's value.
    pub value: f64,
    /// Whether one of the two counts is an estimate.
    pub estimated: bool,
}

/// Instructions per cycle: `instructions` is an event's name, and the event `cycles` must have been counted in the same modes.
#[must_use]
pub fn ipc(counters: &[Counter], instructions: &str) -> Option<Ratio> {
    let cycles = find(counters, &format!("cycles{}", modes(instructions)))?;
    ratio(find(counters, instructions)?, cycles, 1.0)
}

/// Misses per thousand instructions: `misses` is an event's name, and the event `instructions` must have been counted in the same
/// modes.
#[must_use]
pub fn mpki(counters: &[Counter], misses: &str) -> Option<Ratio> {
    let instructions = find(counters, &format!("instructions{}", modes(misses)))?;
    ratio(find(counters, misses)?, instructions, 1e3)
}

/// The modifier of an event's name, with its colon.
fn modes(event: &str) -> &str {
    event.find(':').map_or("", |colon| &event[colon..])
}

fn find<'a>(counters: &'a [Counter], event: &str) -> Option<&'a Counter> {
    counters.iter().find(|counter| counter.event == event)
}

fn ratio(part: &Counter, whole: &Counter, scale: f64) -> Option<Ratio> {
    let estimated = part.estimated || whole.estimated;
    let (part, whole) = (part.count?, whole.count.filter(|count| *count != 0)?);
    Some(Ratio { value: part as f64 / whole as f64 * scale, estimated })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(event: &str, count: u64) -> Counter {
        Counter { event: event.to_owned(), count: Some(count), estimated: false }
    }

    #[test]
    fn ratios_are_of_the_same_modes() {
        let counters =
            [counted("cycles", 1_000), counted("instructions:u", 500), counted("cycles:u", 250)];
        assert_eq!(ipc(&counters, "instructions:u").unwrap().value, 2.0);
        assert_eq!(ipc(&counters, "instructions"), None);
        assert_eq!(
            mpki(&[counted("cache-misses", 7), counted("instructions:u", 1)], "cache-misses"),
            None
        );
        let misses = [counted("cache-misses:u", 7), counted("instructions:u", 2_000)];
        assert_eq!(mpki(&misses, "cache-misses:u").unwrap().value, 3.5);
    }

    #[test]
    fn a_ratio_of_an_estimate_is_one_and_of_nothing_is_none() {
        let mut counters = [counted("cycles", 0), counted("instructions", 10)];
        assert_eq!(ipc(&counters, "instructions"), None);
        (counters[0].count, counters[0].estimated) = (Some(5), true);
        assert_eq!(ipc(&counters, "instructions"), Some(Ratio { value: 2.0, estimated: true }));
        counters[0].count = None;
        assert_eq!(ipc(&counters, "instructions"), None);
    }
}
