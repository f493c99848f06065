//! Passwords and tokens that were wrong, by where they came from: whoever guesses is made to wait.
//! Pure.
//!
//! A right token always passes, so that nobody's guesses keep programs out; a password has to wait
//! while its source rests, since each one costs us a hash.

use shared::clock::Nanos;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Wrong ones from one source before it has to wait.
const FAILURES_MAX: u32 = 10;
/// How long failures count, and so the longest wait.
const WINDOW: Duration = Duration::from_secs(60);
/// Sources that are remembered. Beyond, the one that began first is forgotten.
const SOURCES_MAX: usize = 4_096;

/// Failures of each source.
#[derive(Default)]
pub(super) struct Attempts(BTreeMap<IpAddr, Failures>);

struct Failures {
    count: u32,
    since: Nanos,
}

impl Attempts {
    /// How long this source has to wait before its next password; `None`: not at all.
    pub(super) fn wait(&self, source: IpAddr, now: Nanos) -> Option<Duration> {
        let failures = self.0.get(&network(source))?;
        let left = WINDOW.checked_sub(now.since(failures.since)).filter(|left| !left.is_zero())?;
        (failures.count >= FAILURES_MAX).then_some(left)
    }

    /// A password or token of this source was wrong.
    pub(super) fn failed(&mut self, source: IpAddr, now: Nanos) {
        let source = network(source);
        let is_over = |failures: &Failures| now.since(failures.since) >= WINDOW;
        if self.0.len() >= SOURCES_MAX && !self.0.contains_key(&source) {
            self.0.retain(|_, failures| !is_over(failures));
            let first = self.0.iter().min_by_key(|(_, failures)| failures.since).map(|(source, _)| *source);
            if let Some(first) = first.filter(|_| self.0.len() >= SOURCES_MAX) {
                self.0.remove(&first);
            }
        }
        let failures = self.0.entry(source).or_insert(Failures { count: 0, since: now });
        if is_over(failures) {
            *failures = Failures { count: 0, since: now };
        }
        failures.count = failures.count.saturating_add(1);
    }
}

/// Who has one IPv6 address has a /64 of them.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Nanos {
        Nanos::default().after(Duration::from_secs(seconds))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_tenth_failure_of_a_minute_makes_its_source_wait_for_the_rest_of_it() {
        let mut attempts = Attempts::default();
        let (source, other) = (ip("10.0.0.1"), ip("10.0.0.2"));
        for second in 1..FAILURES_MAX.into() {
            attempts.failed(source, at(second));
            assert_eq!(attempts.wait(source, at(second)), None);
        }
        attempts.failed(source, at(11));
        assert_eq!(attempts.wait(source, at(11)), Some(Duration::from_secs(50)));
        assert_eq!(attempts.wait(ip("::ffff:10.0.0.1"), at(11)), Some(Duration::from_secs(50)));
        assert_eq!(attempts.wait(other, at(11)), None);
        assert_eq!(attempts.wait(source, at(61)), None);
        attempts.failed(source, at(61));
        assert_eq!(attempts.wait(source, at(61)), None, "it begins anew");
    }

    #[test]
    fn addresses_of_one_network_are_one_source() {
        let mut attempts = Attempts::default();
        for host in 0..FAILURES_MAX {
            attempts.failed(ip(&format!("2001:db8::{host:x}")), at(1));
        }
        assert!(attempts.wait(ip("2001:db8::ffff"), at(1)).is_some());
        assert!(attempts.wait(ip("2001:db8:0:1::"), at(1)).is_none());
    }

    #[test]
    fn many_sources_take_the_room_of_the_first() {
        let mut attempts = Attempts::default();
        for _ in 0..FAILURES_MAX {
            attempts.failed(ip("10.0.0.1"), at(1));
        }
        for source in 0..SOURCES_MAX {
            attempts.failed(Ipv6Addr::from_bits((source as u128 + 1) << 64).into(), at(2));
        }
        assert_eq!(attempts.0.len(), SOURCES_MAX);
        assert!(attempts.wait(ip("10.0.0.1"), at(2)).is_none());
    }
}
