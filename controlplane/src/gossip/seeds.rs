//! Which discovered addresses are tried in a round. Pure.
//!
//! Addresses without a live member behind them are tried for ever, since that is what heals a
//! cluster that was split; so each has a pause that grows, and a round tries two at most.

use shared::clock::Nanos;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// Addresses tried in one round.
const TRIES_PER_ROUND: usize = 2;
/// The first pause; each further try without success doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause for an address where a member lived: half of what a healed partition may take.
const PAUSE_MAX: Duration = Duration::from_millis(1_500);
/// The longest pause for an address that never answered.
const STRANGER_PAUSE_MAX: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub(crate) struct Seeds {
    addresses: BTreeMap<SocketAddr, Tried>,
}

#[derive(Default)]
struct Tried {
    tries: u32,
    next_at: Nanos,
    has_answered: bool,
}

impl Seeds {
    /// Replaces the addresses; what is known of those that stay is kept.
    pub(crate) fn follow(&mut self, addresses: &BTreeSet<SocketAddr>) {
        self.addresses.retain(|address, _| addresses.contains(address));
        for address in addresses {
            self.addresses.entry(*address).or_default();
        }
    }

    /// Those to be tried now: the ones that wait longest come first.
    pub(crate) fn due(&mut self, live: &BTreeSet<SocketAddr>, now: Nanos) -> Vec<SocketAddr> {
        for (address, tried) in &mut self.addresses {
            if live.contains(address) {
                *tried = Tried { has_answered: true, ..Tried::default() };
            }
        }
        let waiting = self.addresses.iter().filter(|(address, tried)| !live.contains(address) && tried.next_at <= now);
        let mut waiting: Vec<_> = waiting.map(|(address, tried)| (tried.next_at, *address)).collect();
        waiting.sort_unstable();
        waiting.truncate(TRIES_PER_ROUND);
        for (_, address) in &waiting {
            if let Some(tried) = self.addresses.get_mut(address) {
                let longest = if tried.has_answered { PAUSE_MAX } else { STRANGER_PAUSE_MAX };
                let pause = PAUSE_MIN.saturating_mul(1 << tried.tries.min(16)).min(longest);
                tried.tries = tried.tries.saturating_add(1);
                tried.next_at = now.after(pause);
            }
        }
        waiting.into_iter().map(|(_, address)| address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 10_101).into()
    }

    fn seeds(count: u8) -> Seeds {
        let mut seeds = Seeds::default();
        seeds.follow(&(1..=count).map(address).collect());
        seeds
    }

    /// Tries of one address in that many seconds of rounds.
    fn tries(seeds: &mut Seeds, live: &BTreeSet<SocketAddr>, from: u64, seconds: u64) -> usize {
        let rounds = (from * 5)..((from + seconds) * 5);
        rounds.map(|round| seeds.due(live, Nanos(round * 200_000_000 + 1)).len()).sum()
    }

    #[test]
    fn a_round_tries_two_and_in_time_all() {
        let mut seeds = seeds(5);
        let nobody = BTreeSet::new();
        assert_eq!(seeds.due(&nobody, Nanos(1)), [address(1), address(2)]);
        assert_eq!(seeds.due(&nobody, Nanos(2)), [address(3), address(4)]);
        assert_eq!(seeds.due(&nobody, Nanos(3)), [address(5)]);
    }

    #[test]
    fn live_members_are_left_alone() {
        assert!(seeds(3).due(&(1..=3).map(address).collect(), Nanos(1)).is_empty());
    }

    #[test]
    fn a_stranger_is_tried_ever_more_rarely_and_never_given_up() {
        let mut seeds = seeds(1);
        let nobody = BTreeSet::new();
        assert!(tries(&mut seeds, &nobody, 0, 60) <= 12);
        assert_eq!(tries(&mut seeds, &nobody, 3_600, 100), 10);
    }

    #[test]
    fn a_lost_member_is_tried_every_second_and_a_half() {
        let mut seeds = seeds(1);
        let nobody = BTreeSet::new();
        seeds.due(&BTreeSet::from([address(1)]), Nanos(1));
        assert!(tries(&mut seeds, &nobody, 0, 60) >= 37);
    }

    #[test]
    fn an_address_that_is_followed_on_keeps_its_pause() {
        let mut seeds = seeds(1);
        seeds.due(&BTreeSet::new(), Nanos(1));
        seeds.follow(&(1..=2).map(address).collect());
        assert_eq!(seeds.due(&BTreeSet::new(), Nanos(2)), [address(2)]);
    }
}
