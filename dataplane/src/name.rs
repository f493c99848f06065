//! A short text without an allocation: model names, which travel through a request by value.

/// Longest text. The longest model names in use (Hugging Face paths) have some 90 bytes.
pub(crate) const NAME_BYTES_MAX: usize = 128;

/// Up to [`NAME_BYTES_MAX`] bytes of UTF-8.
#[derive(Clone, Copy)]
pub(crate) struct Name {
    len: u8,
    bytes: [u8; NAME_BYTES_MAX],
}

impl Name {
    pub(crate) const EMPTY: Self = Self { len: 0, bytes: [0; NAME_BYTES_MAX] };

    /// `None` when the text is too long.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let mut name = Self::EMPTY;
        name.bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        name.len = u8::try_from(text.len()).ok()?;
        Some(name)
    }

    /// Both numbers, sixteen digits each.
    pub(crate) fn hexadecimal(numbers: [u64; 2]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut name = Self::EMPTY;
        let bytes = numbers.into_iter().flat_map(u64::to_be_bytes);
        for (pair, byte) in name.bytes.chunks_exact_mut(2).zip(bytes) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        name.len = 32;
        name
    }

    pub(crate) fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

const _: () = assert!(NAME_BYTES_MAX <= u8::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them() {
        for [high, low] in [[0, u64::MAX], [0x0123_4567_89ab_cdef, 1 << 48]] {
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
