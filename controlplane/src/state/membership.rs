//! What changes from one view of the cluster to the next one, as sentences; and whether the
//! cluster is healthy. Pure.

use super::Note;
use crate::member::{Health, Member, View};
use shared::clock::Nanos;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Joining is said to be over when this has passed and somebody is there.
const JOIN_SETTLES_AFTER: Duration = Duration::from_secs(3);
/// Joining is said to have failed when this has passed and nobody is there.
const JOIN_FAILS_AFTER: Duration = Duration::from_secs(10);

/// Something happened in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The first members are there.
    JoinedOnStartup {
        /// How many are healthy.
        peers: usize,
    },
    /// Nobody is there yet.
    NotJoined {
        /// Addresses that are tried.
        tried: usize,
    },
    /// A node is healthy for the first time since its start.
    Joined(NodeName),
    /// A node is silent.
    Suspect(NodeName),
    /// A node has been silent for `timeout_seconds`.
    Dead(NodeName),
    /// A suspect or dead node is healthy again.
    Recovered(NodeName),
    /// A node says that it is finishing.
    Leaving(NodeName),
    /// It is gone, as it had said.
    Left(NodeName),
    /// The cluster became healthy, or stopped to be.
    ClusterHealth {
        /// More than half of its members are healthy, and this node does not doubt itself.
        is_healthy: bool,
        /// This node included.
        members: u32,
        /// This node included.
        healthy_members: u32,
        /// It may be this node that is cut off.
        doubts_itself: bool,
    },
}

/// Which node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName {
    /// Its id.
    pub id: String,
    /// Where its gossip is.
    pub address: SocketAddr,
}

/// What was said so far.
#[derive(Default)]
pub(super) struct Membership {
    begun_at: Option<Nanos>,
    join: Join,
    is_healthy: Option<bool>,
    /// Nodes that were healthy, with their generation then.
    proven: BTreeMap<String, u64>,
}

#[derive(Default, PartialEq, Eq)]
enum Join {
    #[default]
    Trying,
    Failed,
    Done,
}

impl Membership {
    /// Compares two views. `tried` are the addresses that discovery sees.
    pub(super) fn compare(&mut self, before: &View, after: &View, tried: usize, now: Nanos) -> Vec<Note> {
        let mut changes = Vec::new();
        self.compare_nodes(before, after, &mut changes);
        self.compare_cluster(after, tried, now, &mut changes);
        changes.into_iter().map(Note::Cluster).collect()
    }

    fn compare_nodes(&mut self, before: &View, after: &View, changes: &mut Vec<Change>) {
        let known: BTreeMap<&str, &Member> = before.members.iter().map(|member| (member.id.as_str(), member)).collect();
        for member in &after.members {
            let health_before = known.get(member.id.as_str()).map(|known| known.health);
            if health_before == Some(member.health) && member.health != Health::Healthy {
                continue;
            }
            let was_proven = self.proven.contains_key(&member.id);
            match member.health {
                Health::Healthy if self.proven.get(&member.id) != Some(&member.generation) => {
                    self.proven.insert(member.id.clone(), member.generation);
                    changes.push(Change::Joined(name(member)));
                }
                Health::Healthy if health_before != Some(Health::Healthy) => {
                    changes.push(Change::Recovered(name(member)));
                }
                // A node that was never healthy is not suspect, but new.
                Health::Suspect if health_before == Some(Health::Healthy) => {
                    changes.push(Change::Suspect(name(member)));
                }
                Health::Dead if was_proven => changes.push(Change::Dead(name(member))),
                Health::Healthy | Health::Suspect | Health::Dead => {}
                Health::Leaving => changes.push(Change::Leaving(name(member))),
            }
        }
        let is_gone = |id: &str| after.members.iter().all(|member| member.id != id);
        for member in before.members.iter().filter(|member| is_gone(&member.id)) {
            self.proven.remove(&member.id);
            if member.health == Health::Leaving {
                changes.push(Change::Left(name(member)));
            }
        }
    }

    fn compare_cluster(&mut self, after: &View, tried: usize, now: Nanos, changes: &mut Vec<Change>) {
        let begun_at = *self.begun_at.get_or_insert(now);
        let count = Count::of(after);
        let peers = count.healthy.saturating_sub(1) as usize;
        let is_settled = count.healthy == count.members || now.since(begun_at) >= JOIN_SETTLES_AFTER;
        if self.join != Join::Done && peers > 0 && is_settled {
            self.join = Join::Done;
            changes.push(Change::JoinedOnStartup { peers });
        }
        if self.join == Join::Trying && now.since(begun_at) >= JOIN_FAILS_AFTER {
            self.join = Join::Failed;
            changes.push(Change::NotJoined { tried });
        }
        // While a node joins, the others are all new to it, and that is no news.
        if self.join != Join::Trying && self.is_healthy != Some(count.is_healthy) {
            self.is_healthy = Some(count.is_healthy);
            changes.push(Change::ClusterHealth {
                is_healthy: count.is_healthy,
                members: count.members,
                healthy_members: count.healthy,
                doubts_itself: after.doubts_itself,
            });
        }
    }
}

/// Members, this node included; those that leave are not counted any more.
pub(super) struct Count {
    pub(super) members: u32,
    pub(super) healthy: u32,
    pub(super) is_healthy: bool,
}

impl Count {
    pub(super) fn of(view: &View) -> Self {
        let staying = view.members.iter().filter(|member| member.health != Health::Leaving);
        let (mut members, mut healthy) = (1, 1);
        for member in staying {
            members += 1;
            healthy += u32::from(member.health == Health::Healthy);
        }
        Self { members, healthy, is_healthy: healthy * 2 > members && !view.doubts_itself }
    }
}

fn name(member: &Member) -> NodeName {
    NodeName { id: member.id.clone(), address: member.address }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, health: Health, generation: u64) -> Member {
        Member {
            id: id.to_owned(),
            generation,
            address: ([10, 0, 0, 1], 10_101).into(),
            health,
            values: crate::gossip::values::NodeValues::default(),
            heard_at: Nanos(0),
            round_trip: None,
            clock_offset_ms: None,
            is_tcp_only: false,
            speaks_our_key: true,
        }
    }

    fn view(members: &[(&str, Health)]) -> View {
        View { members: members.iter().map(|(id, health)| member(id, *health, 1)).collect(), ..View::default() }
    }

    /// What is said of a sequence of views, one a second, in short.
    fn said(views: &[View]) -> Vec<String> {
        let mut membership = Membership::default();
        let mut said = Vec::new();
        let mut before = View::default();
        for (after, second) in views.iter().zip(0..) {
            for note in membership.compare(&before, after, 7, Nanos(second * 1_000_000_000)) {
                said.push(match note {
                    Note::Cluster(Change::JoinedOnStartup { peers }) => format!("{second} joined {peers}"),
                    Note::Cluster(Change::NotJoined { tried }) => format!("{second} not joined of {tried}"),
                    Note::Cluster(Change::Joined(node)) => format!("{second} +{}", node.id),
                    Note::Cluster(Change::Suspect(node)) => format!("{second} ?{}", node.id),
                    Note::Cluster(Change::Dead(node)) => format!("{second} dead {}", node.id),
                    Note::Cluster(Change::Recovered(node)) => format!("{second} back {}", node.id),
                    Note::Cluster(Change::Leaving(node)) => format!("{second} leaving {}", node.id),
                    Note::Cluster(Change::Left(node)) => format!("{second} left {}", node.id),
                    Note::Cluster(Change::ClusterHealth { is_healthy, members, healthy_members, .. }) => {
                        format!("{second} {is_healthy} {healthy_members}/{members}")
                    }
                    other => panic!("{other:?}"),
                });
            }
            before = after.clone();
        }
        said
    }

    use Health::{Dead, Healthy, Leaving, Suspect};

    #[test]
    fn joining_a_death_and_a_return() {
        let both = |b| view(&[("a", Healthy), ("b", b)]);
        let views = [
            view(&[]),
            view(&[("a", Suspect), ("b", Suspect)]),
            both(Healthy),
            both(Suspect),
            both(Dead),
            both(Suspect),
            both(Healthy),
        ];
        assert_eq!(said(&views), ["2 +a", "2 +b", "2 joined 2", "2 true 3/3", "3 ?b", "4 dead b", "6 back b"]);
    }

    #[test]
    fn most_of_the_others_gone_is_not_healthy() {
        let views = [
            view(&[("a", Healthy), ("b", Healthy)]),
            view(&[("a", Suspect), ("b", Healthy)]),
            view(&[("a", Suspect), ("b", Suspect)]),
            view(&[("a", Healthy), ("b", Suspect)]),
            View { doubts_itself: true, ..view(&[("a", Healthy), ("b", Healthy)]) },
        ];
        let health: Vec<_> = said(&views).into_iter().filter(|line| line.contains('/')).collect();
        assert_eq!(health, ["0 true 3/3", "2 false 1/3", "3 true 2/3", "4 false 3/3"]);
    }

    #[test]
    fn a_node_that_leaves_is_not_missed() {
        let b = |b| view(&[("a", Healthy), ("b", b)]);
        let views = [b(Healthy), b(Leaving), view(&[("a", Healthy)])];
        assert_eq!(said(&views), ["0 +a", "0 +b", "0 joined 2", "0 true 3/3", "1 leaving b", "2 left b"]);
    }

    #[test]
    fn alone_for_ten_seconds_is_said_and_a_late_success_too() {
        let mut views = vec![view(&[("a", Suspect)]); 12];
        views.push(view(&[("a", Healthy)]));
        assert_eq!(said(&views), ["10 not joined of 7", "10 false 1/2", "12 +a", "12 joined 1", "12 true 2/2"]);
    }

    #[test]
    fn a_restarted_node_joins_again() {
        let restarted = View { members: vec![member("a", Healthy, 2)], ..View::default() };
        let views = [view(&[("a", Healthy)]), view(&[("a", Suspect)]), restarted];
        assert_eq!(said(&views), ["0 +a", "0 joined 1", "0 true 2/2", "1 ?a", "1 false 1/2", "2 +a", "2 true 2/2"]);
    }
}
