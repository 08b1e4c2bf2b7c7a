//! Counts with their nouns.

/// Returns a count with its noun: `1 request`, `2 requests`.
pub fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_none_is_not() {
        let requests = [0, 1, 2].map(|count| counted(count, "request"));
        assert_eq!(requests, ["0 requests", "1 request", "2 requests"]);
    }
}
