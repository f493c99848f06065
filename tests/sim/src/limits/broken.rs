//! Rules that a simulated cluster breaks on purpose, so that it is known what would notice.

use shared::limit::Window;

/// What is broken, on every node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Breakage {
    /// Nothing.
    #[default]
    Nothing,
    /// Rows leave before the debit is on disk.
    #[cfg(test)]
    CreditBeforeDebit,
    /// Cores spend whatever the lease says.
    #[cfg(test)]
    LeaseIgnored,
    /// Slots expire when the youngest unit in them is a window old, less a slot.
    #[cfg(test)]
    NoSlotRounding,
    /// The provider's counting is taken to be immediate.
    #[cfg(test)]
    NoSpread,
}

impl Breakage {
    /// The window by which the nodes count.
    pub(crate) fn window(self, window_ns: u64) -> Window {
        let window = match self {
            #[cfg(test)]
            Self::NoSlotRounding => Window::new(window_ns).and_then(|right| Window::new(window_ns - right.slot_ns())),
            #[cfg(test)]
            Self::NoSpread => Window::with_spread(window_ns, 0),
            _ => Window::new(window_ns),
        };
        window.expect("scenarios have windows that can be")
    }

    /// Rows leave without waiting for the disk.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "nothing is broken outside of tests"))]
    pub(crate) fn sends_early(self) -> bool {
        #[cfg(test)]
        return self == Self::CreditBeforeDebit;
        #[cfg(not(test))]
        false
    }

    /// Leases are as good as without an end.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "nothing is broken outside of tests"))]
    pub(crate) fn ignores_leases(self) -> bool {
        #[cfg(test)]
        return self == Self::LeaseIgnored;
        #[cfg(not(test))]
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::{Fault, Kind, MILLISECOND_NS, SECOND_NS, Scenario, Terms};
    use super::super::world::World;
    use super::*;
    use controlplane::escrow::broken::{Rule, break_rule};

    /// Seeds that have to be clean, and those of which one has to notice.
    const CLEAN: std::ops::RangeInclusive<u64> = 1..=3;
    const BROKEN: std::ops::RangeInclusive<u64> = 1..=20;

    fn notices(scenario: &Scenario, broken: Breakage) -> bool {
        let mut world = World::new(scenario, broken, false);
        world.run_until(scenario.faults_end_ns);
        let outcome = world.finish();
        outcome.progress.wrong.is_some() || !outcome.excesses.is_empty()
    }

    fn assert_noticed(scenario: impl Fn(u64) -> Scenario, broken: Breakage, rule: Option<Rule>) {
        for seed in CLEAN {
            assert!(!notices(&scenario(seed), Breakage::Nothing), "with all rules, nothing is wrong");
        }
        break_rule(rule);
        let is_noticed = BROKEN.into_iter().any(|seed| notices(&scenario(seed), broken));
        break_rule(None);
        assert!(is_noticed, "{broken:?} {rule:?} was not noticed");
    }

    fn fault(begins_ms: u64, lasts_ms: u64, kind: Kind) -> Fault {
        Fault { begins_ns: begins_ms * MILLISECOND_NS, lasts_ns: lasts_ms * MILLISECOND_NS, kind }
    }

    fn cluster(seed: u64, window_s: u64, lease_s: u64, faults: Vec<Fault>) -> Scenario {
        let terms = Terms { amount: 900, window_ns: window_s * SECOND_NS };
        let mut scenario = Scenario::calm(seed, 3, terms, 4.0, 60 * SECOND_NS);
        scenario.lease_ns = lease_s * SECOND_NS;
        scenario.hot_moves_every_ns = Some(2 * SECOND_NS);
        scenario.faults = faults;
        scenario
    }

    fn one_node(seed: u64) -> Scenario {
        let terms = Terms { amount: 3_000, window_ns: 60 * SECOND_NS };
        Scenario::calm(seed, 1, terms, 5.0, 400 * SECOND_NS)
    }

    #[test]
    fn crediting_before_the_debit_is_kept_is_noticed() {
        let faults = |seed: u64| {
            let slow = (0..3).map(|node| fault(3_000, 50_000, Kind::SlowDisk { node, write_ns: 200 * MILLISECOND_NS }));
            let kills = (0..28).map(move |number| {
                let node = ((seed + number) % 3) as usize;
                fault(10_000 + 1_630 * number, 100, Kind::Kill { node, keeps_its_state: true })
            });
            slow.chain(kills).collect()
        };
        // Not so much load that nobody has anything to give.
        let scenario = |seed| Scenario { offered: 0.8, ..cluster(seed, 10, 4, faults(seed)) };
        assert_noticed(scenario, Breakage::CreditBeforeDebit, None);
    }

    #[test]
    fn spending_without_a_lease_is_noticed() {
        let faults = || vec![fault(15_000, 40_000, Kind::Partition { first: 1 })];
        assert_noticed(|seed| cluster(seed, 10, 4, faults()), Breakage::LeaseIgnored, None);
    }

    #[test]
    fn slots_that_expire_early_are_noticed() {
        assert_noticed(one_node, Breakage::NoSlotRounding, None);
    }

    #[test]
    fn a_provider_that_counts_later_is_noticed() {
        assert_noticed(one_node, Breakage::NoSpread, None);
    }

    #[test]
    fn an_heir_that_does_not_wait_is_noticed() {
        let faults = || vec![fault(12_000, 45_000, Kind::Kill { node: 0, keeps_its_state: false })];
        assert_noticed(|seed| cluster(seed, 30, 4, faults()), Breakage::Nothing, Some(Rule::HeirsWait));
    }

    #[test]
    fn votes_that_a_restart_forgets_are_noticed() {
        let kill = |node| Kind::Kill { node, keeps_its_state: true };
        let faults = || {
            vec![
                fault(20_000, 30_000, Kind::Partition { first: 2 }),
                fault(20_500, 300, kill(0)),
                fault(20_500, 300, kill(1)),
            ]
        };
        assert_noticed(|seed| cluster(seed, 5, 20, faults()), Breakage::Nothing, Some(Rule::VotesAreKept));
    }
}
