//! A short text without an allocation: model names, which travel through a request by value.

use crate::digits::hexadecimal;
use arrayvec::ArrayString;

/// Longest text. The longest model names in use (Hugging Face paths) have some 90 bytes.
pub(crate) const NAME_BYTES_MAX: usize = 128;

/// Up to [`NAME_BYTES_MAX`] bytes of UTF-8.
#[derive(Clone, Copy)]
pub(crate) struct Name(ArrayString<NAME_BYTES_MAX>);

impl Name {
    /// `None` when the text is too long.
    #[inline]
    pub(crate) fn new(text: &str) -> Option<Self> {
        // Written where it is to stay: `ArrayString::from` and `map` move all of it again.
        let mut name = Self(ArrayString::new());
        name.0.try_push_str(text).ok()?;
        Some(name)
    }

    /// Both numbers, sixteen digits each.
    pub(crate) fn hexadecimal(numbers: [u64; 2]) -> Self {
        let halves = numbers.map(|number| [(number >> 32) as u32, number as u32]);
        let digits = Digits([
            [hexadecimal(halves[0][0]), hexadecimal(halves[0][1])],
            [hexadecimal(halves[1][0]), hexadecimal(halves[1][1])],
        ]);
        let text = std::str::from_utf8(digits.0.as_flattened().as_flattened()).unwrap_or_default();
        let mut name = Self(ArrayString::new());
        let has_room = name.0.try_push_str(text).is_ok();
        debug_assert!(has_room);
        name
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Aligned, because the standard library then looks at many of them at once.
#[repr(align(16))]
struct Digits([[[u8; 8]; 2]; 2]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them() {
        for [high, low] in [[0, u64::MAX], [0x0123_4567_89ab_cdef, 1 << 48], [0xfedc_ba98_7654_3210, 0xa0b1_c2d3]] {
            assert_eq!(Name::hexadecimal([high, low]).as_str(), format!("{high:016x}{low:016x}"));
        }
    }

    #[test]
    fn a_name_holds_what_it_was_given_or_nothing() {
        assert_eq!(Name::new("gpt-4o").unwrap().as_str(), "gpt-4o");
        assert_eq!(Name::new(&"x".repeat(NAME_BYTES_MAX)).unwrap().as_str().len(), NAME_BYTES_MAX);
        assert!(Name::new(&"x".repeat(NAME_BYTES_MAX + 1)).is_none());
    }
}
