//! What is answered.

use crate::stream::Stream;
use std::fmt::{self, Write as _};
use std::io;
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP's number for what became of the request: 200 if it is answered.
    pub status: u16,
    /// Further headers. Those of the body's type and length are added.
    pub headers: Vec<(&'static str, String)>,
    /// The type of the body.
    pub content_type: &'static str,
    /// What is answered.
    pub body: Body,
}

/// The body of an answer.
pub enum Body {
    /// All of it.
    Whole(Vec<u8>),
    /// Parts, each sent when the iterator has it. The iterator is dropped when the caller is gone.
    Parts(Box<dyn Iterator<Item = Vec<u8>> + Send>),
}

impl Answer {
    /// Bytes of some type.
    #[must_use]
    pub fn bytes(content_type: &'static str, bytes: Vec<u8>) -> Self {
        Self { status: 200, headers: Vec::new(), content_type, body: Body::Whole(bytes) }
    }

    /// Text for people.
    #[must_use]
    pub fn text(text: String) -> Self {
        Self::bytes("text/plain; charset=utf-8", text.into_bytes())
    }

    /// JSON.
    #[must_use]
    pub fn json(json: String) -> Self {
        Self::bytes("application/json", json.into_bytes())
    }

    /// Lines, or other parts, that come one after the other.
    #[must_use]
    pub fn lines(
        content_type: &'static str,
        parts: impl Iterator<Item = Vec<u8>> + Send + 'static,
    ) -> Self {
        let body = Body::Parts(Box::new(parts));
        Self { status: 200, headers: Vec::new(), content_type, body }
    }

    /// A refusal: the JSON object `{"error": REASON}`.
    #[must_use]
    pub fn refused(status: u16, reason: &str) -> Self {
        Self { status, ..Self::json(format!("{{\"error\": {}}}\n", Quoted(reason))) }
    }

    /// Sends it. A part that is not taken within `patience` ends it.
    pub(crate) fn send(self, to: &Stream, is_current: bool, patience: Duration) -> io::Result<()> {
        let head = self.head(is_current);
        match self.body {
            Body::Whole(bytes) => {
                to.send_all(head.as_bytes(), patience)?;
                to.send_all(&bytes, patience)
            }
            Body::Parts(parts) => {
                to.send_all(head.as_bytes(), patience)?;
                for part in parts.filter(|part| !part.is_empty()) {
                    match is_current {
                        true => to.send_all(&chunk(&part), patience)?,
                        false => to.send_all(&part, patience)?,
                    }
                }
                to.send_all(if is_current { b"0\r\n\r\n" } else { b"" }, patience)
            }
        }
    }

    fn head(&self, is_current: bool) -> String {
        let Self { status, content_type, .. } = self;
        let mut head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nConnection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
            phrase(*status)
        );
        for (name, value) in &self.headers {
            // A line break would begin another header.
            let value: String = value.chars().filter(|it| !it.is_control()).collect();
            // Writing to a string cannot fail.
            _ = write!(head, "{name}: {value}\r\n");
        }
        match &self.body {
            Body::Whole(bytes) => _ = write!(head, "Content-Length: {}\r\n", bytes.len()),
            Body::Parts(_) if is_current => head.push_str("Transfer-Encoding: chunked\r\n"),
            Body::Parts(_) => {}
        }
        head + "\r\n"
    }
}

fn chunk(part: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", part.len()).into_bytes();
    chunk.extend(part);
    chunk.extend(b"\r\n");
    chunk
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ if status < 500 => "Refused",
        _ => "Failed",
    }
}

/// Text as a JSON string.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for char in self.0.chars() {
            match char {
                '"' | '\\' => write!(f, "\\{char}")?,
                char if char.is_control() => write!(f, "\\u{:04x}", u32::from(char))?,
                char => f.write_char(char)?,
            }
        }
        f.write_char('"')
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Self::Parts(_) => f.write_str("Parts"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_reason_breaks_the_json() {
        let refused = Answer::refused(400, "a \"b\" \\ c\nd");
        let Body::Whole(body) = refused.body else { panic!("{refused:?}") };
        assert_eq!(String::from_utf8_lossy(&body), "{\"error\": \"a \\\"b\\\" \\\\ c\\u000ad\"}\n");
    }
}
