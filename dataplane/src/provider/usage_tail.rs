//! Token counts at the end of an answer that is there as a whole, in one quick pass over what
//! providers usually write there: members with numbers, plain strings, words, and objects of these.
//!
//! Anything else, and whatever should be flagged, is not judged here: then there is no answer, and
//! [`super::usage_finder`] reads the same text. Where there is one, it is the finder's.

use super::usage_finder::Counts;
use super::usage_plans::{Slot, Step, Then};
use crate::words;
use std::ops::Range;

/// Objects inside one another. A usage with its details has three.
const LEVELS_MAX: usize = 6;

/// So many digits are below what is believed of a count.
const DIGITS_MAX: usize = 15;

const _: () = assert!(10u64.pow(DIGITS_MAX as u32) <= super::usage_finder::COUNT_MAX);

/// An object that is on no path of a plan.
const OFF_PATH: u8 = u8::MAX;

/// A number in a text: where its digits are, and what it counts.
#[derive(Clone, Debug)]
pub(super) struct Number {
    pub(super) digits: Range<usize>,
    pub(super) slot: Option<Slot>,
}

/// The counts of a text of which `tail` is the end: from the first byte of a key of the text
/// itself on to the end; `numbers` are added to. `None`: it is not one of the usual.
pub(super) fn read(plan: &[Step], tail: &[u8], numbers: &mut Vec<Number>) -> Option<Counts> {
    // Then every quote begins or ends a string.
    if memchr::memchr(b'\\', tail).is_some() {
        return None;
    }
    let mut walk = Walk { text: tail, at: 0 };
    let mut counts = Counts::default();
    let mut levels = [0u8; LEVELS_MAX];
    let mut depth = 0;
    loop {
        let within = *levels.get(depth)?;
        let then = step(plan, within, walk.key()?);
        match walk.token()? {
            b'0'..=b'9' => {
                let from = walk.at;
                let value = walk.number()?;
                let slot = if let Then::Count(slot) = then { Some(slot) } else { None };
                if let Some(slot) = slot {
                    counts.set(slot, value);
                }
                numbers.push(Number { digits: from..walk.at, slot });
            }
            b'{' => {
                depth += 1;
                *levels.get_mut(depth)? = match then {
                    Then::Object(object) => object,
                    Then::Count(_) => return None,
                    Then::Skip | Then::List => OFF_PATH,
                };
                walk.at += 1;
                if walk.token()? != b'}' {
                    continue;
                }
            }
            // What should be a count has to be flagged.
            _ if matches!(then, Then::Count(_)) => return None,
            b'"' => drop(walk.string()?),
            b'n' => walk.word(b"null")?,
            b't' => walk.word(b"true")?,
            b'f' => walk.word(b"false")?,
            _ => return None,
        }
        // A value has ended, or an object is empty: close what closes, until a key is due.
        loop {
            let byte = walk.token()?;
            walk.at += 1;
            match byte {
                b',' => break,
                b'}' if depth > 0 => depth -= 1,
                b'}' => return walk.rest().trim_ascii().is_empty().then_some(counts),
                _ => return None,
            }
        }
    }
}

fn step(plan: &[Step], within: u8, key: &[u8]) -> Then {
    if within == OFF_PATH {
        return Then::Skip;
    }
    // Their lengths tell most of them apart, for less than a comparison.
    let found = plan.iter().find(|step| step.key.len() == key.len() && step.within == within && step.key == key);
    found.map_or(Then::Skip, |step| step.then)
}

/// The number that a text begins with, as far as it can be believed, and how many digits it has.
#[inline]
pub(super) fn leading_number(text: &[u8]) -> (u64, usize) {
    let mut value = 0;
    for (at, byte) in text.iter().take(DIGITS_MAX).enumerate() {
        let digit @ 0..=9 = byte.wrapping_sub(b'0') else { return (value, at) };
        value = value * 10 + u64::from(digit);
    }
    (value, text.len().min(DIGITS_MAX))
}

struct Walk<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Walk<'t> {
    fn rest(&self) -> &'t [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next byte that is no white space.
    #[inline]
    fn token(&mut self) -> Option<u8> {
        loop {
            match *self.text.get(self.at)? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    /// Passes a key and its colon.
    #[inline]
    fn key(&mut self) -> Option<&'t [u8]> {
        if self.token()? != b'"' {
            return None;
        }
        let key = self.string()?;
        if self.token()? != b':' {
            return None;
        }
        self.at += 1;
        Some(key)
    }

    /// Passes a string; `at` is on its opening quote.
    #[inline]
    fn string(&mut self) -> Option<&'t [u8]> {
        let rest = self.text.get(self.at + 1..)?;
        let mut len = 0;
        let len = loop {
            let Some(word) = rest.get(len..).and_then(<[u8]>::first_chunk) else {
                break len + rest.get(len..)?.iter().position(|byte| *byte == b'"')?;
            };
            let marks = words::equal(words::word(*word), b'"');
            if marks != 0 {
                break len + words::first(marks);
            }
            len += 8;
        };
        self.at += len + 2;
        rest.get(..len)
    }

    /// Passes a whole number that can be believed.
    #[inline]
    fn number(&mut self) -> Option<u64> {
        let (value, digits) = leading_number(self.rest());
        self.at += digits;
        // Longer, or a fraction, or no number.
        matches!(self.text.get(self.at)?, b',' | b'}' | b' ' | b'\t' | b'\n' | b'\r').then_some(value)
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest().starts_with(word).then(|| self.at += word.len())
    }
}
