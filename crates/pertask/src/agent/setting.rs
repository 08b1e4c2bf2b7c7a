//! The environment variable `PERTASK`, with which whoever starts a program says what its agent does.

use crate::sampler::SamplerOptions;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

/// The variable.
pub(super) const VARIABLE: &str = "PERTASK";

/// What the agent does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// There is no agent.
    Off,
    /// It listens in the user's directory.
    On,
    /// It listens at this path.
    Listen(PathBuf),
    /// It connects to a tool that listens at this path.
    Connect(PathBuf),
    /// It listens in the user's directory, and the program is recorded from its launch.
    Record(Wanted),
}

/// A recording that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) path: PathBuf,
    pub(super) frequency_hz: u32,
    /// How long. `None` is until the program ends.
    pub(super) time: Option<Duration>,
}

impl Setting {
    /// Reads the variable's value. `None` is as `on`.
    ///
    /// # Errors
    /// Returns what is wrong with it, and what it may be.
    pub(super) fn parse(value: Option<&OsStr>) -> Result<Self, String> {
        let bytes = value.map(OsStr::as_bytes).unwrap_or_default();
        let path = |ending: &str| {
            let path = bytes.strip_suffix(ending.as_bytes()).filter(|path| !path.is_empty())?;
            Some(PathBuf::from(OsStr::from_bytes(path)))
        };
        let known = match bytes {
            b"" | b"on" | b"1" => Some(Self::On),
            b"off" | b"0" => Some(Self::Off),
            _ => match bytes.strip_prefix(b"record,") {
                Some(rest) => Wanted::parse(rest)?.map(Self::Record),
                None => path(",listen")
                    .map(Self::Listen)
                    .or_else(|| path(",connect").map(Self::Connect)),
            },
        };
        known.ok_or_else(|| {
            format!(
                "{VARIABLE} is {:?}, and not off, on, PATH,listen, PATH,connect or record,PATH[,hz=N][,seconds=N]",
                String::from_utf8_lossy(bytes)
            )
        })
    }
}

impl Wanted {
    /// Reads `PATH[,hz=N][,seconds=N]`. The path may have commas. Returns `None` if there is no path.
    fn parse(mut rest: &[u8]) -> Result<Option<Self>, String> {
        let (mut frequency_hz, mut time) = (SamplerOptions::default().frequency_hz, None);
        while let Some(at) = rest.iter().rposition(|byte| *byte == b',') {
            let last = String::from_utf8_lossy(&rest[at + 1..]);
            match last.split_once('=') {
                Some(("hz", text)) => frequency_hz = rate(text)?,
                Some(("seconds", text)) => time = Some(seconds(text)?),
                _ => break,
            }
            rest = &rest[..at];
        }
        let wanted = || Self { path: path_of_this_process(rest), frequency_hz, time };
        Ok((!rest.is_empty()).then(wanted))
    }
}

/// The path, with the process's number for each `%p`.
fn path_of_this_process(path: &[u8]) -> PathBuf {
    let number = std::process::id().to_string();
    let mut expanded = Vec::new();
    let mut rest = path;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"%p") {
        expanded.extend_from_slice(&rest[..at]);
        expanded.extend_from_slice(number.as_bytes());
        rest = &rest[at + 2..];
    }
    expanded.extend_from_slice(rest);
    OsString::from_vec(expanded).into()
}

fn rate(text: &str) -> Result<u32, String> {
    const HIGHEST: u32 = SamplerOptions::HIGHEST_HZ;
    let rate = text.parse().ok().filter(|rate| (1..=HIGHEST).contains(rate));
    rate.ok_or_else(|| format!("hz is {text:?}, and not a number from 1 to {HIGHEST}"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.ok_or_else(|| format!("seconds is {text:?}, and not a time in seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_values_are_read() {
        let parse = |value: &str| Setting::parse(Some(value.as_ref()));
        assert_eq!(Setting::parse(None), Ok(Setting::On));
        for on in ["", "on", "1"] {
            assert_eq!(parse(on), Ok(Setting::On));
        }
        for off in ["off", "0"] {
            assert_eq!(parse(off), Ok(Setting::Off));
        }
        assert_eq!(parse("/tmp/a,b,listen"), Ok(Setting::Listen("/tmp/a,b".into())));
        assert_eq!(parse("/tmp/a,connect"), Ok(Setting::Connect("/tmp/a".into())));
    }

    #[test]
    fn a_recording_has_a_path_and_may_have_a_rate_and_a_time() {
        let parse = |value: &str| match Setting::parse(Some(value.as_ref())) {
            Ok(Setting::Record(wanted)) => wanted,
            other => panic!("{value}: {other:?}"),
        };
        let default_hz = SamplerOptions::default().frequency_hz;
        let plain = Wanted { path: "/tmp/a,b".into(), frequency_hz: default_hz, time: None };
        assert_eq!(parse("record,/tmp/a,b"), plain);
        let time = Some(Duration::from_millis(1500));
        let whole = Wanted { path: "a,x=y".into(), frequency_hz: 99, time };
        assert_eq!(parse("record,a,x=y,hz=99,seconds=1.5"), whole);
        assert_eq!(parse("record,a,x=y,seconds=1.5,hz=99"), whole);
        let name = format!("{0}-{0}.pb.gz", std::process::id());
        assert_eq!(parse("record,%p-%p.pb.gz").path.as_os_str(), &*name);
        for other in ["record,a,hz=0", "record,a,hz=x", "record,a,seconds=-1", "record,,hz=9"] {
            Setting::parse(Some(other.as_ref())).expect_err(other);
        }
    }

    #[test]
    fn others_are_refused_with_what_is_possible() {
        for other in ["On", "yes", ",listen", "/tmp/a", "/tmp/a,suspend", "record", "record,"] {
            let refused = Setting::parse(Some(other.as_ref())).expect_err(other);
            assert!(refused.contains(other) && refused.contains("PATH,listen"), "{refused}");
        }
    }
}
