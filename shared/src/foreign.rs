//! Words of others in our logs, errors and tables.

/// At most `characters_max` of a foreign text, on one line, without characters that a terminal or a
/// log would obey.
pub fn one_line(text: &str, characters_max: usize) -> String {
    let text = text.trim().chars().take(characters_max);
    text.map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_text_stays_on_its_line_and_obeys_its_bound() {
        assert_eq!(one_line("  a\n\u{1b}[2Jb\u{85}c\n", 100), "a  [2Jb c");
        assert_eq!(one_line("äöü", 2), "äö");
        assert_eq!(one_line("\n", 2), "");
    }
}
