//! What happened, as an operator reads it: notes of the state as log lines. Those of the cluster are
//! worded as the public page words them, each with what to do about it.

use crate::failover::ProviderNote;
use crate::state::{Change, Note};
use shared::clock::Nanos;
use shared::published::Readiness;

/// Writes one down. `now` is when it happened.
pub(crate) fn log(note: &Note, now: Nanos) {
    match note {
        Note::AddressesChanged { host, addresses } => tracing::info!(host, addresses, "resolved"),
        Note::Unresolved { host, reason, kept: 0, failures } => tracing::warn!(
            host,
            reason,
            failures,
            "could not resolve the provider's name; its requests are answered with 503. Check `base_url` and this \
             machine's DNS (/etc/resolv.conf)"
        ),
        Note::Unresolved { host, reason, kept, failures } => tracing::warn!(
            host,
            reason,
            failures,
            kept,
            "could not resolve the provider's name; keeping the last good addresses. Check this machine's DNS \
             (/etc/resolv.conf)"
        ),
        Note::ResolvedAgain { host, failures } => tracing::info!(host, failures, "resolved again"),
        Note::Readiness(Readiness::Ready) => tracing::info!("ready"),
        Note::Readiness(Readiness::Starting(reason)) => tracing::info!(reason, "starting"),
        Note::Cluster(change) => log_change(change),
        // The beginning of the drain says so itself.
        Note::Readiness(Readiness::Draining) => {}
        Note::Readiness(Readiness::Overloaded(reason)) => {
            tracing::warn!(reason, "overloaded: some new requests are answered with 503");
        }
        Note::Provider(ProviderNote::Demoted { provider, is_own_problem: true }) => {
            tracing::warn!(provider, "half of this node's requests to the provider fail; it is asked after others");
        }
        Note::Provider(ProviderNote::Demoted { provider, is_own_problem: false }) => {
            tracing::warn!(provider, "the provider fails for most nodes that use it; it is asked after others");
        }
        Note::Provider(ProviderNote::Restored { provider }) => {
            tracing::info!(provider, "the provider has come back and is asked as before");
        }
        Note::KeyRests(key) => tracing::info!(
            provider = key.provider,
            key = key.key,
            model = key.model,
            reason = key.reason.name(),
            seconds = key.until.since(now).as_secs(),
            "a key rests"
        ),
    }
}

fn log_change(change: &Change) {
    match change {
        Change::JoinedOnStartup { peers } => tracing::info!("successfully joined {peers} peers on startup"),
        Change::NotJoined { tried: 0 } => tracing::warn!(
            "failed to join cluster: no peer is known; it is tried on. Is this the first node? If not, look for \
             `discovery failed` above, and compare cluster_config.peers and discovery with the other nodes'"
        ),
        Change::NotJoined { tried } => tracing::warn!(
            tried,
            "failed to join cluster: none of the known addresses answers; it is tried on. Check that the gossip port is \
             open both ways for UDP and TCP, and that cluster_name and gossip.encryption_keys are those of the other \
             nodes"
        ),
        Change::Joined(node) => tracing::info!(node = node.id, address = %node.address, "node joined"),
        Change::Suspect(node) => tracing::warn!(
            node = node.id,
            address = %node.address,
            "node marked as suspect; where this happens often, check the network between the nodes and their load, or \
             raise gossip.config.timeout_seconds"
        ),
        Change::Dead(node) => tracing::error!(
            node = node.id,
            address = %node.address,
            "node marked as dead; start it, or, where it runs, see whether the gossip port is open both ways for UDP and \
             TCP and whether its machine is held up"
        ),
        Change::Recovered(node) => tracing::info!(node = node.id, address = %node.address, "node recovered"),
        Change::Leaving(node) => tracing::info!(node = node.id, address = %node.address, "node is leaving"),
        Change::Left(node) => tracing::info!(node = node.id, address = %node.address, "node left"),
        Change::ClusterHealth { is_healthy: true, members, healthy_members, .. } => {
            tracing::info!(members, healthy_members, "cluster health: HEALTHY");
        }
        Change::ClusterHealth { doubts_itself: true, members, healthy_members, .. } => tracing::warn!(
            members,
            healthy_members,
            "cluster health: NOT HEALTHY: this node may be the one that is cut off, or it was held up itself; check its \
             network and load first"
        ),
        Change::ClusterHealth { members, healthy_members, .. } => tracing::warn!(
            members,
            healthy_members,
            "cluster health: NOT HEALTHY: half of the members or more are not heard; check them and the network between"
        ),
    }
}
