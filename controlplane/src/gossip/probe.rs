//! Pings and their answers: who is there, which keys it takes, how long the way is, and how far
//! its clock is off. Pure.

use super::frame::Cursor;
use super::keyring::{KEYS_MAX, KeyId};
use std::time::Duration;

/// What a ping says. Its number is its frame's sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ping {
    /// Keys that the sender takes.
    pub(crate) takes: Vec<KeyId>,
}

/// What a pong says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pong {
    /// Sequence of the ping.
    pub(crate) answers: u64,
    /// Time of day when the ping arrived.
    pub(crate) received: Duration,
    /// Time of day when the answer left.
    pub(crate) sent: Duration,
    /// Keys that the sender takes.
    pub(crate) takes: Vec<KeyId>,
}

impl Ping {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_keys(&self.takes, &mut bytes);
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self { takes: read_keys(&mut Cursor(bytes))? })
    }
}

impl Pong {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut bytes = self.answers.to_le_bytes().to_vec();
        for time in [self.received, self.sent] {
            let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            bytes.extend_from_slice(&nanos.to_le_bytes());
        }
        write_keys(&self.takes, &mut bytes);
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        Some(Self {
            answers: cursor.number()?,
            received: Duration::from_nanos(cursor.number()?),
            sent: Duration::from_nanos(cursor.number()?),
            takes: read_keys(&mut cursor)?,
        })
    }
}

/// A peer's clock minus ours, milliseconds: half of what the way there seems to take more than
/// the way back. Exact where both ways take the same time, off by half their difference otherwise.
pub(crate) fn clock_offset_ms(sent: Duration, pong: &Pong, received: Duration) -> i64 {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let there = millis(pong.received).saturating_sub(millis(sent));
    let back = millis(pong.sent).saturating_sub(millis(received));
    there.saturating_add(back) / 2
}

fn write_keys(keys: &[KeyId], bytes: &mut Vec<u8>) {
    let keys = keys.get(..KEYS_MAX).unwrap_or(keys);
    bytes.push(keys.len() as u8);
    for key in keys {
        bytes.extend_from_slice(&key.0);
    }
}

/// What follows is for later versions.
fn read_keys(cursor: &mut Cursor<'_>) -> Option<Vec<KeyId>> {
    let count = usize::from(cursor.byte()?);
    if count > KEYS_MAX {
        return None;
    }
    (0..count).map(|_| cursor.take().map(KeyId)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Duration = Duration::from_secs(1_000_000);

    fn pong() -> Pong {
        Pong {
            answers: 7,
            received: AT,
            sent: AT + Duration::from_millis(1),
            takes: vec![KeyId([1; 4]), KeyId([2; 4])],
        }
    }

    #[test]
    fn what_is_written_is_read_and_what_is_cut_is_not() {
        let ping = Ping { takes: vec![KeyId([1; 4])] };
        assert_eq!(Ping::read(&ping.write()), Some(ping.clone()));
        assert_eq!(Pong::read(&pong().write()), Some(pong()));
        for length in 0..ping.write().len() {
            assert_eq!(Ping::read(&ping.write()[..length]), None);
        }
        for length in 0..pong().write().len() {
            assert_eq!(Pong::read(&pong().write()[..length]), None);
        }
    }

    #[test]
    fn what_a_later_version_adds_is_left_out() {
        let longer = [pong().write(), vec![1, 2, 3]].concat();
        assert_eq!(Pong::read(&longer), Some(pong()));
    }

    #[test]
    fn a_clock_that_is_ahead_is_seen_through_the_way() {
        let way = Duration::from_millis(20);
        let ahead = Duration::from_secs(3);
        let pong = Pong { received: AT + way + ahead, sent: AT + way + ahead, ..pong() };
        assert_eq!(clock_offset_ms(AT, &pong, AT + 2 * way), 3_000);
        let behind = (AT + way).saturating_sub(ahead);
        let pong = Pong { received: behind, sent: behind, ..pong };
        assert_eq!(clock_offset_ms(AT, &pong, AT + 2 * way), -3_000);
    }

    #[test]
    fn absurd_times_do_no_harm() {
        let end = Duration::from_nanos(u64::MAX);
        let pong = Pong { received: Duration::ZERO, sent: Duration::ZERO, ..pong() };
        assert!(clock_offset_ms(end, &pong, end) < 0);
        assert!(clock_offset_ms(Duration::ZERO, &Pong { received: end, sent: end, ..pong }, Duration::ZERO) > 0);
        assert!(clock_offset_ms(Duration::MAX, &Pong::default(), Duration::MAX) < 0);
    }
}
