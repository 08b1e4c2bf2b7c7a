//! What the functions of an allocation's stack are. The first ones are ours and the allocator's. Then come those of the standard library,
//! which call each other: people know the one that their own code called, such as `to_vec`.

/// What a function is to an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// One of ours, which takes the stack. It may call others.
    Ours,
    /// One of the allocator, or of the standard library below its collections.
    Allocator,
    /// One of the standard library.
    Library,
    /// Another one, or one that is not known.
    Caller,
}

/// The beginnings of the names of ours, without `<` in front.
const OURS: [&str; 2] = ["pertask::pmus::memory::", "pertask::sampler::"];

/// And of the allocator's: what the compiler calls, and the standard library's.
const ALLOCATOR: [&str; 7] = [
    "__rust_",
    "__rg_",
    "__rustc::",
    "alloc::alloc::",
    "alloc::raw_vec::",
    "core::alloc::",
    "alloc::boxed::box_new",
];

impl Layer {
    /// Says what a function is, by its name and its source file.
    pub(super) fn of(function: &str, file: Option<&str>) -> Self {
        let name = function.trim_start_matches(['<', '&']);
        let is_one = |beginnings: &[&str]| beginnings.iter().any(|it| name.starts_with(it));
        match () {
            () if is_one(&OURS) => Self::Ours,
            () if is_one(&ALLOCATOR) => Self::Allocator,
            () if is_of_library(function) || file.is_some_and(is_file_of_library) => Self::Library,
            () => Self::Caller,
        }
    }

    /// The place in a stack where an allocation was asked for, without ours: the standard library's function that others called, or else
    /// whoever called the allocator.
    pub(super) fn asked(layers: &[Self]) -> Option<usize> {
        let caller = layers.iter().position(|layer| *layer == Self::Caller);
        let within = &layers[..caller.unwrap_or(0)];
        let library = within.iter().rposition(|layer| *layer == Self::Library);
        // Where nobody called the library, the function that says most is the one next to the allocator.
        library.or(caller).or_else(|| layers.iter().position(|layer| *layer == Self::Library))
    }
}

/// Whether a file is one of the standard library's, or of its hash tables. Its methods for all types, such as `ToString`'s, may have the
/// name of the program's type, and inlined functions may have no path.
fn is_file_of_library(file: &str) -> bool {
    let is_in = |part: &str| file.contains(part);
    let of_library = ["/library/alloc/src/", "/library/core/src/", "/library/std/src/"];
    of_library.into_iter().any(is_in) || is_in("/hashbrown-") && is_in("/src/")
}

/// Whether a function is the standard library's, where its name says so. By the language's rules a method of one of its traits is, too, if
/// the type is the library's or the language's, or a parameter.
fn is_of_library(function: &str) -> bool {
    let Some(inner) = function.strip_prefix('<') else { return is_path_of_library(function) };
    let Some((of_type, of_trait)) = type_and_trait(inner) else { return false };
    let is_its_trait = of_trait.is_none_or(is_path_of_library);
    is_its_trait && is_type_of_library(of_type)
}

fn is_path_of_library(path: &str) -> bool {
    // With the crate's hash: `alloc[1a2b]::vec`.
    let goes_on = |rest: &str| rest.starts_with("::") || rest.starts_with('[');
    ["alloc", "core", "std", "hashbrown"]
        .iter()
        .any(|it| path.strip_prefix(it).is_some_and(goes_on))
}

fn is_type_of_library(name: &str) -> bool {
    const BEFORE: [&str; 4] = ["mut ", "const ", "dyn ", "impl "];
    let mut name = name;
    loop {
        let rest = name.trim_start_matches(['&', '*']);
        match BEFORE.iter().find_map(|word| rest.strip_prefix(word)) {
            Some(after) => name = after,
            None => break name = rest,
        }
    }
    let is_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let rest = name.trim_start_matches(is_of_name);
    // A slice, a tuple, a word of the language or a parameter has no path.
    !(rest.starts_with("::") || rest.starts_with('[') && rest.len() < name.len())
        || is_path_of_library(name)
}

/// The type of a method's name, which follows its `<`, and the trait, if it is one of a trait.
fn type_and_trait(inner: &str) -> Option<(&str, Option<&str>)> {
    let (mut depth, mut before) = (0_usize, b' ');
    let mut of_trait = None;
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            b'<' | b'(' | b'[' => depth += 1,
            // The arrow of a function's type ends nothing.
            b'>' if before == b'-' => {}
            b'>' | b')' | b']' if depth > 0 => depth -= 1,
            b'>' => {
                let end = of_trait.unwrap_or(at);
                let name = |from: usize| &inner[from + " as ".len()..at];
                return Some((&inner[..end], of_trait.map(name)));
            }
            b' ' if depth == 0 && of_trait.is_none() && inner[at..].starts_with(" as ") => {
                of_trait = Some(at);
            }
            _ => {}
        }
        before = byte;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::Layer;

    #[test]
    fn functions_are_told_apart() {
        for (function, layer) in [
            (
                "<pertask::pmus::memory::alloc::Alloc<A> as core::alloc::global::GlobalAlloc>::alloc",
                Layer::Ours,
            ),
            ("__rustc::__rust_alloc_zeroed", Layer::Allocator),
            ("<alloc::alloc::Global as core::alloc::Allocator>::allocate", Layer::Allocator),
            ("alloc::raw_vec::RawVecInner<A>::try_allocate_in", Layer::Allocator),
            ("alloc::vec::Vec<T,A>::push", Layer::Library),
            ("alloc::string::String::from", Layer::Library),
            ("alloc[9d1f]::slice::<impl [T]>::to_vec", Layer::Library),
            ("<alloc::vec::Vec<shop::Item>>::reserve", Layer::Library),
            ("<[shop::Item]>::to_vec", Layer::Library),
            ("<T as alloc::string::ToString>::to_string", Layer::Library),
            ("<&str as core::convert::Into<alloc::string::String>>::into", Layer::Library),
            (
                "<core::iter::adapters::map::Map<I,fn() -> T> as core::iter::traits::iterator::Iterator>::fold",
                Layer::Library,
            ),
            ("shop::cart::add", Layer::Caller),
            ("alloc_counter::count", Layer::Caller),
            ("<shop::Cart as core::clone::Clone>::clone", Layer::Caller),
            ("<&shop::Cart as core::fmt::Display>::fmt", Layer::Caller),
            ("<alloc::vec::Vec<T> as shop::Basket>::put", Layer::Caller),
            ("<str as shop::Named>::name", Layer::Caller),
            ("malloc", Layer::Caller),
            ("<unended", Layer::Caller),
        ] {
            assert_eq!(Layer::of(function, None), layer, "{function}");
        }
        let of_all_types = "<shop::Cart as alloc::string::ToString>::to_string";
        let [library, own] = ["/rustc/1a2b/library/alloc/src/string.rs", "/shop/src/cart.rs"];
        assert_eq!(Layer::of(of_all_types, Some(library)), Layer::Library);
        assert_eq!(Layer::of(of_all_types, Some(own)), Layer::Caller);
        let table = "/root/.cargo/registry/src/index/hashbrown-0.16.1/src/raw.rs";
        assert_eq!(Layer::of("reserve_rehash<u8>", Some(table)), Layer::Library);
    }

    #[test]
    fn what_the_program_called_asked_for_the_memory() {
        use Layer::{Allocator, Caller, Library};
        for (layers, asked) in [
            (&[Allocator, Library, Library, Caller, Library][..], Some(2)),
            (&[Allocator, Caller, Library], Some(1)),
            (&[Allocator, Library, Library], Some(1)),
            (&[Allocator], None),
            (&[], None),
        ] {
            assert_eq!(Layer::asked(layers), asked, "{layers:?}");
        }
    }
}
