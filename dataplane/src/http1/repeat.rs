//! The head of the request before on a connection, for clients that send the same one again: all but
//! the length of the body. Then it need not be read, for it says what it said before.
//!
//! All bytes are compared, however early two differ: behind a proxy of others, one connection carries
//! requests of several clients, and the time that this takes must not tell one the credential of
//! another.

use super::framing::content_length;
use super::head::Framing;
use super::{Known, RequestHead};
use std::ops::Range;

/// A longer head is read each time.
const HEAD_BYTES_MAX: usize = 2 * 1024;

/// Heads in a row that were others, after which nothing is remembered any more: clients that number
/// or date their requests never send one twice.
const OTHERS_MAX: u8 = 8;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Repeat {
    bytes: Vec<u8>,
    head: RequestHead,
    /// The digits of `Content-Length`; empty where there are none.
    length: Range<usize>,
    others: u8,
}

impl Repeat {
    /// Makes `out` what [`super::parse_request`] would make of `buf`, and says how long the head is, where
    /// it is the one before.
    pub fn read(&mut self, buf: &[u8], out: &mut RequestHead) -> Option<usize> {
        let len = self.bytes.len();
        let head = buf.get(..len).filter(|head| !head.is_empty())?;
        let Range { start, end } = self.length;
        let is_same = differences(self.bytes.get(..start)?, head.get(..start)?)
            | differences(self.bytes.get(end..)?, head.get(end..)?)
            == 0;
        if !is_same {
            return None;
        }
        if start < end {
            // A body of no bytes is none, which makes another head of it.
            let length = content_length(head.get(start..end)?).filter(|length| *length > 0)?;
            self.head.set_length(length);
        }
        out.clone_from(&self.head);
        self.others = 0;
        Some(len)
    }

    /// Whether what was read last was the head before.
    pub fn has_repeated(&self) -> bool {
        self.others == 0 && !self.bytes.is_empty()
    }

    /// Remembers `head`, which was read from `bytes`, all of them.
    pub fn remember(&mut self, head: &RequestHead, bytes: &[u8]) {
        self.bytes.clear();
        if self.others >= OTHERS_MAX || bytes.len() > HEAD_BYTES_MAX {
            return;
        }
        self.others += 1;
        self.length = match head.framing() {
            Framing::Length(1..) => {
                let field = head.fields().iter().find(|field| field.known == Known::ContentLength);
                field.map(|field| field.value.range()).unwrap_or_default()
            }
            _ => 0..0,
        };
        self.bytes.extend_from_slice(bytes);
        self.head.clone_from(head);
    }
}

/// Zero where both are the same. Without an early exit.
fn differences(one: &[u8], other: &[u8]) -> u64 {
    let (words, rest) = one.as_chunks::<8>();
    let (other_words, other_rest) = other.as_chunks::<8>();
    let pairs = words.iter().zip(other_words);
    let in_words = pairs.fold(0, |all, (one, other)| all | (u64::from_ne_bytes(*one) ^ u64::from_ne_bytes(*other)));
    let in_rest = rest.iter().zip(other_rest).fold(0, |all, (one, other)| all | (one ^ other));
    in_words | u64::from(in_rest) | (one.len() ^ other.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{Parsed, parse_request};

    const HEAD: &str = "POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 120\r\nAuthorization: Bearer k\r\n\r\n";

    fn parsed(text: &str) -> (RequestHead, usize) {
        let mut head = RequestHead::new();
        match parse_request(text.as_bytes(), &mut head) {
            Ok(Parsed::Complete { head_len }) => (head, head_len),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn remembering(text: &str) -> Repeat {
        let mut repeat = Repeat::default();
        repeat.remember(&parsed(text).0, text.as_bytes());
        repeat
    }

    fn check(repeat: &mut Repeat, text: &str, is_same: bool) {
        let mut head = RequestHead::new();
        let read = repeat.read(format!("{text}body").as_bytes(), &mut head);
        assert_eq!(read, is_same.then_some(text.len()), "{text}");
        if is_same {
            assert_eq!((head, text.len()), parsed(text));
            assert!(repeat.has_repeated());
        }
    }

    #[test]
    fn the_same_head_is_read_as_before_whatever_its_length_says() {
        let mut repeat = remembering(HEAD);
        for length in ["120", "999", "007", "120"] {
            check(&mut repeat, &HEAD.replace("120", length), true);
        }
        let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        check(&mut remembering(get), get, true);
        let none = HEAD.replace("120", "0");
        check(&mut remembering(&none), &none, true);
    }

    #[test]
    fn a_head_that_differs_in_any_byte_is_another() {
        let mut repeat = remembering(HEAD);
        let digits = HEAD.find("120").map(|at| at..at + 3).unwrap_or_default();
        for at in 0..HEAD.len() {
            for bit in 0..8 {
                let mut bytes = HEAD.as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                let is_length = digits.contains(&at) && bytes[at].is_ascii_digit();
                let read = repeat.read(&bytes, &mut RequestHead::new());
                assert_eq!(read.is_some(), is_length, "{}", String::from_utf8_lossy(&bytes));
            }
        }
    }

    #[test]
    fn what_is_no_length_or_not_all_there_is_another() {
        let mut repeat = remembering(HEAD);
        for length in ["000", "12", "1200", "12 ", "-12", "1,2"] {
            check(&mut repeat, &HEAD.replace("120", length), false);
        }
        assert_eq!(repeat.read(&HEAD.as_bytes()[..HEAD.len() - 1], &mut RequestHead::new()), None);
        assert_eq!(Repeat::default().read(HEAD.as_bytes(), &mut RequestHead::new()), None);
    }

    #[test]
    fn who_never_repeats_a_head_is_not_remembered_for_ever() {
        let mut repeat = Repeat::default();
        let (head, len) = parsed(HEAD);
        for _ in 0..OTHERS_MAX {
            repeat.remember(&head, HEAD.as_bytes());
        }
        assert!(!repeat.has_repeated());
        check(&mut repeat, HEAD, true);
        for _ in 0..=OTHERS_MAX {
            repeat.remember(&head, HEAD.as_bytes());
        }
        assert_eq!((repeat.read(HEAD.as_bytes(), &mut RequestHead::new()), len), (None, HEAD.len()));
    }
}
