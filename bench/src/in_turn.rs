//! Variants that are measured in turn, so that a machine that drifts drifts for all of them.

use crate::Quartiles;

/// The median of what each variant measures, in that many rounds after one that warms up.
pub fn medians_in_turn<const N: usize>(rounds: usize, variants: [&dyn Fn() -> f64; N]) -> [f64; N] {
    let round = || variants.map(|measure| measure());
    round();
    let rounds: Vec<_> = (0..rounds).map(|_| round()).collect();
    std::array::from_fn(|variant| {
        let values = rounds.iter().map(|round| round[variant]).collect();
        Quartiles::of(values).map_or(f64::NAN, |quartiles| quartiles.median)
    })
}
