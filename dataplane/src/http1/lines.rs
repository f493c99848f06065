//! Finds the lines of a head or a trailer section that grows in a buffer, and refuses what
//! spoils a line at the first byte that does. It looks at every byte once, however the bytes
//! arrive, and says nothing about what a line means.

use super::class::{self, is_control};
use crate::words;

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

/// The end of the line that begins at `start`, if it is all there and nothing spoils it; CRLF follows
/// there. What is wrong with any other, or that it is not over yet, [`LineScan`] says.
pub(super) fn clean_end(buf: &[u8], start: usize) -> Option<usize> {
    let end = next_control(buf, start)?;
    (buf.get(end..end + 2)? == b"\r\n").then_some(end)
}

/// First control byte other than HTAB in `buf` from `from` on.
#[inline]
fn next_control(buf: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = buf.get(at..)?;
        let (whole, tail) = rest.as_chunks::<8>();
        let marks = whole.iter().map(|word| class::controls_and_tabs(*word));
        let Some((place, marks)) = marks.enumerate().find(|(_, marks)| *marks != 0) else {
            let found = tail.iter().position(|&byte| is_control(byte));
            return found.map(|offset| at + whole.len() * 8 + offset);
        };
        at += place * 8 + words::first(marks);
        if buf.get(at) != Some(&b'\t') {
            return Some(at);
        }
        at += 1;
    }
}
