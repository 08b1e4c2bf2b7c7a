//! Files of other kinds, which say what they are, and what to do.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use pertask_profile::{Profile, ReadError};

use crate::example::{self, pprof};

#[test]
fn each_says_what_it_is_packed_or_not() {
    let cases: &[(&[u8], &str, &str)] = &[
        (b"\x28\xb5\x2f\xfd\x04\x00", "compressed with zstd", "zstd -d FILE"),
        (b"\xfd7zXZ\0\0\x04", "compressed with xz", "xz -d FILE"),
        (b"BZh91AY&SY", "compressed with bzip2", "bzip2 -d FILE"),
        (b"PK\x03\x04\x14", "a zip archive", "unpack it"),
        (b"PERFILE2\x68", "Linux perf", "perf report"),
        (&[0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0], "older format", "-proto"),
        (b"\x7fELF\x02\x01", "a program", "recorded of it"),
        (b"<!DOCTYPE html><html></html>", "a web page", "/debug/pprof/profile"),
        (b"\xef\xbb\xbf \n<html>", "a web page", "fetch"),
        (br#"{"error":"not found"}"#, "JSON", "speedscope.app"),
        (b"[1]", "JSON", "speedscope.app"),
        (b"main;work 12\nmain 3\n", "text", "folded stacks"),
        ("größe;work 12\n".as_bytes(), "text", "folded stacks"),
    ];
    for (file, what, remedy) in cases {
        for file in [file.to_vec(), packed(file)] {
            let said = Profile::from_pprof(&file[..]).expect_err(what);
            assert!(matches!(said, ReadError::NotPprof { .. }), "{what}: {said}");
            let said = said.to_string();
            assert!(said.contains(what) && said.contains(remedy), "{what}: {said}");
        }
    }
    let twice = Profile::from_pprof(&packed(&pprof(&example::profile()))[..]);
    let said = twice.expect_err("packed twice").to_string();
    assert!(said.contains("compressed twice with gzip; unpack it once"), "{said}");
}

/// As `cat` makes them, of packed files and of others; with the time in them or not.
#[test]
fn several_profiles_in_one_file_are_said_to_be_several() {
    let mut timeless = example::profile();
    timeless.start = std::time::UNIX_EPOCH;
    timeless.duration_ns = 0;
    timeless.period_ns = 0;
    for profile in [example::profile(), timeless] {
        let file = pprof(&profile);
        for twice in [file.repeat(2), unpacked(&file).repeat(2)] {
            let said = Profile::from_pprof(&twice[..]).expect_err("several");
            assert!(matches!(said, ReadError::Several), "{said}");
            assert!(said.to_string().contains("go tool pprof -proto"), "{said}");
        }
    }
}

/// One profile may be packed in pieces.
#[test]
fn pieces_of_gzip_are_one_file() {
    let file = unpacked(&pprof(&example::profile()));
    let (begin, end) = file.split_at(file.len() / 2);
    let pieces = [packed(begin), packed(b""), packed(end)].concat();
    assert_eq!(Profile::from_pprof(&pieces[..]).expect("it is good"), example::profile());
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).expect("memory");
    gzip.finish().expect("memory")
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut gzip = flate2::read::GzDecoder::new(bytes);
    std::io::Read::read_to_end(&mut gzip, &mut out).expect("gzip");
    out
}
