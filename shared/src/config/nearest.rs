//! The known name that a mistyped one was probably meant to be.

/// Longer names are not typing mistakes of ours, and the distance costs O(length²).
const NAME_BYTES_MAX: usize = 64;

/// The candidate with the smallest edit distance to `name`, if that is at most a third of the
/// name's length (and 1 for short names). The first one wins a tie.
pub(super) fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let wanted: Vec<char> = name.to_lowercase().chars().collect();
    let distance_max = (wanted.len() / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= NAME_BYTES_MAX)
        .map(|candidate| (edit_distance(&wanted, candidate), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, substitutions and swaps of neighbours that lead from one to the other.
fn edit_distance(wanted: &[char], candidate: &str) -> usize {
    let candidate: Vec<char> = candidate.to_lowercase().chars().collect();
    let width = candidate.len() + 1;
    // `rows[r]` is the row before the current one, `before_last` the one before that.
    let mut before_last = vec![0; width];
    let mut last: Vec<usize> = (0..width).collect();
    for (row, from) in wanted.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, to) in candidate.iter().enumerate() {
            let substituted = at(&last, column) + usize::from(from != to);
            let mut best = substituted.min(at(&last, column + 1) + 1).min(at(&current, column) + 1);
            let is_swap =
                row > 0 && column > 0 && wanted.get(row - 1) == Some(to) && candidate.get(column - 1) == Some(from);
            if is_swap {
                best = best.min(at(&before_last, column - 1) + 1);
            }
            current.push(best);
        }
        before_last = core::mem::replace(&mut last, current);
    }
    at(&last, width - 1)
}

/// Every index asked for exists; the neutral answer keeps a mistake of ours from panicking.
fn at(row: &[usize], column: usize) -> usize {
    row.get(column).copied().unwrap_or(usize::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = ["openai", "openrouter", "base_url", "keys", "cohere"];

    #[test]
    fn one_slip_of_the_finger_is_found() {
        for (typed, meant) in [
            ("opnai", "openai"),
            ("opneai", "openai"),
            ("OpenAI", "openai"),
            ("openruter", "openrouter"),
            ("baseurl", "base_url"),
            ("base-url", "base_url"),
            ("key", "keys"),
        ] {
            assert_eq!(nearest(typed, KNOWN), Some(meant), "{typed}");
        }
    }

    #[test]
    fn a_different_word_is_not_guessed() {
        for typed in ["", "zzzz", "models", "anthropic", &"k".repeat(65)] {
            assert_eq!(nearest(typed, KNOWN), None, "{typed}");
        }
    }
}
