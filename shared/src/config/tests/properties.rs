//! Whatever the text: an answer, never a panic, and the same one every time.

use proptest::prelude::*;

use super::{everything, load};

const FULL: &str = include_str!("../../../../examples/full.json");

/// Loads `text` and prints what came of it, since messages are built only when they are shown.
fn answer(text: &str) -> String {
    match load(text, &everything()) {
        Ok(loaded) => format!("{loaded:?}"),
        Err(faults) => {
            let lines = super::lines(&faults);
            assert!(!faults.is_empty(), "a refusal says why");
            assert_eq!(lines.lines().count(), faults.len(), "each on a line of its own");
            lines
        }
    }
}

#[test]
fn a_configuration_cut_anywhere_is_answered() {
    let whole = FULL.trim_end();
    for (cut, _) in whole.char_indices() {
        let text = whole.get(..cut).unwrap_or_default();
        assert!(load(text, &everything()).is_err(), "cut at {cut}");
    }
}

#[test]
fn the_same_text_gives_the_same_answer() {
    assert_eq!(answer(FULL), answer(FULL));
    assert!(load(FULL, &everything()) == load(FULL, &everything()));
}

/// Pieces that steer a change into the grammar instead of out of it.
const PIECES: [&str; 16] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "//",
    "/*",
    "null",
    "true",
    "-1",
    "1e999",
    "\"env.X\"",
    "\\u0000",
    "\u{1f600}",
];

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        answer(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_changed_configuration_is_answered(
        changes in proptest::collection::vec((0..FULL.len(), 0..40_usize, 0..PIECES.len()), 1..6),
    ) {
        let mut text = FULL.to_owned();
        for (at, length, piece) in changes {
            let start = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
            let start = start.unwrap_or(0);
            let end = (start + length..=text.len()).find(|at| text.is_char_boundary(*at));
            text.replace_range(start..end.unwrap_or(text.len()), PIECES[piece]);
        }
        answer(&text);
    }
}
