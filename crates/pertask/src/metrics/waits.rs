//! The histogram of one site's waits, in few buckets.

use super::shown::Shown;
use crate::report::WakeReport;

/// The bounds of the buckets: in nanoseconds, and in seconds as the label `le`.
///
/// Each is four times the one before. All are bounds of the report's buckets, so no wait is counted in the wrong one. A database
/// knows a bucket by its label's text, so the text is what Go's shortest form of the number is: Prometheus 3 rewrites labels to that.
const BOUNDS: [(u64, &str); 13] = [
    (1_024, "1.024e-06"),
    (4_096, "4.096e-06"),
    (16_384, "1.6384e-05"),
    (65_536, "6.5536e-05"),
    (262_144, "0.000262144"),
    (1_048_576, "0.001048576"),
    (4_194_304, "0.004194304"),
    (16_777_216, "0.016777216"),
    (67_108_864, "0.067108864"),
    (268_435_456, "0.268435456"),
    (1_073_741_824, "1.073741824"),
    (4_294_967_296, "4.294967296"),
    (17_179_869_184, "17.179869184"),
];

/// The number of waits in each bucket, without those of the buckets below. The last bucket has no bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits([Shown; BOUNDS.len() + 1]);

/// The numbers of one report.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitsNow([u64; BOUNDS.len() + 1]);

impl WaitsNow {
    pub(super) fn add(&mut self, report: &WakeReport) {
        for bucket in &report.histogram {
            let last = BOUNDS.len();
            let place =
                bucket.most_ns.map_or(last, |most_ns| BOUNDS.partition_point(|it| it.0 < most_ns));
            self.0[place] += bucket.count;
        }
    }
}

impl Waits {
    pub(super) fn raise(&mut self, now: &WaitsNow) {
        for (shown, now) in self.0.iter_mut().zip(now.0) {
            shown.raise(now);
        }
    }

    /// For each bound, the number of waits that were no longer.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let bounds = BOUNDS.iter().map(|(_, text)| *text).chain(["+Inf"]);
        bounds.zip(&self.0).scan(0, |sum, (bound, shown)| {
            *sum += shown.get();
            Some((bound, *sum))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::WakeBucket;

    #[test]
    fn each_bound_is_written_as_what_it_is() {
        for (ns, text) in BOUNDS {
            let seconds: f64 = text.parse().unwrap();
            assert_eq!(seconds, ns as f64 / 1e9, "{text}");
        }
        assert!(BOUNDS.windows(2).all(|pair| pair[1].0 == 4 * pair[0].0));
    }

    #[test]
    fn each_wait_is_in_the_bucket_that_it_belongs_to() {
        let bucket = |most_ns, count| WakeBucket { most_ns, count };
        let histogram = vec![
            bucket(Some(256), 1),
            bucket(Some(1_024), 2),
            bucket(Some(1_280), 4),
            bucket(Some(17_179_869_184), 8),
            bucket(None, 16),
        ];
        let mut now = WaitsNow::default();
        now.add(&WakeReport { histogram, ..WakeReport::default() });
        let mut waits = Waits::default();
        waits.raise(&now);
        let cumulative: Vec<_> = waits.cumulative().collect();
        assert_eq!(cumulative[..2], [("1.024e-06", 3), ("4.096e-06", 7)]);
        assert_eq!(cumulative[11..], [("4.294967296", 7), ("17.179869184", 15), ("+Inf", 31)]);
    }
}
