//! Files that are damaged, cut short, too large or not profiles: an error that says so, and never a panic.

use std::io::{self, Read, Write};

use flate2::{Compression, write::GzEncoder};
use pertask_profile::{
    Amount, Comparison, DifferenceRow, Filter, FlamegraphOptions, GroupBy, Part, PprofFile,
    Profile, ReadError, ReadLimits, RootBy, State, SummaryStyle, Weight,
};
use proptest::prelude::*;

use crate::example::{self, pprof};
use crate::protobuf::{File, Value, bytes, number, packed};
use crate::waits;

#[test]
fn each_beginning_of_a_good_file_is_an_error() {
    let file = pprof(&example::profile());
    for len in 0..file.len() {
        let read = Profile::from_pprof(&file[..len]);
        assert!(read.is_err(), "{len} of {} bytes", file.len());
        let said = read.expect_err("a beginning").to_string();
        assert!(said.contains("cut short") || said.contains("empty"), "{said}");
    }
}

#[test]
fn no_beginning_of_an_unpacked_file_is_trusted() {
    let file = unpacked();
    for len in 0..file.len() {
        if let Ok(profile) = Profile::from_pprof(&file[..len]) {
            assert!(profile.samples.len() <= 4);
        }
    }
}

#[test]
fn a_gzip_bomb_is_an_error() {
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![0; 64 << 20]).expect("memory");
    let bomb = bomb.finish().expect("memory");
    let limits = ReadLimits { bytes: 1 << 20, ..ReadLimits::default() };
    let mut rest = &bomb[..];
    let said = Profile::from_pprof_within(&mut rest, &limits).expect_err("it is a bomb");
    // The rest of the file was never unpacked. Reading is ahead of unpacking by a buffer.
    assert!(rest.len() > bomb.len() / 4, "{} of {} bytes left", rest.len(), bomb.len());
    assert!(said.is_too_large(), "{said}");
    assert!(said.to_string().contains("too many unpacked bytes, more than 1048576;"), "{said}");
}

#[test]
fn each_limit_has_a_name() {
    let mut limits = ReadLimits::default();
    for name in ReadLimits::NAMES {
        *limits.by_name(name).expect(name) = 7;
    }
    let sevens = format!("{limits:?}").matches(": 7").count();
    assert_eq!(sevens, ReadLimits::NAMES.len(), "{limits:?}");
    assert_eq!(limits.by_name("memory"), None);
}

#[test]
fn an_endless_file_is_an_error() {
    assert!(read_within(io::repeat(0x0a)).is_err());
    // Empty gzip files without end, which unpack to nothing.
    let empty = GzEncoder::new(Vec::new(), Compression::fast()).finish().expect("memory");
    assert!(read_within(Again { bytes: empty, at: 0 }).is_err());
}

#[test]
fn each_limit_holds() {
    let file = pprof(&example::profile());
    let exact =
        ReadLimits { samples: 4, strings: 100, locations: 5, depth: 4, ..ReadLimits::default() };
    Profile::from_pprof_within(&file[..], &exact).expect("it is within them");
    let less = [
        ("samples", ReadLimits { samples: 3, ..exact }),
        ("strings", ReadLimits { strings: 3, ..exact }),
        ("functions", ReadLimits { locations: 4, ..exact }),
        ("bytes in one part", ReadLimits { part_bytes: 8, ..exact }),
        ("frames in all stacks", ReadLimits { frames: 10, ..exact }),
        ("labels", ReadLimits { labels: 10, ..exact }),
        ("unpacked bytes", ReadLimits { bytes: 600, ..exact }),
    ];
    for (what, limits) in less {
        let read = Profile::from_pprof_within(&file[..], &limits);
        let said = read.expect_err(what).to_string();
        assert!(said.contains(what), "{what}: {said}");
    }
}

/// A few bytes of a file are up to four samples in memory, one for each state, and eight in a difference. Each has its stack and its
/// labels, and so each counts.
#[test]
fn limits_count_the_samples_that_one_of_a_file_becomes() {
    let types = ["cpu", "waiting", "ready", "blocked"].map(|name| format!("{name}/nanoseconds"));
    let types = ["samples/count", &types[0], &types[1], &types[2], &types[3]];
    let limits =
        |samples, frames, labels| ReadLimits { samples, frames, labels, ..ReadLimits::default() };
    for (values, copies) in [([1, 7, 0, 0, 0], 1), ([1, 7, 7, 7, 7], 4), ([-1, 7, 7, 7, 7], 5)] {
        let mut file = File::of(&types);
        file.text(13, "written by pertask");
        let stack = [file.location(&["work"]), file.location(&["main"])];
        file.sample(
            &stack,
            &values,
            &[("a", Value::Text("1")), ("b", Value::Text("2")), ("c", Value::Text("3"))],
        );
        let file = file.written();
        let read = |limits| PprofFile::read_within(&file[..], &limits);
        read(limits(copies, 2 * copies, 3 * copies)).expect("they are within the limits");
        let less = [
            ("too many samples", limits(copies - 1, 99, 99)),
            ("too many frames in all stacks", limits(99, 2 * copies - 1, 99)),
            ("too many labels", limits(99, 99, 3 * copies - 1)),
        ];
        for (what, limits) in less {
            let said = read(limits).expect_err(what).to_string();
            assert!(said.contains(what), "{values:?}: {what}: {said}");
        }
    }
}

#[test]
fn what_is_not_cpu_time_says_what_it_is() {
    let strings = ["", "alloc_space", "bytes"].map(|string| bytes(6, string)).concat();
    let file = [strings, bytes(1, [number(1, 1), number(2, 2)].concat())].concat();
    let said = Profile::from_pprof(&file[..]).expect_err("it is of a heap");
    assert!(matches!(&said, ReadError::NotCpuTime { found } if found == &["alloc_space/bytes"]));
    assert!(
        said.to_string()
            .contains("(alloc_space/bytes) do not include CPU time; record a CPU profile"),
        "{said}"
    );
}

/// A message goes to a terminal.
#[test]
fn what_is_said_of_a_file_steers_no_terminal() {
    let endless = "\u{1b}]0;x\u{7}\n".repeat(1_000);
    let strings = ["", &endless, "\u{202e}"].map(|string| bytes(6, string)).concat();
    let file = [strings, bytes(1, [number(1, 1), number(2, 2)].concat())].concat();
    let said = Profile::from_pprof(&file[..]).expect_err("it is of nothing").to_string();
    assert!(!said.contains(|c: char| c.is_control() || c == '\u{202e}'), "{said:?}");
    assert!(said.len() < 3_000, "{} bytes", said.len());
}

/// A few kilobytes in which each of many frames is a location of many functions.
#[test]
fn a_stack_does_not_unfold_without_end() {
    let inlined = bytes(4, number(1, 1)).repeat(10_000);
    let strings = ["", "cpu", "nanoseconds", "f"].map(|string| bytes(6, string)).concat();
    let file = [
        strings,
        bytes(1, [number(1, 1), number(2, 2)].concat()),
        bytes(5, [number(1, 1), number(2, 3)].concat()),
        bytes(4, [number(1, 1), inlined].concat()),
        bytes(2, [packed(1, &[1; 1_000]), packed(2, &[1])].concat()),
    ];
    let profile = Profile::from_pprof(&file.concat()[..]).expect("it is cut");
    assert_eq!(profile.locations[0].lines.len(), 4_096);
    assert_eq!(profile.samples[0].stack.len(), 1);
    assert_eq!(profile.lost.stacks_cut, 1);
}

/// A few kilobytes in which each of many samples is in a location of many functions.
#[test]
fn samples_do_not_unfold_without_end() {
    let inlined = bytes(4, number(1, 1)).repeat(4_000);
    let strings = ["", "cpu", "nanoseconds", "f"].map(|string| bytes(6, string)).concat();
    let sample = bytes(2, [packed(1, &[1]), packed(2, &[1])].concat());
    let file = [
        strings,
        bytes(1, [number(1, 1), number(2, 2)].concat()),
        bytes(5, [number(1, 1), number(2, 3)].concat()),
        bytes(4, [number(1, 1), inlined].concat()),
        sample.repeat(20_000),
    ]
    .concat();
    let said = Profile::from_pprof(&file[..]).expect_err("it is a bomb").to_string();
    assert!(said.contains("too many frames in all stacks, more than 67108864;"), "{said}");
    assert!(said.contains("raise the limit (frames)"), "{said}");
    let mut limits = ReadLimits::default();
    *limits.by_name("frames").expect("its name") *= 2;
    let profile = Profile::from_pprof_within(&file[..], &limits).expect("it is allowed");
    assert_eq!(profile.samples.len(), 20_000);
}

#[test]
fn what_does_not_fit_together_says_where() {
    let good = unpacked();
    let wrong = [
        (
            bytes(2, packed(2, &[1])),
            "sample 4: it needs a value for each sample type (2), and has 1",
        ),
        (bytes(2, [packed(1, &[77]), packed(2, &[1, 1])].concat()), "no location with the id 77"),
        (bytes(2, packed(2, &[1, i64::MAX as u64])), "sample 4: its sum"),
        (bytes(3, [number(1, 9), number(5, 999)].concat()), "mapping 2: string 999 of"),
        (bytes(4, number(1, 1)), "location 5: its id 1 is 0 or already taken"),
        (bytes(2, [0xff]), "sample 4: "),
        (vec![0x0f], "the file: a field has a type"),
        (vec![0x0a, 0x7f], "the file: a field is longer"),
        (vec![0x80; 11], "the file: a number has more than 64 bits"),
        (packed(13, &[999]), "a comment: string 999"),
    ];
    for (more, why) in wrong {
        let read = Profile::from_pprof(&[good.clone(), more].concat()[..]);
        let said = read.expect_err(why).to_string();
        assert!(said.contains(why), "{why}: {said}");
    }
}

/// Comments name strings, and may name one many times.
#[test]
fn one_remark_told_over_and_over_takes_no_more_memory_than_a_hundred() {
    let strings = ["", "samples", "count", "cpu", "nanoseconds", "remark: again"];
    let file = [
        strings.map(|string| bytes(6, string)).concat(),
        bytes(1, [number(1, 1), number(2, 2)].concat()),
        bytes(1, [number(1, 3), number(2, 4)].concat()),
        packed(13, &[5; 4_000]),
    ];
    let profile = Profile::from_pprof(&file.concat()[..]).expect("it is good");
    assert_eq!(profile.remarks, vec!["again"; 100]);
}

#[test]
fn a_reader_that_fails_is_not_taken_for_a_bad_file() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the wire is cut"))
        }
    }
    let gzip = pprof(&example::profile());
    for begun in [0, 1, 20] {
        let read = Profile::from_pprof(gzip[..begun].chain(Fails));
        assert!(matches!(read, Err(ReadError::Read(_))), "{begun}: {read:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_flipped_bits_panic(flips in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..6)) {
        // Unpacked, or gzip's checksum would find most of them.
        for mut file in [unpacked(), unpacked_of(&waits::profile()), pprof(&example::profile())] {
            for (at, bit) in &flips {
                let at = at.index(file.len());
                file[at] ^= 1 << (bit % 8);
            }
            use_it(Profile::from_pprof(&file[..]));
            if let Ok(PprofFile::Difference(two)) = PprofFile::read(&file[..]) {
                compare(&two.comparison());
            }
        }
    }

    /// Any numbers, with both signs.
    #[test]
    fn no_difference_panics(values in prop::collection::vec((any::<i64>(), any::<i64>(), 0..64u32, any::<bool>()), 1..6)) {
        let mut file = File::usual();
        let work = [file.location(&["work"]), file.location(&["main"])];
        for (count, cpu, shift, is_base) in values {
            let base = [("pprof::base", Value::Text("true"))];
            file.sample(&work, &[count >> shift, cpu >> shift], if is_base { &base } else { &[] });
        }
        match PprofFile::read(&file.written()[..]) {
            Ok(PprofFile::Difference(two)) => compare(&two.comparison()),
            Ok(PprofFile::Profile(profile)) => compare(&Comparison::of(&profile, &profile)),
            Err(_) => (),
        }
    }

    #[test]
    fn no_bytes_panic(file in prop::collection::vec(any::<u8>(), 0..200)) {
        use_it(Profile::from_pprof(&file[..]));
    }
}

/// Writes what could be read in each format.
fn use_it(read: Result<Profile, ReadError>) {
    match read {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(profile) => {
            let again = Profile::from_pprof(&pprof(&profile)[..]).expect("we wrote it");
            assert_eq!(again.samples.len(), profile.samples.len());
            profile.write_flamegraph(&Default::default(), io::sink()).expect("a picture");
            profile.write_firefox("p", io::sink()).expect("JSON");
            let (root, weight) = (RootBy::TaskName, Weight::Time);
            profile.write_speedscope("p", root, weight, io::sink()).expect("JSON");
            profile.write_folded_lives(root, io::sink()).expect("stacks");
            let of_life = FlamegraphOptions { whole_life: true, ..FlamegraphOptions::default() };
            profile.write_flamegraph(&of_life, io::sink()).expect("a picture");
            State::ALL.iter().for_each(|state| add_up(&profile.in_state(*state)));
        }
    }
}

/// Its differences add up, and are text for a terminal.
fn compare(comparison: &Comparison<'_>) {
    let style = SummaryStyle { width: Some(60), max_rows: usize::MAX, ..SummaryStyle::default() };
    let wholes = [comparison.before, comparison.after].map(|side| side.whole.whole());
    use GroupBy::{Function, Place, Site, Thread, Waker};
    for by in [Site, Function, Place, Thread, Waker] {
        let difference = comparison.difference(&by, Part::Own);
        let sum = |of: fn(&DifferenceRow) -> Amount| {
            difference.rows.iter().map(of).fold(Amount::default(), Amount::plus)
        };
        assert_eq!([sum(|row| row.before), sum(|row| row.after)], wholes, "{by:?}");
        for verdict in difference.rows.iter().flat_map(|row| [row.rate, row.share]).flatten() {
            assert!((0.0..=1.0).contains(&verdict.p), "{verdict:?}");
        }
        let text = format!("{}\n{}", comparison.overview("a", "b", style), difference.table(style));
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
    let growth = comparison.growth(RootBy::TaskName).profile;
    growth.write_flamegraph(&Default::default(), io::sink()).expect("a picture");
}

/// Its summaries add up, and are text for a terminal.
fn add_up(profile: &Profile) {
    use GroupBy::{Function, Place, Scope, Site, Task, Thread, Waker};
    let mut groups = vec![Site, Task, Function, Place, Waker, Thread, Scope];
    groups.extend(profile.label_keys().into_iter().map(GroupBy::Label));
    let style = SummaryStyle { width: Some(60), ..SummaryStyle::default() };
    for by in groups {
        let summary = profile.summary(&by);
        let own = summary.rows.iter().fold(Amount::default(), |sum, row| sum.plus(row.own));
        assert_eq!(own, profile.whole(), "{by:?}");
        for row in &summary.rows {
            assert!(
                row.own.time_ns <= row.total.time_ns && row.total.time_ns <= own.time_ns,
                "{row:?}"
            );
        }
        let text = format!("{}\n{}", profile.overview(style), summary.table(style));
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
    for row in profile.summary(&GroupBy::Thread).rows {
        let filter = Filter { thread: Some(row.subject.to_string()), ..Filter::default() };
        assert!(profile.filtered(&filter).whole().time_ns >= row.own.time_ns, "{filter}");
    }
}

fn read_within(reader: impl Read) -> Result<Profile, ReadError> {
    let limits = ReadLimits { bytes: 1 << 20, ..ReadLimits::default() };
    Profile::from_pprof_within(reader, &limits)
}

fn unpacked() -> Vec<u8> {
    unpacked_of(&example::profile())
}

fn unpacked_of(profile: &Profile) -> Vec<u8> {
    let packed = pprof(profile);
    let mut file = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut file).expect("gzip");
    file
}

/// A reader that repeats its bytes for ever.
struct Again {
    bytes: Vec<u8>,
    at: usize,
}

impl Read for Again {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        for byte in &mut *out {
            *byte = self.bytes[self.at];
            self.at = (self.at + 1) % self.bytes.len();
        }
        Ok(out.len())
    }
}
