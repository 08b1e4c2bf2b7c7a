//! The environment variable `PERTASK`, with which whoever starts a program says what its agent does.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

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
        match bytes {
            b"" | b"on" | b"1" => Ok(Self::On),
            b"off" | b"0" => Ok(Self::Off),
            _ => path(",listen")
                .map(Self::Listen)
                .or_else(|| path(",connect").map(Self::Connect))
                .ok_or_else(|| {
                    format!(
                        "{VARIABLE} is {:?}, and not off, on, PATH,listen or PATH,connect",
                        String::from_utf8_lossy(bytes)
                    )
                }),
        }
    }
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
    fn others_are_refused_with_what_is_possible() {
        for other in ["On", "yes", ",listen", "/tmp/a", "/tmp/a,suspend"] {
            let refused = Setting::parse(Some(other.as_ref())).expect_err(other);
            assert!(refused.contains(other) && refused.contains("PATH,listen"), "{refused}");
        }
    }
}
