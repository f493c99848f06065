//! Finds the lines of a head or a trailer section that grows in a buffer, and refuses what
//! spoils a line at the first byte that does. It looks at every byte once, however the bytes
//! arrive, and says nothing about what a line means.

use super::class::is_control;

/// Why bytes cannot be the lines of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineFault {
    BareLf,
    BareCr,
    Control,
}

/// What [`LineScan::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// `buf[start..end]` is a line; CRLF follows at `end`. The next line starts at `end + 2`.
    Line { start: usize, end: usize },
    /// The line that starts at [`LineScan::line_start`] is not over yet.
    More,
}

/// Position of a scan; belongs to one buffer that only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LineScan {
    line_start: usize,
    /// Everything before is known to hold no control byte since `line_start`.
    searched: usize,
}

impl LineScan {
    pub(crate) fn line_start(&self) -> usize {
        self.line_start
    }

    /// The next line of `buf`, if it is there in full.
    pub(crate) fn next(&mut self, buf: &[u8]) -> Result<Found, LineFault> {
        let Some(at) = next_control(buf, self.searched) else {
            self.searched = self.searched.max(buf.len());
            return Ok(Found::More);
        };
        self.searched = at;
        match (buf.get(at), buf.get(at + 1)) {
            (Some(b'\r'), Some(b'\n')) => {
                let start = std::mem::replace(&mut self.line_start, at + 2);
                self.searched = at + 2;
                Ok(Found::Line { start, end: at })
            }
            (Some(b'\r'), None) => Ok(Found::More),
            (Some(b'\r'), Some(_)) => Err(LineFault::BareCr),
            (Some(b'\n'), _) => Err(LineFault::BareLf),
            _ => Err(LineFault::Control),
        }
    }
}

/// A head that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    /// Where the first line ends; it is not empty.
    pub(crate) first_line_end: usize,
    /// Lines behind the first one, without the empty one at the end.
    pub(crate) fields: usize,
    /// Bytes, with the empty line.
    pub(crate) len: usize,
}

/// The head at the start of `buf`, if it is all there and nothing spoils or folds a line of it or
/// stands before it: the usual one, looked through in two quick passes. What is wrong with any
/// other, or that it is not over yet, [`LineScan`] says.
pub(crate) fn whole(buf: &[u8]) -> Option<Whole> {
    let mut first_line_end = None;
    let mut line_feeds = 0;
    for at in memchr::memchr_iter(b'\n', buf) {
        line_feeds += 1;
        let end = at.checked_sub(1).filter(|end| buf.get(*end) == Some(&b'\r'))?;
        let first_line_end = *first_line_end.get_or_insert(end);
        match buf.get(at + 1..)? {
            [b' ' | b'\t', ..] | [] => return None,
            [b'\r', b'\n', ..] => {
                let len = at + 3;
                let is_clean = first_line_end > 0 && controls(buf.get(..len)?) == 2 * (line_feeds + 1);
                return is_clean.then_some(Whole { first_line_end, fields: line_feeds - 1, len });
            }
            _ => {}
        }
    }
    None
}

/// How many control bytes other than HTAB there are.
fn controls(bytes: &[u8]) -> usize {
    // 128 bytes: an eight-bit counter cannot overflow, and the loop needs no widening.
    let in_chunk = |chunk: &[u8]| chunk.iter().fold(0u8, |count, &byte| count.wrapping_add(u8::from(is_control(byte))));
    bytes.chunks(128).map(|chunk| usize::from(in_chunk(chunk))).sum()
}

/// Bytes tested at once; a typical field line has 20 to 60.
const STRIDE: usize = 16;

/// First control byte other than HTAB in `buf` from `from` on.
fn next_control(buf: &[u8], from: usize) -> Option<usize> {
    let rest = buf.get(from..)?;
    let mut chunks = rest.chunks_exact(STRIDE);
    let mut at = from;
    for chunk in &mut chunks {
        // No early exit inside a chunk, so that it compiles to vector compares.
        if chunk.iter().fold(false, |found, &byte| found | is_control(byte)) {
            return chunk.iter().position(|&byte| is_control(byte)).map(|offset| at + offset);
        }
        at += STRIDE;
    }
    chunks.remainder().iter().position(|&byte| is_control(byte)).map(|offset| at + offset)
}
