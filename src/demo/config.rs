//! The configuration of the demo's nodes, and where they listen. Pure.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

/// Nodes of the demo: the smallest cluster that goes on when one of them dies.
pub(super) const NODES: usize = 3;

/// Names between @ are replaced by [`text`].
const TEMPLATE: &str = include_str!("config.json");

/// The ports, which are the same on each node's address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// For clients.
    pub(super) node: u16,
    /// For metrics and administration.
    pub(super) admin: u16,
    /// For gossip, UDP and TCP.
    pub(super) gossip: u16,
}

impl Ports {
    /// Where clients of node `index` connect.
    pub(super) fn node_address(self, index: usize) -> SocketAddr {
        SocketAddr::from((host(index), self.node))
    }

    /// Where the metrics of node `index` are.
    pub(super) fn admin_address(self, index: usize) -> SocketAddr {
        SocketAddr::from((host(index), self.admin))
    }

    /// Where node `index` hears the others.
    pub(super) fn gossip_address(self, index: usize) -> SocketAddr {
        SocketAddr::from((host(index), self.gossip))
    }
}

/// The address of node `index`: 127.0.0.1 and those after it. All of 127.0.0.0/8 is this machine.
fn host(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, u8::try_from(index).map_or(u8::MAX, |index| index.saturating_add(1)))
}

/// What all nodes have in common.
pub(super) struct Cluster<'c> {
    /// Where they listen.
    pub(super) ports: Ports,
    /// The simulated provider.
    pub(super) provider: SocketAddr,
    /// Base64 of the 32 bytes that gossip is encrypted with.
    pub(super) gossip_key: &'c str,
}

impl Cluster<'_> {
    /// The whole text for node `index`, which keeps its state in `state_dir`.
    pub(super) fn text(&self, index: usize, state_dir: &Path) -> String {
        let peers: Vec<String> = (0..NODES).map(|index| format!("\"{}\"", self.ports.gossip_address(index))).collect();
        TEMPLATE
            .replace("@HOST@", &host(index).to_string())
            .replace("@NUMBER@", &(index + 1).to_string())
            .replace("@PORT@", &self.ports.node.to_string())
            .replace("@ADMIN_PORT@", &self.ports.admin.to_string())
            .replace("@GOSSIP_PORT@", &self.ports.gossip.to_string())
            .replace("@GOSSIP_KEY@", self.gossip_key)
            .replace("@PEERS@", &peers.join(", "))
            .replace("@NODES@", &NODES.to_string())
            .replace("@PROVIDER@", &self.provider.to_string())
            .replace("\"@STATE@\"", &json_text(state_dir))
    }
}

/// A path between the quotes of JSON.
fn json_text(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::{Sources, load};

    #[test]
    fn the_text_loads_and_says_nothing_but_that_its_keys_stand_in_it() {
        let provider: SocketAddr = "127.0.0.1:9100".parse().expect("an address");
        let ports = Ports { node: 8080, admin: 8081, gossip: 10101 };
        let cluster = Cluster { ports, provider, gossip_key: &format!("{}=", "A".repeat(43)) };
        let loaded = load(&cluster.text(2, Path::new("/tmp/a \"b\"")), &Sources::none());
        let loaded = loaded.unwrap_or_else(|faults| panic!("{faults:?}"));
        let others: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        let others: Vec<&String> =
            others.iter().filter(|text| !text.contains("the secret stands in the file")).collect();
        assert!(others.is_empty(), "{others:?}");
        let (server, found) = (loaded.config.server, loaded.config.cluster);
        assert_eq!(server.state_dir, "/tmp/a \"b\"");
        assert_eq!(
            (server.listen.to_string(), server.admin_listen.to_string()),
            ("127.0.0.3:8080".into(), "127.0.0.3:8081".into())
        );
        assert_eq!(found.bind_address.to_string(), "127.0.0.3");
        assert_eq!((found.peers.len(), found.gossip.port), (NODES, 10101));
        assert_eq!(found.node_id.expect("a name").as_str(), "node-3");
    }
}
