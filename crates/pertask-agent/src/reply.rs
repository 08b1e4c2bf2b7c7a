//! What an agent has answered, as the tool gets it: the head at once, and the body while it comes.

use crate::stream::{Stream, after};
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::time::{Duration, Instant};

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// HTTP's number for what became of the request: 200 if it is answered.
    pub status: u16,
    /// The headers, with their names in lower case.
    pub headers: Vec<(String, String)>,
    /// What is answered. It is read while it comes.
    pub body: ReplyBody,
}

/// The body of an answer. If it ends before it is whole, reading fails with [`UnexpectedEof`](io::ErrorKind::UnexpectedEof).
#[derive(Debug)]
pub struct ReplyBody {
    from: BufReader<io::Chain<Cursor<Vec<u8>>, Patient>>,
    rest: Rest,
}

/// A stream, each part of which must come within some time.
#[derive(Debug)]
struct Patient {
    stream: Stream,
    patience: Duration,
}

/// What is to come of a body.
#[derive(Clone, Copy, Debug)]
enum Rest {
    /// So many bytes.
    Bytes(u64),
    /// So many bytes of a chunk, the end of its line, and more chunks.
    Chunk(u64),
    /// The first chunk.
    Chunks,
    /// All until the connection ends.
    All,
    Nothing,
    /// What cannot be read on, because a chunk's beginning was lost.
    Lost,
}

/// The most bytes of a head.
const MOST_HEAD: usize = 64 << 10;

/// The most headers.
const MOST_HEADERS: usize = 64;

/// The most bytes of a line between chunks.
const MOST_LINE: u64 = 1 << 10;

/// The most bytes of a chunk.
const MOST_CHUNK: u64 = 1 << 32;

impl Reply {
    /// Reads the head until the deadline. Each part of the body must come within `patience`.
    pub(crate) fn read(stream: Stream, deadline: Instant, patience: Duration) -> io::Result<Self> {
        let mut bytes = Vec::new();
        loop {
            let mut part = [0; 4096];
            match stream.receive(&mut part, deadline)? {
                0 if bytes.is_empty() => return Err(bad("nothing")),
                0 => return Err(bad("a head without an end")),
                read => bytes.extend(&part[..read]),
            }
            if let Some((head, size)) = Head::parse(&bytes)? {
                let before = Cursor::new(bytes.split_off(size));
                let from = BufReader::new(before.chain(Patient { stream, patience }));
                let body = ReplyBody { from, rest: head.rest };
                return Ok(Self { status: head.status, headers: head.headers, body });
            }
            if bytes.len() > MOST_HEAD {
                return Err(bad("a head of more than 64 KiB"));
            }
        }
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// Returns the error of reading, or [`FileTooLarge`](io::ErrorKind::FileTooLarge) if there are more bytes than `most`.
    pub fn into_bytes(self, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
        self.body.take(limit).read_to_end(&mut bytes)?;
        if bytes.len() > most {
            let why = format!("the answer has more than {most} bytes; ask for less");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        Ok(bytes)
    }
}

struct Head {
    status: u16,
    headers: Vec<(String, String)>,
    rest: Rest,
}

impl Head {
    /// Reads a head, if it is whole, and returns its size, too.
    fn parse(bytes: &[u8]) -> io::Result<Option<(Self, usize)>> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        let size = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(size)) => size,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(why) => return Err(bad(&format!("no HTTP ({why})"))),
        };
        let status = parsed.code.unwrap_or_default();
        let text = |value| String::from_utf8_lossy(value).trim().to_owned();
        let headers = parsed.headers.iter();
        let headers: Vec<_> =
            headers.map(|it| (it.name.to_ascii_lowercase(), text(it.value))).collect();
        let rest = rest(status, &headers)?;
        Ok(Some((Self { status, headers, rest }, size)))
    }
}

/// How long the body is, by its headers.
fn rest(status: u16, headers: &[(String, String)]) -> io::Result<Rest> {
    let header = |name| headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
    match (header("transfer-encoding"), header("content-length")) {
        _ if matches!(status, 100..=199 | 204 | 304) => Ok(Rest::Nothing),
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Ok(Rest::Chunks),
        (Some(coding), _) => Err(bad(&format!("the unknown transfer coding {coding:?}"))),
        (None, Some(length)) => match length.parse() {
            Ok(length) => Ok(Rest::Bytes(length)),
            Err(_) => Err(bad(&format!("the content length {length:?}"))),
        },
        (None, None) => Ok(Rest::All),
    }
}

impl Read for ReplyBody {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        if let Rest::Chunk(0) | Rest::Chunks = self.rest {
            let before = std::mem::replace(&mut self.rest, Rest::Lost);
            self.rest = self.next_chunk(before)?;
        }
        let most = match self.rest {
            Rest::Nothing | Rest::Bytes(0) => return Ok(0),
            Rest::Lost => return Err(cut()),
            Rest::Bytes(left) | Rest::Chunk(left) => left,
            Rest::Chunks | Rest::All => u64::MAX,
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(to.len());
        let read = self.from.read(&mut to[..most])?;
        match (&mut self.rest, read) {
            (Rest::All, _) => {}
            (_, 0) => return Err(cut()),
            (Rest::Bytes(left) | Rest::Chunk(left), read) => *left -= read as u64,
            (Rest::Chunks | Rest::Nothing | Rest::Lost, _) => {}
        }
        Ok(read)
    }
}

impl ReplyBody {
    /// Reads what is before a chunk, and behind the last one.
    fn next_chunk(&mut self, before: Rest) -> io::Result<Rest> {
        if matches!(before, Rest::Chunk(_)) && !self.line()?.is_empty() {
            return Err(bad("a chunk that is longer than its size"));
        }
        let line = self.line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        match u64::from_str_radix(digits, 16) {
            Ok(0) => {
                while !self.line()?.is_empty() {}
                Ok(Rest::Nothing)
            }
            Ok(size @ ..=MOST_CHUNK) => Ok(Rest::Chunk(size)),
            _ => Err(bad(&format!("a chunk of the size {digits:?}"))),
        }
    }

    /// Reads a line without its end.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.from.by_ref().take(MOST_LINE).read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\n") {
            Some(line) => {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                Ok(String::from_utf8_lossy(line).into_owned())
            }
            None if line.len() as u64 == MOST_LINE => Err(bad("a line without an end")),
            None => Err(cut()),
        }
    }
}

impl Read for Patient {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.stream.receive(to, after(self.patience)).map_err(|why| match why.kind() {
            io::ErrorKind::TimedOut => {
                let time = self.patience.as_secs();
                let why = format!("nothing more of the answer has come for {time} s; ask again");
                io::Error::new(io::ErrorKind::TimedOut, why)
            }
            // The kernel says so of a process that has ended without closing its connections.
            io::ErrorKind::ConnectionReset => cut(),
            _ => why,
        })
    }
}

/// What has come is not an answer.
fn bad(found: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, found)
}

fn cut() -> io::Error {
    let why = "the answer has ended too early: the process has ended, or its agent, or it cannot answer in whole";
    io::Error::new(io::ErrorKind::UnexpectedEof, why)
}
