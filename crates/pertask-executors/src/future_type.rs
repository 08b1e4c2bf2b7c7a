//! Types of futures: in words for people, and as one text wherever they come from.

use crate::name::{DEEPEST, Segment, segments, split, type_and_trait};
use std::borrow::Cow;

/// Returns a type in words for people: without type arguments, and without the parts that nobody has named.
///
/// ```
/// use pertask_executors::future_type::words;
///
/// assert_eq!(words("axum::serve::handle_connection::{async_fn#0}::{async_block_env#3}<app::App>"), "axum::serve::handle_connection");
/// assert_eq!(words("<app::Worker<u32> as app::Job>::run::{closure#0}"), "app::Worker::run");
/// assert_eq!(words("hyper::server::Connection<tokio::net::TcpStream>"), "hyper::server::Connection");
/// ```
#[must_use]
pub fn words(of: &str) -> String {
    words_below(of, DEEPEST)
}

fn words_below(of: &str, depth: usize) -> String {
    let of = of.trim();
    let shapes = ["&", "*", "(", "[", "dyn ", "impl ", "fn(", "unsafe ", "extern "];
    if shapes.iter().any(|shape| of.starts_with(shape)) {
        return unnamed(of);
    }
    let mut names: Vec<Cow<'_, str>> = Vec::new();
    for (at, segment) in segments(of).enumerate() {
        match segment {
            Segment { name: "", arguments: Some(inner) } if at == 0 && depth > 0 => {
                names.push(words_below(type_and_trait(inner).0, depth - 1).into());
            }
            Segment { name: "", .. } => (),
            segment if segment.is_anonymous() => (),
            Segment { name, .. } => names.push(name.into()),
        }
    }
    if names.is_empty() { unnamed(of) } else { names.join("::") }
}

/// Returns a type in [`words`] that tell apart the `async` blocks and closures of one function, where no line of code does.
///
/// ```
/// use pertask_executors::future_type::distinct_words;
///
/// assert_eq!(distinct_words("app::serve::{async_fn#0}"), "app::serve");
/// assert_eq!(distinct_words("app::main::{async_block#0}::{async_block#2}<u8>"), "app::main {async_block#2}");
/// ```
#[must_use]
pub fn distinct_words(of: &str) -> String {
    let words = words(of);
    let mut unnamed = segments(of).filter(|segment| segment.is_anonymous());
    match (unnamed.next(), unnamed.last()) {
        // A function has one body, and the old mangling has no numbers.
        (Some(only), None) if only.name.ends_with("#0}") => words,
        (Some(only), None) if only.name.contains('#') => format!("{words} {}", only.name),
        (_, Some(last)) if last.name.contains('#') => format!("{words} {}", last.name),
        _ => words,
    }
}

/// What has no name keeps its shape, without type arguments: `(a::B, c::D)`, `dyn a::B`.
fn unnamed(of: &str) -> String {
    let mut out = String::new();
    let mut depth = 0_usize;
    let mut before = ' ';
    for it in of.chars() {
        match it {
            '<' => depth += 1,
            '>' if !matches!(before, '-' | '=') => depth = depth.saturating_sub(1),
            it if depth == 0 => out.push(it),
            _ => (),
        }
        before = it;
    }
    out
}

/// Returns a future's type as one text, whether it was named as a type or by its own function.
///
/// Debug information calls the future of an `async fn` `{async_fn_env#0}`, and its function `{async_fn#0}`.
#[must_use]
pub fn canonical(of: &str) -> String {
    of.replace("_env#", "#")
}

/// Returns the type of the future that a function polls, if the function is a future's own: an `async` block, a closure, or
/// `Future::poll`.
///
/// `path` and `typed` are as in [`Role::of`](crate::Role::of).
///
/// ```
/// use pertask_executors::future_type::of_body;
///
/// // The old mangling calls all of them closures. Debug information tells which it is.
/// assert_eq!(of_body("app::boxed::{{closure}}", Some("{async_block#0}")), "app::boxed::{async_block#0}");
/// assert_eq!(of_body("<app::Own as core::future::future::Future>::poll", Some("poll")), "app::Own");
/// ```
#[must_use]
pub fn of_body(path: &str, typed: Option<&str>) -> String {
    let parts: Vec<&str> = split(path, "::").collect();
    if let ([of], "poll") | ([of], "call_once" | "call_mut" | "call") = split_last(&parts)
        && let Some(inner) = of.strip_prefix('<').and_then(|of| of.strip_suffix('>'))
    {
        return canonical(type_and_trait(inner).0);
    }
    match (split_last(&parts), typed.filter(|typed| typed.starts_with('{'))) {
        ((scope, last), Some(typed)) if last.starts_with('{') && !scope.is_empty() => {
            format!("{}::{typed}", scope.join("::"))
        }
        _ => path.to_owned(),
    }
}

/// Whether a function can be a future's own, by its name: that of an `async` block, of a closure, or of `Future::poll`.
#[must_use]
pub fn may_be_body(path: &str) -> bool {
    path.ends_with('}') || path.ends_with(">::poll")
}

fn split_last<'a, 'b>(parts: &'b [&'a str]) -> (&'b [&'a str], &'a str) {
    match parts.split_last() {
        Some((last, rest)) => (rest, last),
        None => (&[], ""),
    }
}

/// Whether a function is the one that runs a future of this type, by the last part of both names: `{async_fn#0}<u32>` is that of
/// `app::{impl#0}::run::{async_fn_env#0}<u32>`.
#[must_use]
pub fn is_body_of(typed: &str, future: &str) -> bool {
    let future = canonical(future);
    let last = split(&future, "::").last();
    last.is_some_and(|last| last.starts_with('{') && last == typed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_people_call_it() {
        for (of, expected) in [
            ("app::background::{async_fn_env#0}", "app::background"),
            ("app::main::{async_block#0}::{closure#3}::{async_block_env#1}", "app::main"),
            ("app::Worker<T>::run::{{closure}}", "app::Worker::run"),
            ("<app::Worker<u32>>::run::{closure#0}", "app::Worker::run"),
            ("app::{impl#0}::run::{async_fn_env#0}<u32>", "app::run"),
            ("(app::A<u8>, app::B)", "(app::A, app::B)"),
            ("dyn app::Job<u8> + core::marker::Send", "dyn app::Job + core::marker::Send"),
            ("&mut app::A<fn(u8) -> u8>", "&mut app::A"),
            ("fn(app::A<u8>) -> u8", "fn(app::A) -> u8"),
            ("{closure_env#0}", "{closure_env#0}"),
            ("app::very::long<app::name…", "app::very::long"),
        ] {
            assert_eq!(words(of), expected, "{of}");
        }
    }

    #[test]
    fn names_that_no_compiler_writes_are_no_trouble() {
        for hostile in ["<", ">", "::", "as ", " as "] {
            for times in [1, 2, 50_000] {
                let name = hostile.repeat(times);
                assert!(words(&name).len() <= name.len() + 2, "{hostile}");
                let _ = (of_body(&name, Some(&name)), is_body_of(&name, &name));
                let _ = (crate::Role::of(&name, Some(&name)), crate::Concrete::of(&name));
            }
        }
        let nested = "<x as ".repeat(10_000);
        let _ = (words(&nested), crate::Role::of(&nested, None));
    }

    #[test]
    fn a_futures_own_function_tells_its_type() {
        for (path, typed, expected) in [
            ("app::boxed::{{closure}}", None, "app::boxed::{{closure}}"),
            ("app::boxed::{closure#0}", Some("{async_block#0}"), "app::boxed::{async_block#0}"),
            ("<app::W<u8> as core::future::future::Future>::poll", None, "app::W<u8>"),
            ("app::poll", Some("poll"), "app::poll"),
        ] {
            assert_eq!(of_body(path, typed), expected, "{path}");
        }
        assert!(is_body_of("{async_fn#0}<u32>", "app::{impl#0}::run::{async_fn_env#0}<u32>"));
        assert!(!is_body_of("{async_fn#0}", "app::{impl#0}::run::{async_fn_env#0}<u32>"));
        assert!(!is_body_of("run", "app::run"));
    }
}
