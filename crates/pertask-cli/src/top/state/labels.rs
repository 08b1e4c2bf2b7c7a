//! CPU time by label: a row for each key, and below it one for each value.

use std::rc::Rc;

use pertask::{LabelReport, Report};

use super::{
    column::Column,
    meter::Meter,
    rows::{LabelPart, RowKey, Rows},
    tracks::{Step, Tracks},
    value::Value,
};

/// The rows of the labels.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    rows: Vec<Row>,
    tracks: Tracks<RowKey, Meter>,
}

#[derive(Clone, Debug)]
struct Row {
    key: String,
    part: Option<LabelPart>,
    parent: Option<usize>,
    cpu: Meter,
}

impl Labels {
    /// Takes the next report.
    pub fn advance(&mut self, report: &Rc<Report>, step: Step) {
        let values: usize = report.labels.iter().map(|label| label.values.len() + 3).sum();
        self.tracks.forget_absent(values, step);
        self.rows.clear();
        for label in &report.labels {
            self.add(label, step);
        }
    }

    fn add(&mut self, label: &LabelReport, step: Step) {
        let values = label.values.iter().map(|it| (LabelPart::Value(it.value.clone()), it.cpu_ns));
        let rest =
            [(LabelPart::Others, label.others_cpu_ns), (LabelPart::Without, label.without_cpu_ns)];
        let rest = rest.into_iter().filter(|(_, cpu_ns)| *cpu_ns > 0);
        let with_ns =
            |sum: u64, value: &pertask::LabelValueReport| sum.saturating_add(value.cpu_ns);
        let with_ns = label.values.iter().fold(label.others_cpu_ns, with_ns);
        let parent = self.rows.len();
        self.add_row(label, None, None, with_ns, step);
        for (part, cpu_ns) in values.chain(rest) {
            self.add_row(label, Some(part), Some(parent), cpu_ns, step);
        }
    }

    fn add_row(
        &mut self,
        label: &LabelReport,
        part: Option<LabelPart>,
        parent: Option<usize>,
        cpu_ns: u64,
        step: Step,
    ) {
        let key = RowKey::Label(label.key.clone(), part.clone());
        let advance = |meter: &mut Meter, seconds| meter.advance(cpu_ns, seconds);
        let cpu = self.tracks.advance(key, step, advance);
        self.rows.push(Row { key: label.key.clone(), part, parent, cpu });
    }
}

impl Rows for Labels {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn value(&self, at: usize, column: Column) -> Value<'_> {
        let row = &self.rows[at];
        match column {
            Column::Cpu => Value::percent(row.cpu.percent_of_time()),
            Column::TotalCpu => Value::Time(row.cpu.total()),
            Column::Name => Value::Text(match &row.part {
                None => &row.key,
                Some(LabelPart::Value(value)) => value,
                Some(LabelPart::Others) => "(other values)",
                Some(LabelPart::Without) => "(without)",
            }),
            _ => Value::Nothing,
        }
    }

    fn key(&self, at: usize) -> RowKey {
        RowKey::Label(self.rows[at].key.clone(), self.rows[at].part.clone())
    }

    fn parent(&self, at: usize) -> Option<usize> {
        self.rows[at].parent
    }

    fn depth(&self, at: usize) -> u32 {
        u32::from(self.rows[at].parent.is_some())
    }
}
