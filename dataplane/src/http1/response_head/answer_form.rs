//! The form of a provider's heads: the same fields in the same order each time, most of them with the
//! values they had before. A head is compared with one before it, and only what differs is read.
//!
//! What comes out is always what [`parse_response`] makes of it. That reads the head itself where
//! anything but a value differs, or a value that says how the answer ends and its connection; only
//! the length of the body, which differs most of the time, is read here.

use super::{BodyFraming, ResponseFault, ResponseHead, parse_response};
use crate::http1::framing::{content_length, trimmed};
use crate::http1::lines::clean_end;
use crate::http1::{Known, Method, Parsed, RESPONSE_HEAD_BYTES_MAX};
use crate::words;

/// A longer head is read each time: each provider has its forms on each core.
const HEAD_BYTES_MAX: usize = 2 * 1024;

/// Heads in a row that had another form, after which none is remembered until there were 256: some
/// providers change the order of their fields with every answer.
const OTHERS_MAX: u8 = 8;

/// See the module.
#[derive(Debug, Default)]
pub struct AnswerForm {
    /// The whole head that `head` was read from. Empty where none is remembered.
    bytes: Vec<u8>,
    head: ResponseHead,
    /// Heads in a row that had another form, counted round.
    others: u8,
}

impl AnswerForm {
    /// Does what [`parse_response`] does.
    pub fn parse_response(
        &mut self,
        buf: &[u8],
        asked: Method,
        out: &mut ResponseHead,
    ) -> Result<Parsed, ResponseFault> {
        if asked == Method::Head {
            // Rare, and delimited in its own way.
            return parse_response(buf, asked, out);
        }
        if let Some(head_len) = self.read(buf, out) {
            self.others = 0;
            return Ok(Parsed::Complete { head_len });
        }
        let parsed = parse_response(buf, asked, out)?;
        if let Parsed::Complete { head_len } = parsed
            && !out.is_interim()
        {
            self.remember(out, buf.get(..head_len).unwrap_or_default());
        }
        Ok(parsed)
    }

    /// Makes `out` what [`parse_response`] would make of `buf`, and says how long the head is, where
    /// it has the form. Otherwise it leaves a few fields there, which count for nothing.
    fn read(&self, buf: &[u8], out: &mut ResponseHead) -> Option<usize> {
        if self.bytes.is_empty() {
            return None;
        }
        let head = buf.get(..RESPONSE_HEAD_BYTES_MAX).unwrap_or(buf);
        let fields = &self.head.fields;
        let (mut declared_length, mut framing) = (self.head.declared_length, self.head.framing);
        out.fields.clear();
        out.fields.reserve(fields.len());
        // Where the remembered head ends to be the same, and how much further on the new one is there;
        // that wraps where it is shorter.
        let (mut same_to, mut further) = (same_len(&self.bytes, head), 0usize);
        for (at, before) in fields.iter().enumerate() {
            let next_line = fields.get(at + 1).map_or(self.bytes.len() - 2, |next| next.name.range().start);
            if same_to >= next_line {
                out.fields.push(before.moved(further));
                continue;
            }
            let colon = before.name.range().end;
            if same_to <= colon {
                return None;
            }
            let mut field = before.moved(further);
            // What is the same of the value holds no control byte; the end of its line may be.
            let line_end = next_line - 2;
            let end = clean_end(head, same_to.min(line_end).wrapping_add(further))?;
            field.value = trimmed(head, colon.wrapping_add(further) + 1, end)?;
            match field.known {
                Known::ContentLength if matches!(framing, BodyFraming::Length(_)) => {
                    let length = content_length(field.value.of(head))?;
                    (declared_length, framing) = (Some(length), BodyFraming::Length(length));
                }
                Known::ContentLength | Known::TransferEncoding | Known::Connection => return None,
                _ => {}
            }
            out.fields.push(field);
            further = end.wrapping_sub(line_end);
            same_to = next_line + same_len(self.bytes.get(next_line..)?, head.get(end + 2..)?);
        }
        // With the empty line behind the fields.
        if same_to != self.bytes.len() {
            return None;
        }
        let fields = std::mem::take(&mut out.fields);
        *out = ResponseHead { fields, framing, declared_length, ..self.head };
        Some(same_to.wrapping_add(further))
    }

    /// Remembers `head`, which was read from `bytes`, all of them.
    fn remember(&mut self, head: &ResponseHead, bytes: &[u8]) {
        self.others = self.others.wrapping_add(1);
        // One alone among those of the form may be an error, and another of them follows.
        if self.others == 1 && !self.bytes.is_empty() {
            return;
        }
        self.bytes.clear();
        if self.others > OTHERS_MAX || bytes.len() > HEAD_BYTES_MAX {
            return;
        }
        self.bytes.extend_from_slice(bytes);
        let mut fields = std::mem::take(&mut self.head.fields);
        fields.clone_from(&head.fields);
        self.head = ResponseHead { fields, ..*head };
    }
}

/// How many bytes both begin with.
fn same_len(one: &[u8], other: &[u8]) -> usize {
    let pairs = one.as_chunks::<8>().0.iter().zip(other.as_chunks::<8>().0);
    let mut same = 0;
    for (one, other) in pairs {
        let differences = words::word(*one) ^ words::word(*other);
        if differences != 0 {
            return same + words::first(differences);
        }
        same += 8;
    }
    let rest = one.iter().zip(other).skip(same);
    same + rest.take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests;
