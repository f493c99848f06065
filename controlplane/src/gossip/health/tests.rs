//! What silence, lateness and loss make of a node's health.

use super::*;
use proptest::prelude::*;

const ROUND: Duration = Duration::from_millis(200);
const SECOND: Duration = Duration::from_secs(1);

/// A machine with the default settings, looked at in rounds; the time is its own.
struct Rig {
    machine: HealthMachine,
    now: Nanos,
    pulses: BTreeMap<String, u64>,
}

impl Rig {
    fn new() -> Self {
        let machine = HealthMachine::new(Thresholds::new(&Gossip::default()));
        Self { machine, now: Nanos(1), pulses: BTreeMap::new() }
    }

    /// With these nodes, healthy.
    fn with(ids: &[&str]) -> Self {
        let mut rig = Self::new();
        rig.run(2 * SECOND, ids, ids);
        for id in ids {
            assert_eq!(rig.health(id), Some(Health::Healthy));
        }
        rig
    }

    /// One round after `pause`: `known` are in the digest, `heard` have new heartbeats.
    fn round(&mut self, pause: Duration, known: &[&str], heard: &[&str]) {
        self.now = self.now.after(pause);
        for id in heard {
            *self.pulses.entry((*id).to_owned()).or_default() += 1;
        }
        let sights = known.iter().map(|id| Sight {
            id,
            generation: 1,
            pulse: self.pulses.get(*id).copied().unwrap_or_default(),
            heard_directly_at: None,
            is_leaving: false,
        });
        self.machine.look(sights, self.now);
    }

    fn run(&mut self, length: Duration, known: &[&str], heard: &[&str]) {
        for _ in 0..(length.as_millis() / ROUND.as_millis()) {
            self.round(ROUND, known, heard);
        }
    }

    fn health(&self, id: &str) -> Option<Health> {
        self.machine.nodes().find(|(known, _)| *known == id).map(|(_, standing)| standing.health)
    }

    /// Rounds until `id` has that health, as time.
    fn time_until(&mut self, health: Health, id: &str, known: &[&str], heard: &[&str]) -> Duration {
        let start = self.now;
        for _ in 0..1_000 {
            if self.health(id) == Some(health) {
                return self.now.since(start);
            }
            self.round(ROUND, known, heard);
        }
        panic!("{id} never became {}", health.name());
    }
}

const THREE: &[&str] = &["a", "b", "c"];
const TWO: &[&str] = &["a", "b"];

#[test]
fn a_silent_node_is_suspect_within_two_seconds_and_dead_after_the_timeout() {
    let mut rig = Rig::with(THREE);
    let suspect = rig.time_until(Health::Suspect, "c", THREE, TWO);
    assert!(suspect > SECOND && suspect < Duration::from_millis(1_600), "{suspect:?}");
    let dead = suspect + rig.time_until(Health::Dead, "c", THREE, TWO);
    assert!(dead >= 10 * SECOND && dead < 11 * SECOND, "{dead:?}");
    assert_eq!(rig.health("a"), Some(Health::Healthy));
    assert!(!rig.machine.doubts_itself());
}

#[test]
fn a_node_is_healthy_after_three_good_ticks() {
    let mut rig = Rig::new();
    let time = rig.time_until(Health::Healthy, "a", &["a"], &["a"]);
    // The first sight is no heartbeat, so that it may take part of a tick longer.
    assert!(time >= Duration::from_millis(1_200) && time <= Duration::from_millis(1_800), "{time:?}");
}

#[test]
fn a_dead_node_comes_back_by_the_same_good_ticks() {
    let mut rig = Rig::with(THREE);
    rig.time_until(Health::Dead, "c", THREE, TWO);
    rig.run(2 * ROUND, THREE, THREE);
    assert_eq!(rig.health("c"), Some(Health::Suspect));
    rig.run(SECOND, THREE, THREE);
    assert_eq!(rig.health("c"), Some(Health::Healthy));
}

#[test]
fn what_only_old_digests_tell_of_is_never_healthy() {
    let mut rig = Rig::with(TWO);
    rig.run(9 * SECOND, THREE, TWO);
    assert_eq!(rig.health("c"), Some(Health::Suspect));
    rig.run(2 * SECOND, THREE, TWO);
    assert_eq!(rig.health("c"), Some(Health::Dead));
    assert!(!rig.machine.doubts_itself(), "it was never with us");
}

#[test]
fn our_own_pause_kills_nobody_and_makes_us_doubt_ourselves() {
    let mut rig = Rig::with(THREE);
    rig.round(60 * SECOND, THREE, &[]);
    assert!(rig.machine.doubts_itself());
    for id in THREE {
        assert_eq!(rig.health(id), Some(Health::Healthy));
    }
    rig.run(2 * SECOND, THREE, THREE);
    assert!(!rig.machine.doubts_itself());
}

#[test]
fn when_most_vanish_at_once_they_get_twice_the_time() {
    let mut rig = Rig::with(THREE);
    rig.run(2 * SECOND, THREE, &["a"]);
    assert!(rig.machine.doubts_itself());
    rig.run(12 * SECOND, THREE, &["a"]);
    assert_eq!(rig.health("b"), Some(Health::Suspect));
    rig.run(8 * SECOND, THREE, &["a"]);
    assert_eq!(rig.health("b"), Some(Health::Dead));
    rig.run(SECOND, THREE, &["a"]);
    assert!(!rig.machine.doubts_itself(), "what has been dead for long is no news");
}

#[test]
fn one_death_of_two_or_two_of_four_is_no_reason_to_doubt() {
    for (all, heard) in [(&["a", "b"][..], &["a"][..]), (&["a", "b", "c", "d"], &["a", "b"])] {
        let mut rig = Rig::with(all);
        rig.run(5 * SECOND, all, heard);
        assert!(!rig.machine.doubts_itself());
    }
}

#[test]
fn a_node_that_said_goodbye_departs_and_does_not_die() {
    let mut rig = Rig::with(TWO);
    let mut leave = |pulse| {
        rig.now = rig.now.after(ROUND);
        let sights = [("a", false, rig.now.0), ("b", true, pulse)];
        let sights = sights.map(|(id, is_leaving, pulse)| Sight {
            id,
            generation: 1,
            pulse,
            heard_directly_at: None,
            is_leaving,
        });
        rig.machine.look(sights, rig.now);
        rig.machine.nodes().find(|(id, _)| *id == "b").map(|(_, standing)| standing.health)
    };
    for pulse in 1_000..1_010 {
        assert_eq!(leave(pulse), Some(Health::Leaving));
    }
    let seen: Vec<_> = (0..100).map(|_| leave(1_009)).collect();
    assert!(!seen.contains(&Some(Health::Dead)));
    assert_eq!(seen.iter().flatten().count(), 5, "{seen:?}");
}

#[test]
fn a_restart_begins_anew_and_the_old_generation_no_longer_counts() {
    let mut rig = Rig::with(&["a"]);
    let mut look = |generations: &[u64]| {
        rig.now = rig.now.after(ROUND);
        let pulse = rig.now.0;
        let sights = generations.iter().map(|&generation| Sight {
            id: "a",
            generation,
            pulse,
            heard_directly_at: None,
            is_leaving: false,
        });
        rig.machine.look(sights, rig.now);
        rig.machine.nodes().map(|(_, standing)| (standing.generation, standing.health)).collect::<Vec<_>>()
    };
    assert_eq!(look(&[1, 2]), [(2, Health::Suspect)]);
    let after: Vec<_> = (0..10).map(|_| look(&[2, 1])).collect();
    assert_eq!(after.last().unwrap(), &[(2, Health::Healthy)]);
    assert_eq!(look(&[]), []);
}

#[test]
fn an_answered_probe_is_a_sign_of_life_and_a_forgotten_one_is_no_sign_of_death() {
    let mut rig = Rig::new();
    for round in 0..50 {
        rig.now = rig.now.after(ROUND);
        let heard_directly_at = (round % 2 == 0).then_some(rig.now);
        rig.machine.look([Sight { id: "a", generation: 1, pulse: 1, heard_directly_at, is_leaving: false }], rig.now);
    }
    assert_eq!(rig.health("a"), Some(Health::Healthy));
}

#[test]
fn no_more_nodes_are_watched_than_a_cluster_may_have() {
    let ids: Vec<String> = (0..MEMBERS_MAX + 10).map(|number| number.to_string()).collect();
    let mut machine = HealthMachine::new(Thresholds::new(&Gossip::default()));
    let sight = |id| Sight { id, generation: 1, pulse: 1, heard_directly_at: None, is_leaving: false };
    machine.look(ids.iter().map(|id| sight(id)), Nanos(1));
    assert_eq!(machine.nodes().count(), MEMBERS_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Five minutes in which each round brings news of a node with four chances in ten only; with
    /// 20 % loss both ways it is more than that.
    #[test]
    fn loss_alone_kills_nobody(heard in proptest::collection::vec(prop::array::uniform2(0_u8..10), 1_500)) {
        let mut rig = Rig::with(TWO);
        for chances in heard {
            let heard: Vec<_> = TWO.iter().zip(chances).filter(|(_, chance)| *chance < 4).map(|(id, _)| *id).collect();
            rig.round(ROUND, TWO, &heard);
            for id in TWO {
                prop_assert_ne!(rig.health(id), Some(Health::Dead));
            }
        }
    }

    /// Whatever the rhythm of our own rounds: nobody is dead who was heard within the timeout, and
    /// nobody is healthy who was not heard for that long in rounds that were on time.
    #[test]
    fn the_dead_were_silent_and_the_silent_are_not_healthy(
        rounds in proptest::collection::vec((1_u64..5_000, any::<bool>()), 1..400),
    ) {
        let mut rig = Rig::with(TWO);
        let mut heard_at = rig.now;
        for (millis, is_heard) in rounds {
            rig.round(Duration::from_millis(millis), TWO, if is_heard { TWO } else { &["a"] });
            if is_heard {
                heard_at = rig.now;
            }
            if rig.now.since(heard_at) < 10 * SECOND {
                prop_assert_ne!(rig.health("b"), Some(Health::Dead));
            }
        }
        rig.run(4 * SECOND, TWO, &["a"]);
        prop_assert_ne!(rig.health("b"), Some(Health::Healthy));
        rig.run(20 * SECOND, TWO, &["a"]);
        prop_assert_eq!(rig.health("b"), Some(Health::Dead));
    }
}
