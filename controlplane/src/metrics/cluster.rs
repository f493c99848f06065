//! The families about other nodes, discovery, and this node's own load. Peers are named by id;
//! rows beyond the bounds are left out, so that no cluster makes a scrape endless.

use super::exposition::Exposition;
use crate::discovery::SourceName;
use crate::gossip::values::{Load, NodeValues};
use crate::learned::LearnedLimit;
use crate::member::{Health, Member, View};
use crate::state::SourceSight;
use crate::sums;
use shared::clock::Nanos;
use shared::published::Live;

/// Peers that have rows of their own: the first ones by id.
const PEERS_SHOWN_MAX: usize = 256;
/// Rows of a family that has one for each peer and limit.
const PEER_LIMITS_SHOWN_MAX: usize = 2_000;

/// Limits that learned.
const LEARNED_SHOWN_MAX: usize = 2_000;
/// Rows of keys that rest.
const RESTING_SHOWN_MAX: usize = 256;

/// What is known of the cluster.
pub struct ClusterFacts<'a> {
    /// How many members there are, and how many are healthy.
    pub live: Live,
    /// The other nodes.
    pub view: &'a View,
    /// What this node tells of itself.
    pub own: &'a NodeValues,
    /// Limits of which their providers leave less than is configured.
    pub learned: Vec<LearnedLimit>,
    /// What every discovery source sees.
    pub discovered: Vec<(SourceName, &'a SourceSight)>,
    /// The moment of the scrape.
    pub now: Nanos,
}

pub(super) fn cluster(text: &mut Exposition, facts: &ClusterFacts<'_>) {
    let ClusterFacts { live, view, own, learned, discovered, now } = facts;
    members(text, live, view);
    let mut shown: Vec<&Member> = view.members.iter().collect();
    shown.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    shown.truncate(PEERS_SHOWN_MAX);
    peers(text, &shown, own, *now);
    gossip(text, view);
    discovery(text, discovered);
    failover(text, live, *now);
    learned_limits(text, learned);
    together(text, own, view, &shown);
    load(text, &own.load);
}

fn learned_limits(text: &mut Exposition, learned: &[LearnedLimit]) {
    let mut family = |name: &str, help: &str, of: fn(&LearnedLimit) -> Option<u64>| {
        text.family(name, "gauge", help);
        for row in learned.iter().take(LEARNED_SHOWN_MAX) {
            let Some(value) = of(row) else { continue };
            text.sample(name, &[("limit", &row.id), ("unit", &row.unit), ("why", &row.why)], value);
        }
    };
    family(
        "deepintshield_limit_configured",
        "Units in a window as configured, where the provider leaves less.",
        |row| row.configured,
    );
    family("deepintshield_limit_effective", "Units in a window that the cluster uses instead.", |row| {
        Some(row.effective)
    });
    family("deepintshield_limit_foreign_use", "Units that the provider counts and this cluster does not.", |row| {
        (row.foreign_use > 0).then_some(row.foreign_use)
    });
}

fn members(text: &mut Exposition, live: &Live, view: &View) {
    let mut gauge = |name: &str, help: &str, value: u64| text.single(name, "gauge", help, value);
    gauge("deepintshield_cluster_members", "Members that have not departed, this node included.", live.members.into());
    gauge("deepintshield_cluster_healthy_members", "Members that are healthy.", live.healthy_members.into());
    gauge("deepintshield_cluster_healthy", "1 when the cluster is HEALTHY.", live.is_cluster_healthy.into());

    let name = "deepintshield_peers";
    text.family(name, "gauge", "Other nodes that are known, by health.");
    for health in [Health::Healthy, Health::Suspect, Health::Dead, Health::Leaving] {
        let count = view.members.iter().filter(|member| member.health == health).count();
        text.sample(name, &[("health", &health.name())], count);
    }
}

fn peers(text: &mut Exposition, peers: &[&Member], own: &NodeValues, now: Nanos) {
    let mut gauge = |name: &str, help: &str, of: &dyn Fn(&Member) -> Option<f64>| {
        let name = format!("deepintshield_peer_{name}");
        text.family(&name, "gauge", help);
        for peer in peers {
            if let Some(value) = of(peer) {
                text.sample(&name, &[("peer", &peer.id)], value);
            }
        }
    };
    gauge("last_heard_seconds", "Since anything new of the peer was heard.", &|peer| {
        Some(now.since(peer.heard_at).as_secs_f64())
    });
    gauge("round_trip_seconds", "Of the last probe that the peer answered.", &|peer| {
        peer.round_trip.map(|time| time.as_secs_f64())
    });
    gauge("clock_offset_seconds", "The peer's wall clock minus ours.", &|peer| {
        peer.clock_offset_ms.map(|milliseconds| milliseconds as f64 / 1e3)
    });
    gauge("tcp_only", "1 when UDP does not reach the peer.", &|peer| Some(f64::from(u8::from(peer.is_tcp_only))));
    gauge("config_epoch", "Number of the peer's configuration.", &|peer| Some(peer.values.configuration.epoch as f64));
    gauge("config_differs", "1 when the peer runs another configuration.", &|peer| {
        let hash = &peer.values.configuration.hash;
        (!hash.is_empty()).then(|| f64::from(u8::from(*hash != own.configuration.hash)))
    });
    gauge("unreadable_values", "Values of the peer that could not be read here.", &|peer| {
        Some(f64::from(peer.values.unreadable))
    });
}

fn gossip(text: &mut Exposition, view: &View) {
    text.single("deepintshield_gossip_digest_bytes", "gauge", "Bytes of a whole gossip digest.", view.digest_bytes);
    let doubts = u8::from(view.doubts_itself);
    text.single("deepintshield_gossip_doubts_itself", "gauge", "1 when this node suspects itself.", doubts);
    for (name, value) in &view.counters {
        let name = format!("deepintshield_gossip_{}_total", name.strip_prefix("gossip_").unwrap_or(name));
        text.single(&name, "counter", "Counted by the gossip transport.", value);
    }
}

fn discovery(text: &mut Exposition, discovered: &[(SourceName, &SourceSight)]) {
    let name = "deepintshield_discovery_peers";
    text.family(name, "gauge", "Peers in a source's last list.");
    for (source, sight) in discovered {
        text.sample(name, &[("source", source)], sight.peers.len());
    }
    let name = "deepintshield_discovery_failures_total";
    text.family(name, "counter", "Looks of a source that failed.");
    for (source, sight) in discovered {
        text.sample(name, &[("source", source)], sight.failures);
    }
    let name = "deepintshield_discovery_failing";
    text.family(name, "gauge", "1 when a source's last look failed; its last list stays in use.");
    for (source, sight) in discovered {
        text.sample(name, &[("source", source)], u8::from(sight.failed.is_some()));
    }
}

/// What the cores were told to pass over.
fn failover(text: &mut Exposition, live: &Live, now: Nanos) {
    let name = "deepintshield_key_rests_seconds";
    text.family(name, "gauge", "Time until a provider key that rests is asked again; an empty model means all.");
    for key in live.resting_keys.iter().filter(|key| key.until > now).take(RESTING_SHOWN_MAX) {
        let model = key.model.as_deref().unwrap_or_default();
        let labels: [(&str, &dyn std::fmt::Display); 4] =
            [("provider", &key.provider), ("key", &key.key), ("model", &model), ("reason", &key.reason.name())];
        text.sample(name, &labels, key.until.since(now).as_secs_f64());
    }
    let name = "deepintshield_provider_demoted_ratio";
    text.family(name, "gauge", "Part of its requests that a provider gets first while it is asked after the others.");
    for share in &live.providers {
        text.sample(name, &[("provider", &share.provider)], f64::from(share.permille) / 1e3);
    }
}

fn together(text: &mut Exposition, own: &NodeValues, view: &View, peers: &[&Member]) {
    let providers = sums::providers(own, &view.members);
    let mut gauge = |name: &str, help: &str, of: fn(&sums::ProviderSum) -> u64| {
        text.family(name, "gauge", help);
        for (provider, sum) in &providers {
            text.sample(name, &[("provider", provider)], of(sum));
        }
    };
    gauge("deepintshield_cluster_attempts", "Attempts of all live nodes in the last ten seconds.", |sum| sum.attempts);
    gauge("deepintshield_cluster_failed_attempts", "Those that failed for the provider's own reasons.", |sum| {
        sum.failures
    });

    let name = "deepintshield_cluster_limit_used";
    text.family(name, "gauge", "Units in use in the current window on all live nodes.");
    for sum in sums::limits(own, &view.members) {
        text.sample(name, &[("limit", &sum.id), ("unit", &sum.unit)], sum.used);
    }
    let name = "deepintshield_peer_limit_used";
    text.family(name, "gauge", "Units in use in the current window on each peer.");
    let live = peers.iter().filter(|peer| peer.health != Health::Dead);
    let rows = live.flat_map(|peer| peer.values.limits.iter().map(|limit| (&peer.id, limit)));
    for (peer, limit) in rows.take(PEER_LIMITS_SHOWN_MAX) {
        text.sample(name, &[("peer", peer), ("limit", &limit.id), ("unit", &limit.unit)], limit.used);
    }
}

fn load(text: &mut Exposition, load: &Load) {
    let mut ratio = |name: &str, help: &str, permille: u16| {
        text.single(&format!("deepintshield_load_{name}_ratio"), "gauge", help, f64::from(permille) / 1e3);
    };
    ratio("cpu", "Part of the processors in use, of machine or cgroup.", load.cpu_permille);
    ratio("memory", "Part of the memory in use, of machine or cgroup.", load.memory_permille);
    ratio("descriptors", "Part of the descriptors that may be open.", load.descriptors_permille);
    let bytes = load.network_bytes_per_second;
    text.single("deepintshield_load_network_bytes_per_second", "gauge", "Received and sent by the machine.", bytes);
    let is_overloaded = u8::from(load.is_overloaded);
    text.single("deepintshield_load_overloaded", "gauge", "1 when the node sheds load.", is_overloaded);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::values::{ConfigurationMark, LimitUse, ProviderTraffic};
    use shared::published::Readiness;
    use shared::published::{ProviderShare, RestReason, RestingKey};
    use std::time::Duration;

    fn values(hash: &str) -> NodeValues {
        NodeValues {
            configuration: ConfigurationMark { epoch: 4, author: String::new(), hash: hash.into() },
            load: Load { cpu_permille: 250, ..Load::default() },
            providers: vec![ProviderTraffic { provider: "openai".into(), attempts: 5, ..Default::default() }],
            limits: vec![LimitUse {
                id: "team".into(),
                unit: "tokens".into(),
                used: 7,
                amount: 100,
                ..LimitUse::default()
            }],
            ..NodeValues::default()
        }
    }

    fn member(id: &str) -> Member {
        Member {
            id: id.into(),
            generation: 1,
            address: "10.0.0.2:10101".parse().unwrap(),
            health: Health::Suspect,
            values: values("bb"),
            heard_at: Nanos(1_000_000_000),
            round_trip: Some(Duration::from_millis(2)),
            clock_offset_ms: Some(-1_500),
            is_tcp_only: true,
            speaks_our_key: true,
        }
    }

    fn resting(key: &str, until: u64) -> RestingKey {
        let (provider, key, reason) = ("p".into(), key.into(), RestReason::Limited);
        RestingKey { provider, key, model: None, reason, until: Nanos(until) }
    }

    fn shown(members: Vec<Member>) -> String {
        let live = Live {
            readiness: Readiness::Ready,
            members: 2,
            healthy_members: 1,
            is_cluster_healthy: false,
            resting_keys: vec![resting("over", 3_000_000_000), resting("rests", 4_500_000_000)],
            providers: vec![ProviderShare { provider: "q".into(), permille: 10 }],
            ..Live::default()
        };
        let view = View { members, digest_bytes: 102, counters: vec![("frames_sent", 9)], ..View::default() };
        let sight = SourceSight { failures: 3, ..SourceSight::default() };
        let (own, discovered) = (
            values("aa"),
            vec![(SourceName { method: "dns", number: 1 }, &sight), (SourceName { method: "dns", number: 2 }, &sight)],
        );
        let mut text = Exposition::default();
        let learned = vec![LearnedLimit {
            id: "k/requests".into(),
            unit: "requests",
            configured: Some(100),
            effective: 40,
            provider_limit: None,
            foreign_use: 60,
            why: "foreign_use",
            remaining_ms: Some(1_500),
        }];
        let now = Nanos(3_000_000_000);
        cluster(&mut text, &ClusterFacts { live, view: &view, own: &own, learned, discovered, now });
        text.finish()
    }

    #[test]
    fn what_is_known_of_peers_is_shown() {
        let text = shown(vec![member("b")]);
        for line in [
            "deepintshield_cluster_members 2",
            "deepintshield_cluster_healthy 0",
            "deepintshield_peers{health=\"suspect\"} 1",
            "deepintshield_peers{health=\"dead\"} 0",
            "deepintshield_key_rests_seconds{provider=\"p\",key=\"rests\",model=\"\",reason=\"limited\"} 1.5",
            "deepintshield_limit_configured{limit=\"k/requests\",unit=\"requests\",why=\"foreign_use\"} 100",
            "deepintshield_limit_effective{limit=\"k/requests\",unit=\"requests\",why=\"foreign_use\"} 40",
            "deepintshield_limit_foreign_use{limit=\"k/requests\",unit=\"requests\",why=\"foreign_use\"} 60",
            "deepintshield_provider_demoted_ratio{provider=\"q\"} 0.01",
            "deepintshield_peer_last_heard_seconds{peer=\"b\"} 2",
            "deepintshield_peer_round_trip_seconds{peer=\"b\"} 0.002",
            "deepintshield_peer_clock_offset_seconds{peer=\"b\"} -1.5",
            "deepintshield_peer_tcp_only{peer=\"b\"} 1",
            "deepintshield_peer_config_differs{peer=\"b\"} 1",
            "deepintshield_gossip_digest_bytes 102",
            "deepintshield_gossip_frames_sent_total 9",
            "deepintshield_discovery_failures_total{source=\"dns\"} 3",
            "deepintshield_discovery_failures_total{source=\"dns-2\"} 3",
            "deepintshield_cluster_attempts{provider=\"openai\"} 10",
            "deepintshield_cluster_limit_used{limit=\"team\",unit=\"tokens\"} 14",
            "deepintshield_peer_limit_used{peer=\"b\",limit=\"team\",unit=\"tokens\"} 7",
            "deepintshield_load_cpu_ratio 0.25",
        ] {
            assert!(text.lines().any(|shown| shown == line), "missing: {line}\nin:\n{text}");
        }
    }

    #[test]
    fn a_thousand_peers_do_not_make_a_scrape_endless() {
        let text = shown((0..1_000).map(|at| member(&at.to_string())).collect());
        let rows = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(rows("deepintshield_peer_last_heard_seconds{"), PEERS_SHOWN_MAX);
        assert_eq!(rows("deepintshield_peer_limit_used{"), PEERS_SHOWN_MAX);
        assert!(text.contains("deepintshield_peers{health=\"suspect\"} 1000\n"));
    }
}
