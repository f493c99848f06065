//! What the nodes of `escrow::tests` do not come to.

use super::super::account::tests::account;
use super::super::roster::Ballot;
use super::*;

const LEASE: Duration = Duration::from_secs(4);

fn book(id: &str, roster: Option<Roster>, is_new: bool) -> Book {
    let settings = BookSettings { policy: Policy::Reclaim, lease: LEASE, is_new, salt: 0 };
    let record = BookRecord { me: account(id), roster, acceptor: Acceptor::default() };
    let mut book = Book::open(&settings, record, at(0));
    book.expect(3);
    book
}

fn at(seconds: u64) -> Nanos {
    Nanos(0).after(Duration::from_secs(seconds))
}

fn roster(epoch: u64, ids: &[&str]) -> Roster {
    let members = ids.iter().map(|id| account(id)).collect();
    let gone = ["a", "b", "c"].into_iter().filter(|id| !ids.contains(id)).map(account).collect();
    Roster { chain: 5, epoch, members, heir: account(ids[0]), expected: 3, gone }
}

fn ballot(round: u64) -> Ballot {
    Ballot { round, by: account("a") }
}

fn say(book: &mut Book, from: &str, epoch: u64, item: Item, now: Nanos) -> Vec<Item> {
    let mut out = Vec::new();
    let chain = if epoch == 0 { 0 } else { 5 };
    book.heard((account(from), chain, epoch), item, &|_| (Vec::new(), true), now, &mut out);
    out.into_iter().map(|(_, item)| item).collect()
}

fn lapsed() -> Item {
    Item::Beat { sent_at: 3, holds_lease: false, may_vote: true, is_new: true }
}

fn beat() -> Item {
    Item::Beat { sent_at: 3, holds_lease: true, may_vote: true, is_new: true }
}

#[test]
fn nobody_is_left_out_while_it_may_count_on_us() {
    let mut book = book("b", Some(roster(1, &["a", "b", "c"])), false);
    assert_eq!(say(&mut book, "c", 1, beat(), at(2)), [Item::Grant { sent_at: 3 }]);
    let without_c = Item::Accept(ballot(1), roster(2, &["a", "b"]));
    assert_eq!(say(&mut book, "a", 1, without_c.clone(), at(6)), [], "the grant of second 2 still holds");
    assert_eq!(say(&mut book, "c", 1, lapsed(), at(6)), [], "and there is no other one");
    assert_eq!(say(&mut book, "a", 1, without_c, at(7)), [Item::Accepted(ballot(1))]);
}

#[test]
fn who_accepted_what_follows_grants_nothing_any_more() {
    let mut book = book("b", Some(roster(1, &["a", "b", "c"])), false);
    let with_d = Item::Accept(ballot(1), roster(2, &["a", "b", "c", "d"]));
    assert_eq!(say(&mut book, "a", 1, with_d, at(1)), [Item::Accepted(ballot(1))]);
    assert_eq!(say(&mut book, "c", 1, beat(), at(1)), []);
    say(&mut book, "a", 1, Item::Decided(roster(2, &["a", "b", "c", "d"])), at(1));
    assert_eq!(say(&mut book, "c", 2, beat(), at(1)), [Item::Grant { sent_at: 3 }]);
}

#[test]
fn who_has_accepted_something_proposes_that() {
    let mut book = book("b", Some(roster(1, &["a", "b", "c"])), false);
    let with_d = roster(2, &["a", "b", "c", "d"]);
    say(&mut book, "a", 1, Item::Accept(ballot(1), with_d.clone()), at(1));
    // All grants have run out by then.
    assert_eq!(book.wanted(at(9)).map(|(next, _)| next), Some(with_d));
}

#[test]
fn a_restart_counts_as_a_grant_to_everybody() {
    let mut book = book("b", Some(roster(1, &["a", "b", "c"])), false);
    let without_c = Item::Accept(ballot(1), roster(2, &["a", "b"]));
    assert_eq!(say(&mut book, "a", 1, without_c.clone(), at(4)), []);
    assert_eq!(say(&mut book, "a", 1, without_c, at(5)), [Item::Accepted(ballot(1))]);
}

#[test]
fn who_is_behind_hears_the_roster_and_who_is_elsewhere_nothing() {
    let mut book = book("b", Some(roster(3, &["a", "b", "c"])), false);
    assert!(matches!(&say(&mut book, "c", 2, beat(), at(1))[..], [Item::Decided(told)] if told.epoch == 3));
    assert_eq!(say(&mut book, "c", 4, beat(), at(1)), []);
    assert_eq!(say(&mut book, "x", 3, beat(), at(1)), [], "no member");
}

#[test]
fn a_node_that_may_have_forgotten_votes_in_no_first_decision() {
    let first = |id: &str| Roster { epoch: 1, ..roster(1, &["a", id]) };
    let mut forgetful = book("b", None, false);
    assert_eq!(say(&mut forgetful, "a", 0, Item::Prepare(ballot(1), Vec::new()), at(4)), []);
    assert_eq!(
        say(&mut forgetful, "a", 0, Item::Prepare(ballot(1), Vec::new()), at(5)),
        [Item::Promise(ballot(1), None)]
    );
    let mut new = book("b", None, true);
    assert_eq!(say(&mut new, "a", 0, Item::Accept(ballot(1), first("b")), at(0)), [Item::Accepted(ballot(1))]);
}

#[test]
fn who_is_left_out_is_somebody_else_afterwards() {
    let mut book = book("c", Some(roster(1, &["a", "b", "c"])), false);
    say(&mut book, "a", 1, Item::Decided(roster(2, &["a", "b"])), at(9));
    assert!(book.changes().has_lost_all);
    assert_eq!((book.chain(), book.spends_until()), (0, None));
    assert_ne!(book.me(), account("c"));
}

#[test]
fn a_roster_that_cannot_be_is_not_entered() {
    let mut book = book("b", Some(roster(1, &["a", "b"])), false);
    for wrong in [
        Roster { heir: account("x"), ..roster(2, &["a", "b"]) },
        Roster { chain: 6, ..roster(2, &["a", "b"]) },
        roster(1, &["b"]),
        // Of three that there should be, one is no quorum.
        roster(2, &["b"]),
    ] {
        say(&mut book, "a", 1, Item::Decided(wrong), at(1));
        assert_eq!(book.roster(), Some(&roster(1, &["a", "b"])));
    }
}

#[test]
fn nothing_is_promised_to_who_would_leave_out_somebody_that_we_hear() {
    let mut book = book("b", Some(roster(1, &["a", "b", "c"])), false);
    say(&mut book, "c", 1, beat(), at(4));
    let without_c = || Item::Prepare(ballot(1), vec![account("c")]);
    assert_eq!(say(&mut book, "a", 1, without_c(), at(5)), []);
    assert_eq!(say(&mut book, "c", 1, beat(), at(5)), [Item::Grant { sent_at: 3 }], "it has a lease");
    assert_eq!(say(&mut book, "c", 1, lapsed(), at(6)), [], "and gets none any more once it has lapsed");
    assert_eq!(say(&mut book, "a", 1, without_c(), at(10)), [Item::Promise(ballot(1), None)]);
    assert_eq!(say(&mut book, "c", 1, lapsed(), at(20)), [Item::Grant { sent_at: 3 }], "unless nobody wants that now");
}

#[test]
fn who_is_gone_never_comes_back_as_the_same() {
    let mut book = book("b", Some(roster(2, &["a", "b"])), false);
    let answer = say(&mut book, "c", 0, beat(), at(1));
    assert!(matches!(&answer[..], [Item::Decided(told)] if told.gone == [account("c")]), "it learns that: {answer:?}");
    let mut out = Vec::new();
    for second in 1..4 {
        book.step(&[], at(second), &mut out);
    }
    assert!(!out.iter().any(|(_, item)| matches!(item, Item::Prepare(..))), "{out:?}");
    let back = Roster { gone: Vec::new(), ..roster(3, &["a", "b", "c"]) };
    assert_eq!(say(&mut book, "a", 2, Item::Accept(ballot(1), back), at(9)), []);
}

#[test]
fn what_was_decided_for_accounts_that_are_no_more_is_not_decided_for_ever() {
    let mut book = book("b", None, true);
    let others = roster(1, &["a", "c"]);
    assert_eq!(say(&mut book, "x", 0, Item::Accept(ballot(1), others.clone()), at(1)), [Item::Accepted(ballot(1))]);
    say(&mut book, "x", 0, Item::Decided(others), at(1));
    assert!(book.changes().has_lost_all);
    assert_eq!(say(&mut book, "x", 0, Item::Prepare(ballot(2), Vec::new()), at(5)), [], "as one that has forgotten");
    assert_eq!(say(&mut book, "x", 0, Item::Prepare(ballot(2), Vec::new()), at(6)), [Item::Promise(ballot(2), None)]);
}

#[test]
fn a_grant_to_a_former_process_is_none_to_this_one() {
    let mut book = book("b", Some(roster(1, &["a", "b", "c"])), false);
    book.salt = 1 << 60;
    for id in ["a", "c"] {
        say(&mut book, id, 1, Item::Grant { sent_at: at(1).0 }, at(2));
    }
    book.step(&[], at(2), &mut Vec::new());
    assert_eq!(book.spends_until(), None);
}

/// Whoever has the key may still be broken.
#[test]
fn rounds_and_epochs_that_leave_no_room_for_another_are_not_taken() {
    let mut book = book("b", Some(roster(1, &["a", "b", "c"])), false);
    let highest = Ballot { round: u64::MAX, by: account("a") };
    assert_eq!(say(&mut book, "a", 1, Item::Prepare(highest, Vec::new()), at(1)), []);
    assert_eq!(say(&mut book, "a", 1, Item::Accept(highest, roster(2, &["a", "b"])), at(1)), []);
    assert_eq!(say(&mut book, "a", 1, Item::Decided(roster(u64::MAX, &["a", "b"])), at(1)), []);
    assert_eq!(book.epoch(), 1);
    assert_eq!(say(&mut book, "a", 1, Item::Prepare(ballot(1), Vec::new()), at(1)), [Item::Promise(ballot(1), None)]);
}
