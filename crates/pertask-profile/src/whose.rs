//! Whose code a source file is, by its path: the program's own, a library's, or std's.

/// Returns whether the file is the program's own: in Rust, and neither a library's nor std's.
pub(super) fn is_own(file: &str) -> bool {
    file.ends_with(".rs") && !is_of_std(file) && package_of(file).is_none()
}

/// As the compiler spells std's files, in what is shipped and where its source is installed.
pub(super) fn is_of_std(file: &str) -> bool {
    file.starts_with("/rustc/")
        || file.contains("/rustlib/src/rust/library/")
        || ["library/core/src/", "library/alloc/src/", "library/std/src/"]
            .iter()
            .any(|start| file.starts_with(start))
}

/// `tokio` of `…/registry/src/index.crates.io-1949cf8c6b5b557f/tokio-1.54.1/src/lib.rs`, and of a checkout's or a copy's path.
pub(super) fn package_of(file: &str) -> Option<&str> {
    let after = |start| file.split_once(start).map(|(_, rest)| rest);
    if let Some(rest) = after("/registry/src/") {
        return rest.split('/').nth(1).map(without_suffix);
    }
    let rest = after("/git/checkouts/").or_else(|| after("/vendor/"))?;
    rest.split('/').next().map(without_suffix)
}

/// A folder's name without its version or hash.
fn without_suffix(folder: &str) -> &str {
    folder.rsplit_once('-').map_or(folder, |(name, _)| name)
}
