//! Files that people take for pprof: what they are, and what to do about them.

use super::ReadError;

/// How a kind of file begins, what it is, and the remedy. No pprof file begins so.
const KINDS: &[(&[u8], &str, &str)] = &[
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it first: zstd -d FILE"),
    (b"\xfd7zXZ\0", "compressed with xz", "unpack it first: xz -d FILE"),
    (b"BZh", "compressed with bzip2", "unpack it first: bzip2 -d FILE"),
    (b"\x04\x22\x4d\x18", "compressed with lz4", "unpack it first: lz4 -d FILE"),
    (b"\x1f\x8b", "compressed twice with gzip", "unpack it once: gzip -dc FILE > profile.pb.gz"),
    (b"PK\x03\x04", "a zip archive", "unpack it, and name the profile in it"),
    (
        b"PERFILE2",
        "a recording of Linux perf",
        "name the file itself for pertask report, and no pipe, or use perf report",
    ),
    (
        b"FLR\0",
        "a recording of the Java Flight Recorder",
        "convert it to pprof, or read it with jfr",
    ),
    (
        b"\0\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0",
        "a CPU profile in the older format of gperftools",
        "convert it: go tool pprof -proto PROGRAM FILE > profile.pb.gz",
    ),
    (b"\x7fELF", "a program", "name the profile that was recorded of it"),
];

/// Blanks before text, and the byte order mark.
const BLANK: &[u8] = b" \t\r\n\xef\xbb\xbf";

/// Returns an error if the beginning of a file shows that it is of another kind.
pub(super) fn refuse(bytes: &[u8]) -> Result<(), ReadError> {
    let known = KINDS.iter().find(|(magic, ..)| bytes.starts_with(magic));
    match known.map(|(_, what, remedy)| (*what, *remedy)).or_else(|| text(bytes)) {
        Some((what, remedy)) => Err(ReadError::NotPprof { what, remedy }),
        None => Ok(()),
    }
}

/// Recognizes text. A pprof file has control characters from its second or third byte on.
fn text(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let head = &bytes[..bytes.len().min(256)];
    let blanks = head.iter().take_while(|byte| BLANK.contains(byte)).count();
    let first = *head.get(blanks)?;
    let is_control = |byte: &u8| (*byte < b' ' && !b"\t\r\n".contains(byte)) || *byte == 0x7f;
    if head.iter().any(is_control) {
        return None;
    }
    let record = "fetch the profile itself, such as http://HOST/debug/pprof/profile without ?debug";
    Some(match first {
        b'<' => ("a web page or another XML file", record),
        b'{' | b'[' => (
            "JSON",
            "read it with the tool that wrote it: profiler.firefox.com, speedscope.app or another",
        ),
        // So few bytes may be anything.
        _ if head.len() < 8 => return None,
        _ => (
            "text",
            "fetch the profile itself, without ?debug; folded stacks are for flamegraph.pl, inferno or speedscope.app",
        ),
    })
}
