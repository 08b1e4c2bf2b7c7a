//! Counts with their nouns.

/// Returns a count with its noun: `1 request`, `2 requests`.
pub fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}
