//! Amounts that change, and what was spent by another one.

use super::*;

impl Cluster {
    fn change_amount(&mut self, amount: u64) {
        self.amount = amount;
        let terms: Vec<_> = self.nodes.iter().map(|node| self.terms(&node.ring)).collect();
        let now = self.now;
        for (node, terms) in self.nodes.iter_mut().zip(terms) {
            node.escrow.configure(vec![terms], now);
        }
    }

    /// A node spends all that it has; how much that was.
    fn spend_all(&self, index: usize) -> u64 {
        let ring = &self.nodes[index].ring;
        let free = ring.free();
        assert!(ring.try_hold(free, self.now));
        ring.stamp(free, self.now);
        free
    }
}

#[test]
fn the_amount_may_change_at_any_time() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    cluster.run(seconds(6));
    cluster.change_amount(300);
    assert!(cluster.total() <= 300);
    cluster.run(seconds(5));
    assert!(cluster.total() >= 298, "{}", cluster.total());
}

#[test]
fn a_step_that_is_kept_late_does_not_undo_a_lower_amount() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    cluster.run(seconds(6));
    let ring = Arc::clone(&cluster.nodes[0].ring);
    cluster.amount = 1_800;
    let more = cluster.terms(&ring);
    cluster.nodes[0].escrow.configure(vec![more], cluster.now);
    let step = cluster.nodes[0].escrow.step(&[], cluster.now);
    cluster.amount = 30;
    let less = cluster.terms(&ring);
    cluster.nodes[0].escrow.configure(vec![less], cluster.now);
    Escrow::kept(step);
    assert!(ring.entitlement() <= 30, "{}", ring.entitlement());
}

#[test]
fn what_was_spent_by_a_larger_amount_stays_spent_over_a_restart_with_a_lesser_one() {
    for policy in [Policy::Keep, Policy::Reclaim] {
        let mut cluster = Cluster::new(3, 900, policy);
        cluster.run(seconds(6));
        let spent: u64 = (0..3).map(|index| cluster.spend_all(index)).sum();
        assert_eq!(spent, 900);
        cluster.amount = 90;
        cluster.restart(1, true);
        cluster.change_amount(90);
        cluster.run(seconds(1));
        cluster.change_amount(900);
        cluster.run(seconds(1));
        let free: u64 = cluster.nodes.iter().map(|node| node.ring.free()).sum();
        assert_eq!((cluster.total(), free), (900, 0), "{policy:?}");
    }
}

#[test]
fn what_cannot_count_any_more_takes_no_room_of_a_lesser_amount() {
    let mut cluster = Cluster::new(3, 900, Policy::Keep);
    cluster.run(seconds(6));
    cluster.change_amount(90);
    cluster.run(seconds(12));
    // Passed on meanwhile, and so written.
    cluster.nodes[1].disk = cluster.nodes[1].escrow.state();
    cluster.restart(1, true);
    let (had, used) = (cluster.entitlements()[1], cluster.nodes[1].ring.used());
    assert!(had <= 90 && used <= 90, "{had} {used}");
}

#[test]
fn what_was_spent_by_a_larger_amount_stays_spent_when_a_lesser_one_is_handed_over() {
    for policy in [Policy::Keep, Policy::Reclaim] {
        let mut cluster = Cluster::new(3, 900, policy);
        cluster.run(seconds(6));
        let spent: u64 = (0..3).map(|index| cluster.spend_all(index)).sum();
        assert_eq!(spent, 900);
        cluster.change_amount(90);
        cluster.nodes[1].escrow.leave();
        cluster.nodes[1].escrow.end();
        cluster.run(seconds(1));
        cluster.nodes[1].is_up = false;
        cluster.change_amount(900);
        cluster.run(seconds(1));
        let free: u64 = cluster.spenders().map(|node| node.ring.free()).sum();
        assert_eq!(free, 0, "{policy:?}");
    }
}

#[test]
fn what_is_handed_over_takes_no_more_room_of_a_larger_amount() {
    let mut cluster = Cluster::new(3, 90, Policy::Keep);
    cluster.run(seconds(6));
    let spent: u64 = (0..3).map(|index| cluster.spend_all(index)).sum();
    // The others have been told already.
    cluster.amount = 900;
    for index in [0, 2] {
        let terms = cluster.terms(&cluster.nodes[index].ring);
        cluster.nodes[index].escrow.configure(vec![terms], cluster.now);
    }
    cluster.nodes[1].escrow.end();
    cluster.run(seconds(1));
    cluster.nodes[1].is_up = false;
    let used: u64 = cluster.spenders().map(|node| node.ring.used()).sum();
    assert_eq!((spent, used), (90, 90));
}
