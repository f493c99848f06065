//! Every order of what three nodes may do with a limit while rosters change, looked at by Stateright:
//! rows and bases that come late, twice or never, nodes that enter epochs late or skip them, and one
//! that is left out and comes back. Ledgers and inheritance are the real ones.
//!
//! Absent: time. That whoever is left out can spend no more by then is the books' business.

use super::account::Account;
use super::heir::Inheritance;
use super::ledger::{Ledger, Totals};
use super::roster::Roster;
use super::shares::{FULL, LimitKey};
use crate::gossip::frame::NodeName;
use shared::clock::Nanos;
use stateright::{Checker as _, HasDiscoveries, Model, Property};
use std::collections::BTreeSet;
use std::time::Duration;

const LIMIT: LimitKey = LimitKey(7);
/// What is given at a time.
const PART: i128 = FULL / 4;
/// The first mints; the last is left out by epoch 2 and comes back in epoch 3.
const HEIR: usize = 0;
const LAST: usize = 2;
const CRASHES: u8 = 1;
const HELD_ONCE: &str = "no share is held by two";

/// What is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    CreditsWithoutRemembering,
    SendsBeforeItIsKept,
    BelievesBasesOfEarlierEpochs,
    ComesBackAsTheSame,
}

struct Cluster {
    fault: Fault,
    /// At most.
    gives: u8,
    epochs: u64,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq)]
struct Node {
    me: Account,
    /// 0: no roster.
    epoch: u64,
    ledger: Ledger,
    kept: Ledger,
    inheritance: Inheritance,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq)]
struct State {
    nodes: Vec<Node>,
    decided: u64,
    /// A letter stays here: it may come again, or never.
    network: BTreeSet<Letter>,
    gives: u8,
    crashes: u8,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
struct Letter {
    from: Account,
    to: Account,
    epoch: u64,
    said: Said,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Row(u128),
    Base(i128),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Decide,
    Enter(usize, u64),
    Give(usize, usize),
    /// Says again what it gave, in its present epoch.
    Repeat(usize, usize),
    TellBase(usize),
    Mint,
    Deliver(Letter),
    Keep(usize),
    Crash(usize),
}

fn account(node: usize, life: u64) -> Account {
    Account { node: NodeName::new(["a", "b", "c"][node]).unwrap(), life }
}

fn inheritance() -> Inheritance {
    Inheritance::new(Nanos(0), true)
}

impl Cluster {
    fn roster(&self, epoch: u64) -> Roster {
        let last = match epoch {
            1 => Some(account(LAST, 1)),
            2 => None,
            _ if self.fault == Fault::ComesBackAsTheSame => Some(account(LAST, 1)),
            _ => Some(account(LAST, 2)),
        };
        let members = [account(0, 1), account(1, 1)].into_iter().chain(last).collect();
        Roster { chain: 1, epoch, members, heir: account(HEIR, 1), expected: 3, gone: Vec::new() }
    }

    /// Which account of a node counts in an epoch.
    fn member(&self, node: usize, epoch: u64) -> Option<Account> {
        let name = account(node, 1).node;
        (epoch > 0)
            .then(|| self.roster(epoch))
            .and_then(|roster| roster.members.into_iter().find(|one| one.node == name))
    }

    fn enter(&self, node: &mut Node, epoch: u64) {
        let roster = self.roster(epoch);
        if roster.members.contains(&node.me) {
            node.epoch = epoch;
            node.ledger.fold(|one| roster.members.contains(one));
        } else if node.epoch > 0 {
            *node = Node { me: Account { life: 2, ..node.me }, epoch: 0, ledger: Ledger::default(), ..node.clone() };
        }
        node.kept = node.ledger.clone();
        node.inheritance = inheritance();
    }

    fn deliver(&self, letter: Letter, node: &mut Node) {
        let is_of_this_epoch = letter.epoch == node.epoch;
        let is_from_member = node.epoch > 0 && self.roster(node.epoch).members.contains(&letter.from);
        match letter.said {
            Said::Row(free) if is_from_member && is_of_this_epoch => {
                let told = Totals { free, ..Totals::default() };
                if self.fault == Fault::CreditsWithoutRemembering {
                    let credit = node.ledger.clone().credit(letter.from, told);
                    node.ledger.add(credit.free);
                } else {
                    node.ledger.credit(letter.from, told);
                }
                node.kept = node.ledger.clone();
            }
            Said::Base(base)
                if is_from_member && (is_of_this_epoch || self.fault == Fault::BelievesBasesOfEarlierEpochs) =>
            {
                node.inheritance.told(letter.from, None, vec![(LIMIT, base)], true);
            }
            _ => {}
        }
    }

    /// Shares of all that count in the newest epoch.
    fn held(&self, state: &State) -> i128 {
        let counts = |(index, node): &(usize, &Node)| self.member(*index, state.decided) == Some(node.me);
        state.nodes.iter().enumerate().filter(counts).map(|(_, node)| node.ledger.balance()).sum()
    }

    /// Everybody hears everything.
    fn at_rest(&self, state: &State) -> State {
        let mut state = state.clone();
        let mut act = |action| {
            if let Some(next) = self.next_state(&state, action) {
                state = next;
            }
            for letter in state.network.clone() {
                if let Some(next) = self.next_state(&state, Action::Deliver(letter)) {
                    state = next;
                }
            }
            state.decided
        };
        let decided = act(Action::Keep(HEIR));
        // Once to learn that it was left out, once more to come back.
        (0..6).for_each(|turn| _ = act(Action::Enter(turn % 3, decided)));
        (0..9).for_each(|pair| _ = act(Action::Repeat(pair / 3, pair % 3)));
        (0..3).for_each(|node| _ = act(Action::TellBase(node)));
        act(Action::Mint);
        state
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let node = |index| {
            let mut ledger = Ledger::default();
            ledger.add(if index == HEIR { FULL } else { 0 });
            Node { me: account(index, 1), epoch: 1, kept: ledger.clone(), ledger, inheritance: inheritance() }
        };
        let nodes = (0..3).map(node).collect();
        vec![State { nodes, decided: 1, network: BTreeSet::new(), gives: 0, crashes: 0 }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend([Action::Decide, Action::Mint]);
        for one in 0..3 {
            actions.extend((1..=state.decided).map(|epoch| Action::Enter(one, epoch)));
            actions.extend([Action::TellBase(one), Action::Keep(one), Action::Crash(one)]);
            actions.extend((0..3).flat_map(|other| [Action::Give(one, other), Action::Repeat(one, other)]));
        }
        actions.extend(state.network.iter().copied().map(Action::Deliver));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Decide if state.decided < self.epochs => state.decided += 1,
            Action::Enter(node, epoch) if epoch > state.nodes[node].epoch && epoch <= state.decided => {
                self.enter(&mut state.nodes[node], epoch);
            }
            Action::Give(from, to) | Action::Repeat(from, to) if from != to => {
                let giver = &mut state.nodes[from];
                let to = self.member(to, giver.epoch)?;
                if let Action::Give(..) = action {
                    if state.gives == self.gives || giver.ledger.balance() < PART {
                        return None;
                    }
                    state.gives += 1;
                    giver.ledger.give(to, PART);
                    if self.fault != Fault::SendsBeforeItIsKept {
                        giver.kept = giver.ledger.clone();
                    }
                }
                let row = giver.ledger.sent(to).free;
                let letter = Letter { from: giver.me, to, epoch: giver.epoch, said: Said::Row(row) };
                state.network.extend((row > 0).then_some(letter));
            }
            Action::TellBase(node) if node != HEIR && state.nodes[node].epoch > 0 => {
                let teller = &state.nodes[node];
                let said = Said::Base(teller.ledger.base());
                state.network.insert(Letter { from: teller.me, to: account(HEIR, 1), epoch: teller.epoch, said });
            }
            Action::Mint => {
                let heir = &mut state.nodes[HEIR];
                let (base, roster) = (heir.ledger.base(), self.roster(heir.epoch));
                let due = heir.inheritance.due(LIMIT, base, Duration::ZERO, &roster, heir.me, Nanos(0));
                heir.ledger.add(due);
                heir.kept = heir.ledger.clone();
            }
            Action::Deliver(letter) => {
                let node = state.nodes.iter_mut().find(|node| node.me == letter.to)?;
                self.deliver(letter, node);
            }
            Action::Keep(node) => state.nodes[node].kept = state.nodes[node].ledger.clone(),
            Action::Crash(node) if state.crashes < CRASHES && state.nodes[node].kept != state.nodes[node].ledger => {
                state.crashes += 1;
                let node = &mut state.nodes[node];
                (node.ledger, node.inheritance) = (node.kept.clone(), inheritance());
            }
            _ => return None,
        }
        // What would not be looked at any more need not be kept: there are fewer states to tell apart.
        let believes_all = self.fault == Fault::BelievesBasesOfEarlierEpochs;
        let State { network, nodes, .. } = &mut state;
        network.retain(|letter| {
            let receiver = nodes.iter().find(|node| node.me == letter.to);
            receiver.is_some_and(|node| {
                let is_base = matches!(letter.said, Said::Base(_));
                letter.epoch >= node.epoch || believes_all && is_base
            })
        });
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(HELD_ONCE, |cluster: &Self, state| cluster.held(state) <= FULL),
            Property::always("nobody owes anything", |_, state: &State| {
                state.nodes.iter().all(|node| node.ledger.balance() >= 0)
            }),
            Property::always("in the end every share is somebody's", |cluster: &Self, state: &State| {
                state.gives < cluster.gives || cluster.held(&cluster.at_rest(state)) == FULL
            }),
            Property::sometimes("a share arrives in the last epoch", |cluster: &Self, state: &State| {
                state.nodes.iter().all(|node| node.epoch == cluster.epochs || node.me == account(LAST, 2))
                    && cluster.held(state) == FULL
                    && state.nodes.iter().any(|node| node.me.node != account(HEIR, 1).node && node.ledger.balance() > 0)
            }),
        ]
    }
}

fn check(gives: u8, epochs: u64) {
    let checker = Cluster { fault: Fault::Nothing, gives, epochs }.checker().threads(2).spawn_bfs().join();
    assert!(checker.is_done());
    checker.assert_no_discovery(HELD_ONCE);
    checker.assert_no_discovery("nobody owes anything");
    checker.assert_no_discovery("in the end every share is somebody's");
    checker.assert_any_discovery("a share arrives in the last epoch");
}

#[test]
fn whatever_comes_in_whatever_order_no_share_is_held_by_two_and_none_is_lost() {
    check(2, 1);
    check(2, 2);
}

#[test]
fn nor_when_a_node_is_left_out_and_comes_back() {
    check(1, 3);
}

/// Whether the checker finds two that hold the same share.
fn finds(fault: Fault) -> bool {
    let found = HasDiscoveries::AnyOf([HELD_ONCE].into());
    let checker = Cluster { fault, gives: 2, epochs: 3 }.checker().threads(2).finish_when(found).spawn_bfs().join();
    checker.discovery(HELD_ONCE).is_some()
}

#[test]
fn a_row_that_is_credited_and_not_remembered_is_found() {
    assert!(finds(Fault::CreditsWithoutRemembering));
}

#[test]
fn a_row_that_is_sent_before_its_debit_is_kept_is_found() {
    assert!(finds(Fault::SendsBeforeItIsKept));
}

#[test]
fn a_base_of_an_earlier_epoch_that_is_believed_is_found() {
    assert!(finds(Fault::BelievesBasesOfEarlierEpochs));
}

#[test]
fn a_node_that_was_left_out_and_comes_back_as_the_same_is_found() {
    assert!(finds(Fault::ComesBackAsTheSame));
}
