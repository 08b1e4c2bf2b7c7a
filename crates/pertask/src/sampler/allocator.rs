//! What the functions of an allocation's stack are. The first ones are ours and the allocator's, and people know the function that asked for
//! memory.

/// What a function is to an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// One of ours, which takes the stack. It may call others.
    Ours,
    /// One of the allocator, or of the standard library below its collections.
    Allocator,
    /// Whoever asked for memory.
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
    /// Says what a function is, by its name.
    pub(super) fn of(function: &str) -> Self {
        let name = function.trim_start_matches(['<', '&']);
        let is_one = |beginnings: &[&str]| beginnings.iter().any(|it| name.starts_with(it));
        match () {
            () if is_one(&OURS) => Self::Ours,
            () if is_one(&ALLOCATOR) => Self::Allocator,
            () => Self::Caller,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Layer;

    #[test]
    fn collections_are_no_allocators() {
        for (function, layer) in [
            (
                "<pertask::pmus::memory::alloc::Alloc<A> as core::alloc::global::GlobalAlloc>::alloc",
                Layer::Ours,
            ),
            ("__rustc::__rust_alloc_zeroed", Layer::Allocator),
            ("<alloc::alloc::Global as core::alloc::Allocator>::allocate", Layer::Allocator),
            ("alloc::raw_vec::RawVecInner<A>::try_allocate_in", Layer::Allocator),
            ("alloc::vec::Vec<T,A>::push", Layer::Caller),
            ("alloc::string::String::from", Layer::Caller),
            ("shop::cart::add", Layer::Caller),
        ] {
            assert_eq!(Layer::of(function), layer, "{function}");
        }
    }
}
