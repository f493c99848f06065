//! Listens for token counts while an answer streams through, and hides the usage event that
//! the node asked for and the client did not.
//!
//! No copy is made of the answer, with one exception: while events are being hidden, one
//! that is cut by the end of a read is held back until it is whole. Counts are data from
//! outside: they are clamped and flagged, never trusted to be sensible.

use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder as Needle;

use super::Dialect;
use super::sse::{Piece, SseReader};
use super::usage_finder::{Counts, Finder};
pub use super::usage_form::UsageForm;
use super::usage_plans::{ANTHROPIC, COHERE, COHERE_EVENT, GEMINI, OPENAI, Slot};

/// A longer event is never hidden, so no more than this is held back. A usage event has
/// some 300 bytes.
pub const HELD_EVENT_BYTES_MAX: usize = 16 * 1024;

/// How much of the usage an answer has told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Saw {
    /// No count.
    #[default]
    Nothing,
    /// The input, and of the output at most what was known before it began (Anthropic's
    /// `message_start`).
    Beginning,
    /// Input or output as of the last event that had them. For an answer that came to its
    /// end they are final; for one that was cut, `output` is a lower bound, since some
    /// providers send running counts.
    Counts,
}

/// Token counts of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the request, cached ones included.
    pub input: u64,
    /// Tokens generated, hidden reasoning included.
    pub output: u64,
    /// Whether to believe them; see [`Saw`].
    pub saw: Saw,
    /// A count was negative, a fraction, no number, or above 2^53; it was clamped or left out.
    pub flagged: bool,
}

/// What passed, for settling an answer that was cut before it told its usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streamed {
    /// Events with a payload, whatever they are about.
    pub events: u64,
    /// Payload bytes of events, or bytes of a JSON answer.
    pub bytes: u64,
}

/// What to send on after [`UsageReader::filter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward<'a> {
    /// The read as it is.
    All,
    /// First `held`, then these ranges of the read in their order; all of it may be nothing.
    Parts {
        /// Held back from earlier reads and now free to go.
        held: &'a [u8],
        /// Ranges of the read, none of them empty.
        ranges: &'a [Range<usize>],
    },
}

/// Reads the usage of one answer.
#[derive(Clone, Debug)]
pub struct UsageReader {
    finder: Finder,
    /// The one key with which an answer's counts begin, where the dialect has one.
    tail_key: Option<&'static Needle<'static>>,
    events: Option<Events>,
    streamed: Streamed,
    hiding: Option<Box<Hiding>>,
}

#[derive(Clone, Debug, Default)]
struct Events {
    reader: SseReader,
    /// The finder was given a part of the current event.
    is_reading: bool,
}

/// Present only where events are hidden.
#[derive(Clone, Debug, Default)]
struct Hiding {
    /// First what may go, then what is held back.
    held: Vec<u8>,
    released: usize,
    ranges: Vec<Range<usize>>,
    /// The current event is too long to be hidden, and its beginning is gone.
    is_passing: bool,
    /// What ended last was hidden; a late line feed goes the same way.
    hid_last: bool,
}

impl UsageReader {
    /// For an answer that is one JSON text.
    pub fn json(dialect: Dialect) -> Self {
        let (plan, tail_key) = match dialect {
            Dialect::OpenAi => (OPENAI, Some(&*USAGE)),
            Dialect::Anthropic => (ANTHROPIC, Some(&*USAGE)),
            Dialect::Gemini => (GEMINI, Some(&*USAGE_METADATA)),
            Dialect::Cohere => (COHERE, None),
        };
        Self { finder: Finder::new(plan), tail_key, events: None, streamed: Streamed::default(), hiding: None }
    }

    /// For a stream of events.
    pub fn sse(dialect: Dialect) -> Self {
        let mut reader = Self::json(dialect);
        if dialect == Dialect::Cohere {
            reader.finder = Finder::new(COHERE_EVENT);
        }
        reader.events = Some(Events::default());
        reader
    }

    /// For a stream of events of the `OpenAI` dialect whose usage event the client did not ask
    /// for. Give its bytes to [`Self::filter`].
    pub fn sse_hiding_usage() -> Self {
        let mut reader = Self::sse(Dialect::OpenAi);
        reader.hiding = Some(Box::default());
        reader
    }

    /// Whether it reads a stream of events.
    pub fn is_sse(&self) -> bool {
        self.events.is_some()
    }

    /// What the client was sent so far ends between two events: an event of ours can follow.
    pub fn is_between_events(&self) -> bool {
        let Some(events) = &self.events else { return false };
        // What is held back was not sent.
        events.reader.is_between_events() || self.hiding.as_ref().is_some_and(|hiding| !hiding.is_passing)
    }

    /// Reads on. All of `bytes` are for the client.
    pub fn observe(&mut self, bytes: &[u8]) {
        if self.events.is_some() {
            self.read_events(bytes, |_, _| {});
        } else {
            self.streamed.bytes = self.streamed.bytes.saturating_add(bytes.len() as u64);
            self.finder.push(bytes);
        }
    }

    /// Reads the whole of an answer that is one JSON text. Providers put the usage behind what they
    /// counted, so that reading the end is enough where its key comes but once; elsewhere, and in
    /// a stream, it is [`Self::observe`]. In what is not JSON it may find counts that are not
    /// found in pieces of it.
    ///
    /// `form` is how the answer before was written, of the same provider if it is to be of use.
    pub fn observe_whole(&mut self, text: &[u8], form: &mut UsageForm) {
        if self.events.is_some() || !self.read_tail(text, form) {
            self.observe(text);
            return;
        }
        self.streamed.bytes = self.streamed.bytes.saturating_add(text.len() as u64);
    }

    fn read_tail(&mut self, text: &[u8], form: &mut UsageForm) -> bool {
        let Some(found) = self.tail_key.and_then(|key| key.find(text)) else { return false };
        // Behind a backslash it is a quotation.
        let is_quoted = found > 0 && text.get(found - 1) == Some(&b'\\');
        text.trim_ascii_start().first() == Some(&b'{')
            && !is_quoted
            && self.finder.read_tail(text.get(found..).unwrap_or_default(), form)
    }

    /// Reads on, and says what of `read` and of earlier reads the client may have. For readers
    /// that hide nothing it is [`Self::observe`].
    pub fn filter(&mut self, read: &[u8]) -> Forward<'_> {
        let Some(mut hiding) = self.hiding.take() else {
            self.observe(read);
            return Forward::All;
        };
        hiding.begin_read();
        let mut from = 0;
        self.read_events(read, |piece, is_usage_only| match piece {
            Piece::End { end, .. } => {
                hiding.unit_ends(from..end, is_usage_only);
                from = end;
            }
            Piece::Comment { end } => {
                hiding.unit_ends(from..end, false);
                from = end;
            }
            Piece::LateLineFeed => {
                if !hiding.hid_last {
                    hiding.show(0..1);
                }
                from = 1;
            }
            Piece::Data { .. } | Piece::NextLine => {}
        });
        hiding.read_ends(from, read);
        self.hiding.insert(hiding).forward(read.len())
    }

    /// The stream has come to its proper end: what is still held back and for the client. An
    /// event without its blank line is passed on unless it is the usage event. Not to be sent
    /// when the stream was cut.
    pub fn finish(&mut self) -> &[u8] {
        let is_usage_only = self.finder.is_usage_only();
        let Some(hiding) = &mut self.hiding else { return &[] };
        hiding.begin_read();
        if is_usage_only && !hiding.is_passing {
            hiding.held.clear();
        }
        hiding.released = hiding.held.len();
        &hiding.held
    }

    /// The counts so far.
    pub fn usage(&self) -> Usage {
        let counts = self.finder.counts();
        let get = |slot| counts.get(slot).unwrap_or(0);
        let input = get(Slot::Input)
            .saturating_add(get(Slot::CacheWrite))
            .saturating_add(get(Slot::CacheRead))
            .saturating_add(get(Slot::ToolInput));
        let input = if counts.get(Slot::Input).is_some() { input } else { input.max(get(Slot::BilledInput)) };
        let told = counts.get(Slot::Output).or(counts.get(Slot::BilledOutput));
        let output = told.unwrap_or(get(Slot::EarlyOutput)).saturating_add(get(Slot::Thoughts));
        // Some count reasoning in the total alone.
        let output = output.max(get(Slot::Total).saturating_sub(input));
        Usage { input, output, saw: saw(counts), flagged: counts.is_flagged }
    }

    /// What passed so far.
    pub fn streamed(&self) -> Streamed {
        self.streamed
    }

    /// Tells `unit` of every piece, and with an end whether the event was the usage event.
    fn read_events(&mut self, read: &[u8], mut unit: impl FnMut(Piece<'_>, bool)) {
        let Self { finder, events, streamed, .. } = self;
        let events = events.get_or_insert_default();
        let Events { reader, is_reading } = events;
        // The payload of an event that so far is one whole line. If that is all of it, it is
        // read only when it may have counts.
        let mut unread: Option<&[u8]> = None;
        reader.read(read, |piece| {
            let mut is_usage_only = false;
            match piece {
                Piece::Data { bytes, is_whole_first_line } => {
                    streamed.bytes = streamed.bytes.saturating_add(bytes.len() as u64);
                    if is_whole_first_line {
                        unread = Some(bytes);
                    } else {
                        finder.push(bytes);
                        *is_reading = true;
                    }
                }
                Piece::NextLine => {
                    finder.push(unread.take().unwrap_or_default());
                    finder.push(b"\n");
                    *is_reading = true;
                }
                Piece::End { has_data, .. } => {
                    if let Some(payload) = unread.take()
                        && may_have_usage(payload)
                    {
                        finder.push(payload);
                        *is_reading = true;
                    }
                    if *is_reading {
                        is_usage_only = finder.is_usage_only();
                        finder.restart();
                        *is_reading = false;
                    }
                    streamed.events = streamed.events.saturating_add(u64::from(has_data));
                }
                Piece::Comment { .. } | Piece::LateLineFeed => {}
            }
            unit(piece, is_usage_only);
        });
        if let Some(payload) = unread {
            finder.push(payload);
            *is_reading = true;
        }
    }
}

fn saw(counts: &Counts) -> Saw {
    let has = |slots: &[Slot]| slots.iter().any(|slot| counts.get(*slot).is_some());
    if has(&[Slot::Output, Slot::BilledOutput, Slot::Total]) {
        Saw::Counts
    } else if counts.get(Slot::EarlyOutput).is_some() {
        Saw::Beginning
    } else if has(&[Slot::Input, Slot::BilledInput]) {
        // Embeddings and reranking have input alone.
        Saw::Counts
    } else {
        Saw::Nothing
    }
}

static USAGE_BEGINS: LazyLock<Needle<'static>> = LazyLock::new(|| Needle::new(br#""usage"#));
static USAGE: LazyLock<Needle<'static>> = LazyLock::new(|| Needle::new(br#""usage""#));
static USAGE_METADATA: LazyLock<Needle<'static>> = LazyLock::new(|| Needle::new(br#""usageMetadata""#));

/// Whether a payload has a usage member that is not `null`. With usage asked for, `OpenAI`
/// puts `"usage":null` into every event but the last.
fn may_have_usage(payload: &[u8]) -> bool {
    const NULL: &[u8] = br#"":null"#;
    let needle = &*USAGE_BEGINS;
    let mut rest = payload;
    while let Some(found) = needle.find(rest) {
        rest = rest.get(found + needle.needle().len()..).unwrap_or_default();
        if !rest.starts_with(NULL) {
            return true;
        }
    }
    false
}

impl Hiding {
    fn begin_read(&mut self) {
        self.ranges.clear();
        if self.released >= self.held.len() {
            // Given back: most reads end where an event ends.
            self.held = Vec::new();
        } else {
            self.held.drain(..self.released);
        }
        self.released = 0;
    }

    /// An event or comment has ended; `range` is what lies of it in this read.
    fn unit_ends(&mut self, range: Range<usize>, is_usage_only: bool) {
        let len = self.held.len() - self.released + range.len();
        self.hid_last = is_usage_only && !self.is_passing && len <= HELD_EVENT_BYTES_MAX;
        if self.hid_last {
            self.held.truncate(self.released);
        } else {
            self.released = self.held.len();
            self.show(range);
        }
        self.is_passing = false;
    }

    /// The read has ended within an event that began at `from`, or earlier.
    fn read_ends(&mut self, from: usize, read: &[u8]) {
        let rest = read.get(from..).unwrap_or_default();
        let len = self.held.len() - self.released + rest.len();
        self.is_passing |= len > HELD_EVENT_BYTES_MAX;
        if self.is_passing {
            self.released = self.held.len();
            self.show(from..read.len());
        } else {
            self.held.extend_from_slice(rest);
        }
    }

    fn forward(&self, read_len: usize) -> Forward<'_> {
        let held = self.held.get(..self.released).unwrap_or_default();
        match self.ranges.as_slice() {
            [all] if held.is_empty() && all.len() == read_len => Forward::All,
            ranges => Forward::Parts { held, ranges },
        }
    }

    fn show(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.ranges.push(range),
        }
    }
}

#[cfg(test)]
mod tests;
