//! Numbers for people: three significant digits and a unit.
//!
//! Programs read the JSON instead, which keeps every digit.

/// The text where there is no number.
pub const NONE: &str = "-";

/// Returns a duration in ns, µs, ms or s. From 1000 s on, it is in whole seconds.
#[must_use]
pub fn duration_ns(ns: u64) -> String {
    if ns < 1_000 {
        return format!("{ns} ns");
    }
    let scaled = |unit_ns: f64| ns as f64 / unit_ns;
    [(1e3, "µs"), (1e6, "ms")]
        .iter()
        .find(|(unit_ns, _)| scaled(*unit_ns) < ROUNDS_UP_TO_1000)
        .map_or_else(
            || format!("{} s", three_digits(scaled(1e9))),
            |(unit_ns, unit)| format!("{} {unit}", three_digits(scaled(*unit_ns))),
        )
}

/// Returns a count with its noun: `1 request`, `2 requests`, `12.3k requests`.
#[must_use]
pub fn counted(count: u64, one: &str) -> String {
    format!("{} {one}{}", self::count(count), if count == 1 { "" } else { "s" })
}

/// Returns a count, which is exact below 10,000 and in thousands (k), millions (M) and so on above.
#[must_use]
pub fn count(n: u64) -> String {
    if n < 10_000 {
        return n.to_string();
    }
    let mut scaled = n as f64 / 1e3;
    let mut unit = 'k';
    for larger in ['M', 'G', 'T', 'P', 'E'] {
        if scaled < ROUNDS_UP_TO_1000 {
            break;
        }
        scaled /= 1e3;
        unit = larger;
    }
    format!("{}{unit}", three_digits(scaled))
}

/// Returns a number of bytes: exact below a KiB, and in KiB, MiB and so on from there.
#[must_use]
pub fn bytes(n: u64) -> String {
    if n < 1_024 {
        return format!("{n} B");
    }
    let mut scaled = n as f64 / 1_024.0;
    let mut unit = "KiB";
    for larger in ["MiB", "GiB", "TiB", "PiB", "EiB"] {
        // 1000 KiB and more would have a fourth digit.
        if scaled < ROUNDS_UP_TO_1000 {
            break;
        }
        scaled /= 1_024.0;
        unit = larger;
    }
    format!("{} {unit}", three_digits(scaled))
}

/// Returns `part` as a percentage of `whole`, or [`NONE`] if `whole` is 0.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    let percent = part as f64 / whole as f64 * 100.0;
    match percent {
        _ if whole == 0 => NONE.into(),
        _ if percent >= 999.95 => ">999%".into(),
        // With "0.0%", the row would look idle.
        _ if part > 0 && percent < 0.05 => "<0.1%".into(),
        _ => format!("{percent:.1}%"),
    }
}

/// The least number that `{:.0}` prints with four digits. It belongs to the next unit.
const ROUNDS_UP_TO_1000: f64 = 999.5;

fn three_digits(value: f64) -> String {
    let decimals = match value {
        _ if value < 9.995 => 2,
        _ if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// Returns whether a text is a place in the source, such as `src/main.rs:7`.
#[must_use]
pub fn is_place(text: &str) -> bool {
    let line = text.rsplit_once(".rs:").map_or("", |(_, line)| line);
    !line.is_empty() && line.bytes().all(|digit| digit.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_none_is_not() {
        let requests = [0, 1, 2, 12_345].map(|n| counted(n, "request"));
        assert_eq!(requests, ["0 requests", "1 request", "2 requests", "12.3k requests"]);
    }

    #[test]
    fn durations_keep_three_digits_across_every_unit() {
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (9_994, "9.99 µs"),
            (9_996, "10.0 µs"),
            (12_345, "12.3 µs"),
            (999_499, "999 µs"),
            (999_501, "1.00 ms"),
            (56_789_000, "56.8 ms"),
            (999_999_999, "1.00 s"),
            (7_912_345_678, "7.91 s"),
            (999_900_000_000, "1000 s"),
            (86_400_000_000_000, "86400 s"),
            (u64::MAX, "18446744074 s"),
        ];
        for (ns, shown) in cases {
            assert_eq!(duration_ns(ns), shown, "{ns}");
        }
    }

    #[test]
    fn bytes_keep_three_digits_across_every_unit() {
        let cases = [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.00 KiB"),
            (10_240, "10.0 KiB"),
            (1_022_976, "999 KiB"),
            (1_023_488, "0.98 MiB"),
            (1_048_576, "1.00 MiB"),
            (3_221_225_472, "3.00 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (n, shown) in cases {
            assert_eq!(bytes(n), shown, "{n}");
        }
    }

    #[test]
    fn counts_are_exact_while_short() {
        let cases = [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (999_499, "999k"),
            (999_500, "1.00M"),
            (1_234_567, "1.23M"),
            (12_345_678_901, "12.3G"),
            (u64::MAX, "18.4E"),
        ];
        for (n, shown) in cases {
            assert_eq!(count(n), shown, "{n}");
        }
    }

    #[test]
    fn percentages_tell_little_from_nothing() {
        let cases = [
            ((0, 0), "-"),
            ((5, 0), "-"),
            ((0, 7), "0.0%"),
            ((1, 100_000), "<0.1%"),
            ((1, 3), "33.3%"),
            ((7, 7), "100.0%"),
            ((12, 10), "120.0%"),
            ((u64::MAX, 1), ">999%"),
        ];
        for ((part, whole), shown) in cases {
            assert_eq!(percent(part, whole), shown, "{part} of {whole}");
        }
    }

    #[test]
    fn places_are_told_from_names() {
        let places = ["src/main.rs:7", "/home/build/a.rs:1200"];
        let names = ["", "GET /:80", "main.rs:", "main.rs:x", "main.rs", "8.rs:7 again"];
        assert!(places.iter().all(|it| is_place(it)) && !names.iter().any(|it| is_place(it)));
    }
}
