//! What stands for many measurements: the middle one, and how far the middle half is spread.

/// The quartiles of some values.
#[derive(Clone, Copy, Debug)]
pub struct Quartiles {
    /// A quarter of the values is no greater.
    pub first: f64,
    /// Half of the values is no greater.
    pub median: f64,
    /// Three quarters of the values are no greater.
    pub third: f64,
}

impl Quartiles {
    /// The quartiles; between two values where none is at that place. `None` of no values. NaN is no value: something could
    /// not be measured.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| !value.is_nan());
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |quarters: usize| {
            let (below, beyond) = (last * quarters / 4, last * quarters % 4);
            let above = (below + 1).min(last);
            values[below] + (values[above] - values[below]) * beyond as f64 / 4.0
        };
        Some(Self { first: at(1), median: at(2), third: at(3) })
    }
}
