//! The functions of an allocator. An allocation's stack begins with them, and people know the function that asked for memory.

/// The beginnings of their names, without `<` in front: those of ours, of what the compiler calls, and of the standard library below its
/// collections.
const BEGINNINGS: [&str; 9] = [
    "pertask::pmus::memory::",
    "pertask::sampler::",
    "__rust_",
    "__rg_",
    "__rustc::",
    "alloc::alloc::",
    "alloc::raw_vec::",
    "core::alloc::",
    "alloc::boxed::box_new",
];

/// Whether a function is one of the allocator, by its name.
pub(super) fn is_allocator(function: &str) -> bool {
    let name = function.trim_start_matches(['<', '&']);
    BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::is_allocator;

    #[test]
    fn collections_are_no_allocators() {
        for function in [
            "<pertask::pmus::memory::alloc::Alloc<A> as core::alloc::global::GlobalAlloc>::alloc",
            "__rustc::__rust_alloc_zeroed",
            "<alloc::alloc::Global as core::alloc::Allocator>::allocate",
            "alloc::raw_vec::RawVecInner<A>::try_allocate_in",
        ] {
            assert!(is_allocator(function), "{function}");
        }
        for function in
            ["alloc::vec::Vec<T,A>::push", "alloc::string::String::from", "shop::cart::add"]
        {
            assert!(!is_allocator(function), "{function}");
        }
    }
}
