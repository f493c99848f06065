//! Splits a stream of bytes into server-sent events. Pure.
//!
//! Only `data` is kept; other fields and comments are skipped, since the checks look at
//! payloads alone. A line ends with LF or CR LF; a lone CR as line end is not supported.

use thiserror::Error;

/// Longest event that is kept, in bytes.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// An event is longer than the bound; the stream cannot be read on.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("an event is longer than {EVENT_BYTES_MAX} bytes")]
pub(crate) struct EventTooLong;

/// What has come of an event that is not complete.
#[derive(Debug, Default)]
pub(crate) struct SseReader {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
}

impl SseReader {
    /// Takes bytes and hands each complete event's data to `event`.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut event: impl FnMut(&[u8])) -> Result<(), EventTooLong> {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.line.is_empty() {
                self.take_line(line, &mut event)?;
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.take_line(&whole, &mut event)?;
                whole.clear();
                self.line = whole;
            }
        }
        if self.line.len() + rest.len() > EVENT_BYTES_MAX {
            return Err(EventTooLong);
        }
        self.line.extend_from_slice(rest);
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], event: &mut impl FnMut(&[u8])) -> Result<(), EventTooLong> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            if self.has_data {
                event(&self.data);
            }
            self.data.clear();
            self.has_data = false;
            return Ok(());
        }
        let Some(value) = line.strip_prefix(b"data:") else {
            return Ok(());
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if self.data.len() + value.len() >= EVENT_BYTES_MAX {
            return Err(EventTooLong);
        }
        if self.has_data {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
        self.has_data = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wire: &str, expected: &[&str]) {
        for cut in 0..=wire.len() {
            let mut reader = SseReader::default();
            let mut events = Vec::new();
            for part in [&wire.as_bytes()[..cut], &wire.as_bytes()[cut..]] {
                reader
                    .feed(part, |data| {
                        events.push(String::from_utf8_lossy(data).into_owned());
                    })
                    .expect("short events");
            }
            assert_eq!(events, expected, "cut at {cut}");
        }
    }

    #[test]
    fn events_survive_any_split() {
        check("data: one\n\nevent: x\ndata: two\n\ndata: [DONE]\n\n", &["one", "two", "[DONE]"]);
    }

    #[test]
    fn lines_of_one_event_are_joined_and_comments_skipped() {
        check(": ping\r\n\r\ndata:a\r\ndata: b\r\n\r\n", &["a\nb"]);
    }

    #[test]
    fn an_unfinished_event_is_not_handed_on() {
        check("data: whole\n\ndata: half\n", &["whole"]);
    }
}
