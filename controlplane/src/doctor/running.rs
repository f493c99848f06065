//! What a running node says of itself and its cluster, read as a doctor would. Pure; works on the
//! JSON and the metrics of another version too, as far as it knows their fields.

use super::Remark;
use serde_json::Value;
use shared::foreign::one_line;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Clocks further apart than this are remarked on.
const CLOCKS_APART_MAX_MS: u64 = 2_000;
/// Gossip is meant for clusters whose digest stays far below this.
const DIGEST_BYTES_LARGE: u64 = 16 * 1024;
/// Members that are tried.
const PEERS_MAX: usize = 64;
/// The wire's counters in `/metrics`.
const COUNTER_PREFIX: &str = "deepintshield_gossip_";

/// Looks through the node's status. `discovered` are the peers that were found without it.
pub(super) fn judge(status: &Value, discovered: &[SocketAddr]) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let health = text(&status["cluster_health"]);
    let counted = format!("{} of {} members healthy", status["healthy_members"], status["members"]);
    if health == "HEALTHY" {
        remarks.push(Remark::Good(format!("the node runs: cluster health: HEALTHY, {counted}")));
    } else {
        let cause = format!("the running node counts {counted}");
        remarks.push(Remark::wrong("cluster health: NOT HEALTHY", cause, "see the findings about single nodes"));
    }
    if status["state"] != "ready" {
        let cause = format!("it is {}: {}", text(&status["state"]), text(&status["reason"]));
        remarks.push(Remark::wrong("the node is not ready", cause, "wait for what it waits for, or mend that"));
    }
    if status["doubts_itself"] == true {
        let remedy = "give it processor time and memory (`top`, cgroup limits), or look at its own network link";
        let cause = "its own ticks came late, or most peers vanished at once, so that it doubts itself";
        remarks.push(Remark::wrong("cluster unstable, nodes flapping", cause, remedy));
    }
    if status["digest_bytes"].as_u64().is_some_and(|bytes| bytes > DIGEST_BYTES_LARGE) {
        let cause = format!("a gossip digest has {} B", status["digest_bytes"]);
        let remedy = "keep clusters small (3 to 7 nodes are usual); restarts leave entries behind for some minutes";
        remarks.push(Remark::wrong("high memory usage in cluster", cause, remedy));
    }
    let peers = status["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    for peer in peers {
        judge_peer(peer, &mut remarks);
    }
    judge_membership(status, peers, discovered, &mut remarks);
    for source in status["discovery"].as_array().into_iter().flatten() {
        let failure = &source["last_failure"];
        if failure.is_object() {
            let symptom = format!("discovery failed: {}", text(&failure["line"]));
            let cause = format!("the running node's {}: {}", text(&source["source"]), text(&failure["cause"]));
            remarks.push(Remark::wrong(symptom, cause, text(&failure["remedy"])));
        }
    }
    remarks
}

/// Where the members are that the node should hear. What a running node found by broadcast or
/// multicast is known from here alone.
pub(super) fn addresses(status: &Value) -> Vec<SocketAddr> {
    let peers = status["peers"].as_array().into_iter().flatten();
    let should_answer = |peer: &&Value| matches!(text(&peer["health"]).as_str(), "healthy" | "suspect" | "dead");
    peers.filter(should_answer).filter_map(|peer| peer["address"].as_str()?.parse().ok()).take(PEERS_MAX).collect()
}

fn judge_peer(peer: &Value, remarks: &mut Vec<Remark>) {
    let name = format!("{} at {}", text(&peer["id"]), text(&peer["address"]));
    let silent = peer["last_heard_ms"].as_u64().unwrap_or(0) / 1_000;
    match text(&peer["health"]).as_str() {
        "suspect" => {
            let remedy = "if it comes and goes: packet loss or a busy machine; raise `gossip.timeout_seconds`";
            let cause = format!("nothing was heard of {name} for {silent} s");
            remarks.push(Remark::wrong("node marked as suspect", cause, remedy));
        }
        "dead" => {
            let remedy = "start it; if it runs, open the gossip port for TCP and UDP between both, both ways";
            remarks.push(Remark::wrong("node marked as dead", format!("{name} is silent for {silent} s"), remedy));
        }
        _ => {}
    }
    if peer["transport"] == "tcp" {
        let text = format!("{name} is reached by TCP only: open UDP between all nodes, both ways");
        remarks.push(Remark::Note(text));
    }
    if peer["speaks_our_key"] == false && peer["health"] == "healthy" {
        let cause = format!("{name} does not take the gossip key that the node sends with");
        let remedy = "finish the rotation: the same `gossip.encryption_keys` on every node, the new one first at last";
        remarks.push(Remark::wrong("key rotation is not finished", cause, remedy));
    }
    if let Some(offset) = peer["clock_offset_ms"].as_i64().filter(|ms| ms.unsigned_abs() > CLOCKS_APART_MAX_MS) {
        let cause = format!("the clock of {name} is {offset} ms from this machine's");
        let remedy = "let both machines follow a time server (chrony, systemd-timesyncd)";
        remarks.push(Remark::wrong("clocks of nodes are apart", cause, remedy));
    }
    let configuration = &peer["configuration"];
    if configuration["matches_ours"] == false && !text(&configuration["hash"]).is_empty() {
        let text = format!("{name} runs another configuration (epoch {})", configuration["epoch"]);
        remarks.push(Remark::Note(format!("{text}: compare the files, and reload the node that is behind")));
    }
    if peer["load"]["is_overloaded"] == true {
        let cause = format!("{name} says that it is overloaded");
        remarks.push(Remark::wrong("resource constraints", cause, "give it more processors or memory, or add a node"));
    }
}

/// Who was found and is no member, which is what a split cluster looks like.
fn judge_membership(status: &Value, peers: &[Value], discovered: &[SocketAddr], remarks: &mut Vec<Remark>) {
    let known: BTreeSet<String> = peers.iter().map(|peer| text(&peer["address"])).collect();
    for address in discovered.iter().filter(|address| !known.contains(&address.to_string())) {
        remarks.push(Remark::wrong(
            "failed to join cluster",
            format!("{address} was discovered, but is no member of this node's cluster"),
            "see above whether it answers; if it does, compare gossip keys and `cluster_name`. No restart is needed: \
             nodes that reach each other come together by themselves",
        ));
    }
    if status["members"] == 1 && discovered.is_empty() {
        let remedy =
            "compare `service_name` and the discovery settings with the other nodes', and see above what failed";
        remarks.push(Remark::wrong(super::settings::ALONE, "the node runs and knows of no other", remedy));
    }
}

/// What the node refuses. What it refused once, and does not any more, is no finding: counters stay
/// until it is started anew.
pub(super) fn judge_counters(before: &str, after: &str) -> Vec<Remark> {
    let refused = refused(after).filter_map(|(name, count)| {
        let (symptom, cause, remedy) = refusal(name)?;
        if counted(before, name) == count {
            return Some(Remark::Note(format!(
                "{cause} ({count} frames since its start), and none while this was looked at"
            )));
        }
        Some(Remark::wrong(symptom, format!("{cause} ({count} frames since its start)"), remedy))
    });
    refused.collect()
}

/// Whether everything that was refused before has been refused again.
pub(super) fn all_go_on(before: &str, after: &str) -> bool {
    refused(before).filter(|(name, _)| refusal(name).is_some()).all(|(name, count)| counted(after, name) != count)
}

/// The wire's counters that are not 0.
fn refused(metrics: &str) -> impl Iterator<Item = (&str, &str)> {
    let counters = metrics.lines().filter_map(|line| line.strip_prefix(COUNTER_PREFIX)?.split_once("_total "));
    counters.map(|(name, count)| (name, count.trim())).filter(|(_, count)| *count != "0")
}

fn counted<'m>(metrics: &'m str, name: &str) -> &'m str {
    refused(metrics).find(|(other, _)| *other == name).map_or("0", |(_, count)| count)
}

/// Symptom, cause and remedy of frames that were refused for a reason that somebody has to mend.
pub(super) fn refusal(counter: &str) -> Option<(&'static str, &'static str, &'static str)> {
    let failed_to_join = "failed to join cluster";
    Some(match counter {
        "refused_other_key" => (
            failed_to_join,
            "frames came under another gossip key: a node there has other `gossip.encryption_keys`",
            "give all nodes the same keys; the node's log names the source and the key's id",
        ),
        "refused_without_key" => (
            failed_to_join,
            "frames came without a gossip key: a node there has none",
            "give it this cluster's `gossip.encryption_keys`; the node's log names the source",
        ),
        "refused_other_cluster" => (
            failed_to_join,
            "frames came with the right key from a cluster of another name",
            "compare `cluster_config.cluster_name`; where they are two clusters, give them two keys",
        ),
        "refused_other_version" => (
            failed_to_join,
            "frames came in a protocol version that this program does not speak",
            "update the node that speaks the older one",
        ),
        "refused_namesake" => (
            "a second node with this node's id",
            "frames came in the name of this node from elsewhere",
            "give every node a `node_id` and a state directory of its own",
        ),
        _ => return None,
    })
}

/// Characters of a value that are shown.
const WORDS_MAX: usize = 300;

/// A foreign value on one line.
fn text(value: &Value) -> String {
    let text =
        value.as_str().map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned);
    one_line(&text, WORDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn symptoms(status: &Value, discovered: &[&str]) -> Vec<String> {
        let discovered: Vec<SocketAddr> = discovered.iter().map(|text| text.parse().unwrap()).collect();
        wrong(judge(status, &discovered))
    }

    fn wrong(remarks: Vec<Remark>) -> Vec<String> {
        let symptoms = remarks.into_iter().filter_map(|remark| match remark {
            Remark::Wrong(finding) => Some(finding.symptom),
            _ => None,
        });
        symptoms.collect()
    }

    fn healthy() -> Value {
        json!({
            "cluster_health": "HEALTHY", "members": 2, "healthy_members": 2, "state": "ready", "doubts_itself": false,
            "digest_bytes": 102, "peers": [{
                "id": "n2", "address": "10.0.0.2:10101", "health": "healthy", "last_heard_ms": 10, "transport": "udp",
                "speaks_our_key": true, "clock_offset_ms": 3, "load": {"is_overloaded": false},
                "configuration": {"epoch": 1, "hash": "aa", "matches_ours": true}}],
            "discovery": [{"source": "dns", "peers": 1, "last_failure": null}],
        })
    }

    #[test]
    fn a_healthy_node_has_no_finding() {
        assert_eq!(symptoms(&healthy(), &["10.0.0.2:10101"]), Vec::<String>::new());
    }

    #[test]
    fn what_goes_on_being_refused_is_a_finding_and_what_was_once_is_not() {
        let metrics = |other_key: u32, damaged: u32| {
            format!(
                "deepintshield_gossip_refused_other_key_total {other_key}\ndeepintshield_gossip_refused_damaged_total {damaged}\n"
            )
        };
        for (before, after, findings, notes) in [((0, 3), (0, 9), 0, 0), ((4, 0), (5, 0), 1, 0), ((4, 0), (4, 0), 0, 1)]
        {
            let (before, after) = (metrics(before.0, before.1), metrics(after.0, after.1));
            let remarks = judge_counters(&before, &after);
            assert_eq!(remarks.len(), findings + notes, "{remarks:?}");
            assert_eq!(wrong(remarks).len(), findings);
            assert_eq!(all_go_on(&before, &after), notes == 0);
        }
        assert_eq!(wrong(judge_counters("", &metrics(1, 0))), ["failed to join cluster"]);
    }

    #[test]
    fn each_thing_that_is_wrong_is_a_finding() {
        for (at, value, symptom) in [
            ("/cluster_health", json!("NOT HEALTHY"), "cluster health: NOT HEALTHY"),
            ("/state", json!("overloaded"), "the node is not ready"),
            ("/doubts_itself", json!(true), "cluster unstable, nodes flapping"),
            ("/digest_bytes", json!(100_000), "high memory usage in cluster"),
            ("/peers/0/health", json!("suspect"), "node marked as suspect"),
            ("/peers/0/health", json!("dead"), "node marked as dead"),
            ("/peers/0/speaks_our_key", json!(false), "key rotation is not finished"),
            ("/peers/0/clock_offset_ms", json!(-60_000), "clocks of nodes are apart"),
            ("/peers/0/load/is_overloaded", json!(true), "resource constraints"),
            ("/peers/0/address", json!("10.0.0.3:10101"), "failed to join cluster"),
            (
                "/discovery/0/last_failure",
                json!({"line": "dns lookup error", "cause": "c", "remedy": "r"}),
                "discovery failed: dns lookup error",
            ),
        ] {
            let mut status = healthy();
            *status.pointer_mut(at).expect(at) = value;
            assert_eq!(symptoms(&status, &["10.0.0.2:10101"]), [symptom], "{at}");
        }
        let alone = json!({"cluster_health": "HEALTHY", "members": 1, "state": "ready"});
        assert_eq!(symptoms(&alone, &[]), [super::super::settings::ALONE]);
    }

    #[test]
    fn an_answer_without_fields_is_no_reason_to_fall() {
        judge(&json!({}), &[]);
        judge(&json!({"peers": [1, {}], "discovery": 7}), &[]);
        judge_counters("\u{0}", "deepintshield_gossip__total");
    }
}
