//! What a caller asks for: the parameters of a request, each checked.

use pertask_agent::{Answer, Caller, Request};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// A parameter of a route, for callers to read.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) meaning: &'static str,
}

/// A request whose parameters are all known to its route.
pub(super) struct Asked<'a> {
    parameters: Vec<(String, String)>,
    accept: Option<&'a str>,
    caller: &'a Caller,
}

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    status: u16,
    reason: String,
}

impl<'a> Asked<'a> {
    /// Takes the parameters of a request. One that its path does not know is refused: whoever misspells a filter would take figures of
    /// everything for those of a part. Where it `is_lenient`, it is left out: other people's tools, on the paths that they know, may send
    /// what they like.
    pub(super) fn of(
        request: &'a Request<'_>,
        known: &[&[Parameter]],
        is_lenient: bool,
    ) -> Result<Self, Refusal> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for (name, value) in request.query() {
            let names = || known.iter().copied().flatten().map(|it| it.name);
            if !names().any(|known| known == name) {
                if is_lenient {
                    continue;
                }
                let names: Vec<_> = names().collect();
                return Err(Refusal::bad(format!(
                    "{} has no parameter {name:?}; it has: {}",
                    request.path(),
                    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
                )));
            }
            match parameters.iter().find(|(before, _)| *before == name) {
                // Parca repeats its own.
                Some((_, before)) if *before == value || is_lenient => {}
                Some((_, before)) => {
                    let both = format!("{name} is {before:?} and {value:?}");
                    return Err(Refusal::bad(both));
                }
                None => parameters.push((name.into_owned(), value.into_owned())),
            }
        }
        let (accept, caller) = (request.header("accept"), request.caller());
        Ok(Self { parameters, accept, caller })
    }

    pub(super) fn accept(&self) -> Option<&str> {
        self.accept
    }

    pub(super) fn caller(&self) -> &Caller {
        self.caller
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// The value of a parameter, or `None` if it is not there.
    pub(super) fn parsed<T: FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, Refusal> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Refusal::bad(format!("{name} is {text:?}, and not {what}")))
        };
        self.text(name).map(parse).transpose()
    }

    /// A number in a range.
    pub(super) fn number<T: FromStr + PartialOrd + Display>(
        &self,
        name: &str,
        default: T,
        range: &RangeInclusive<T>,
    ) -> Result<T, Refusal> {
        let what = format!("a number from {} to {}", range.start(), range.end());
        let number = self.parsed(name, &what)?.unwrap_or(default);
        if range.contains(&number) {
            return Ok(number);
        }
        Err(Refusal::bad(format!("{name} is {number}, and not {what}")))
    }

    /// A time in seconds.
    pub(super) fn seconds(
        &self,
        default: f64,
        range: &RangeInclusive<f64>,
    ) -> Result<Duration, Refusal> {
        self.number("seconds", default, range).map(Duration::from_secs_f64)
    }

    /// Whether something is wanted: `true`, `1` or no value at all, or else `false` or `0`.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Refusal> {
        match self.text(name) {
            None => Ok(default),
            Some("" | "1" | "true") => Ok(true),
            Some("0" | "false") => Ok(false),
            Some(other) => Err(Refusal::bad(format!("{name} is {other:?}, and not true or false"))),
        }
    }
}

impl Refusal {
    pub(super) fn new(status: u16, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    /// The request itself is wrong.
    pub(super) fn bad(reason: impl Into<String>) -> Self {
        Self::new(400, reason)
    }

    /// It may be asked for again later.
    pub(super) fn busy(reason: impl Into<String>) -> Self {
        Self::new(429, reason)
    }

    pub(super) fn into_answer(self) -> Answer {
        Answer::refused(self.status, &self.reason)
    }
}

impl From<crate::Error> for Refusal {
    fn from(why: crate::Error) -> Self {
        let status = match why {
            crate::Error::TooManyEvents { .. } => 400,
            crate::Error::CountersBusy { .. } => 429,
            _ => 503,
        };
        Self::new(status, why.to_string())
    }
}
