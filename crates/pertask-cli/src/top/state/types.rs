//! The tasks of a program without pertask, by type, as samples estimate them.

use std::rc::Rc;

use crate::top::source::Sampled;

use super::{
    column::Column,
    history::History,
    meter::Meter,
    rows::{RowKey, Rows},
    tracks::{Step, Tracks},
    value::Value,
};

/// The rows of the types.
#[derive(Clone, Debug, Default)]
pub struct Types {
    sampled: Option<Rc<Sampled>>,
    rows: Vec<TypeRates>,
    tracks: Tracks<String, TypeRates>,
}

#[derive(Clone, Copy, Debug, Default)]
struct TypeRates {
    cpu: Meter,
    history: History,
}

impl Types {
    /// Takes the next figures.
    pub fn advance(&mut self, sampled: &Rc<Sampled>, step: Step) {
        self.tracks.forget_absent(sampled.types.len(), step);
        let rows = sampled.types.iter().map(|row| {
            self.tracks.advance(row.name.clone(), step, |rates, seconds| {
                rates.cpu.advance(row.cpu_ns, seconds);
                rates.history.push(rates.cpu.percent_of_time().unwrap_or(0.0));
            })
        });
        self.rows = rows.collect();
        self.sampled = Some(Rc::clone(sampled));
    }

    /// Returns the name of the type in a row.
    pub fn name(&self, at: usize) -> Option<&str> {
        self.sampled.as_ref()?.types.get(at).map(|row| &*row.name)
    }

    /// Returns the row of a type.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.sampled.as_ref()?.types.iter().position(|row| row.name == name)
    }
}

impl Rows for Types {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn value(&self, at: usize, column: Column) -> Value<'_> {
        let (Some(sampled), Some(rates)) = (&self.sampled, self.rows.get(at)) else {
            return Value::Nothing;
        };
        let row = &sampled.types[at];
        match column {
            Column::Cpu => Value::percent(rates.cpu.percent_of_time()),
            Column::History => Value::History(&rates.history),
            Column::TotalCpu => Value::Time(row.cpu_ns),
            Column::Samples => Value::Count(row.samples),
            Column::Name => Value::Text(&row.name),
            _ => Value::Nothing,
        }
    }

    fn key(&self, at: usize) -> RowKey {
        RowKey::Name(self.name(at).unwrap_or_default().to_owned())
    }
}
