//! Parses durations such as `500ms`, `2.5s`, `1m`, or a plain number of seconds.

use std::time::Duration;

/// The forms that [`parse`] accepts, for error messages.
const FORMS: &str =
    "expected a positive duration such as 500ms, 5s, 2.5s, 1m or 1h; a plain number means seconds";

/// Parses a duration greater than zero.
///
/// # Errors
///
/// Returns a sentence with the accepted forms if `text` has none of them or is zero.
pub fn parse(text: &str) -> Result<Duration, &'static str> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    // `f64::from_str` would also accept signs and exponents, which are probably mistakes here.
    if !number.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(FORMS);
    }
    let number: f64 = number.parse().map_err(|_| FORMS)?;
    let seconds = number * seconds_in(unit).ok_or(FORMS)?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(FORMS),
    }
}

fn seconds_in(unit: &str) -> Option<f64> {
    match unit {
        "ms" => Some(0.001),
        "" | "s" => Some(1.0),
        "m" | "min" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_documented_forms() {
        let cases = [
            ("500ms", 500),
            ("5s", 5_000),
            ("5", 5_000),
            ("2.5s", 2_500),
            ("1m", 60_000),
            ("1h", 3_600_000),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        let longer_than_any_clock = format!("{}h", "9".repeat(400));
        for text in [
            "",
            "s",
            ".",
            "0",
            "0s",
            "0.0ms",
            "-1s",
            "-5",
            "+5s",
            "1e3s",
            "inf",
            "nan",
            "5 s",
            "5sec",
            "1s5",
            "1.2.3s",
            "٣s",
            &longer_than_any_clock,
        ] {
            assert_eq!(parse(text), Err(FORMS), "{text:?}");
        }
    }
}
