//! Who of the others is healthy, suspect, dead or gone. Pure: sights and the time come in.
//!
//! Silence counts only while this node itself looked: what passed while its own tick was late is
//! not held against anybody (Lifeguard's self-doubt, Dadgar et al. 2018). Absent: indirect probes,
//! since gossip brings everybody's heartbeat through others anyway.

use crate::member::Health;
use shared::clock::Nanos;
use shared::config::model::Gossip;
use std::collections::BTreeMap;
use std::time::Duration;

/// Rounds of gossip in one tick of health. In a single round of a lossy network a heartbeat may
/// well be missed; in two, with the answers and the ways through others, hardly ever.
const ROUNDS_PER_TICK: u32 = 2;
/// A round that comes later than this many intervals makes us doubt ourselves.
const LATE_INTERVALS: u32 = 5;
/// No round is late below this, whatever the interval.
const LATE_MIN: Duration = Duration::from_secs(1);
/// While we doubt ourselves, others have this many times the usual time.
const DOUBT_STRETCH: u32 = 2;
/// Other nodes that are kept track of.
const MEMBERS_MAX: usize = 1_024;

/// When silence means something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thresholds {
    interval: Duration,
    tick: Duration,
    suspect_after: Duration,
    dead_after: Duration,
    good_ticks: u32,
}

impl Thresholds {
    pub(crate) fn new(gossip: &Gossip) -> Self {
        let tick = gossip.interval * ROUNDS_PER_TICK;
        let dead_after = gossip.timeout;
        // A slow interval beside a short timeout must not let a node die before it is suspect.
        let suspect_after = (tick * u32::from(gossip.failure_threshold.get())).min(dead_after / 2);
        Self {
            interval: gossip.interval,
            tick,
            suspect_after,
            dead_after,
            good_ticks: u32::from(gossip.success_threshold.get()),
        }
    }

    fn late(&self) -> Duration {
        (self.interval * LATE_INTERVALS).max(LATE_MIN)
    }
}

/// What one round shows of one generation of one node.
#[derive(Clone, Debug)]
pub(crate) struct Sight<'a> {
    pub(crate) id: &'a str,
    pub(crate) generation: u64,
    /// Grows when anything new of the node arrives, directly or through others.
    pub(crate) pulse: u64,
    /// When a frame of its own came last: gossip, or the answer to a probe.
    pub(crate) heard_directly_at: Option<Nanos>,
    /// It said that it is finishing.
    pub(crate) is_leaving: bool,
}

/// A node as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) generation: u64,
    pub(crate) health: Health,
    pub(crate) heard_at: Nanos,
}

/// See the module.
pub(crate) struct HealthMachine {
    thresholds: Thresholds,
    nodes: BTreeMap<String, Watched>,
    looked_at: Option<Nanos>,
    /// Time in the current tick.
    tick_passed: Duration,
    /// Ticks until our own lateness is forgiven.
    late_ticks: u32,
    majority_vanished: bool,
}

struct Watched {
    standing: Standing,
    pulse: u64,
    heard_directly_at: Option<Nanos>,
    /// Time without anything new, as far as we looked.
    silence: Duration,
    heard_in_tick: bool,
    good_ticks: u32,
    /// Was healthy in this generation. What only old digests tell of never was.
    is_proven: bool,
    has_left: bool,
    /// Seen in the newest round.
    is_seen: bool,
}

impl HealthMachine {
    pub(crate) fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            nodes: BTreeMap::new(),
            looked_at: None,
            tick_passed: Duration::ZERO,
            late_ticks: 0,
            majority_vanished: false,
        }
    }

    /// One round. A node that is in no sight any more is forgotten.
    pub(crate) fn look<'a>(&mut self, sights: impl IntoIterator<Item = Sight<'a>>, now: Nanos) {
        let passed = self.looked_at.map_or(Duration::ZERO, |at| now.since(at));
        self.looked_at = Some(now);
        if passed > self.thresholds.late() {
            self.late_ticks = self.thresholds.good_ticks;
        }
        let passed = passed.min(self.thresholds.interval * ROUNDS_PER_TICK);
        self.nodes.values_mut().for_each(|node| {
            node.is_seen = false;
            node.silence = node.silence.saturating_add(passed);
        });
        for sight in sights {
            self.see(&sight, now);
        }
        self.nodes.retain(|_, node| node.is_seen);

        self.tick_passed = self.tick_passed.saturating_add(passed);
        let is_tick = self.tick_passed >= self.thresholds.tick;
        if is_tick {
            self.tick_passed = Duration::ZERO;
        }
        let stretch = if self.doubts_itself() { DOUBT_STRETCH } else { 1 };
        for node in self.nodes.values_mut() {
            node.judge(&self.thresholds, is_tick, stretch);
        }
        if is_tick {
            self.late_ticks = self.late_ticks.saturating_sub(1);
        }
        self.majority_vanished = self.has_majority_vanished();
    }

    fn see(&mut self, sight: &Sight<'_>, now: Nanos) {
        let has_room = self.nodes.len() < MEMBERS_MAX;
        match self.nodes.get_mut(sight.id) {
            Some(node) if sight.generation < node.standing.generation => {}
            Some(node) if sight.generation == node.standing.generation => {
                node.is_seen = true;
                node.has_left &= sight.is_leaving;
                if sight.is_leaving {
                    node.standing.health = Health::Leaving;
                }
                if sight.pulse > node.pulse || sight.heard_directly_at > node.heard_directly_at {
                    node.pulse = node.pulse.max(sight.pulse);
                    node.heard_directly_at = node.heard_directly_at.max(sight.heard_directly_at);
                    node.silence = Duration::ZERO;
                    node.heard_in_tick = true;
                    node.standing.heard_at = now;
                }
            }
            Some(node) => *node = Watched::new(sight, now),
            None if has_room => {
                self.nodes.insert(sight.id.to_owned(), Watched::new(sight, now));
            }
            None => {}
        }
    }

    /// All nodes that have not left, by id.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&str, Standing)> {
        self.nodes.iter().filter(|(_, node)| !node.has_left).map(|(id, node)| (id.as_str(), node.standing))
    }

    /// See [`crate::member::View::doubts_itself`].
    pub(crate) fn doubts_itself(&self) -> bool {
        self.late_ticks > 0 || self.majority_vanished
    }

    /// More than half of the others fell silent together: that may be our own network. One other
    /// node alone proves nothing, and what has been silent for long is not news.
    fn has_majority_vanished(&self) -> bool {
        let long = self.thresholds.dead_after * DOUBT_STRETCH;
        let recent = |node: &&Watched| node.is_proven && !node.is_leaving() && node.silence <= long;
        let others = self.nodes.values().filter(recent).count();
        let is_silent = |node: &&Watched| matches!(node.standing.health, Health::Suspect | Health::Dead);
        let silent = self.nodes.values().filter(recent).filter(is_silent).count();
        silent >= 2 && silent * 2 > others
    }
}

impl Watched {
    fn new(sight: &Sight<'_>, now: Nanos) -> Self {
        let health = if sight.is_leaving { Health::Leaving } else { Health::Suspect };
        Self {
            standing: Standing { generation: sight.generation, health, heard_at: now },
            pulse: sight.pulse,
            heard_directly_at: sight.heard_directly_at,
            silence: Duration::ZERO,
            heard_in_tick: false,
            good_ticks: 0,
            is_proven: false,
            // What we learn of only after it has gone was never with us.
            has_left: sight.is_leaving,
            is_seen: true,
        }
    }

    fn is_leaving(&self) -> bool {
        self.standing.health == Health::Leaving
    }

    fn judge(&mut self, thresholds: &Thresholds, is_tick: bool, stretch: u32) {
        if is_tick {
            self.good_ticks = if self.heard_in_tick { self.good_ticks.saturating_add(1) } else { 0 };
            self.heard_in_tick = false;
        }
        if self.is_leaving() {
            self.has_left |= self.silence >= thresholds.suspect_after;
            return;
        }
        if self.silence >= thresholds.dead_after * stretch {
            self.standing.health = Health::Dead;
        } else if self.silence >= thresholds.suspect_after && self.standing.health == Health::Healthy {
            self.standing.health = Health::Suspect;
        } else if self.good_ticks >= thresholds.good_ticks {
            self.standing.health = Health::Healthy;
            self.is_proven = true;
        } else if self.good_ticks > 0 && self.standing.health == Health::Dead {
            self.standing.health = Health::Suspect;
        }
        if self.silence >= thresholds.suspect_after {
            self.good_ticks = 0;
        }
    }
}

#[cfg(test)]
mod tests;
