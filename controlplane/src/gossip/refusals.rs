//! What is dropped is counted by reason, and said once a source. Pure.
//!
//! Whoever floods the port may claim as many sources as there are addresses, so that there is a
//! bound for all of them together, and one for what is remembered.

use super::frame::Refusal;
use shared::clock::Nanos;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Lines a minute, of all sources together.
const LINES_A_MINUTE: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);
/// Sources that are remembered; at ten a minute, those of more than an hour and a half.
const SOURCES_MAX: usize = 1_024;
/// A source that was silent for so long is news when it comes again.
const SILENCE: Duration = Duration::from_secs(15 * 60);

/// Counts, and who was spoken of.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    counts: [u64; Refusal::NAMES.len()],
    /// By source and reason: the newest refusal, and when.
    said: BTreeMap<(IpAddr, usize), (Refusal, Nanos)>,
    minute: Option<Nanos>,
    lines: u32,
}

impl Refusals {
    /// Counts one; answers whether to say it.
    pub(crate) fn note(&mut self, source: IpAddr, refusal: Refusal, now: Nanos) -> bool {
        let reason = refusal.index();
        if let Some(count) = self.counts.get_mut(reason) {
            *count += 1;
        }
        if let Some((latest, at)) = self.said.get_mut(&(source, reason)) {
            let is_news = now.since(*at) >= SILENCE && may_say(&mut self.minute, &mut self.lines, now);
            (*latest, *at) = (refusal, now);
            return is_news;
        }
        // Asked before anything is remembered: a flood must not push out the others either.
        if !may_say(&mut self.minute, &mut self.lines, now) {
            return false;
        }
        if self.said.len() >= SOURCES_MAX {
            let oldest = self.said.iter().min_by_key(|(_, (_, at))| *at).map(|(key, _)| *key);
            oldest.and_then(|key| self.said.remove(&key));
        }
        self.said.insert((source, reason), (refusal, now));
        true
    }

    /// By reason.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Refusal::NAMES.into_iter().zip(self.counts)
    }

    /// Sources that were spoken of, with the newest refusal of each reason.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (IpAddr, Refusal, Nanos)> {
        self.said.iter().map(|((source, _), (refusal, at))| (*source, *refusal, *at))
    }
}

fn may_say(minute: &mut Option<Nanos>, lines: &mut u32, now: Nanos) -> bool {
    if minute.is_none_or(|began| now.since(began) >= MINUTE) {
        (*minute, *lines) = (Some(now), 0);
    }
    let may = *lines < LINES_A_MINUTE;
    *lines += u32::from(may);
    may
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    fn minutes(minutes: u64) -> Nanos {
        Nanos::default().after(Duration::from_secs(60 * minutes))
    }

    #[test]
    fn a_source_is_said_once_for_a_reason() {
        let mut refusals = Refusals::default();
        assert!(refusals.note(source(1), Refusal::Damaged, minutes(0)));
        assert!(!refusals.note(source(1), Refusal::Damaged, minutes(1)));
        assert!(refusals.note(source(1), Refusal::OtherCluster, minutes(1)));
        assert!(refusals.note(source(2), Refusal::Damaged, minutes(1)));
        assert!(!refusals.note(source(1), Refusal::Damaged, minutes(15)), "heard a minute after the first time");
        assert!(refusals.note(source(1), Refusal::Damaged, minutes(30)), "silent since");
        let count = refusals.counts().find(|(name, _)| *name == "refused_damaged");
        assert_eq!(count, Some(("refused_damaged", 5)));
    }

    #[test]
    fn a_flood_of_sources_writes_ten_lines_a_minute_and_is_not_remembered() {
        let mut refusals = Refusals::default();
        let mut flood =
            |minute| (0..50_000).filter(|n| refusals.note(source(*n), Refusal::NotAFrame, minutes(minute))).count();
        assert_eq!([flood(0), flood(1), flood(2)], [10, 10, 10]);
        assert_eq!(refusals.sources().count(), 30);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut refusals = Refusals::default();
        for minute in 0..200_u32 {
            for line in 0..10 {
                assert!(refusals.note(source(minute * 10 + line), Refusal::NotAFrame, minutes(u64::from(minute))));
            }
        }
        assert_eq!(refusals.sources().count(), SOURCES_MAX);
    }
}
