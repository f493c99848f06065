//! Who waits, in which order: first come, first served within a party, and the parties by turns.
//! A party is a virtual key, or everybody without one.
//!
//! Whoever was served goes behind all other parties, so that none is passed over twice while
//! another is served twice. Who cannot be served yet keeps its place and holds up nobody here:
//! what may not be given to those behind it is for the one who offers to know.
//!
//! Bounded in all and for each party. Pure: absent are limits, time, and waking anybody.

use std::collections::VecDeque;

/// A place in the line. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// What became of an offer to the one in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// It got what it waits for and leaves; now it is the other parties' turn.
    Served,
    /// It leaves without.
    Leaves,
    /// It waits on.
    Stays,
}

/// See the module.
pub(super) struct Line<P, T> {
    /// The one that was served longest ago is first. None is empty.
    parties: VecDeque<Party<P, T>>,
    len: usize,
    len_max: usize,
    party_len_max: usize,
    next: u64,
}

struct Party<P, T> {
    name: P,
    /// Oldest first, so that tickets rise.
    places: VecDeque<(Ticket, T)>,
    /// Places that had their offer in this pass and stay.
    offered: usize,
}

impl<P: PartialEq, T> Line<P, T> {
    /// An empty line for so many in all, and so many of one party.
    pub(super) fn new(len_max: usize, party_len_max: usize) -> Self {
        Self { parties: VecDeque::new(), len: 0, len_max, party_len_max, next: 0 }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Places `waiting` behind the others of its party. `None` when there is no place for it.
    pub(super) fn join(&mut self, name: P, waiting: T) -> Option<Ticket> {
        if self.len >= self.len_max {
            return None;
        }
        let ticket = Ticket(self.next);
        if let Some(party) = self.parties.iter_mut().find(|party| party.name == name) {
            if party.places.len() >= self.party_len_max {
                return None;
            }
            party.places.push_back((ticket, waiting));
        } else {
            let places = VecDeque::from([(ticket, waiting)]);
            self.parties.push_back(Party { name, places, offered: 0 });
        }
        self.next += 1;
        self.len += 1;
        Some(ticket)
    }

    /// Frees a place; nothing happens when it is free already.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        for (at, party) in self.parties.iter_mut().enumerate() {
            let Ok(place) = party.places.binary_search_by_key(&ticket, |(ticket, _)| *ticket) else { continue };
            party.places.remove(place);
            self.len -= 1;
            if party.places.is_empty() {
                self.parties.remove(at);
            }
            return;
        }
    }

    /// Makes everybody one offer: each party's first ones until one is served, party by party,
    /// and so on round by round until a round serves nobody.
    pub(super) fn pass(&mut self, mut offer: impl FnMut(&T) -> Offered) {
        self.parties.iter_mut().for_each(|party| party.offered = 0);
        let mut served = VecDeque::new();
        loop {
            for _ in 0..self.parties.len() {
                let Some(mut party) = self.parties.pop_front() else { break };
                let before = party.places.len();
                let is_served = party.offer_until_served(&mut offer);
                self.len -= before - party.places.len();
                if !party.places.is_empty() {
                    let line = if is_served { &mut served } else { &mut self.parties };
                    line.push_back(party);
                }
            }
            if served.is_empty() {
                return;
            }
            self.parties.append(&mut served);
        }
    }
}

impl<P, T> Party<P, T> {
    fn offer_until_served(&mut self, offer: &mut impl FnMut(&T) -> Offered) -> bool {
        while let Some((_, waiting)) = self.places.get(self.offered) {
            match offer(waiting) {
                Offered::Stays => self.offered += 1,
                Offered::Leaves => drop(self.places.remove(self.offered)),
                Offered::Served => {
                    self.places.remove(self.offered);
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Offered::{Leaves, Served, Stays};

    fn line(waiting: &[&'static str]) -> Line<char, &'static str> {
        let mut line = Line::new(100, 100);
        for name in waiting {
            line.join(name.chars().next().unwrap(), *name).unwrap();
        }
        line
    }

    /// Serves up to `count`, in order.
    fn served(line: &mut Line<char, &'static str>, count: usize) -> Vec<&'static str> {
        let mut served = Vec::new();
        line.pass(|name| {
            if served.len() == count {
                return Stays;
            }
            served.push(*name);
            Served
        });
        served
    }

    #[test]
    fn one_party_is_served_in_the_order_of_coming() {
        let mut line = line(&["a1", "a2", "a3"]);
        assert_eq!(served(&mut line, 2), ["a1", "a2"]);
        line.join('a', "a4").unwrap();
        assert_eq!(served(&mut line, 9), ["a3", "a4"]);
        assert_eq!(line.len(), 0);
    }

    #[test]
    fn parties_are_served_by_turns_however_many_one_sends() {
        let mut line = line(&["a1", "a2", "a3", "a4", "b1", "b2", "c1"]);
        assert_eq!(served(&mut line, 9), ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
    }

    #[test]
    fn the_turn_goes_on_from_pass_to_pass() {
        let mut line = line(&["a1", "a2", "a3", "b1", "b2"]);
        let one_by_one: Vec<_> = (0..5).flat_map(|_| served(&mut line, 1)).collect();
        assert_eq!(one_by_one, ["a1", "b1", "a2", "b2", "a3"]);
    }

    #[test]
    fn who_is_served_something_else_takes_no_turn_away_from_the_others() {
        // `c` is always served, and one of the other two each time.
        let mut line = line(&["a1", "a2", "b1", "b2", "c1", "c2", "c3", "c4"]);
        let mut order = Vec::new();
        for _ in 0..4 {
            let (mut is_taken, mut is_c_taken) = (false, false);
            line.pass(|name| {
                let taken = if name.starts_with('c') { &mut is_c_taken } else { &mut is_taken };
                if std::mem::replace(taken, true) {
                    return Stays;
                }
                if !name.starts_with('c') {
                    order.push(*name);
                }
                Served
            });
        }
        assert_eq!(order, ["a1", "b1", "a2", "b2"]);
    }

    #[test]
    fn who_cannot_be_served_keeps_its_place_and_holds_nobody_up() {
        let mut line = line(&["a1", "a2", "b1"]);
        let mut offers = Vec::new();
        line.pass(|name| {
            offers.push(*name);
            if *name == "a1" { Stays } else { Served }
        });
        assert_eq!(offers, ["a1", "a2", "b1"], "one offer each");
        line.join('a', "a3").unwrap();
        assert_eq!(served(&mut line, 9), ["a1", "a3"]);
    }

    #[test]
    fn who_leaves_takes_no_turn() {
        let mut line = line(&["a1", "a2", "b1"]);
        let mut served = Vec::new();
        line.pass(|name| {
            if *name == "a1" {
                return Leaves;
            }
            served.push(*name);
            Served
        });
        assert_eq!(served, ["a2", "b1"]);
        assert_eq!(line.len(), 0);
    }

    #[test]
    fn who_leaves_the_line_frees_its_place_once() {
        let mut line = Line::new(3, 3);
        let tickets = ["a1", "a2", "b1"].map(|name| line.join(name.as_bytes()[0], name).unwrap());
        assert_eq!(line.join(b'c', "c1"), None);
        for _ in 0..2 {
            line.leave(tickets[0]);
            line.leave(tickets[2]);
            assert_eq!(line.len(), 1);
        }
        assert!(line.join(b'b', "b2").is_some() && line.join(b'c', "c1").is_some());
        let mut left = Vec::new();
        line.pass(|name| {
            left.push(*name);
            Leaves
        });
        assert_eq!(left, ["a2", "b2", "c1"]);
    }

    #[test]
    fn no_party_has_more_than_its_share() {
        let mut line = Line::new(5, 2);
        let joined = ["a", "a", "a", "b", "b", "b", "c", "d"].map(|name| line.join(name, ()).is_some());
        assert_eq!(joined, [true, true, false, true, true, false, true, false]);
        assert_eq!(line.len(), 5);
    }
}
