//! The network between simulated nodes: which messages arrive, how often, and when. Pure.

use super::scenario::Wires;
use rand::RngExt;
use rand::rngs::StdRng;

/// See the module.
pub(crate) struct Links {
    wires: Wires,
    /// Faults that cut the way from one node to another.
    cuts: Vec<Vec<u32>>,
    /// Losses of the faults that last.
    losses: Vec<f64>,
    slowest_ns: Vec<u64>,
}

impl Links {
    pub(crate) fn new(wires: Wires) -> Self {
        Self { wires, cuts: Vec::new(), losses: Vec::new(), slowest_ns: Vec::new() }
    }

    /// One more node.
    pub(crate) fn add_node(&mut self) {
        let count = self.cuts.len() + 1;
        self.cuts.push(Vec::new());
        self.cuts.iter_mut().for_each(|row| row.resize(count, 0));
    }

    /// The way from one to the other is cut once more, or once less.
    pub(crate) fn cut(&mut self, from: usize, to: usize, is_cut: bool) {
        if let Some(cuts) = self.cuts.get_mut(from).and_then(|row| row.get_mut(to)) {
            *cuts = if is_cut { *cuts + 1 } else { cuts.saturating_sub(1) };
        }
    }

    /// Both ways between the first nodes and the others.
    pub(crate) fn part(&mut self, first: usize, is_cut: bool) {
        for from in 0..self.cuts.len() {
            for to in 0..self.cuts.len() {
                if (from < first) != (to < first) {
                    self.cut(from, to, is_cut);
                }
            }
        }
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.get(from).and_then(|row| row.get(to)).is_some_and(|cuts| *cuts > 0)
    }

    /// A loss begins or ends.
    pub(crate) fn lose(&mut self, part: f64, begins: bool) {
        change(&mut self.losses, part, begins);
    }

    /// A delay begins or ends.
    pub(crate) fn delay(&mut self, slowest_ns: u64, begins: bool) {
        change(&mut self.slowest_ns, slowest_ns, begins);
    }

    /// When the copies of a message arrive, counted from now.
    pub(crate) fn arrivals(&self, from: usize, to: usize, random: &mut StdRng) -> Vec<u64> {
        if self.is_cut(from, to) {
            return Vec::new();
        }
        let loss = self.losses.iter().copied().fold(self.wires.loss, f64::max);
        let (fastest_ns, usual_ns) = self.wires.delay_ns;
        let slowest_ns = self.slowest_ns.iter().copied().fold(usual_ns, u64::max);
        let copies = if random.random_bool(self.wires.duplication) { 2 } else { 1 };
        let arrives = (0..copies).filter_map(|_| {
            let is_lost = random.random_bool(loss);
            let delay_ns = random.random_range(fastest_ns..=slowest_ns);
            (!is_lost).then_some(delay_ns)
        });
        arrives.collect()
    }
}

fn change<T: PartialEq>(list: &mut Vec<T>, one: T, begins: bool) {
    if begins {
        list.push(one);
    } else if let Some(place) = list.iter().position(|other| *other == one) {
        list.remove(place);
    }
}
