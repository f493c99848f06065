//! Token counts in JSON that arrives in pieces: a walk that may stop and go on at any byte.
//!
//! It follows only the few paths on which a dialect keeps its counts and skips the rest, so
//! it holds no part of the answer but the key or number at hand. It is lenient: what is not
//! JSON ends the search and nothing more, for the answer is passed on either way. A key that
//! is written with escapes is not recognised; no provider writes one.

use super::json::quote_or_backslash;
use super::usage_form::UsageForm;
use super::usage_plans::{SLOTS, Slot, Step, Then};

/// The largest count that is believed; 2^53 is where doubles, which most providers and SDKs
/// count in, stop being exact.
pub(super) const COUNT_MAX: u64 = 1 << 53;

/// Containers open at once, where the search gives up.
const DEPTH_MAX: u32 = 64;

/// Longest key and longest number that are looked at. The longest key we seek has 27 bytes.
const WORD_BYTES: usize = 32;

/// Objects on the path to a count, and Gemini's list around them.
const LEVELS_MAX: usize = 6;

/// The counts met so far. A later one of the same kind replaces an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    values: [u64; SLOTS],
    seen: u16,
    /// A value was not a whole number within [`COUNT_MAX`].
    pub(super) is_flagged: bool,
}

impl Counts {
    pub(super) fn get(&self, slot: Slot) -> Option<u64> {
        if self.seen & 1 << slot as u16 == 0 {
            return None;
        }
        self.values.get(slot as usize).copied()
    }

    pub(super) fn set(&mut self, slot: Slot, value: u64) {
        if let Some(place) = self.values.get_mut(slot as usize) {
            *place = value;
            self.seen |= 1 << slot as u16;
        }
    }
}

/// Where the walk stands between two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A value is due, for which [`Finder::then`] is meant.
    Value,
    /// A key is due, or the end of the object.
    Key,
    InKey,
    /// After a backslash in a key.
    InKeyEscape,
    /// The colon is due.
    Colon,
    /// A string value; the flag says that the byte before was a backslash.
    InString {
        is_escaped: bool,
    },
    /// A number or a word.
    InWord,
    /// After the `[` of a list of which we want to know whether it is empty.
    ListBegin,
    /// Inside containers that are on no path.
    Skipped,
    SkippedString {
        is_escaped: bool,
    },
    /// A comma or a closing bracket is due.
    After,
    /// The text is over, or not JSON.
    Ended,
}

/// The walk through one JSON text.
#[derive(Clone, Debug)]
pub(super) struct Finder {
    plan: &'static [Step],
    counts: Counts,
    at: At,
    then: Then,
    /// The objects on the path that are open, outermost first, as ids of the plan.
    path: [u8; LEVELS_MAX],
    open: u8,
    /// Containers open beyond the path.
    skipped: u32,
    word: [u8; WORD_BYTES],
    /// Bytes of the word, counted beyond what `word` holds; saturates.
    word_len: u8,
    has_new_count: bool,
    has_empty_list: bool,
}

/// In [`Finder::path`]: not an object but the list around several texts, as Gemini streams
/// them when it is not asked for events.
const LIST: u8 = u8::MAX;

impl Finder {
    pub(super) fn new(plan: &'static [Step]) -> Self {
        Self {
            plan,
            counts: Counts::default(),
            at: At::Value,
            then: Then::Object(0),
            path: [0; LEVELS_MAX],
            open: 0,
            skipped: 0,
            word: [0; WORD_BYTES],
            word_len: 0,
            has_new_count: false,
            has_empty_list: false,
        }
    }

    /// Makes ready for the next text. The counts stay.
    pub(super) fn restart(&mut self) {
        self.at = At::Value;
        self.then = Then::Object(0);
        self.open = 0;
        self.skipped = 0;
        self.has_new_count = false;
        self.has_empty_list = false;
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The text is an `OpenAI` usage event: token counts, and an empty list of choices.
    pub(super) fn is_usage_only(&self) -> bool {
        self.has_new_count && self.has_empty_list
    }

    /// Reads the end of a text of which everything is there, from `tail` on, which begins with the
    /// first key of that name. False, and nothing that counts was found: that key is not a member
    /// of the text itself, so that the text has to be read from its beginning.
    ///
    /// Whether it is one shows at the end: behind a member of something inside there is more to
    /// close than the text itself.
    pub(super) fn read_tail(&mut self, tail: &[u8], form: &mut UsageForm) -> bool {
        if let Some(counts) = form.read(self.plan, tail) {
            (self.counts, self.at) = (counts, At::Ended);
            return true;
        }
        let mut reader = Self::new(self.plan);
        reader.push(b"{");
        let read = reader.push(tail);
        let is_over = reader.at == At::Ended && reader.open == 0;
        let is_member = is_over && tail.get(read..).is_some_and(|rest| rest.trim_ascii().is_empty());
        if is_member {
            *self = reader;
        }
        is_member
    }

    /// Reads on, to the end of `bytes` or of the text; how far, is returned.
    pub(super) fn push(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.at {
                // The three that run over many bytes pass them at once.
                At::Skipped => {
                    at += before_bracket_or_quote(bytes.get(at..).unwrap_or_default());
                    let Some(&byte) = bytes.get(at) else { return bytes.len() };
                    self.skipped_byte(byte);
                    at += 1;
                }
                At::InString { is_escaped: false } | At::SkippedString { is_escaped: false } => {
                    let rest = bytes.get(at..).unwrap_or_default();
                    let Some(found) = quote_or_backslash(rest) else { return bytes.len() };
                    let is_end = rest.get(found) == Some(&b'"');
                    self.at = match (self.at, is_end) {
                        (At::InString { .. }, true) => At::After,
                        (At::InString { .. }, false) => At::InString { is_escaped: true },
                        (_, true) => At::Skipped,
                        (_, false) => At::SkippedString { is_escaped: true },
                    };
                    at += found + 1;
                }
                At::Ended => return at,
                At::InString { is_escaped: true } => {
                    self.at = At::InString { is_escaped: false };
                    at += 1;
                }
                At::SkippedString { is_escaped: true } => {
                    self.at = At::SkippedString { is_escaped: false };
                    at += 1;
                }
                At::InKey => {
                    let rest = bytes.get(at..).unwrap_or_default();
                    let found = quote_or_backslash(rest);
                    let part = rest.get(..found.unwrap_or(rest.len())).unwrap_or_default();
                    let Some(found) = found else {
                        self.word_bytes(part);
                        return bytes.len();
                    };
                    self.key_ends(part, rest.get(found) == Some(&b'"'));
                    at += found + 1;
                }
                At::InKeyEscape => {
                    self.at = At::InKey;
                    at += 1;
                }
                At::InWord => {
                    let rest = bytes.get(at..).unwrap_or_default();
                    let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
                    let found = rest.iter().position(ends);
                    let part = rest.get(..found.unwrap_or(rest.len())).unwrap_or_default();
                    let Some(found) = found else {
                        self.word_bytes(part);
                        return bytes.len();
                    };
                    // The byte that ends it is looked at again.
                    self.end_word(part);
                    at += found;
                }
                _ if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => at += 1,
                At::Value => {
                    self.value_begins(byte);
                    at += 1;
                }
                At::Key => {
                    match byte {
                        b'"' => {
                            self.at = At::InKey;
                            self.word_len = 0;
                        }
                        b'}' => self.close(),
                        _ => self.at = At::Ended,
                    }
                    at += 1;
                }
                At::Colon => {
                    self.at = if byte == b':' { At::Value } else { At::Ended };
                    at += 1;
                }
                At::ListBegin => {
                    if byte == b']' {
                        self.has_empty_list = true;
                        self.at = At::After;
                        at += 1;
                    } else {
                        self.has_empty_list = false;
                        self.at = At::Skipped;
                        self.skipped = 1;
                    }
                }
                At::After => {
                    self.after_value(byte);
                    at += 1;
                }
            }
        }
        at
    }

    fn value_begins(&mut self, byte: u8) {
        let is_count = matches!(self.then, Then::Count(_));
        match (byte, self.then) {
            (b'{', Then::Object(object)) => self.open(object),
            (b'[', Then::Object(0)) if self.open == 0 => {
                self.open(LIST);
                self.at = At::Value;
            }
            (b']', _) if self.level() == Some(LIST) => self.close(),
            (b'[', Then::List) => self.at = At::ListBegin,
            (b'{' | b'[', _) => {
                self.counts.is_flagged |= is_count;
                self.skipped = 1;
                self.at = At::Skipped;
            }
            (b'"', _) => {
                self.counts.is_flagged |= is_count;
                self.at = At::InString { is_escaped: false };
            }
            (b'}' | b']' | b',' | b':', _) => self.at = At::Ended,
            _ => {
                self.at = At::InWord;
                self.word_len = 0;
                self.word_bytes(&[byte]);
            }
        }
    }

    fn after_value(&mut self, byte: u8) {
        match byte {
            b',' if self.level() == Some(LIST) => {
                self.then = Then::Object(0);
                self.at = At::Value;
            }
            b',' => self.at = At::Key,
            b'}' | b']' => self.close(),
            _ => self.at = At::Ended,
        }
    }

    fn level(&self) -> Option<u8> {
        self.path.get(usize::from(self.open).checked_sub(1)?).copied()
    }

    fn open(&mut self, object: u8) {
        if let Some(place) = self.path.get_mut(usize::from(self.open)) {
            *place = object;
            self.open += 1;
            self.at = At::Key;
        } else {
            self.at = At::Ended;
        }
    }

    fn close(&mut self) {
        self.open = self.open.saturating_sub(1);
        self.at = if self.open == 0 { At::Ended } else { At::After };
    }

    fn skipped_byte(&mut self, byte: u8) {
        match byte {
            b'"' => self.at = At::SkippedString { is_escaped: false },
            b'{' | b'[' => {
                self.skipped += 1;
                if self.skipped + u32::from(self.open) > DEPTH_MAX {
                    self.at = At::Ended;
                }
            }
            b'}' | b']' => {
                self.skipped = self.skipped.saturating_sub(1);
                if self.skipped == 0 {
                    self.at = At::After;
                }
            }
            _ => {}
        }
    }

    fn word_bytes(&mut self, bytes: &[u8]) {
        let from = usize::from(self.word_len);
        let to = from.saturating_add(bytes.len());
        if let Some(place) = self.word.get_mut(from..to) {
            place.copy_from_slice(bytes);
        }
        self.word_len = u8::try_from(to).unwrap_or(u8::MAX);
    }

    /// The key or number, or nothing when it was longer than any we look for.
    fn word(&self) -> Option<&[u8]> {
        self.word.get(..usize::from(self.word_len))
    }

    /// `part` is the end of the key, or all of it.
    fn key_ends(&mut self, part: &[u8], at_quote: bool) {
        if at_quote {
            self.then = if self.word_len == 0 {
                self.next_step(Some(part))
            } else {
                self.word_bytes(part);
                self.next_step(self.word())
            };
            self.at = At::Colon;
        } else {
            // A backslash: not one of ours, and its value is skipped like any other's.
            self.word_len = u8::MAX;
            self.at = At::InKeyEscape;
        }
    }

    fn next_step(&self, key: Option<&[u8]>) -> Then {
        let (Some(key), Some(level)) = (key, self.level()) else {
            return Then::Skip;
        };
        let step = self.plan.iter().find(|step| step.within == level && step.key == key);
        step.map_or(Then::Skip, |step| step.then)
    }

    /// `part` is the end of the word.
    fn end_word(&mut self, part: &[u8]) {
        self.at = At::After;
        let Then::Count(slot) = self.then else { return };
        self.word_bytes(part);
        let (value, is_flagged) = read_count(self.word());
        self.counts.is_flagged |= is_flagged;
        if let Some(value) = value {
            self.counts.set(slot, value);
            self.has_new_count = true;
        }
    }
}

/// The value of a number, clamped to what can be believed, and whether it had to be. `None`
/// in place of the word is one that was too long to keep.
fn read_count(word: Option<&[u8]>) -> (Option<u64>, bool) {
    let Some(word) = word else {
        return (Some(COUNT_MAX), true);
    };
    if word == b"null" {
        return (None, false);
    }
    let digits = word.iter().try_fold(0u64, |value, &digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        Some(value.saturating_mul(10).saturating_add(u64::from(digit)))
    });
    if let Some(value) = digits {
        return (Some(value.min(COUNT_MAX)), value > COUNT_MAX);
    }
    // Negative, a fraction, an exponent; or no number at all, such as NaN.
    let number = std::str::from_utf8(word).ok().and_then(|text| text.parse::<f64>().ok());
    let is_number = matches!(word.first(), Some(b'-' | b'0'..=b'9'));
    match number.filter(|number| is_number && !number.is_nan()) {
        // `as` saturates, and a negative number becomes 0.
        Some(number) => (Some((number as u64).min(COUNT_MAX)), true),
        None => (None, true),
    }
}

/// How many bytes come before the first `"`, `{`, `}`, `[` or `]`. Written so that blocks of
/// 32 vectorise: an embedding is some 20 KB of numbers, and none of them matters.
fn before_bracket_or_quote(bytes: &[u8]) -> usize {
    let stops = |byte: u8| matches!(byte | 0x20, b'{' | b'}') || byte == b'"';
    let (near, far) = bytes.split_at(bytes.len().min(16));
    if let Some(found) = near.iter().position(|&byte| stops(byte)) {
        return found;
    }
    // No short circuits, which would keep it from vectorising.
    let stops_as_bit = |byte: u8| {
        let bracket = byte | 0x20;
        u8::from(bracket == b'{') | u8::from(bracket == b'}') | u8::from(byte == b'"')
    };
    let has_none = |block: &&[u8]| block.iter().fold(0, |found, &byte| found | stops_as_bit(byte)) == 0;
    let passed = far.chunks_exact(32).take_while(has_none).count() * 32;
    let rest = far.get(passed..).unwrap_or_default();
    near.len() + passed + rest.iter().position(|&byte| stops(byte)).unwrap_or(rest.len())
}
