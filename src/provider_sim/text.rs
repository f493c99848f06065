//! The text of an answer: so many tokens, in so many events, each byte predictable. Pure.
//!
//! A token is four bytes. Without a seed the text cycles through [`WORDS`]. With one, the text of
//! event `e` is a function of the seed and `e` alone, so that a client can check every byte:
//! word `w` of it is `mix(seed + e * 0x9e3779b97f4a7c15 + w)` (wrapping, [`mix`] is splitmix64's
//! finalizer), and gives ten characters, from its lowest six bits up, out of [`ALPHABET`].

use super::fault::mix;

/// Bytes of text that make one token, in prompts as in answers.
pub(crate) const TOKEN_BYTES: u64 = 4;
/// Sixteen tokens. Nothing in it needs escaping in JSON.
const WORDS: &[u8; 64] = b"one two ten six add sum max min low top far off out and not end ";
/// The characters of seeded text.
pub(crate) const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// How the text of one answer is cut into events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    /// Tokens of the whole answer.
    pub(crate) tokens: u32,
    /// Content events, if it is streamed.
    pub(crate) events: u32,
    /// Exact size of each event, if it was asked for.
    pub(crate) event_bytes: Option<u32>,
    /// What the text is made from.
    pub(crate) seed: Option<u64>,
}

impl Text {
    /// Appends the text of the whole answer, as one piece (event 0, if it is seeded).
    pub(crate) fn push_whole(&self, out: &mut Vec<u8>) {
        self.push(0, 0, self.tokens as usize * TOKEN_BYTES as usize, out);
    }

    /// Appends the text of event `event`, of which `framing` bytes are taken by what surrounds it.
    pub(crate) fn push_event(&self, event: u32, framing: usize, out: &mut Vec<u8>) {
        let first = self.tokens_before(event);
        self.push(event, first as usize, self.event_text_bytes(event, framing), out);
    }

    /// Bytes of text in event `event`. Never zero: an event without text is none. An event that is
    /// asked to be smaller than its framing carries one byte.
    pub(crate) fn event_text_bytes(&self, event: u32, framing: usize) -> usize {
        let bytes = match self.event_bytes {
            Some(bytes) => (bytes as usize).saturating_sub(framing),
            None => {
                (self.tokens_before(event.saturating_add(1)) - self.tokens_before(event)) as usize
                    * TOKEN_BYTES as usize
            }
        };
        bytes.max(1)
    }

    /// Tokens of all events before `event`: the tokens are spread evenly over the events.
    fn tokens_before(&self, event: u32) -> u64 {
        u64::from(event) * u64::from(self.tokens) / u64::from(self.events.max(1))
    }

    fn push(&self, event: u32, first_token: usize, bytes: usize, out: &mut Vec<u8>) {
        if let Some(seed) = self.seed {
            return push_seeded(seed, event, bytes, out);
        }
        let mut at = first_token * TOKEN_BYTES as usize % WORDS.len();
        let mut left = bytes;
        while left > 0 {
            let piece = &WORDS[at..WORDS.len().min(at + left)];
            out.extend_from_slice(piece);
            left -= piece.len();
            at = 0;
        }
    }
}

fn push_seeded(seed: u64, event: u32, bytes: usize, out: &mut Vec<u8>) {
    let start = seed.wrapping_add(u64::from(event).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut left = bytes;
    for word in 0_u64.. {
        let mut bits = mix(start.wrapping_add(word));
        for _ in 0..left.min(10) {
            out.push(ALPHABET[(bits & 63) as usize]);
            bits >>= 6;
        }
        left = left.saturating_sub(10);
        if left == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Text = Text { tokens: 10, events: 4, event_bytes: None, seed: None };

    fn event(text: &Text, number: u32, framing: usize) -> String {
        let mut out = Vec::new();
        text.push_event(number, framing, &mut out);
        String::from_utf8(out).expect("text is ASCII")
    }

    #[test]
    fn the_events_together_are_the_whole_answer() {
        let mut whole = Vec::new();
        PLAIN.push_whole(&mut whole);
        assert_eq!(whole.len(), 40);
        let events: String = (0..4).map(|number| event(&PLAIN, number, 100)).collect();
        assert_eq!(events.as_bytes(), whole);
    }

    #[test]
    fn an_exact_event_has_room_for_its_framing() {
        let text = Text { event_bytes: Some(250), ..PLAIN };
        assert_eq!(event(&text, 3, 180).len(), 70);
        assert_eq!(event(&text, 3, 250).len(), 1, "never empty");
    }

    #[test]
    fn seeded_text_depends_on_seed_and_event_only() {
        let seeded = |seed, tokens| Text { seed: Some(seed), tokens, events: 4, event_bytes: Some(60) };
        assert_eq!(event(&seeded(1, 10), 2, 20), event(&seeded(1, 999), 2, 20));
        assert_ne!(event(&seeded(1, 10), 2, 20), event(&seeded(1, 10), 3, 20));
        assert_ne!(event(&seeded(1, 10), 2, 20), event(&seeded(2, 10), 2, 20));
        let long = event(&seeded(1, 10), 2, 0);
        assert!(long.starts_with(&event(&seeded(1, 10), 2, 37)), "a shorter event is a prefix of a longer one");
    }

    #[test]
    fn the_first_seeded_word_is_what_the_rule_says() {
        // mix(0) is 0: ten times the first character.
        let zero = Text { seed: Some(0), tokens: 1, events: 1, event_bytes: Some(10) };
        assert_eq!(event(&zero, 0, 0), "AAAAAAAAAA");
    }
}
