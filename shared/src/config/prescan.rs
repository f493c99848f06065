//! Bounds that are checked before the parser sees the text, and where in it an offset lies.
//!
//! The parser recurses for each level and allocates for each value; this pass over the bytes
//! does neither. It knows strings and comments, and leaves every other mistake to the parser.

/// Largest file: 100,000 virtual keys and 500 providers are 21 MB, and longer names have room.
pub(super) const TEXT_BYTES_MAX: usize = 48 * 1024 * 1024;

/// Deepest nesting; the format itself needs nine levels.
pub(super) const DEPTH_MAX: usize = 64;

/// Most values. Each costs the parser some 100 bytes, so this is about 400 MB at worst.
pub(super) const VALUES_MAX: usize = 4_000_000;

/// Which bound a text breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    Bytes,
    /// With the offset of the bracket that goes too deep.
    Depth(usize),
    Values(usize),
}

/// Checks size, nesting and number of values in one pass.
pub(super) fn check_bounds(text: &str) -> Result<(), Excess> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Excess::Bytes);
    }
    let mut depth: usize = 0;
    let mut values: usize = 1;
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((offset, byte)) = bytes.next() {
        match byte {
            b'"' => {
                while let Some((_, byte)) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            b'/' => match bytes.peek() {
                Some((_, b'/')) => while bytes.next_if(|(_, byte)| !matches!(byte, b'\n' | b'\r')).is_some() {},
                Some((_, b'*')) => {
                    bytes.next();
                    let mut star_before = false;
                    for (_, byte) in bytes.by_ref() {
                        if star_before && byte == b'/' {
                            break;
                        }
                        star_before = byte == b'*';
                    }
                }
                _ => {}
            },
            b'{' | b'[' => {
                depth += 1;
                values += 1;
                if depth > DEPTH_MAX {
                    return Err(Excess::Depth(offset));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if values > VALUES_MAX {
            return Err(Excess::Values(offset));
        }
    }
    Ok(())
}

/// Where the lines of a text begin.
pub(super) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let after_newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset + 1);
        Self { text, starts: core::iter::once(0).chain(after_newlines).collect() }
    }

    /// Line and column (in characters) of a byte offset, both from 1. An offset behind the end
    /// is taken for the end.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.as_bytes().get(start..offset.min(self.text.len()));
        let characters = before
            .unwrap_or_default()
            .iter()
            // Continuation bytes of UTF-8 begin with 10.
            .filter(|byte| **byte & 0xC0 != 0x80)
            .count();
        (line, characters + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_bounded_wherever_it_stands() {
        assert_eq!(check_bounds(&"[".repeat(DEPTH_MAX)), Ok(()));
        assert_eq!(check_bounds(&"[".repeat(10_000_000)), Err(Excess::Depth(DEPTH_MAX)));
        assert_eq!(check_bounds(&"{\"a\":".repeat(DEPTH_MAX + 1)), Err(Excess::Depth(DEPTH_MAX * 5)));
    }

    #[test]
    fn brackets_in_strings_and_comments_do_not_count() {
        let many = "[".repeat(100);
        for text in
            [format!("\"{many}\""), format!("\"\\\"{many}\""), format!("// {many}\n1"), format!("/* {many} **/ 1")]
        {
            assert_eq!(check_bounds(&text), Ok(()), "{text}");
        }
        let behind = format!("/* x */ \"\\\\\" // y\r {many}");
        assert!(matches!(check_bounds(&behind), Err(Excess::Depth(_))));
    }

    #[test]
    fn values_are_bounded() {
        assert!(check_bounds(&",".repeat(VALUES_MAX - 1)).is_ok());
        assert_eq!(check_bounds(&",".repeat(VALUES_MAX)), Err(Excess::Values(VALUES_MAX - 1)));
        assert_eq!(check_bounds(&" ".repeat(TEXT_BYTES_MAX + 1)), Err(Excess::Bytes));
    }

    #[test]
    fn positions_count_characters_from_one() {
        let lines = Lines::new("a\n\u{e4}\u{1f600}x\n");
        assert_eq!(lines.position(0), (1, 1));
        assert_eq!(lines.position(1), (1, 2));
        assert_eq!(lines.position(2), (2, 1));
        assert_eq!(lines.position(8), (2, 3));
        assert_eq!(lines.position(10), (3, 1));
        assert_eq!(lines.position(99), (3, 1));
    }
}
