//! What labels have used, as rows of a report.

use crate::pmus::memory::count::MemoryCount;
use crate::report::{LabelReport, LabelValueReport, LifeReport};
use crate::tasks::past::{Accounted, Values};
use crate::tasks::used::Used;
use std::cmp::Reverse;

/// What all tasks have used.
pub(super) struct Whole {
    pub(super) cpu_ns: u64,
    /// `None` where lives are not measured.
    pub(super) life: Option<LifeReport>,
    /// `None` where memory is not counted.
    pub(super) memory: Option<MemoryCount>,
}

/// What one value has used, or several together.
#[derive(Clone, Debug, Default)]
struct Part {
    cpu_ns: u64,
    polled_ns: u64,
    /// The time in polls is divided last, so that it is right as a whole.
    life: LifeReport,
    memory: MemoryCount,
}

/// A figure of a part.
type Figure = fn(&mut Part) -> &mut u64;

/// Those that are right by themselves.
const FIGURES: [Figure; 11] = [
    |part| &mut part.cpu_ns,
    |part| &mut part.polled_ns,
    |part| &mut part.life.ready_ns,
    |part| &mut part.life.waiting_ns,
    |part| &mut part.life.unknown_ns,
    |part| &mut part.life.inside_ns,
    |part| &mut part.life.new_ns,
    |part| &mut part.memory.allocated_bytes,
    |part| &mut part.memory.allocations,
    |part| &mut part.memory.freed_bytes,
    |part| &mut part.memory.frees,
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
    let rank = |part: &Part| Reverse((part.cpu_ns, part.polled_ns + part.life.life_ns()));
    values.sort_by(|(a, of_a), (b, of_b)| rank(of_a).cmp(&rank(of_b)).then_with(|| a.cmp(b)));
    let (mut others, mut without) = (Part::of(&others), Part::default());
    let mut all: Vec<_> = values.iter_mut().map(|(_, part)| part).collect();
    all.extend([&mut others, &mut without]);
    fit(&mut all, whole);
    for (_, part) in values.split_off(most.min(values.len())) {
        others.add(part);
    }
    let life = |part: &Part| whole.life.is_some().then(|| part.life.clone());
    let memory = |part: &Part| whole.memory.is_some().then_some(part.memory);
    let value = |(value, part): (String, Part)| LabelValueReport {
        value,
        cpu_ns: part.cpu_ns,
        life: life(&part),
        memory: memory(&part),
    };
    LabelReport {
        key,
        values: values.into_iter().map(value).collect(),
        others_cpu_ns: others.cpu_ns,
        others_life: life(&others),
        others_memory: memory(&others),
        without_cpu_ns: without.cpu_ns,
        without_life: life(&without),
        without_memory: memory(&without),
    }
}

/// Makes the parts add up to the whole, each figure by itself. The last part has what the others lack; what they have beyond the
/// whole is taken off the largest.
///
/// Of a poll under way the CPU times and the memory of tasks and of labels are read some microseconds apart, so that they may differ by
/// that.
fn fit(parts: &mut [&mut Part], whole: &Whole) {
    let life = whole.life.clone().unwrap_or_default();
    let polled_ns = life.on_cpu_ns + life.blocked_ns;
    let on_cpu_ns = life.on_cpu_ns;
    let memory = whole.memory.unwrap_or_default();
    let mut all = Part { cpu_ns: whole.cpu_ns, polled_ns, life, memory };
    for figure in FIGURES {
        let sum: u64 = parts.iter_mut().map(|part| *figure(part)).sum();
        let whole = *figure(&mut all);
        take(sum.saturating_sub(whole), parts, figure);
        if let Some(last) = parts.last_mut() {
            *figure(last) += whole.saturating_sub(sum);
        }
    }
    for part in &mut *parts {
        part.life.on_cpu_ns = part.cpu_ns.min(part.polled_ns);
        part.life.blocked_ns = part.polled_ns - part.life.on_cpu_ns;
    }
    let on_cpu: u64 = parts.iter().map(|part| part.life.on_cpu_ns).sum();
    take(on_cpu.saturating_sub(on_cpu_ns), parts, |part| &mut part.life.on_cpu_ns);
    take(on_cpu_ns.saturating_sub(on_cpu), parts, |part| &mut part.life.blocked_ns);
    for part in parts {
        // What was taken off one of the two is of the other.
        let lacks_ns = part.polled_ns - part.life.on_cpu_ns - part.life.blocked_ns;
        *if on_cpu > on_cpu_ns { &mut part.life.blocked_ns } else { &mut part.life.on_cpu_ns } +=
            lacks_ns;
    }
}

/// Takes so much of a figure off the parts, the largest first.
fn take(mut too_much_ns: u64, parts: &mut [&mut Part], figure: Figure) {
    while too_much_ns > 0
        && let Some(largest) = parts.iter_mut().map(|part| figure(part)).max_by_key(|ns| **ns)
        && *largest > 0
    {
        let taken_ns = too_much_ns.min(*largest);
        *largest -= taken_ns;
        too_much_ns -= taken_ns;
    }
}

impl Part {
    fn of(Used { cpu_ns, life, memory }: &Used) -> Self {
        let undivided = LifeReport { on_cpu_ns: 0, blocked_ns: 0, ..LifeReport::of(life, 0) };
        let (cpu_ns, polled_ns, memory) = (*cpu_ns, life.polled_ns(), *memory);
        Self { cpu_ns, polled_ns, life: undivided, memory }
    }

    fn add(&mut self, mut other: Self) {
        for figure in FIGURES {
            *figure(self) += *figure(&mut other);
        }
        self.life.on_cpu_ns += other.life.on_cpu_ns;
        self.life.blocked_ns += other.life.blocked_ns;
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
        let whole = Whole { cpu_ns: 100, life: None, memory: None };
        for (a, b, most) in [(60, 30, 2), (60, 42, 2), (60, 42, 1), (3, 98, 0)] {
            let row = row("key".to_owned(), values(a, b), &whole, most);
            let shown: u64 = row.values.iter().map(|value| value.cpu_ns).sum();
            assert_eq!(shown + row.others_cpu_ns + row.without_cpu_ns, 100, "{row:?}");
            assert_eq!((row.others_life, row.without_life), (None, None));
        }
    }

    #[test]
    fn each_part_of_lives_adds_up_by_itself() {
        let part = |cpu_ns, polled_ns, ready_ns, waiting_ns| Part {
            cpu_ns,
            polled_ns,
            life: LifeReport { ready_ns, waiting_ns, ..LifeReport::default() },
            memory: MemoryCount::default(),
        };
        let life = LifeReport {
            on_cpu_ns: 300,
            blocked_ns: 100,
            ready_ns: 50,
            waiting_ns: 1_000,
            ..LifeReport::default()
        };
        let whole = Whole { cpu_ns: 310, life: Some(life), memory: None };
        // Of the first the CPU time was read a moment too early, or too late.
        for cpu_ns in [190, 215] {
            let mut parts = [
                part(cpu_ns, 280, 0, 700),
                part(80, 120, 60, 0),
                part(0, 0, 0, 100),
                Part::default(),
            ];
            fit(&mut parts.each_mut(), &whole);
            let waiting = parts.each_ref().map(|part| part.life.waiting_ns);
            assert_eq!(waiting, [700, 0, 100, 200]);
            let ready = parts.each_ref().map(|part| part.life.ready_ns);
            assert_eq!(ready, [0, 50, 0, 0], "it had more than there was");
            let polled = parts.each_ref().map(|part| part.life.on_cpu_ns + part.life.blocked_ns);
            assert_eq!(polled, [280, 120, 0, 0], "as a whole this is right");
            let on_cpu: u64 = parts.iter().map(|part| part.life.on_cpu_ns).sum();
            assert_eq!(on_cpu, 300);
            assert_eq!(parts.iter().map(|part| part.cpu_ns).sum::<u64>(), 310);
        }
    }
}
