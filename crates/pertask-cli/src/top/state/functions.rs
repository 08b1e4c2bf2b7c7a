//! The hottest functions of what the user has asked about.

use crate::top::source::{HotFunction, Subject};

use super::{
    column::Column,
    rows::{RowKey, Rows},
    value::Value,
};

/// The functions of one subject, once the source has found them.
#[derive(Clone, Debug)]
pub struct Functions {
    /// Whose functions they are.
    pub of: Subject,
    /// How far the source has come.
    pub answer: Answer,
}

/// What the source has said.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Nothing yet.
    Awaited,
    /// The functions.
    Found(Vec<HotFunction>),
    /// Why there are none.
    Refused(String),
}

impl From<Result<Vec<HotFunction>, String>> for Answer {
    fn from(found: Result<Vec<HotFunction>, String>) -> Self {
        found.map_or_else(Self::Refused, Self::Found)
    }
}

impl Functions {
    fn found(&self) -> &[HotFunction] {
        match &self.answer {
            Answer::Found(functions) => functions,
            Answer::Awaited | Answer::Refused(_) => &[],
        }
    }
}

impl Rows for Functions {
    fn len(&self) -> usize {
        self.found().len()
    }

    fn value(&self, at: usize, column: Column) -> Value<'_> {
        let row = &self.found()[at];
        match column {
            Column::Share => Value::Percent(row.share * 100.0),
            Column::Name => Value::Text(&row.function),
            _ => Value::Nothing,
        }
    }

    fn key(&self, at: usize) -> RowKey {
        RowKey::Name(self.found()[at].function.clone())
    }
}
