//! Eight bytes at once, for texts too short to be worth a call of memchr: which bytes of a word are
//! meant is one mark each, the highest bit of the byte (Mycroft 1987).
//!
//! Above the first byte that is meant there may be marks too many, never below it; so the first is
//! right, and whether there is any.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHEST: u64 = ONES << 7;

/// The word whose first byte is its lowest.
#[inline]
pub(crate) fn word(bytes: [u8; 8]) -> u64 {
    u64::from_le_bytes(bytes)
}

/// Marks the bytes that are `byte`.
#[inline]
pub(crate) const fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * byte as u64), 1)
}

/// Marks the bytes that are less than `limit`, which is 128 at most.
#[inline]
pub(crate) const fn below(word: u64, limit: u8) -> u64 {
    debug_assert!(limit <= 128);
    word.wrapping_sub(ONES * limit as u64) & !word & HIGHEST
}

/// The place of the first byte that is marked.
#[inline]
pub(crate) const fn first(marks: u64) -> usize {
    marks.trailing_zeros() as usize / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mark_is_that_of_the_first_byte_that_is_meant() {
        for meant in [0u8, 1, 0x1f, b'"', 0x7f, 0x80, 0xff] {
            for other in (0..=u8::MAX).filter(|other| *other != meant) {
                assert_eq!(equal(word([other; 8]), meant), 0);
                for at in 0..8 {
                    let mut bytes = [other; 8];
                    bytes[at] = meant;
                    assert_eq!(first(equal(word(bytes), meant)), at, "{bytes:?}");
                    bytes[7] = meant;
                    assert_eq!(first(equal(word(bytes), meant)), at, "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn every_byte_is_below_its_limit_or_not() {
        for limit in [1, 0x20, 0x7f, 0x80] {
            for byte in 0..=u8::MAX {
                for at in 0..8 {
                    let mut bytes = [0xff; 8];
                    bytes[at] = byte;
                    let marks = below(word(bytes), limit);
                    assert_eq!((marks != 0, marks == 0 || first(marks) == at), (byte < limit, true), "{byte} {limit}");
                }
            }
        }
    }
}
