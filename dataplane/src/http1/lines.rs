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
