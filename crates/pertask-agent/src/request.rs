//! What is asked: the head of an HTTP/1.1 request.

use crate::answer::Answer;
use crate::caller::Caller;
use httparse::Status;
use std::borrow::Cow;

/// The most headers of a request.
const MOST_HEADERS: usize = 64;

/// A request.
#[derive(Debug)]
pub struct Request<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    /// Whether the caller knows HTTP/1.1, and not only 1.0.
    pub(crate) is_current: bool,
    caller: &'a Caller,
}

/// The parameters of a request, decoded. One without `=` has an empty value.
#[derive(Clone, Debug)]
pub struct Query<'a>(&'a str);

/// What was read of a head.
pub(crate) enum Head<'a> {
    Whole(Request<'a>),
    /// More must be read.
    Part,
    Refused(Answer),
}

impl<'a> Request<'a> {
    /// A request that another server has read. `target` is the path, with `?` and the parameters if there are any.
    #[must_use]
    pub fn new(
        method: &'a str,
        target: &'a str,
        headers: Vec<(&'a str, &'a str)>,
        caller: &'a Caller,
    ) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self { method, path, query, headers, is_current: true, caller }
    }

    /// Reads the head of a request.
    pub(crate) fn parse(bytes: &'a [u8], caller: &'a Caller) -> Head<'a> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(bytes) {
            Ok(Status::Complete(_)) => {}
            Ok(Status::Partial) => return Head::Part,
            Err(httparse::Error::TooManyHeaders) => {
                return Head::Refused(Answer::refused(431, "the request has too many headers"));
            }
            Err(why) => {
                return Head::Refused(Answer::refused(400, &format!("this is no request: {why}")));
            }
        }
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else { return Head::Part };
        let is_current = parsed.version == Some(1);
        let text = |header: &httparse::Header<'a>| {
            Some((header.name, std::str::from_utf8(header.value).ok()?))
        };
        let headers = parsed.headers.iter().filter_map(text).collect();
        let request = Self { is_current, ..Self::new(method, target, headers, caller) };
        match request.has_body() {
            true => Head::Refused(Answer::refused(413, "a request with a body is not understood")),
            false => Head::Whole(request),
        }
    }

    /// The method, such as `GET`.
    #[must_use]
    pub fn method(&self) -> &str {
        self.method
    }

    /// The path, as it was sent.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path
    }

    /// The parameters behind the path.
    #[must_use]
    pub fn query(&self) -> Query<'_> {
        Query(self.query)
    }

    /// The value of a header, which is `None` if it is not there or no UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// Who asks.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        self.caller
    }

    fn has_body(&self) -> bool {
        self.header("transfer-encoding").is_some()
            || self.header("content-length").is_some_and(|length| length.trim() != "0")
    }
}

impl<'a> Iterator for Query<'a> {
    type Item = (Cow<'a, str>, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            let (pair, rest) = self.0.split_once('&').unwrap_or((self.0, ""));
            self.0 = rest;
            if !pair.is_empty() {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                return Some((decoded(name), decoded(value)));
            }
        }
        None
    }
}

/// Decodes `%41` and `+`. What is no UTF-8 then has replacement characters.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
        let code =
            digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        (rest, _) = match (first, code) {
            (b'%', Some(code)) => (&after[2..], bytes.push(code)),
            (b'+', _) => (after, bytes.push(b' ')),
            (other, _) => (after, bytes.push(*other)),
        };
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let all =
            |query| Query(query).map(|(a, b)| format!("{a}={b}")).collect::<Vec<_>>().join("|");
        assert_eq!(all("site=GET%20%2Fa%3Fb&x&y=&&z=1+2"), "site=GET /a?b|x=|y=|z=1 2");
        assert_eq!(all("%zz=%4&%41=%ff"), "%zz=%4|A=\u{fffd}");
        assert_eq!(all(""), "");
    }
}
