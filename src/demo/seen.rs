//! The cluster as one node sees it, read out of its `/cluster/status`. Pure.

use serde_json::Value;

/// What a node says of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Nodes it knows, itself included.
    pub(super) members: u64,
    /// Those that it takes for healthy.
    pub(super) healthy_members: u64,
    /// `HEALTHY` or `NOT HEALTHY`.
    pub(super) cluster_health: String,
    /// Ids and states of those that are not healthy.
    pub(super) others_in_trouble: Vec<(String, String)>,
}

impl Seen {
    /// Reads the whole answer, head included. `None` for what is no such answer.
    pub(super) fn read(answer: &str) -> Option<Self> {
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let status: Value = serde_json::from_str(body).ok()?;
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let peers = status.get("peers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let others = peers.iter().filter_map(|peer| Some((text(peer, "id")?, text(peer, "health")?)));
        Some(Self {
            members: status.get("members")?.as_u64()?,
            healthy_members: status.get("healthy_members")?.as_u64()?,
            cluster_health: text(&status, "cluster_health")?,
            others_in_trouble: others.filter(|(_, health)| health != "healthy").collect(),
        })
    }

    /// In a few words.
    pub(super) fn in_words(&self) -> String {
        let Self { members, healthy_members, cluster_health, others_in_trouble } = self;
        let others: String = others_in_trouble.iter().map(|(id, health)| format!(", {id} {health}")).collect();
        format!("{cluster_health}, {healthy_members} of {members} healthy{others}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_s_fields_are_read_and_the_peers_in_trouble() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n\
            {\"local_node\": \"deepintshield-node-1-10101\", \"members\": 3, \"healthy_members\": 2, \
            \"cluster_health\": \"HEALTHY\", \"peers\": [{\"id\": \"node-2\", \"health\": \"healthy\"}, \
            {\"id\": \"node-3\", \"health\": \"suspect\"}]}";
        let seen = Seen::read(answer).expect("it is whole");
        assert_eq!(seen.in_words(), "HEALTHY, 2 of 3 healthy, node-3 suspect");
    }

    #[test]
    fn what_is_no_status_is_not_read() {
        for answer in ["", "\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n{}", "HTTP/1.1 200 OK\r\n\r\n{\"members\": -1}"] {
            assert_eq!(Seen::read(answer), None, "{answer}");
        }
    }
}
