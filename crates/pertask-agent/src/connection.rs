//! One caller, from the first byte of the question to the last of the answer.

use crate::answer::Answer;
use crate::caller::Caller;
use crate::request::{Head, Request};
use crate::server::{Options, Service};
use crate::stream::{Stream, after};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time in which a caller whose request is refused may send the rest of it.
const BRIEFLY: Duration = Duration::from_millis(100);

/// The most bytes of such a rest.
const MOST_UNREAD: usize = 1 << 20;

/// What a browser says of a request that no other page has made.
const OWN_SITES: [&str; 2] = ["none", "same-origin"];

/// Answers one request. Each step has a time limit, so a caller costs its thread for a while at most.
pub(crate) fn serve(stream: &Arc<Stream>, options: &Options, service: &dyn Service, is_tcp: bool) {
    let caller = Caller::here(stream);
    let mut bytes = Vec::new();
    let (answer, is_current) = match head(stream, options, &mut bytes, &caller) {
        // The caller has gone without a question.
        Err(_) => return,
        Ok(Err(refusal)) => return turn_away(stream, refusal, options),
        Ok(Ok(request)) => (answer(&request, options, service, is_tcp), request.is_current),
    };
    // Making the parts of a body is the service's doing, too.
    let send = || answer.send(stream, is_current, options.write_timeout);
    // A caller that does not take its answer goes without.
    let _ = catch_unwind(AssertUnwindSafe(send));
    stream.end_sending();
}

/// Tells a caller why it is not served, without waiting for anything.
pub(crate) fn refuse(stream: &Stream, answer: Answer) {
    // Its buffer is empty, and a word fits in.
    let _ = answer.send(stream, true, Duration::ZERO);
    stream.end_sending();
    // What is left unread would make the kernel tell the caller that the connection broke, and perhaps not why.
    let _ = stream.receive(&mut [0; 1024], Instant::now());
}

/// Refuses a request that was not read to its end.
fn turn_away(stream: &Stream, refusal: Answer, options: &Options) {
    let _ = refusal.send(stream, true, options.write_timeout);
    stream.end_sending();
    // A caller that still sends would not read the reason if the connection broke. It has some time, and no more.
    let (mut left, deadline) = (MOST_UNREAD, after(BRIEFLY));
    while let Ok(read @ 1..) = stream.receive(&mut [0; 1024], deadline)
        && read < left
    {
        left -= read;
    }
}

/// Reads a request, or returns the answer to what is none.
fn head<'a>(
    stream: &Stream,
    options: &Options,
    bytes: &'a mut Vec<u8>,
    caller: &'a Caller,
) -> io::Result<Result<Request<'a>, Answer>> {
    let deadline = after(options.request_timeout);
    let mut part = [0; 1024];
    loop {
        let read = match stream.receive(&mut part, deadline) {
            Ok(0) if bytes.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Ok(Err(Answer::refused(400, "the request ends too early"))),
            Ok(read) => read,
            Err(why) if why.kind() == io::ErrorKind::TimedOut => {
                return Ok(Err(Answer::refused(408, "the request did not come in time")));
            }
            Err(why) => return Err(why),
        };
        bytes.extend(&part[..read]);
        if bytes.len() > options.max_head_bytes {
            return Ok(Err(Answer::refused(431, "the request's head is too long")));
        }
        // The end may have come in two parts.
        let new = &bytes[bytes.len().saturating_sub(read + 2)..];
        if new.windows(3).any(|end| end == b"\n\r\n") || new.windows(2).any(|end| end == b"\n\n") {
            break;
        }
    }
    Ok(match Request::parse(bytes, caller) {
        Head::Whole(request) => Ok(request),
        Head::Refused(refusal) => Err(refusal),
        Head::Part => Err(Answer::refused(400, "this is no request")),
    })
}

fn answer(request: &Request<'_>, options: &Options, service: &dyn Service, is_tcp: bool) -> Answer {
    if let (true, Err(refusal)) = (is_tcp, allowed(request, options)) {
        return refusal;
    }
    // A service that panics has answered nothing, and its next callers are none the worse.
    let answer = catch_unwind(AssertUnwindSafe(|| service.answer(request)));
    answer.unwrap_or_else(|_| Answer::refused(500, "answering has panicked; this is a bug"))
}

/// Refuses what a web page has sent: it names where it is from, or a host whose name it has made to lead here.
fn allowed(request: &Request<'_>, options: &Options) -> Result<(), Answer> {
    let site = request.header("sec-fetch-site");
    let has = |name| request.header(name).is_some();
    if has("origin") || has("referer") || site.is_some_and(|site| !OWN_SITES.contains(&site)) {
        return Err(Answer::refused(403, "requests of web pages are refused"));
    }
    let host = request.header("host").unwrap_or_default().trim();
    let name = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let is_known = name.parse::<std::net::IpAddr>().is_ok_and(|address| !address.is_unspecified())
        || name.eq_ignore_ascii_case("localhost")
        || options.hosts.iter().any(|host| host.eq_ignore_ascii_case(name));
    match is_known {
        true => Ok(()),
        false => Err(Answer::refused(
            421,
            "the Host is neither an address nor localhost; web pages could make any other name lead here",
        )),
    }
}
