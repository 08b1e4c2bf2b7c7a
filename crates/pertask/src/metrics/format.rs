//! The formats of an answer, and which of them a header `Accept` prefers.

/// A format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus's text format, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

/// One of the ranges of media types in a header `Accept`.
struct Range<'a> {
    media: &'a str,
    version: Option<&'a str>,
    charset: Option<&'a str>,
    /// How welcome these types are, in thousandths. 0 is not at all.
    quality: u16,
}

impl Format {
    /// The format that the header prefers.
    ///
    /// It is the text format if both are equally welcome. It is also the text format if neither is, because a reader can do more
    /// with that than with an error.
    pub(super) fn preferred(accept: Option<&str>) -> Self {
        let accept = accept.unwrap_or("");
        let is_open = Self::OpenMetrics.quality_in(accept) > Self::Text.quality_in(accept);
        if is_open { Self::OpenMetrics } else { Self::Text }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The quality of this format: that of the most specific range that includes it.
    fn quality_in(self, accept: &str) -> u16 {
        let ranges = accept.split(',').filter_map(Range::parse);
        let fitting = ranges.filter_map(|range| Some((range.fit(self)?, range.quality)));
        fitting.max().map_or(0, |(_, quality)| quality)
    }

    /// The type, its part before the slash with a star, and the version.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Text => ("text/plain", "text/*", "0.0.4"),
            Self::OpenMetrics => ("application/openmetrics-text", "application/*", "1.0.0"),
        }
    }
}

impl<'a> Range<'a> {
    /// Returns `None` for what is no range. Parameters that we do not know, such as `escaping`, are no matter.
    fn parse(range: &'a str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().filter(|media| media.contains('/'))?;
        let mut range = Self { media, version: None, charset: None, quality: 1_000 };
        for parameter in parts {
            let Some((name, value)) = parameter.split_once('=') else { continue };
            let (name, value) = (name.trim_end(), value.trim_start().trim_matches('"'));
            match () {
                () if name.eq_ignore_ascii_case("version") => range.version = Some(value),
                () if name.eq_ignore_ascii_case("charset") => range.charset = Some(value),
                () if name.eq_ignore_ascii_case("q") => range.quality = quality(value)?,
                () => {}
            }
        }
        Some(range)
    }

    /// How closely the range names the format, or `None` if it does not include it.
    fn fit(&self, format: Format) -> Option<usize> {
        let (exact, major, version) = format.names();
        let kinds = ["*/*", major, exact];
        let fit = kinds.iter().position(|kind| self.media.eq_ignore_ascii_case(kind))?;
        let is_version = self.version.is_none_or(|it| it == version);
        let is_charset = self.charset.is_none_or(|it| it.eq_ignore_ascii_case("utf-8"));
        let parameters = usize::from(self.version.is_some()) + usize::from(self.charset.is_some());
        (is_version && is_charset).then_some(kinds.len() * fit + parameters)
    }
}

fn quality(value: &str) -> Option<u16> {
    let quality: f32 = value.parse().ok()?;
    // The range leaves out what is no number.
    (0.0..=1.0).contains(&quality).then(|| (quality * 1_000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::Format::{self, OpenMetrics, Text};

    #[test]
    fn a_header_gets_the_format_that_it_prefers() {
        for (accept, format) in [
            ("", Text),
            ("*/*", Text),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Text),
            ("text/plain", Text),
            ("application/openmetrics-text", OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"; CharSet=UTF-8", OpenMetrics),
            ("application/openmetrics-text;version=2.0.0", Text),
            ("application/openmetrics-text;version=1.0.0;charset=latin-1", Text),
            ("application/openmetrics-text;q=0.3,text/plain;q=0.4", Text),
            ("application/openmetrics-text;q=0.4,text/plain;q=0.3", OpenMetrics),
            ("application/openmetrics-text;q=0.4,text/plain;q=0.4", Text),
            ("application/openmetrics-text;q=0", Text),
            ("application/*;q=0.5,*/*;q=0.1", OpenMetrics),
            // The closer range counts, wherever it stands.
            ("application/openmetrics-text;version=1.0.0;q=0.1,*/*;q=0.9", Text),
            ("*/*;q=0.9,text/plain;q=0.1", OpenMetrics),
            ("text/plain;q=0.9,text/plain;version=0.0.4;q=0.1,*/*;q=0.5", OpenMetrics),
            // What is no range, and what is no quality.
            ("application/openmetrics-text;q=nan", Text),
            ("application/openmetrics-text;q=2", Text),
            (",;,=,/;q=,application/openmetrics-text;x;=;q=0.5", OpenMetrics),
        ] {
            assert_eq!(Format::preferred(Some(accept)), format, "{accept}");
        }
        assert_eq!(Format::preferred(None), Text);
    }

    /// The headers that these programs send.
    #[test]
    fn scrapers_get_the_best_that_they_take() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,\
            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,\
            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let victoria_metrics = "text/plain;version=0.0.4;q=1,*/*;q=0.1";
        assert_eq!(Format::preferred(Some(prometheus_2)), OpenMetrics);
        assert_eq!(Format::preferred(Some(prometheus_3)), OpenMetrics);
        assert_eq!(Format::preferred(Some(victoria_metrics)), Text);
    }
}
