//! Bars of several parts.

use super::ink::Tint;

/// Draws a bar of that many characters: for each part its amount, the character that stands for it, and its tint.
///
/// Each part has as many characters as its share, rounded so that they fill the bar. Without any amount the bar is empty.
#[must_use]
pub fn of(parts: &[(u64, char, Tint)], width: u32) -> Vec<(String, Tint)> {
    let all = parts.iter().map(|(amount, ..)| u128::from(*amount)).sum::<u128>().max(1);
    let (mut so_far, mut drawn) = (0_u128, 0);
    let piece = |(amount, mark, tint): &(u64, char, Tint)| {
        so_far += u128::from(*amount);
        let end = ((so_far * u128::from(width) + all / 2) / all) as usize;
        let marks = end - drawn;
        drawn = end;
        (mark.to_string().repeat(marks), *tint)
    };
    parts.iter().map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_whatever_is_rounded() {
        let drawn = |amounts: [u64; 3]| {
            let marks = amounts.into_iter().zip(['█', '▓', '░']);
            let parts: Vec<_> = marks.map(|(amount, mark)| (amount, mark, Tint::Plain)).collect();
            of(&parts, 20).into_iter().map(|(text, _)| text).collect::<String>()
        };
        assert_eq!(drawn([1, 1, 1]), "███████▓▓▓▓▓▓░░░░░░░");
        assert_eq!(drawn([10, 0, 990]), "░░░░░░░░░░░░░░░░░░░░");
        assert_eq!(drawn([u64::MAX / 4, 0, u64::MAX / 4 * 3]), "█████░░░░░░░░░░░░░░░");
        assert_eq!(drawn([0, 0, 0]), "");
    }
}
