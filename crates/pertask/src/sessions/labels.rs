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
    // Of a poll under way the times of tasks and of labels are read some microseconds apart. What is too much by that is taken off
    // the largest, so that the parts add up.
    let too_much_ns = with_ns.saturating_sub(tasks_cpu_ns);
    if let Some(largest) = values.first_mut() {
        largest.cpu_ns = largest.cpu_ns.saturating_sub(too_much_ns);
    }
    let rest = values.split_off(most.min(values.len()));
    LabelReport {
        key,
        values,
        others_cpu_ns: rest.iter().map(|value| value.cpu_ns).sum::<u64>() + others_ns,
        without_cpu_ns: tasks_cpu_ns.saturating_sub(with_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_add_up_to_the_time_of_tasks() {
        let values = |a, b| Values {
            cpu_ns: [("a".into(), a), ("b".into(), b)].into_iter().collect(),
            others_ns: 5,
        };
        for (a, b, most) in [(60, 30, 2), (60, 42, 2), (60, 42, 1)] {
            let row = row("key".to_owned(), values(a, b), 100, most);
            let shown: u64 = row.values.iter().map(|value| value.cpu_ns).sum();
            assert_eq!(shown + row.others_cpu_ns + row.without_cpu_ns, 100, "{row:?}");
        }
    }
}
