//! Whether two counts of samples differ by more than chance: exact tests, and what many of them at once are worth.
//!
//! Samples hit a row by chance, so a row's number of samples differs from recording to recording where nothing has changed.
//!
//! - [`rates`] compares counts per unit of something, such as seconds. Given the sum of two Poisson counts, each is binomial.
//! - [`shares`] compares parts of two wholes: Fisher's exact test, in which a count is hypergeometric.
//! - [`exceptional`] is the procedure of Benjamini and Hochberg: of the rows that it names, few are there by chance, however many
//!   rows were looked at.
//!
//! Large counts are compared by the normal distribution, with Yates's correction. A chance is that of a difference in either
//! direction, and is taken to be twice that of the direction that was found. All of that errs on the side of chance.

use std::f64::consts::{PI, SQRT_2};

/// The variance from which on counts are as good as normal. Below, the sum has some hundred terms.
const NORMAL: f64 = 1_000.0;
/// The share of a term from which on the rest of a sum does not matter.
const NEGLIGIBLE: f64 = 1e-12;
/// The largest number whose factorial is exact enough. A file can have any.
const LARGE: f64 = 1e9;

/// A count out of something of which there can be more or less: seconds, samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Count {
    /// The number of samples.
    pub(super) samples: f64,
    /// What they were found in. It need not be a whole number.
    pub(super) of: f64,
}

/// What a test says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Chance {
    /// How likely it is that chance alone makes a difference as large as this.
    pub(super) p: f64,
    /// The same for the largest difference that so few samples could show.
    pub(super) least: f64,
}

/// Compares two counts per unit.
pub(super) fn rates(before: Count, after: Count) -> Chance {
    let all = before.samples + after.samples;
    let share = after.of / (before.of + after.of);
    if all == 0.0 {
        return Chance { p: 1.0, least: 1.0 };
    }
    let ln_pmf = |hits: f64| {
        ln_choose(all, hits) + times(hits, share.ln()) + times(all - hits, (1.0 - share).ln())
    };
    let distribution = Distribution {
        size: all,
        lowest: 0.0,
        highest: all,
        mean: all * share,
        variance: all * share * (1.0 - share),
        ln_pmf: &ln_pmf,
    };
    distribution.chance(after.samples)
}

/// Compares two counts as parts of what they were found in, of which they are at most the whole.
pub(super) fn shares(before: Count, after: Count) -> Chance {
    let [of_before, of_after] = [before, after].map(|it| it.of.round().max(it.samples));
    let (all, of_all) = (before.samples + after.samples, of_before + of_after);
    if all == 0.0 || all == of_all {
        return Chance { p: 1.0, least: 1.0 };
    }
    let ln_pmf = |hits: f64| {
        ln_choose(of_after, hits) + ln_choose(of_before, all - hits) - ln_choose(of_all, all)
    };
    let part = all / of_all;
    let distribution = Distribution {
        size: of_all,
        lowest: (all - of_before).max(0.0),
        highest: all.min(of_after),
        mean: of_after * part,
        variance: of_after * part * (1.0 - part) * of_before / (of_all - 1.0),
        ln_pmf: &ln_pmf,
    };
    distribution.chance(after.samples)
}

/// Says which of the tests show more than chance, so that of those no more than the given part is expected to be chance.
///
/// Tests that so few samples could not pass do not count (Gilbert 2005), and neither do those that there are none of.
pub(super) fn exceptional(tests: &[Option<Chance>], part: f64) -> Vec<bool> {
    let able = |chance: &&Chance| chance.least <= part;
    let mut sorted: Vec<f64> = tests.iter().flatten().filter(able).map(|it| it.p).collect();
    sorted.sort_by(f64::total_cmp);
    let all = sorted.len() as f64;
    let passes = |(at, p): &(usize, &f64)| **p <= part * (at + 1) as f64 / all;
    let bound = sorted.iter().enumerate().rfind(passes).map(|(_, p)| *p);
    let exceeds =
        |chance: &Chance| chance.least <= part && bound.is_some_and(|bound| chance.p <= bound);
    tests.iter().map(|it| it.as_ref().is_some_and(exceeds)).collect()
}

/// How a count is distributed where nothing has changed.
struct Distribution<'a> {
    /// The largest number in it.
    size: f64,
    lowest: f64,
    highest: f64,
    mean: f64,
    variance: f64,
    /// The logarithm of the chance of a count.
    ln_pmf: &'a dyn Fn(f64) -> f64,
}

impl Distribution<'_> {
    fn chance(&self, found: f64) -> Chance {
        if self.size > LARGE {
            return Chance { p: self.normal(found), least: 0.0 };
        }
        let ends = [self.lowest, self.highest].map(|end| 2.0 * (self.ln_pmf)(end).exp());
        Chance { p: self.both_sides(found), least: ends[0].min(ends[1]) }
    }

    fn both_sides(&self, found: f64) -> f64 {
        if self.variance > NORMAL {
            return self.normal(found);
        }
        let step = if found < self.mean { -1.0 } else { 1.0 };
        (2.0 * self.tail(found, step)).min(1.0)
    }

    fn normal(&self, found: f64) -> f64 {
        let distance = (found - self.mean).abs() - 0.5;
        if distance <= 0.0 {
            1.0
        } else {
            erfc(distance / (self.variance.sqrt() * SQRT_2)).min(1.0)
        }
    }

    /// Adds up the chances from a count on, away from the mean.
    fn tail(&self, from: f64, step: f64) -> f64 {
        let (mut sum, mut at) = (0.0, from);
        while (self.lowest..=self.highest).contains(&at) {
            let term = (self.ln_pmf)(at).exp();
            sum += term;
            if term <= sum * NEGLIGIBLE {
                break;
            }
            at += step;
        }
        sum
    }
}

/// Returns the product, which is 0 for no hits, whatever their logarithm.
fn times(hits: f64, ln: f64) -> f64 {
    if hits == 0.0 { 0.0 } else { hits * ln }
}

fn ln_choose(of: f64, some: f64) -> f64 {
    ln_factorial(of) - ln_factorial(some) - ln_factorial(of - some)
}

/// Returns the logarithm of a factorial: Stirling's series, to eleven digits.
fn ln_factorial(n: f64) -> f64 {
    if n < 16.0 {
        return (2..=n as u64).map(|factor| factor as f64).product::<f64>().ln();
    }
    let series = 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3)) + 1.0 / (1260.0 * n.powi(5));
    n * n.ln() - n + 0.5 * (2.0 * PI * n).ln() + series
}

/// Returns the complementary error function of a number that is not negative, to seven digits (Numerical Recipes, `erfcc`).
fn erfc(x: f64) -> f64 {
    const TERMS: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let t = 1.0 / (1.0 + 0.5 * x);
    t * (TERMS.iter().rev().fold(0.0, |sum, term| sum * t + term) - x * x).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(samples: f64, of: f64) -> Count {
        Count { samples, of }
    }

    fn near(found: f64, expected: f64, within: f64) {
        assert!((found / expected - 1.0).abs() < within, "{found:e}, not {expected:e}");
    }

    /// R: `binom.test(x1, x0 + x1, t1 / (t0 + t1))`, in whose symmetrical cases both directions are alike.
    #[test]
    fn counts_of_equal_times_are_tossed_coins() {
        near(rates(count(0.0, 1.0), count(10.0, 1.0)).p, 2.0 / 1024.0, 1e-9);
        near(rates(count(2.0, 3.0), count(8.0, 3.0)).p, 0.109_375, 1e-9);
        near(rates(count(40.0, 1.0), count(60.0, 1.0)).p, 0.056_887_933, 1e-7);
        assert_eq!(rates(count(5.0, 1.0), count(5.0, 1.0)).p, 1.0);
        assert_eq!(rates(count(0.0, 1.0), count(0.0, 1.0)).p, 1.0);
    }

    #[test]
    fn a_longer_recording_is_expected_to_have_more() {
        // Ten times the samples in ten times the time.
        assert_eq!(rates(count(10.0, 1.0), count(100.0, 10.0)).p, 1.0);
        // All five in the shorter one: 2 * (1 / 11)^5, however the other one is named.
        let expected = 2.0 / 11f64.powi(5);
        near(rates(count(5.0, 1.0), count(0.0, 10.0)).p, expected, 1e-9);
        near(rates(count(0.0, 10.0), count(5.0, 1.0)).p, expected, 1e-9);
    }

    /// Fisher's tea: three of four cups; R: `fisher.test` has 17/70 for one direction.
    #[test]
    fn parts_are_compared_as_by_fisher() {
        near(shares(count(1.0, 4.0), count(3.0, 4.0)).p, 34.0 / 70.0, 1e-9);
        near(shares(count(0.0, 4.0), count(4.0, 4.0)).p, 2.0 / 70.0, 1e-9);
        // Parts of other wholes: what is in the row and what is not change places.
        let p = shares(count(80.0, 100.0), count(190.0, 200.0)).p;
        near(shares(count(20.0, 100.0), count(10.0, 200.0)).p, p, 1e-9);
        assert!(p < 1e-3, "{p}");
        assert_eq!(shares(count(100.0, 100.0), count(7.0, 7.0)).p, 1.0);
        assert_eq!(shares(count(7.0, 7.0), count(100.0, 100.0)).p, 1.0);
    }

    /// On both sides of where the sum gives way to the normal distribution.
    #[test]
    fn large_counts_are_compared_alike() {
        for (before, after) in [(1_950.0, 2_049.0), (1_900.0, 2_080.0), (1_850.0, 2_140.0)] {
            let exact = rates(count(before, 1.0), count(after, 1.0)).p;
            let scale = 1.01;
            let normal = rates(count(before * scale, 1.0), count(after * scale, 1.0)).p;
            assert!(normal < exact && normal > exact * 0.7, "{normal:e}, {exact:e}");
        }
        let p = shares(count(30_000.0, 100_000.0), count(31_000.0, 100_000.0)).p;
        // z = 4.856 with Yates's correction.
        near(p, 1.2e-6, 0.02);
    }

    /// A file can have any numbers. Each answer comes at once, and is a chance.
    #[test]
    fn numbers_that_no_recording_has_do_no_harm() {
        let numbers = [0.0, 1.0, 7.0, 1e6, 1e9, 1e18];
        let sizes = [1e-9, 1.0, 1e6, 1e18, 1e36];
        for (x0, x1) in numbers.iter().flat_map(|x0| numbers.map(|x1| (*x0, x1))) {
            for (t0, t1) in sizes.iter().flat_map(|t0| sizes.map(|t1| (*t0, t1))) {
                for test in [rates, shares] {
                    let p = test(count(x0, t0), count(x1, t1)).p;
                    assert!((0.0..=1.0).contains(&p), "{x0} {x1} {t0} {t1}: {p}");
                }
            }
        }
    }

    /// Abramowitz and Stegun, table 7.1, and beyond it.
    #[test]
    fn the_normal_distribution_is_right_far_out() {
        near(erfc(0.0), 1.0, 2e-7);
        near(erfc(1.0), 0.157_299_207_05, 2e-7);
        near(erfc(2.0), 0.004_677_734_98, 2e-7);
        near(erfc(5.0), 1.537_459_794_43e-12, 2e-7);
    }

    #[test]
    fn factorials_are_right_where_the_series_begins() {
        for n in 1..40 {
            let exact: f64 = (1..=n).map(|factor| f64::from(factor).ln()).sum();
            assert!((ln_factorial(f64::from(n)) - exact).abs() < 1e-11 * exact.max(1.0), "{n}");
        }
    }

    /// The example of Benjamini and Hochberg (1995): of 15 tests at 5 %, four.
    #[test]
    fn many_rows_need_more_than_one() {
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
            0.5719, 0.6528, 0.7590, 1.0,
        ];
        let chance = |p: f64| Some(Chance { p, least: 0.0 });
        let mut tests: Vec<_> = p.into_iter().rev().map(chance).collect();
        let named = exceptional(&tests, 0.05).iter().filter(|named| **named).count();
        assert_eq!(named, 4);
        // What could not pass, and what was not tested, does not count.
        tests.extend([Some(Chance { p: 0.06, least: 0.06 }), None].repeat(1_000));
        let named = exceptional(&tests, 0.05);
        assert_eq!(named.iter().filter(|named| **named).count(), 4);
        assert!(named[11..15].iter().all(|named| *named));
        assert!(exceptional(&[], 0.05).is_empty());
    }
}
