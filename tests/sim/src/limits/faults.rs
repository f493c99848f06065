//! What a scenario's faults do to a world.

use super::scenario::{Kind, MILLISECOND_NS};
use super::world::{Event, World};
use crate::seeds::say;
use rand::RngExt;

/// A node that leaves takes no requests for this long before it gives away what is spent.
const DRAINS_NS: u64 = 1_500 * MILLISECOND_NS;
/// And repeats that for this long.
const HANDS_OVER_NS: u64 = 2_500 * MILLISECOND_NS;
/// All nodes know a new amount within this, unless they do not run.
const TOLD_WITHIN_NS: u64 = 5_000 * MILLISECOND_NS;

impl World<'_> {
    /// A fault begins or ends.
    pub(super) fn obey(&mut self, place: usize, begins: bool) {
        let fault = self.scenario.faults[place].clone();
        if self.is_traced {
            let what = if begins { "begins" } else { "ends" };
            say(&format!("{:>9.3} s  {what} {:?}", self.now_ns as f64 / 1e9, fault.kind));
        }
        match fault.kind {
            Kind::Loss(part) => self.links.lose(part, begins),
            Kind::Delay { slowest_ns } => self.links.delay(slowest_ns, begins),
            Kind::Partition { first } => self.links.part(first, begins),
            Kind::OneWay { from, to } => self.links.cut(from, to, begins),
            Kind::Flapping { .. } if begins => self.flap(place, true),
            Kind::Pause { node } => self.pause(node, begins),
            Kind::Kill { node, keeps_its_state } => self.kill_or_start(node, keeps_its_state, begins),
            Kind::KillAll { keep_their_state } => {
                for node in 0..self.machines.len() {
                    self.kill_or_start(node, keep_their_state, begins);
                }
            }
            Kind::Leave { node } if begins => self.leave(node),
            Kind::Join if begins => self.join(),
            Kind::Amount(amount) if begins => self.announce(amount, fault.lasts_ns.min(TOLD_WITHIN_NS)),
            Kind::SlowDisk { node, write_ns } => self.machines[node].slow_write_ns = begins.then_some(write_ns),
            Kind::Flapping { .. } | Kind::Leave { .. } | Kind::Join | Kind::Amount(_) => {}
        }
    }

    /// Cut, healed, and so on until the fault is over.
    pub(super) fn flap(&mut self, place: usize, is_cut: bool) {
        let fault = &self.scenario.faults[place];
        let Kind::Flapping { first, period_ns } = fault.kind else { return };
        let is_over = self.now_ns + period_ns >= fault.begins_ns + fault.lasts_ns;
        if is_cut && is_over {
            return;
        }
        self.links.part(first, is_cut);
        self.after(period_ns, Event::Flap { place, is_cut: !is_cut });
    }

    fn kill_or_start(&mut self, node: usize, keeps_its_state: bool, is_killed: bool) {
        let machine = &mut self.machines[node];
        if !is_killed {
            if machine.process.is_none() && !machine.has_left && machine.life > 0 {
                self.start(node, false);
            }
            return;
        }
        if machine.process.is_none() {
            return;
        }
        machine.has_left |= machine.is_leaving;
        self.kill(node);
        self.progress.has_forgotten |= !keeps_its_state || self.machines[node].has_left;
        if !keeps_its_state {
            self.machines[node].disk = None;
        }
    }

    /// One more, that all are told of first.
    fn join(&mut self) {
        self.expected += 1;
        for process in self.machines.iter_mut().filter_map(|machine| machine.process.as_mut()) {
            process.escrow.expect(self.expected);
        }
        let node = self.add_node();
        self.start(node, false);
    }

    fn leave(&mut self, node: usize) {
        // The last one has nobody to give to.
        if self.machines[node].is_leaving || self.machines[node].is_paused || self.serving() < 2 {
            return;
        }
        let machine = &mut self.machines[node];
        let Some(process) = &mut machine.process else { return };
        process.escrow.leave();
        machine.is_leaving = true;
        self.progress.has_left = true;
        let life = machine.life;
        let runs_ns = u64::try_from(self.scenario.hold_max().as_nanos()).unwrap_or(0);
        self.choose_serving();
        self.after(runs_ns + DRAINS_NS, Event::End { node, life });
    }

    /// No request runs there any more.
    pub(super) fn end(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        let life = machine.life;
        match &mut machine.process {
            Some(process) if machine.is_paused || process.is_busy() => {
                self.after(500 * MILLISECOND_NS, Event::End { node, life });
            }
            Some(process) => {
                process.escrow.end();
                self.after(HANDS_OVER_NS, Event::Leave { node, life });
            }
            None => {}
        }
    }

    /// The process ends.
    pub(super) fn left(&mut self, node: usize) {
        self.machines[node].has_left = true;
        self.kill(node);
    }

    /// The first limit has another amount. Processes that begin from now on know it.
    fn announce(&mut self, amount: u64, within_ns: u64) {
        self.amount = amount;
        self.central.set_amount(0, amount);
        for node in 0..self.machines.len() {
            let delay_ns = self.random.random_range(0..=within_ns);
            self.after(delay_ns, Event::Configure { node });
        }
    }

    /// A node hears of the amount.
    pub(super) fn configure(&mut self, node: usize) {
        let now = self.machines[node].now(self.now_ns);
        let machine = &mut self.machines[node];
        if machine.process.is_none() {
            return;
        }
        machine.amounts[0] = self.amount;
        machine.configure(self.scenario, now);
        self.note_amounts();
        self.after_change(node);
    }
}
