//! Nodes that speak through a table of messages, in virtual time.

use super::*;
use shared::limit::{UNITS_MAX, Window};

const SECOND: u64 = 1_000_000_000;
const LEASE: Duration = Duration::from_secs(4);
const STEP: Duration = Duration::from_millis(50);

struct Node {
    escrow: Escrow,
    settings: EscrowSettings,
    ring: Arc<LimitRing>,
    disk: Vec<u8>,
    is_up: bool,
}

struct Cluster {
    nodes: Vec<Node>,
    now: Nanos,
    policy: Policy,
    amount: u64,
    /// Pairs that hear nothing of each other.
    cut: BTreeSet<(usize, usize)>,
    seed: u64,
}

fn name(index: usize) -> NodeName {
    NodeName::new(&format!("n{index}")).unwrap()
}

impl Cluster {
    fn new(count: usize, amount: u64, policy: Policy) -> Self {
        let mut cluster = Self { nodes: Vec::new(), now: Nanos(SECOND), policy, amount, cut: BTreeSet::new(), seed: 1 };
        for index in 0..count {
            let node = cluster.open(index, true, None);
            cluster.nodes.push(node);
        }
        cluster
    }

    fn open(&mut self, index: usize, is_new: bool, state: Option<&[u8]>) -> Node {
        self.seed += 1;
        let settings = EscrowSettings { node: name(index), lease: LEASE, is_new, seed: self.seed };
        let (mut escrow, fault) = Escrow::open(&settings, state, self.now);
        assert_eq!(fault, Ok(()));
        escrow.expect(3);
        let ring = Arc::new(LimitRing::new(Window::new(10 * SECOND).unwrap(), UNITS_MAX, self.now));
        ring.set_entitlement(0);
        escrow.configure(vec![self.terms(&ring)], self.now);
        Node { escrow, settings, ring, disk: Vec::new(), is_up: true }
    }

    fn terms(&self, ring: &Arc<LimitRing>) -> LimitTerms {
        LimitTerms {
            key: LimitKey(7),
            ring: Arc::clone(ring),
            amount: self.amount,
            policy: self.policy,
            hold_max: Duration::ZERO,
            unknown_spend: u64::MAX,
            handed_before: None,
        }
    }

    fn restart(&mut self, index: usize, keeps_state: bool) {
        let disk = std::mem::take(&mut self.nodes[index].disk);
        self.nodes[index] = self.open(index, false, keeps_state.then_some(&disk));
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn run(&mut self, time: Duration) {
        let end = self.now.after(time);
        while self.now < end {
            self.now = self.now.after(STEP);
            let mut sent = Vec::new();
            for index in 0..self.nodes.len() {
                if !self.nodes[index].is_up {
                    continue;
                }
                let peers: Vec<Peer> = (0..self.nodes.len())
                    .filter(|other| *other != index)
                    .map(|other| Peer {
                        node: name(other),
                        is_healthy: self.nodes[other].is_up && !self.is_cut(index, other),
                    })
                    .collect();
                let node = &mut self.nodes[index];
                let step = node.escrow.step(&peers, self.now);
                if step.must_persist {
                    node.disk = node.escrow.state();
                }
                sent.extend(Escrow::kept(step).into_iter().map(|(to, bytes)| (index, to, bytes)));
            }
            for (from, to, bytes) in sent {
                let to = (0..self.nodes.len()).find(|index| name(*index) == to).unwrap();
                if self.nodes[to].is_up && !self.is_cut(from, to) {
                    self.nodes[to].escrow.heard(name(from), bytes);
                }
            }
            let entitled: u64 = self.spenders().map(|node| node.ring.entitlement()).sum();
            assert!(entitled <= self.amount, "{entitled} at {:?}", self.now);
        }
    }

    /// Nodes whose cores would admit.
    fn spenders(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_up && node.ring.is_valid_at(self.now))
    }

    fn entitlements(&self) -> Vec<u64> {
        self.nodes
            .iter()
            .map(|node| if node.ring.is_valid_at(self.now) { node.ring.entitlement() } else { 0 })
            .collect()
    }

    fn total(&self) -> u64 {
        self.entitlements().iter().sum()
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_new_cluster_mints_the_whole_limit_once_and_spreads_it() {
    for policy in [Policy::Reclaim, Policy::Keep] {
        let mut cluster = Cluster::new(3, 900, policy);
        cluster.run(seconds(8));
        assert_eq!(cluster.total(), 900, "{policy:?}");
        assert!(cluster.entitlements().iter().all(|units| *units >= 900 / 3 / 5), "{:?}", cluster.entitlements());
    }
}

#[test]
fn without_a_first_start_nothing_is_minted_before_a_lease_and_a_window() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    for index in 0..3 {
        cluster.restart(index, false);
    }
    cluster.run(LEASE + seconds(10));
    assert_eq!(cluster.total(), 0);
    cluster.run(seconds(8));
    assert_eq!(cluster.total(), 900);
}

#[test]
fn what_is_needed_goes_where_it_is_needed() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    cluster.run(seconds(6));
    let ring = Arc::clone(&cluster.nodes[2].ring);
    let mut admitted = 0;
    for _ in 0..60 {
        for _ in 0..15 {
            if ring.try_hold(1, cluster.now) {
                ring.stamp(1, cluster.now);
                admitted += 1;
            } else {
                ring.count_refused(1);
            }
        }
        cluster.run(STEP * 2);
    }
    assert!((850..=900).contains(&admitted), "{admitted}");
}

#[test]
fn who_was_told_when_to_come_back_finds_units_there_and_then() {
    let mut cluster = Cluster::new(3, 1, Policy::Reclaim);
    cluster.run(seconds(6));
    let rings: Vec<_> = cluster.nodes.iter().map(|node| Arc::clone(&node.ring)).collect();
    let has_it = rings.iter().position(|ring| ring.entitlement() == 1).unwrap();
    let (spends, refuses) = (&rings[has_it], &rings[(has_it + 1) % 3]);
    assert!(spends.try_hold(1, cluster.now));
    spends.stamp(1, cluster.now);
    let free_at = spends.available_at(1, cluster.now).unwrap();
    let told = free_at.after(Duration::from_millis(300));
    refuses.set_elsewhere_at(Some(told));
    refuses.count_refused(1);
    cluster.run(told.since(cluster.now));
    for _ in 0..2 {
        cluster.run(seconds(1));
        assert_eq!(refuses.free(), 1, "and it stays for a while");
    }
}

#[test]
fn a_book_says_what_is_in_the_way_and_until_when() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    cluster.nodes[1].is_up = false;
    cluster.nodes[2].is_up = false;
    cluster.run(seconds(3));
    let book = |cluster: &Cluster| {
        cluster.nodes[0].escrow.books(cluster.now).into_iter().find(|book| book.policy == Policy::Reclaim).unwrap()
    };
    assert_eq!(book(&cluster).obstacle, Some(Obstacle::NoRoster { met: 1, needed: 2, votes_at: None }));
    cluster.nodes[1].is_up = true;
    cluster.run(seconds(6));
    assert_eq!((book(&cluster).obstacle, book(&cluster).members.len()), (None, 2));
    cluster.nodes[1].is_up = false;
    cluster.run(LEASE + seconds(1));
    assert!(matches!(book(&cluster).obstacle, Some(Obstacle::NoLease { needed: 2, since: Some(_) })));
    cluster.restart(0, false);
    let votes_at = cluster.now.after(LEASE);
    assert!(matches!(book(&cluster).obstacle, Some(Obstacle::NoRoster { votes_at: Some(at), .. }) if at > votes_at));
}

#[test]
fn what_a_lost_node_had_is_told_to_come_back_when_it_does() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    cluster.run(seconds(6));
    let standing = |cluster: &Cluster| cluster.nodes[0].escrow.standing(LimitKey(7), cluster.now).unwrap();
    assert_eq!(standing(&cluster).mints_at, None);
    cluster.nodes[1].is_up = false;
    cluster.run(LEASE + seconds(5));
    let mints_at = standing(&cluster).mints_at.unwrap();
    cluster.run(mints_at.since(cluster.now).saturating_add(seconds(1)));
    assert_eq!(cluster.spenders().map(|node| node.ring.entitlement()).sum::<u64>(), 900);
    assert_eq!(cluster.nodes.iter().filter(|node| node.is_up).map(|node| node.escrow.minted()).max(), Some(2));
}

#[test]
fn a_dead_nodes_part_is_taken_over_after_lease_and_window_only() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    cluster.run(seconds(6));
    let lost = cluster.entitlements()[1];
    cluster.nodes[1].is_up = false;
    cluster.run(LEASE + seconds(5));
    assert_eq!(cluster.spenders().map(|node| node.ring.entitlement()).sum::<u64>(), 900 - lost);
    cluster.run(seconds(15));
    assert_eq!(cluster.spenders().map(|node| node.ring.entitlement()).sum::<u64>(), 900);
}

#[test]
fn a_kept_part_waits_for_its_node() {
    let mut cluster = Cluster::new(3, 900, Policy::Keep);
    cluster.run(seconds(6));
    let lost = cluster.entitlements()[1];
    cluster.nodes[1].is_up = false;
    cluster.run(seconds(60));
    assert_eq!(cluster.spenders().map(|node| node.ring.entitlement()).sum::<u64>(), 900 - lost);
    cluster.restart(1, true);
    cluster.run(seconds(3));
    assert_eq!(cluster.total(), 900);
}

#[test]
fn a_node_that_is_cut_off_stops_with_its_lease_and_comes_back_with_nothing() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    cluster.run(seconds(6));
    cluster.cut = [(0, 1), (1, 2)].into();
    cluster.run(LEASE + seconds(1));
    assert!(!cluster.nodes[1].ring.is_valid_at(cluster.now));
    cluster.run(seconds(20));
    cluster.cut.clear();
    cluster.run(seconds(5));
    assert_eq!(cluster.total(), 900);
    assert!(cluster.nodes[1].ring.is_valid_at(cluster.now) && cluster.nodes[1].ring.entitlement() > 0);
}

#[test]
fn a_restart_with_its_state_goes_on_with_what_it_had() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    cluster.run(seconds(6));
    let had = cluster.entitlements()[1];
    cluster.restart(1, true);
    cluster.run(seconds(1));
    assert!(cluster.nodes[1].ring.entitlement() >= had);
    assert_eq!(cluster.total(), 900);
}

#[test]
fn one_without_its_state_gets_its_part_from_the_others_and_the_old_one_is_taken_over() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    cluster.run(seconds(6));
    cluster.restart(1, false);
    cluster.run(LEASE + seconds(5));
    assert!(cluster.nodes[1].ring.entitlement() > 0, "{:?}", cluster.nodes[0].escrow.books(cluster.now));
    cluster.run(seconds(15));
    assert_eq!(cluster.total(), 900);
}

#[test]
fn a_node_that_leaves_gives_everything_to_the_others() {
    for policy in [Policy::Reclaim, Policy::Keep] {
        let mut cluster = Cluster::new(3, 900, policy);
        cluster.run(seconds(6));
        let ring = Arc::clone(&cluster.nodes[1].ring);
        assert!(ring.try_hold(20, cluster.now));
        ring.stamp(20, cluster.now);
        cluster.nodes[1].escrow.leave();
        cluster.run(seconds(1));
        assert_eq!(ring.entitlement(), 20);
        cluster.nodes[1].escrow.end();
        cluster.run(seconds(1));
        cluster.nodes[1].is_up = false;
        let entitled: u64 = cluster.spenders().map(|node| node.ring.entitlement()).sum();
        let used: u64 = cluster.spenders().map(|node| node.ring.used()).sum();
        assert_eq!((entitled, used), (900, 20), "{policy:?}");
    }
}

/// It was killed after its ledger was written and before what it spent was.
#[test]
fn units_handed_over_as_spent_stay_spent_where_the_record_of_spend_does_not_know_of_them() {
    let mut cluster = Cluster::new(3, 900, Policy::Keep);
    cluster.run(seconds(6));
    let leaving = Arc::clone(&cluster.nodes[1].ring);
    assert!(leaving.try_hold(20, cluster.now));
    leaving.stamp(20, cluster.now);
    cluster.nodes[1].escrow.end();
    cluster.run(seconds(1));
    cluster.nodes[1].is_up = false;
    let mut handed = 0;
    for index in [0, 2] {
        let node = &cluster.nodes[index];
        let known = node.escrow.handed_over(LimitKey(7)).unwrap();
        let charged = |before| {
            let (mut escrow, fault) = Escrow::open(&node.settings, Some(&node.disk), cluster.now);
            assert_eq!(fault, Ok(()));
            let ring = Arc::new(LimitRing::new(node.ring.window(), 0, cluster.now));
            let terms = LimitTerms { unknown_spend: 0, handed_before: before, ..cluster.terms(&ring) };
            escrow.configure(vec![terms], cluster.now);
            ring.used()
        };
        assert_eq!(charged(Some(Handed::default())), node.ring.used());
        assert_eq!(charged(Some(known)), 0);
        assert_eq!(charged(None), 0);
        handed += node.ring.used();
    }
    assert_eq!(handed, 20);
}

#[test]
fn a_damaged_state_is_no_state() {
    let cluster = &mut Cluster::new(1, 900, Policy::Reclaim);
    let mut state = cluster.nodes[0].escrow.state();
    let settings = cluster.nodes[0].settings.clone();
    let other = EscrowSettings { node: name(5), ..settings.clone() };
    assert!(matches!(Escrow::open(&other, Some(&state), cluster.now).1, Err(RecordError::OtherNode(_))));
    state[20] ^= 1;
    assert_eq!(Escrow::open(&settings, Some(&state), cluster.now).1, Err(RecordError::Damaged));
}

#[test]
fn one_link_that_is_cut_costs_nobody_its_lease() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    cluster.run(seconds(6));
    cluster.cut = [(0, 1)].into();
    for _ in 0..40 {
        cluster.run(seconds(1));
        assert_eq!(cluster.total(), 900, "at {:?}", cluster.now);
    }
}

#[test]
fn a_late_first_decision_of_nodes_that_forgot_the_first_one_waits_for_the_window() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    cluster.cut = [(0, 2), (1, 2)].into();
    cluster.run(seconds(8));
    assert_eq!(cluster.total(), 900);
    cluster.cut = [(0, 1), (0, 2)].into();
    cluster.restart(1, false);
    cluster.run(LEASE + seconds(9));
    assert_eq!(cluster.total(), 0, "the third node is new, and what it decides is not");
    cluster.run(seconds(20));
    assert_eq!(cluster.total(), 900);
}

#[test]
fn members_that_cannot_go_on_begin_anew_with_those_that_forgot() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    cluster.run(seconds(6));
    cluster.nodes[2].is_up = false;
    cluster.restart(1, false);
    cluster.run(seconds(60));
    assert_eq!(cluster.total(), 900, "{:?}", cluster.nodes[0].escrow.books(cluster.now));
}

#[test]
fn nodes_that_forget_again_and_again_decide_in_the_end() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    for step in 0..60_u32 {
        cluster.run(Duration::from_millis(u64::from(150 * (step % 7) + 50)));
        cluster.restart(step as usize * 7 % 3, false);
    }
    cluster.run(seconds(60));
    assert_eq!(cluster.total(), 900, "{:?}", cluster.nodes[0].escrow.books(cluster.now));
}

/// Node 1 of three as its disk has it, in epoch 1, with 70 shares that node 2 gave it.
fn member() -> (Escrow, [Account; 3], impl Fn(u64, Vec<Item>) -> Vec<u8>) {
    let accounts = [0, 1, 2].map(|index| Account { node: name(index), life: 9 });
    let roster = first_roster(accounts);
    let mut ledger = Ledger::default();
    ledger.credit(accounts[2], ledger::Totals { free: 70, ..Default::default() });
    let book = BookRecord { me: accounts[1], roster: Some(roster), acceptor: decree::Acceptor::default() };
    let ledgers = BTreeMap::from([(LimitKey(7), ledger)]);
    let state = record::write([(Policy::Reclaim, book, &ledgers)].into_iter());
    let mut cluster = Cluster::new(1, 900, Policy::Reclaim);
    let node = cluster.open(1, false, Some(&state));
    let letter = |epoch, items| {
        write(vec![Letter { policy: Policy::Reclaim, from: 9, to: 9, chain: 5, epoch, items }]).remove(0)
    };
    (node.escrow, accounts, letter)
}

fn first_roster(accounts: [Account; 3]) -> roster::Roster {
    let gone = Vec::new();
    roster::Roster { chain: 5, epoch: 1, members: accounts.into(), heir: accounts[0], expected: 3, gone }
}

fn without_the_last(accounts: [Account; 3]) -> roster::Roster {
    let [first, second, third] = accounts;
    roster::Roster { epoch: 2, members: [first, second].into(), gone: vec![third], ..first_roster(accounts) }
}

#[test]
fn what_was_said_in_one_epoch_is_not_sent_as_of_the_next() {
    let (mut escrow, accounts, letter) = member();
    escrow.heard(name(0), letter(1, vec![Item::AskBases(None)]));
    escrow.heard(name(0), letter(1, vec![Item::Decided(without_the_last(accounts))]));
    let sent = Escrow::kept(escrow.step(&[], Nanos(2 * SECOND)));
    let items: Vec<Item> = sent.iter().flat_map(|(_, bytes)| read(bytes).unwrap()).flat_map(|one| one.items).collect();
    assert!(!items.iter().any(|item| matches!(item, Item::Bases(..))), "a base of before: {items:?}");
    escrow.heard(name(0), letter(2, vec![Item::AskBases(None)]));
    let sent = Escrow::kept(escrow.step(&[], Nanos(3 * SECOND)));
    let items: Vec<Item> = sent.iter().flat_map(|(_, bytes)| read(bytes).unwrap()).flat_map(|one| one.items).collect();
    assert!(items.contains(&Item::Bases(None, vec![(LimitKey(7), 70)], true)), "{items:?}");
}

#[test]
fn rows_of_an_earlier_epoch_are_credited_no_more() {
    let (mut escrow, accounts, letter) = member();
    let totals = |free| ledger::Totals { free, ..Default::default() };
    let rows = |free| Item::Rows(vec![message::Row { limit: LimitKey(7), totals: totals(free) }]);
    escrow.heard(name(0), letter(1, vec![Item::Decided(without_the_last(accounts))]));
    for (epoch, free, balance) in [(1, 10, 70), (2, 10, 80), (1, 50, 80), (3, 50, 80)] {
        escrow.heard(name(0), letter(epoch, vec![rows(free)]));
        let _ = Escrow::kept(escrow.step(&[], Nanos(2 * SECOND)));
        assert_eq!(escrow.sides[&Policy::Reclaim].ledgers[&LimitKey(7)].balance(), balance);
    }
}

mod amounts;
mod starts;
