//! Demangles names.

use gimli::DwLang;
use std::borrow::Cow;

/// The end of a name that was cut. Some names of generic types take megabytes when they are demangled.
const ELLIPSIS: &str = "…";

/// The most bytes of a name.
const LONGEST: usize = 2_048;

/// Returns the name, demangled if it is mangled.
pub(crate) fn demangled(name: &str, language: Option<DwLang>) -> Cow<'_, str> {
    if let Some(rust) = of_rust(name, LONGEST) {
        return rust.into();
    }
    // The C library calls its public functions by this name internally.
    addr2line::demangle_auto(name.strip_prefix("__GI_").unwrap_or(name).into(), language)
}

/// Returns the name if it is mangled as Rust's are, demangled, or its beginning if that takes more bytes.
pub(crate) fn of_rust(name: &str, most_bytes: usize) -> Option<String> {
    let rust = rustc_demangle::try_demangle(name).ok()?;
    Some(bounded(format_args!("{rust:#}"), most_bytes))
}

/// Returns the text, or its beginning if it is too long.
///
/// Back references let a short mangled name stand for an endless one.
fn bounded(text: std::fmt::Arguments<'_>, most_bytes: usize) -> String {
    let mut written = Bounded { text: String::new(), most_bytes };
    if std::fmt::Write::write_fmt(&mut written, text).is_err() {
        written.text.push_str(ELLIPSIS);
    }
    written.text
}

/// A string that refuses more than so many bytes.
struct Bounded {
    text: String,
    most_bytes: usize,
}

impl std::fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.text.len() + text.len() > self.most_bytes {
            return Err(std::fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rust_and_of_c_plus_plus_become_readable() {
        let readable = |name| demangled(name, None).into_owned();
        assert_eq!(readable("_ZN4core3fmt5write17h0123456789abcdefE"), "core::fmt::write");
        assert_eq!(readable("_RNvC6_123foo3bar"), "123foo::bar");
        assert_eq!(readable("_ZN3foo3barEv"), "foo::bar()");
        assert_eq!(readable("memcpy"), "memcpy");
        assert_eq!(readable("__GI_getenv"), "getenv");
    }

    #[test]
    fn a_name_without_end_is_cut() {
        let long = bounded(format_args!("{}{}", "x".repeat(2_000), "y".repeat(100)), LONGEST);
        assert_eq!(long, format!("{}…", "x".repeat(2_000)));
    }
}
