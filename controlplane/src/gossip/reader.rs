//! What chitchat knows, as the rest of the node reads it: the highest generation of each id, with
//! its values. Texts are decoded only when they changed.

use super::sieve::digest_bytes;
use super::values::{self, NodeValues};
use chitchat::{Chitchat, NodeState};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Published by a node that is finishing. Not one of [`NodeValues`]: it is about gossip itself.
pub(super) const LEAVING_KEY: &str = "leaving";

/// Another node, as far as gossip reached us.
pub(super) struct Seen {
    pub(super) generation: u64,
    pub(super) address: SocketAddr,
    /// Grows with everything new of it.
    pub(super) pulse: u64,
    /// Of its values.
    pub(super) version: u64,
    pub(super) is_leaving: bool,
}

/// Another generation, or address, under our own id.
pub(super) struct Twin {
    pub(super) generation: u64,
    pub(super) address: SocketAddr,
    pub(super) pulse: u64,
}

/// Everything that one look shows.
#[derive(Default)]
pub(super) struct Sighting {
    pub(super) others: BTreeMap<String, Seen>,
    pub(super) twins: Vec<Twin>,
    /// Our own heartbeat: it stands still when chitchat does.
    pub(super) own_heartbeat: u64,
    pub(super) digest_bytes: u64,
}

/// Keeps what was decoded.
#[derive(Default)]
pub(super) struct Reader {
    decoded: BTreeMap<String, Decoded>,
}

struct Decoded {
    generation: u64,
    version: u64,
    values: NodeValues,
}

impl Reader {
    /// Looks at everything.
    pub(super) fn read(&mut self, chitchat: &Chitchat) -> Sighting {
        let ours = chitchat.self_chitchat_id();
        let mut sighting = Sighting { digest_bytes: 2, ..Sighting::default() };
        let mut newest: BTreeMap<&str, &NodeState> = BTreeMap::new();
        for (id, state) in chitchat.node_states() {
            sighting.digest_bytes += digest_bytes(id) as u64;
            if id == ours {
                sighting.own_heartbeat = state.heartbeat().into();
            } else if id.node_id == ours.node_id {
                let (generation, address) = (id.generation_id, id.gossip_advertise_addr);
                sighting.twins.push(Twin { generation, address, pulse: pulse(state) });
            } else {
                // The order of the map: by id, then by generation, so that the last one wins.
                newest.insert(&id.node_id, state);
            }
        }
        self.decoded.retain(|id, _| newest.contains_key(id.as_str()));
        for (id, state) in newest {
            let chitchat_id = state.chitchat_id();
            let (generation, version) = (chitchat_id.generation_id, state.max_version());
            let is_known = |known: &Decoded| (known.generation, known.version) == (generation, version);
            if !self.decoded.get(id).is_some_and(is_known) {
                let values = values::decode(state.key_values());
                self.decoded.insert(id.to_owned(), Decoded { generation, version, values });
            }
            let seen = Seen {
                generation,
                address: chitchat_id.gossip_advertise_addr,
                pulse: pulse(state),
                version,
                is_leaving: state.contains_key(LEAVING_KEY),
            };
            sighting.others.insert(id.to_owned(), seen);
        }
        sighting
    }

    /// What a node of the last look published.
    pub(super) fn values(&self, id: &str) -> NodeValues {
        self.decoded.get(id).map(|decoded| decoded.values.clone()).unwrap_or_default()
    }
}

fn pulse(state: &NodeState) -> u64 {
    u64::from(state.heartbeat()).saturating_add(state.max_version())
}
