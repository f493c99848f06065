//! Eight digits of a number at once, for texts that are written with every request.
//!
//! Each digit has a byte of a word of its own, and the first is the lowest byte.

const ONES: u64 = 0x0101_0101_0101_0101;
const ZEROS: u64 = ONES * b'0' as u64;

/// What has one digit more than eight.
const NINE_DIGITS: u64 = 100_000_000;

/// The eight digits of a number.
#[inline]
pub(crate) fn hexadecimal(number: u32) -> [u8; 8] {
    // One nibble in each byte, the highest in the highest.
    let mut nibbles = u64::from(number);
    nibbles = (nibbles | nibbles << 16) & 0x0000_FFFF_0000_FFFF;
    nibbles = (nibbles | nibbles << 8) & 0x00FF_00FF_00FF_00FF;
    nibbles = (nibbles | nibbles << 4) & (ONES * 0x0F);
    // A nibble of ten and more has bit 4 after six are added to it. No sum leaves its byte.
    let letters = ((nibbles + ONES * 6) >> 4) & ONES;
    (nibbles + ZEROS + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

/// Appends a number in decimal digits, and up to eight bytes that follow it.
#[inline]
pub(crate) fn append_decimal<const N: usize>(out: &mut Vec<u8>, number: u64, end: &[u8; N]) {
    if number >= NINE_DIGITS {
        return append_long(out, number, end);
    }
    let digits = decimal(number);
    // The last digit stays, also that of zero.
    append(out, digits, (digits | 1 << 56).trailing_zeros() / 8, end);
}

#[inline(never)]
fn append_long<const N: usize>(out: &mut Vec<u8>, number: u64, end: &[u8; N]) {
    append_decimal(out, number / NINE_DIGITS, b"");
    append(out, decimal(number % NINE_DIGITS), 0, end);
}

/// Appends all of eight digits but the first ones, up to seven, and what follows them. Sixteen bytes
/// are two stores; only so many as there are would be a call.
#[inline]
fn append<const N: usize>(out: &mut Vec<u8>, digits: u64, left_out: u32, end: &[u8; N]) {
    let mut after = [0; 8];
    after[..N].copy_from_slice(end);
    let both = u128::from(u64::from_le_bytes(after)) << 64 | u128::from(digits | ZEROS);
    let len = out.len() + (8 + N - left_out as usize);
    out.extend_from_slice(&(both >> (8 * left_out)).to_le_bytes());
    out.truncate(len);
}

/// What the eight digits of a smaller number than [`NINE_DIGITS`] are worth.
#[inline]
fn decimal(number: u64) -> u64 {
    debug_assert!(number < NINE_DIGITS);
    // The upper half of the digits goes into the lower half of the word, then of each of its parts.
    // A multiplication and a shift divide, which is exact for numbers so small; no product and no
    // difference leaves its part.
    let fours = (number / 10_000) | (number % 10_000) << 32;
    let hundreds = (fours.wrapping_mul(5243) >> 19) & 0x0000_007F_0000_007F;
    let twos = hundreds | fours.wrapping_sub(hundreds * 100) << 16;
    let tens = (twos.wrapping_mul(103) >> 10) & 0x000F_000F_000F_000F;
    tens | twos.wrapping_sub(tens * 10) << 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(number: u64) {
        let mut out = b"before|".to_vec();
        append_decimal(&mut out, number, b"|after");
        assert_eq!(String::from_utf8(out).unwrap(), format!("before|{number}|after"));
    }

    #[test]
    fn every_four_digits_are_those_of_the_number() {
        for four in 0..10_000 {
            check(four);
            check(four * 10_000);
            check(four * 10_001);
            check(12 * NINE_DIGITS + four * 10_000 + (9_999 - four));
        }
    }

    #[test]
    fn a_number_has_its_digits_and_no_more() {
        let mut power = 1u64;
        loop {
            check(power - 1);
            check(power);
            check(power + 1);
            let Some(next) = power.checked_mul(10) else { break };
            power = next;
        }
        check(u64::MAX);
    }

    #[test]
    fn hexadecimal_digits_are_those_of_the_standard_library() {
        for number in [0, 1, 0x0123_4567, 0x89ab_cdef, 0xa0b1_c2d3, u32::MAX] {
            assert_eq!(hexadecimal(number), *format!("{number:08x}").as_bytes());
        }
    }
}
