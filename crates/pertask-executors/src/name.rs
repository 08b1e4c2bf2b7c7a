//! Names of Rust functions and types, as text: their segments and their type arguments.

/// A part of a path between two `::`: a name with its type arguments, a type in angle brackets, or type arguments alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    /// The name, or nothing.
    pub(crate) name: &'a str,
    /// What stands in angle brackets after the name.
    pub(crate) arguments: Option<&'a str>,
}

impl<'a> Segment<'a> {
    fn of(text: &'a str) -> Self {
        // `{async_fn_env#0}<u32>`, `{{closure}}`: no bracket of a name's own is an angle bracket.
        match find(text, "<") {
            Some(at) => {
                let arguments = &text[at + 1..];
                let arguments = arguments.strip_suffix('>').unwrap_or(arguments);
                Self { name: &text[..at], arguments: Some(arguments) }
            }
            None => Self { name: text, arguments: None },
        }
    }

    /// Whether it is no name that somebody has given: `{closure#0}`, `{impl#3}`, `{{closure}}`.
    pub(crate) fn is_anonymous(self) -> bool {
        self.name.starts_with('{')
    }
}

/// The segments of a path, the outermost first.
pub(crate) fn segments(path: &str) -> impl Iterator<Item = Segment<'_>> {
    split(path, "::").map(Segment::of)
}

/// The type and the trait of `A as B`, or the type alone.
pub(crate) fn type_and_trait(text: &str) -> (&str, Option<&str>) {
    let mut parts = split(text, " as ");
    (parts.next().unwrap_or_default(), parts.next())
}

/// The type arguments in a list. A list that was cut off has what is left of it.
pub(crate) fn arguments(list: &str) -> impl Iterator<Item = &str> {
    split(list, ",").map(str::trim).filter(|it| !it.is_empty())
}

/// Splits a text at a separator, where no bracket is open.
pub(crate) fn split<'a>(text: &'a str, separator: &'static str) -> impl Iterator<Item = &'a str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let at = find(text, separator);
        rest = at.map(|at| &text[at + separator.len()..]);
        Some(&text[..at.unwrap_or(text.len())])
    })
}

/// Where a separator stands that is in no brackets.
fn find(text: &str, separator: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        if depth == 0 && bytes[at..].starts_with(separator.as_bytes()) {
            return Some(at);
        }
        match byte {
            b'<' | b'(' | b'[' | b'{' => depth += 1,
            // An arrow closes nothing.
            b'>' if at > 0 && matches!(bytes[at - 1], b'-' | b'=') => (),
            b'>' | b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => (),
        }
    }
    None
}

/// How deep types in angle brackets before a `::` are looked into. Compilers write no such name, and a file can.
pub(crate) const DEEPEST: usize = 16;

/// A path without any type arguments: `<app::Worker<u32>>::run::<u8>` is `app::Worker::run`, and the method of a trait keeps
/// the trait, as in `<app::Own as core::future::future::Future>::poll`.
pub(crate) fn skeleton(path: &str) -> String {
    skeleton_below(path, DEEPEST)
}

fn skeleton_below(path: &str, depth: usize) -> String {
    let mut out = String::new();
    for (at, segment) in segments(path).enumerate() {
        let name = match (segment.name, segment.arguments) {
            ("", Some(inner)) if at == 0 && depth > 0 => of_qualified(inner, depth - 1),
            // `::<u8>`, or `::<impl app::Handle>`.
            ("", _) => continue,
            (name, _) => name.to_owned(),
        };
        if !out.is_empty() {
            out.push_str("::");
        }
        out.push_str(&name);
    }
    out
}

fn of_qualified(inner: &str, depth: usize) -> String {
    let (of, of_trait) = type_and_trait(inner);
    let of = skeleton_below(of, depth);
    match of_trait {
        Some(of_trait) => format!("<{of} as {}>", skeleton_below(of_trait, depth)),
        None => of,
    }
}

/// The type arguments of a function: its own, or those of its type.
pub(crate) fn arguments_of(path: &str) -> Option<&str> {
    arguments_below(path, DEEPEST)
}

fn arguments_below(path: &str, depth: usize) -> Option<&str> {
    for (at, segment) in segments(path).enumerate() {
        match (segment.name, segment.arguments) {
            ("", Some(inner)) if at == 0 => {
                let deeper = depth.checked_sub(1)?;
                let found = arguments_below(type_and_trait(inner).0, deeper);
                if found.is_some() {
                    return found;
                }
            }
            ("", Some(inner)) if inner.starts_with("impl ") => (),
            (_, Some(list)) => return Some(list),
            _ => (),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_type_arguments_has_all_its_names() {
        for (path, expected) in [
            ("app::run", "app::run"),
            ("app::Worker<T>::run", "app::Worker::run"),
            ("<app::Worker<u32>>::run::<u8>", "app::Worker::run"),
            ("app::run::<fn(u8) -> Vec<u8>>::{closure#0}", "app::run::{closure#0}"),
            (
                "<app::Own as core::future::future::Future>::poll",
                "<app::Own as core::future::future::Future>::poll",
            ),
            (
                "<app::W<T> as app::Job<u8>>::run::{{closure}}",
                "<app::W as app::Job>::run::{{closure}}",
            ),
            ("tokio::time::<impl tokio::time::Handle>::turn", "tokio::time::turn"),
            (
                "core::ops::function::FnOnce::call_once{{vtable.shim}}",
                "core::ops::function::FnOnce::call_once{{vtable.shim}}",
            ),
            ("", ""),
            ("<", ""),
            ("a<b::<c", "a"),
        ] {
            assert_eq!(skeleton(path), expected, "{path}");
        }
    }

    #[test]
    fn type_arguments_are_the_functions_or_those_of_its_type() {
        for (path, first) in [
            (
                "poll<app::run::{async_fn_env#0}<u8, u16>, S>",
                Some("app::run::{async_fn_env#0}<u8, u16>"),
            ),
            ("<a::Harness<app::F<u8>, S>>::poll", Some("app::F<u8>")),
            ("a::raw::poll::<(u8, u16), S>", Some("(u8, u16)")),
            ("a::raw::poll::<dyn Fn(u8) -> u8, S>", Some("dyn Fn(u8) -> u8")),
            ("a::Harness<T,S>::poll", Some("T")),
            ("a::<impl a::H>::poll::<app::F>", Some("app::F")),
            ("a::raw::poll", None),
            ("poll<app::very<long", Some("app::very<long")),
        ] {
            let found = arguments_of(path).and_then(|list| arguments(list).next());
            assert_eq!(found, first, "{path}");
        }
    }
}
