//! A page of metrics as text, in either format.
//!
//! The formats differ in few things. OpenMetrics calls a family by its bare name, where the text format calls it by the name that
//! its samples have. OpenMetrics has units, a type for facts, and an end. It has a histogram's count only with a sum.

use super::format::Format;
use std::fmt::{self, Display, Write};

/// A page that is being written.
#[derive(Debug)]
pub(super) struct Exposition {
    format: Format,
    out: String,
    name: &'static str,
    kind: Kind,
}

/// Metrics of one name.
#[derive(Debug)]
pub(super) struct Family {
    /// The name, without the suffix that its kind has.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The unit, which is also the name's end.
    pub(super) unit: Option<&'static str>,
    pub(super) help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// A fact, in labels. Its value is 1.
    Info,
}

/// A time, written in seconds with all its digits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seconds(pub(super) u64);

impl Exposition {
    pub(super) fn new(format: Format) -> Self {
        Self { format, out: String::new(), name: "", kind: Kind::Gauge }
    }

    /// Begins a family. The samples that follow are its own.
    pub(super) fn family(&mut self, family: &Family) {
        let Family { name, kind, unit, help } = *family;
        (self.name, self.kind) = (name, kind);
        let suffix = kind.suffix();
        match self.format {
            Format::Text => {
                self.line(format_args!("# HELP {name}{suffix} {help}"));
                self.line(format_args!("# TYPE {name}{suffix} {}", kind.in_text()));
            }
            Format::OpenMetrics => {
                self.line(format_args!("# TYPE {name} {}", kind.in_open_metrics()));
                if let Some(unit) = unit {
                    self.line(format_args!("# UNIT {name} {unit}"));
                }
                self.line(format_args!("# HELP {name} {help}"));
            }
        }
    }

    /// Writes a sample. `labels` come from [`labels`].
    pub(super) fn sample(&mut self, labels: &str, value: impl Display) {
        let (name, suffix) = (self.name, self.kind.suffix());
        match labels {
            "" => self.line(format_args!("{name}{suffix} {value}")),
            _ => self.line(format_args!("{name}{suffix}{{{labels}}} {value}")),
        }
    }

    /// Writes a histogram: for each bucket its bound, and the number of all that is not above the bound.
    pub(super) fn histogram(
        &mut self,
        labels: &str,
        buckets: impl Iterator<Item = (&'static str, u64)>,
    ) {
        let name = self.name;
        let mut all = 0;
        for (bound, count) in buckets {
            self.line(format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {count}"));
            all = count;
        }
        // OpenMetrics allows a count only beside a sum, which the histogram does not have.
        if self.format == Format::Text {
            self.line(format_args!("{name}_count{{{labels}}} {all}"));
        }
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.out.write_fmt(line);
        self.out.push('\n');
    }
}

impl Kind {
    fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Gauge | Self::Histogram => "",
            Self::Info => "_info",
        }
    }

    fn in_text(self) -> &'static str {
        match self {
            Self::Info => "gauge",
            _ => self.in_open_metrics(),
        }
    }

    fn in_open_metrics(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// Labels as both formats write them between braces.
pub(super) fn labels(labels: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        let comma = if out.is_empty() { "" } else { "," };
        out.extend([comma, name, "=\""]);
        for char in value.chars() {
            match char {
                '\\' => out.push_str(r"\\"),
                '"' => out.push_str(r#"\""#),
                '\n' => out.push_str(r"\n"),
                _ => out.push(char),
            }
        }
        out.push('"');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(format: Format) -> String {
        let family = |name, kind, unit| Family { name, kind, unit, help: "Help." };
        let mut page = Exposition::new(format);
        page.family(&family("cpu_seconds", Kind::Counter, Some("seconds")));
        page.sample(&labels(&[("name", "a\\b\"c\nd\u{e9}"), ("site", "")]), Seconds(1_000_000_002));
        page.family(&family("live", Kind::Gauge, None));
        page.sample("", 7);
        page.family(&family("waits_seconds", Kind::Histogram, Some("seconds")));
        page.histogram("name=\"x\"", [("0.5", 2), ("+Inf", 3)].into_iter());
        page.family(&family("program", Kind::Info, None));
        page.sample("version=\"1\"", 1);
        page.finish()
    }

    #[test]
    fn a_page_in_the_text_format() {
        let expected = r#"# HELP cpu_seconds_total Help.
# TYPE cpu_seconds_total counter
cpu_seconds_total{name="a\\b\"c\ndé",site=""} 1.000000002
# HELP live Help.
# TYPE live gauge
live 7
# HELP waits_seconds Help.
# TYPE waits_seconds histogram
waits_seconds_bucket{name="x",le="0.5"} 2
waits_seconds_bucket{name="x",le="+Inf"} 3
waits_seconds_count{name="x"} 3
# HELP program_info Help.
# TYPE program_info gauge
program_info{version="1"} 1
"#;
        assert_eq!(page(Format::Text), expected);
    }

    #[test]
    fn a_page_in_open_metrics() {
        let expected = r#"# TYPE cpu_seconds counter
# UNIT cpu_seconds seconds
# HELP cpu_seconds Help.
cpu_seconds_total{name="a\\b\"c\ndé",site=""} 1.000000002
# TYPE live gauge
# HELP live Help.
live 7
# TYPE waits_seconds histogram
# UNIT waits_seconds seconds
# HELP waits_seconds Help.
waits_seconds_bucket{name="x",le="0.5"} 2
waits_seconds_bucket{name="x",le="+Inf"} 3
# TYPE program info
# HELP program Help.
program_info{version="1"} 1
# EOF
"#;
        assert_eq!(page(Format::OpenMetrics), expected);
    }
}
