//! `/cluster/status` of the admin listener: the node, and what it believes of every other one.
//! Values only. The data port shows four of these fields and whether the node is ready.
//!
//! Times are durations up to the moment of the answer, so that nobody has to compare clocks.
//! Fields may be added; those that are here keep their meaning. Absent: keys, credentials,
//! anything of a request.

use crate::discovery::SourceName;
use crate::gossip::values::{ConfigurationMark, Load, NodeValues};
use crate::learned::LearnedLimit;
use crate::limit_status::{EscrowStatus, LimitStatus};
use crate::member::{Member, View};
use crate::state::SourceSight;
use serde::Serialize;
use shared::clock::Nanos;
use shared::published::{Live, Readiness};
use std::net::SocketAddr;
use std::time::Duration;

/// Addresses of one source that are shown.
const ADDRESSES_SHOWN_MAX: usize = 64;
/// Resting keys that are shown.
const RESTING_SHOWN_MAX: usize = 256;

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// `deepintshield-ID-PORT`.
    pub local_node: String,
    /// Members of the cluster that have not departed, this node included.
    pub members: u32,
    /// Members that are healthy.
    pub healthy_members: u32,
    /// `HEALTHY` or `NOT HEALTHY`.
    pub cluster_health: &'static str,
    /// `ready`, `starting`, `overloaded` or `draining`.
    pub state: &'static str,
    /// Why it is not ready; empty when it is.
    pub reason: String,
    /// Region label of this node.
    pub region: String,
    /// Epoch of the newest snapshot.
    pub epoch: u64,
    /// Cores that have reported.
    pub cores: usize,
    /// Requests being served, by the cores' newest reports.
    pub requests_in_flight: u64,
    /// Version and build of the program.
    pub version: &'static str,
    /// Grows with every start of this node; 0 where it is not part of a cluster.
    pub generation: u64,
    /// Highest gossip protocol version it speaks; 0 where it is not part of a cluster.
    pub protocol: u32,
    /// Its ticks came late, or most peers vanished at once: what looks like their death may be
    /// its own.
    pub doubts_itself: bool,
    /// Bytes of a whole gossip digest.
    pub digest_bytes: u64,
    /// What this node runs.
    pub configuration: ConfigurationMark,
    /// The newest revision that every core of this node runs; where the file is all there is, the
    /// epoch that it was published with.
    pub adopted_revision: u64,
    /// How the store of the configuration does; `null` where there is none.
    pub configuration_store: Option<StoreStatus>,
    /// How this node is; the parts are explained at the type.
    pub load: Load,
    /// Every limit of this node, and those of which only peers tell.
    pub limits: Vec<LimitStatus>,
    /// How nodes share them; `null` where this node is alone.
    pub escrow: Option<EscrowStatus>,
    /// Limits of which their providers leave less than is configured, and why.
    pub learned_limits: Vec<LearnedLimit>,
    /// Provider keys that this node passes over now, whoever learned of it.
    pub resting_keys: Vec<RestingKeyStatus>,
    /// Providers that this node asks after the others.
    pub demoted_providers: Vec<DemotedStatus>,
    /// What each discovery source sees, by its name.
    pub discovery: Vec<DiscoveryStatus>,
    /// All other nodes that are known, by id.
    pub peers: Vec<PeerStatus>,
}

/// How the store of the configuration does, and what this node makes of its content.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreStatus {
    /// Where it is, and what went wrong with it last.
    pub store: String,
    /// Number of the newest revision that this node knows.
    pub newest_revision: u64,
    /// Why nothing can be changed here now; `null` when it can.
    pub trouble: Option<String>,
    /// Why this node does not run the newest revision; `null` when it does.
    pub unusable: Option<String>,
}

/// Another node, as this one knows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerStatus {
    /// At most 12 characters.
    pub id: String,
    /// Grows with every start of it.
    pub generation: u64,
    /// Where its gossip is reached.
    pub address: SocketAddr,
    /// Where its clients connect to, as it says.
    pub client_address: String,
    /// Region label.
    pub region: String,
    /// Version of the program.
    pub version: String,
    /// Highest gossip protocol version it speaks.
    pub protocol: u32,
    /// What it says of itself: `starting`, `ready`, `overloaded`, `draining`.
    pub state: String,
    /// What this node thinks of it: `healthy`, `suspect`, `dead`, `leaving`.
    pub health: &'static str,
    /// Since anything new of it was heard, from itself or through others.
    pub last_heard_ms: u64,
    /// Of the last probe that it answered; `null` before the first.
    pub round_trip_ms: Option<f64>,
    /// Its wall clock minus ours; `null` before the first answer.
    pub clock_offset_ms: Option<i64>,
    /// `udp`, or `tcp` where only that gets through.
    pub transport: &'static str,
    /// Whether it takes frames under the key that this node sends with.
    pub speaks_our_key: bool,
    /// Ids of the gossip keys that it accepts.
    pub gossip_keys: Vec<String>,
    /// What it runs.
    pub configuration: PeerConfiguration,
    /// How it is, as it says.
    pub load: Load,
    /// Provider keys that rest there.
    pub resting_keys: usize,
    /// Values of it that could not be read here.
    pub unreadable_values: u32,
}

/// What another node runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerConfiguration {
    /// Number of the change.
    pub epoch: u64,
    /// Id of the node that made it.
    pub author: String,
    /// First 16 hexadecimal digits of its SHA-256.
    pub hash: String,
    /// The hash is ours, and known.
    pub matches_ours: bool,
}

/// A provider key that rests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestingKeyStatus {
    /// Provider's name.
    pub provider: String,
    /// Key's name.
    pub key: String,
    /// Only for this model; `null`: for all.
    pub model: Option<String>,
    /// `limited`, `refused` or `denied`.
    pub reason: &'static str,
    /// Time until it is asked again.
    pub remaining_ms: u64,
}

/// A provider that goes behind the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DemotedStatus {
    /// Provider's name.
    pub provider: String,
    /// Part of its requests that it still gets first.
    pub share_permille: u16,
}

/// One discovery source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiscoveryStatus {
    /// The method, as the configuration calls it; `dns-2` is the second one of its method.
    pub source: String,
    /// How many peers its last list had; it stays in use while the source fails.
    pub peers: usize,
    /// The first of them.
    pub addresses: Vec<SocketAddr>,
    /// Looks that failed since the start.
    pub failures: u64,
    /// Why the last look failed; `null` if it did not.
    pub last_failure: Option<FailureStatus>,
}

/// A look that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailureStatus {
    /// The log line.
    pub line: &'static str,
    /// What happened.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
    /// How long ago that was.
    pub age_ms: u64,
}

/// How a node calls its own state, and why it is not ready.
pub fn state_of(readiness: &Readiness) -> (&'static str, String) {
    match readiness {
        Readiness::Ready => ("ready", String::new()),
        Readiness::Starting(reason) => ("starting", reason.clone()),
        Readiness::Overloaded(reason) => ("overloaded", reason.clone()),
        Readiness::Draining => ("draining", "the node finishes what runs".to_owned()),
    }
}

/// `HEALTHY` or `NOT HEALTHY`.
pub fn cluster_health(live: &Live) -> &'static str {
    if live.is_cluster_healthy { "HEALTHY" } else { "NOT HEALTHY" }
}

/// Every peer of a view, by id.
pub fn peers_of(view: &View, ours: &ConfigurationMark, now: Nanos) -> Vec<PeerStatus> {
    let mut peers: Vec<_> = view.members.iter().map(|member| peer_of(member, ours, now)).collect();
    peers.sort_by(|a, b| a.id.cmp(&b.id));
    peers
}

fn peer_of(member: &Member, ours: &ConfigurationMark, now: Nanos) -> PeerStatus {
    let NodeValues { about, load, configuration, rests, unreadable, .. } = &member.values;
    PeerStatus {
        id: member.id.clone(),
        generation: member.generation,
        address: member.address,
        client_address: about.client_address.clone(),
        region: about.region.clone(),
        version: about.version.clone(),
        protocol: about.protocol,
        state: about.state.clone(),
        health: member.health.name(),
        last_heard_ms: millis(now.since(member.heard_at)),
        round_trip_ms: member.round_trip.map(|time| (time.as_secs_f64() * 1e6).round() / 1e3),
        clock_offset_ms: member.clock_offset_ms,
        transport: if member.is_tcp_only { "tcp" } else { "udp" },
        speaks_our_key: member.speaks_our_key,
        gossip_keys: about.gossip_keys.clone(),
        configuration: PeerConfiguration {
            epoch: configuration.epoch,
            author: configuration.author.clone(),
            hash: configuration.hash.clone(),
            matches_ours: !configuration.hash.is_empty() && configuration.hash == ours.hash,
        },
        load: load.clone(),
        resting_keys: rests.len(),
        unreadable_values: *unreadable,
    }
}

/// The first of the keys that rest, and not those whose time is over.
pub fn resting_of(live: &Live, now: Nanos) -> Vec<RestingKeyStatus> {
    let resting = live.resting_keys.iter().filter(|key| key.until > now).take(RESTING_SHOWN_MAX);
    let shown = resting.map(|key| RestingKeyStatus {
        provider: key.provider.clone(),
        key: key.key.clone(),
        model: key.model.clone(),
        reason: key.reason.name(),
        remaining_ms: millis(key.until.since(now)),
    });
    shown.collect()
}

/// Every provider that is asked after the others.
pub fn demoted_of(live: &Live) -> Vec<DemotedStatus> {
    let shown = live
        .providers
        .iter()
        .map(|share| DemotedStatus { provider: share.provider.clone(), share_permille: share.permille });
    shown.collect()
}

/// Every source that has said anything yet.
pub fn discovery_of<'a>(
    sources: impl Iterator<Item = (SourceName, &'a SourceSight)>,
    now: Nanos,
) -> Vec<DiscoveryStatus> {
    let shown = sources.map(|(source, sight)| DiscoveryStatus {
        source: source.to_string(),
        peers: sight.peers.len(),
        addresses: sight.peers.iter().take(ADDRESSES_SHOWN_MAX).copied().collect(),
        failures: sight.failures,
        last_failure: sight.failed.as_ref().map(|(failure, at)| FailureStatus {
            line: failure.line,
            cause: failure.cause.clone(),
            remedy: failure.remedy.clone(),
            age_ms: millis(now.since(*at)),
        }),
    });
    shown.collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::Failure;
    use crate::gossip::values::About;
    use crate::member::Health;
    use serde_json::json;
    use shared::published::{ProviderShare, RestReason, RestingKey};

    fn member(id: &str, hash: &str) -> Member {
        Member {
            id: id.into(),
            generation: 7,
            address: "10.0.0.2:10101".parse().unwrap(),
            health: Health::Suspect,
            values: NodeValues {
                about: About { version: "0.4.0".into(), state: "ready".into(), protocol: 1, ..About::default() },
                configuration: ConfigurationMark { epoch: 3, author: "b".into(), hash: hash.into() },
                ..NodeValues::default()
            },
            heard_at: Nanos(1_000_000_000),
            round_trip: Some(Duration::from_nanos(1_234_567)),
            clock_offset_ms: Some(-12),
            is_tcp_only: true,
            speaks_our_key: false,
        }
    }

    #[test]
    fn peers_are_shown_by_id_with_all_that_is_known() {
        let view = View { members: vec![member("b", "aa"), member("a", "bb")], ..View::default() };
        let ours = ConfigurationMark { hash: "aa".into(), ..ConfigurationMark::default() };
        let peers = peers_of(&view, &ours, Nanos(3_500_000_000));
        assert_eq!(peers.iter().map(|peer| peer.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(!peers[0].configuration.matches_ours && peers[1].configuration.matches_ours);
        let shown = serde_json::to_value(&peers[1]).unwrap();
        assert_eq!(
            shown,
            json!({
                "id": "b", "generation": 7, "address": "10.0.0.2:10101", "client_address": "", "region": "",
                "version": "0.4.0", "protocol": 1, "state": "ready", "health": "suspect", "last_heard_ms": 2_500,
                "round_trip_ms": 1.235, "clock_offset_ms": -12, "transport": "tcp", "speaks_our_key": false,
                "gossip_keys": [], "resting_keys": 0, "unreadable_values": 0,
                "configuration": {"epoch": 3, "author": "b", "hash": "aa", "matches_ours": true},
                "load": {
                    "cpu_permille": 0, "memory_permille": 0, "network_bytes_per_second": 0, "descriptors_permille": 0,
                    "streams": 0, "requests_in_flight": 0, "tick_delay_us": [], "is_overloaded": false,
                },
            })
        );
    }

    #[test]
    fn nobody_matches_a_configuration_that_is_not_known() {
        let view = View { members: vec![member("b", "")], ..View::default() };
        assert!(!peers_of(&view, &ConfigurationMark::default(), Nanos(0))[0].configuration.matches_ours);
    }

    #[test]
    fn keys_that_rest_show_the_time_that_is_left() {
        let resting = |key: &str, until| RestingKey {
            provider: "p".into(),
            key: key.into(),
            model: None,
            reason: RestReason::Limited,
            until: Nanos(until),
        };
        let resting_keys = vec![resting("over", 1_000_000_000), resting("rests", 3_500_000_000)];
        let providers = vec![ProviderShare { provider: "q".into(), permille: 10 }];
        let live = Live { resting_keys, providers, ..Live::default() };
        let shown = serde_json::to_value(resting_of(&live, Nanos(2_000_000_000))).unwrap();
        let expected = json!([
            {"provider": "p", "key": "rests", "model": null, "reason": "limited", "remaining_ms": 1_500}
        ]);
        assert_eq!(shown, expected);
        let shown = serde_json::to_value(demoted_of(&live)).unwrap();
        assert_eq!(shown, json!([{"provider": "q", "share_permille": 10}]));
    }

    #[test]
    fn a_source_that_fails_shows_its_last_list_and_why() {
        let failure =
            Failure { line: "dns lookup error", cause: "timed out".into(), remedy: "look at the resolver".into() };
        let sight = SourceSight {
            peers: (0..100).map(|port| SocketAddr::from(([10, 0, 0, 1], port))).collect(),
            failures: 3,
            failed: Some((failure, Nanos(0))),
        };
        let shown = discovery_of([(SourceName { method: "dns", number: 1 }, &sight)].into_iter(), Nanos(2_000_000_000));
        assert_eq!((shown[0].peers, shown[0].addresses.len()), (100, ADDRESSES_SHOWN_MAX));
        assert_eq!(
            serde_json::to_value(&shown[0].last_failure).unwrap(),
            json!({"line": "dns lookup error", "cause": "timed out", "remedy": "look at the resolver", "age_ms": 2_000})
        );
    }
}
