//! What labels have used, as rows of a report.

use crate::report::{LabelReport, LabelValueReport, LifeReport};
use crate::tasks::past::{Accounted, Values};
use crate::tasks::used::Used;
use std::cmp::Reverse;

/// What all tasks have used.
pub(super) struct Whole {
    pub(super) cpu_ns: u64,
    /// `None` where lives are not measured.
    pub(super) life: Option<LifeReport>,
}

/// What one value has used, or several together.
#[derive(Clone, Debug, Default)]
struct Part {
    cpu_ns: u64,
    life: LifeReport,
}

/// A figure of a part.
type Figure = fn(&mut Part) -> &mut u64;

const FIGURES: [Figure; 8] = [
    |part| &mut part.cpu_ns,
    |part| &mut part.life.on_cpu_ns,
    |part| &mut part.life.blocked_ns,
    |part| &mut part.life.ready_ns,
    |part| &mut part.life.waiting_ns,
    |part| &mut part.life.unknown_ns,
    |part| &mut part.life.inside_ns,
    |part| &mut part.life.new_ns,
];

/// The rows of all keys, each with at most `most` values.
pub(super) fn rows(accounted: Accounted, whole: &Whole, most: usize) -> Vec<LabelReport> {
    let keys = accounted.keys.into_iter();
    keys.map(|(key, values)| row(key.into(), values, whole, most)).collect()
}

fn row(key: String, values: Values, whole: &Whole, most: usize) -> LabelReport {
    let Values { used, others } = values;
    let value = |(value, used): (Box<str>, Used)| (String::from(value), Part::of(&used));
    let mut values: Vec<_> = used.into_iter().map(value).collect();
    let rank = |part: &Part| Reverse((part.cpu_ns, part.life.life_ns()));
    values.sort_by(|(a, of_a), (b, of_b)| rank(of_a).cmp(&rank(of_b)).then_with(|| a.cmp(b)));
    let mut others = Part::of(&others);
    let mut all = Part { cpu_ns: whole.cpu_ns, life: whole.life.clone().unwrap_or_default() };
    let mut without = Part::default();
    for figure in FIGURES {
        let parts = values.iter_mut().map(|(_, part)| figure(part));
        *figure(&mut without) = fit(parts, figure(&mut others), *figure(&mut all));
    }
    for (_, part) in values.split_off(most.min(values.len())) {
        others.add(part);
    }
    let life = |part: Part| whole.life.is_some().then_some(part.life);
    let value = |(value, part): (String, Part)| LabelValueReport {
        value,
        cpu_ns: part.cpu_ns,
        life: life(part),
    };
    LabelReport {
        key,
        values: values.into_iter().map(value).collect(),
        others_cpu_ns: others.cpu_ns,
        others_life: life(others),
        without_cpu_ns: without.cpu_ns,
        without_life: life(without),
    }
}

/// Takes from the parts, the largest first, what they have beyond the whole. Returns what the whole has beyond them.
///
/// The times of tasks and of labels are read some microseconds apart while polls are under way, so that they may differ by that.
fn fit<'a>(parts: impl Iterator<Item = &'a mut u64>, others: &'a mut u64, whole: u64) -> u64 {
    let mut parts: Vec<_> = parts.chain([others]).collect();
    let sum: u64 = parts.iter().map(|part| **part).sum();
    let mut too_much = sum.saturating_sub(whole);
    if too_much > 0 {
        parts.sort_by_key(|part| Reverse(**part));
    }
    for part in parts {
        let taken = too_much.min(*part);
        *part -= taken;
        too_much -= taken;
    }
    whole.saturating_sub(sum)
}

impl Part {
    fn of(used: &Used) -> Self {
        Self { cpu_ns: used.cpu_ns, life: LifeReport::of(&used.life, used.cpu_ns) }
    }

    fn add(&mut self, mut other: Self) {
        for figure in FIGURES {
            *figure(self) += *figure(&mut other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(cpu_ns: u64) -> Used {
        Used { cpu_ns, ..Used::default() }
    }

    #[test]
    fn the_parts_add_up_to_the_time_of_tasks() {
        let values = |a, b| Values {
            used: [("a".into(), used(a)), ("b".into(), used(b))].into(),
            others: used(5),
        };
        let whole = Whole { cpu_ns: 100, life: None };
        for (a, b, most) in [(60, 30, 2), (60, 42, 2), (60, 42, 1), (3, 98, 0)] {
            let row = row("key".to_owned(), values(a, b), &whole, most);
            let shown: u64 = row.values.iter().map(|value| value.cpu_ns).sum();
            assert_eq!(shown + row.others_cpu_ns + row.without_cpu_ns, 100, "{row:?}");
            assert_eq!((row.others_life, row.without_life), (None, None));
        }
    }

    #[test]
    fn each_part_of_lives_adds_up_by_itself() {
        let life = LifeReport { waiting_ns: 1_000, ready_ns: 50, ..LifeReport::default() };
        let whole = Whole { cpu_ns: 0, life: Some(life) };
        let mut parts = [Part::default(), Part::default()];
        parts[0].life.waiting_ns = 700;
        parts[1].life.ready_ns = 60;
        let mut others = Part::default();
        others.life.waiting_ns = 100;
        let mut all = Part { cpu_ns: 0, life: whole.life.clone().unwrap() };
        let without = FIGURES.map(|figure| {
            fit(parts.iter_mut().map(figure), figure(&mut others), *figure(&mut all))
        });
        assert_eq!(without, [0, 0, 0, 0, 200, 0, 0, 0]);
        assert_eq!(parts[1].life.ready_ns, 50, "it had more than there was");
    }
}
