//! Whether the events of one stream are all there, once, in order, and unharmed. Pure.
//!
//! The text of each event is known from the seed and the event's number. What surrounds
//! the text must be the same bytes in every event of a stream, and each event must have
//! the length that was asked for; the events that carry no text (role, finish, usage) are
//! counted and must include the usage and the end mark.

use memchr::memmem;

use crate::simulated::seeded_text;

/// Bytes that an event has around its data: `data: `, and two line ends.
const EVENT_FRAMING_BYTES: usize = 8;
/// Start of the text within an event's data.
const TEXT_STARTS: &[u8] = b"\"content\":\"";

/// What was wrong with events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Content events that never came.
    pub(crate) lost: u64,
    /// Content events that came again.
    pub(crate) doubled: u64,
    /// Events whose bytes are not the ones that were sent.
    pub(crate) corrupt: u64,
    /// Streams without a usage event, although they asked for it.
    pub(crate) without_usage: u64,
    /// Streams without `[DONE]`, or with events after it.
    pub(crate) without_end: u64,
}

impl Faults {
    /// Adds those of another stream.
    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.corrupt += other.corrupt;
        self.without_usage += other.without_usage;
        self.without_end += other.without_end;
    }
}

/// What stands around the text of an event.
#[derive(Debug)]
struct Envelope {
    before: Box<[u8]>,
    after: Box<[u8]>,
}

/// The check of one stream.
#[derive(Debug)]
pub(crate) struct StreamCheck {
    seed: u64,
    events: u32,
    event_bytes: u32,
    /// Number of the content event that is due.
    due: u32,
    right: u32,
    /// What stood around the text of the first content event.
    envelope: Option<Envelope>,
    has_usage: bool,
    has_ended: bool,
    has_bytes_after_end: bool,
    faults: Faults,
}

impl StreamCheck {
    /// Expects `events` content events of `event_bytes` bytes each.
    pub(crate) fn new(seed: u64, events: u32, event_bytes: u32) -> Self {
        Self {
            seed,
            events,
            event_bytes,
            due: 0,
            right: 0,
            envelope: None,
            has_usage: false,
            has_ended: false,
            has_bytes_after_end: false,
            faults: Faults::default(),
        }
    }

    /// Takes the data of one event and says whether it is a content event.
    pub(crate) fn take(&mut self, data: &[u8]) -> bool {
        self.has_bytes_after_end |= self.has_ended;
        if data == b"[DONE]" {
            self.has_ended = true;
            return false;
        }
        if let Some((before, text, after)) = split_at_text(data) {
            self.take_text(data.len(), before, text, after);
            return true;
        }
        // Rare events, a few in a stream: they may cost a full parse.
        match serde_json::from_slice::<serde_json::Value>(data) {
            Ok(json) => self.has_usage |= json["usage"]["total_tokens"].is_u64(),
            Err(_) => self.faults.corrupt += 1,
        }
        false
    }

    /// The content events that were right, and everything that was wrong.
    pub(crate) fn finish(mut self) -> (u32, Faults) {
        self.faults.lost += u64::from(self.events.saturating_sub(self.due));
        self.faults.without_usage += u64::from(!self.has_usage);
        self.faults.without_end += u64::from(!self.has_ended || self.has_bytes_after_end);
        (self.right, self.faults)
    }

    fn take_text(&mut self, data_bytes: usize, before: &[u8], text: &[u8], after: &[u8]) {
        let envelope = self.envelope.get_or_insert_with(|| Envelope { before: before.into(), after: after.into() });
        let is_sound = data_bytes + EVENT_FRAMING_BYTES == self.event_bytes as usize
            && &*envelope.before == before
            && &*envelope.after == after;
        let number = self.number_of(text);
        match number {
            Some(number) if is_sound && number >= self.due => {
                self.faults.lost += u64::from(number - self.due);
                self.due = number + 1;
                self.right += 1;
            }
            Some(number) if is_sound && number < self.due => self.faults.doubled += 1,
            _ => {
                // It stands for the one that was due, so that one fault is counted once.
                self.faults.corrupt += 1;
                self.due = self.due.saturating_add(1).min(self.events);
            }
        }
    }

    /// Which event has this text: nearly always the one that is due.
    fn number_of(&self, text: &[u8]) -> Option<u32> {
        let is = |number: &u32| seeded_text(self.seed, *number, text.len()).eq(text.iter().copied());
        Some(self.due).filter(|due| *due < self.events).filter(is).or_else(|| (0..self.events).find(is))
    }
}

/// Cuts an event's data at its text; none where it has no text. Seeded text needs no
/// escapes, so the next quotation mark ends it.
fn split_at_text(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let start = memmem::find(data, TEXT_STARTS)? + TEXT_STARTS.len();
    let (before, rest) = data.split_at_checked(start)?;
    let (text, after) = rest.split_at_checked(memchr::memchr(b'"', rest)?)?;
    (!text.is_empty()).then_some((before, text, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 7;
    const TEXT_BYTES: usize = 20;

    fn content(number: u32) -> String {
        let text: String = seeded_text(SEED, number, TEXT_BYTES).map(char::from).collect();
        format!("{{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}")
    }

    fn check(events: &[String], expected: Faults) {
        let event_bytes = (content(0).len() + EVENT_FRAMING_BYTES) as u32;
        let mut check = StreamCheck::new(SEED, 4, event_bytes);
        for event in events {
            check.take(event.as_bytes());
        }
        let (_, faults) = check.finish();
        assert_eq!(faults, expected);
    }

    fn stream(numbers: &[u32]) -> Vec<String> {
        let role = "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}";
        let usage = "{\"choices\":[],\"usage\":{\"total_tokens\":9}}";
        let mut events = vec![role.to_owned()];
        events.extend(numbers.iter().map(|number| content(*number)));
        events.extend([usage.to_owned(), "[DONE]".to_owned()]);
        events
    }

    #[test]
    fn a_whole_stream_has_no_fault() {
        check(&stream(&[0, 1, 2, 3]), Faults::default());
    }

    #[test]
    fn a_missing_event_is_lost_and_a_second_one_doubled() {
        let faults = |lost, doubled| Faults { lost, doubled, ..Faults::default() };
        check(&stream(&[0, 2, 3]), faults(1, 0));
        check(&stream(&[0, 1]), faults(2, 0));
        check(&stream(&[0, 1, 1, 2, 3]), faults(0, 1));
    }

    #[test]
    fn one_changed_byte_is_corrupt() {
        let mut events = stream(&[0, 1, 2, 3]);
        let text = events[2].find("content\":\"").expect("text") + "content\":\"".len();
        let changed = if events[2].as_bytes()[text] == b'A' { "B" } else { "A" };
        events[2].replace_range(text..=text, changed);
        let corrupt = Faults { corrupt: 1, ..Faults::default() };
        check(&events, corrupt);
        let mut events = stream(&[0, 1, 2, 3]);
        events[3] = events[3].replace("choices", "choicez");
        check(&events, corrupt);
    }

    #[test]
    fn usage_and_end_mark_are_missed() {
        let events = stream(&[0, 1, 2, 3]);
        let without = |index: usize| {
            let mut events = events.clone();
            events.remove(index);
            events
        };
        check(&without(5), Faults { without_usage: 1, ..Faults::default() });
        check(&without(6), Faults { without_end: 1, ..Faults::default() });
        let mut after_end = events.clone();
        after_end.push(events[0].clone());
        check(&after_end, Faults { without_end: 1, ..Faults::default() });
    }
}
