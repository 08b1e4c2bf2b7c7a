//! CPU time by label, as rows of a report.

use crate::report::{LabelReport, LabelValueReport};
use crate::tasks::past::{Times, Values};

/// The rows of all keys, each with at most `most` values.
pub(super) fn rows(times: Times, tasks_cpu_ns: u64, most: usize) -> Vec<LabelReport> {
    times
        .keys
        .into_iter()
        .map(|(key, values)| row(key.into(), values, tasks_cpu_ns, most))
        .collect()
}

fn row(key: String, values: Values, tasks_cpu_ns: u64, most: usize) -> LabelReport {
    let Values { cpu_ns, others_ns } = values;
    let value = |(value, cpu_ns): (Box<str>, u64)| LabelValueReport { value: value.into(), cpu_ns };
    let mut values: Vec<_> = cpu_ns.into_iter().map(value).collect();
    values.sort_by(|a, b| b.cpu_ns.cmp(&a.cpu_ns).then_with(|| a.value.cmp(&b.value)));
    let with_ns = values.iter().map(|value| value.cpu_ns).sum::<u64>() + others_ns;
    let rest = values.split_off(most.min(values.len()));
    LabelReport {
        key,
        values,
        others_cpu_ns: rest.iter().map(|value| value.cpu_ns).sum::<u64>() + others_ns,
        without_cpu_ns: tasks_cpu_ns.saturating_sub(with_ns),
    }
}
