//! Which gossip keys this node accepts, and when it may send with another one or forget one.
//! Pure: a change is decided here, the wire is given the keys by the control loop.
//!
//! A rotation has three steps, each on every node before the next begins: add the new key; send
//! with it; drop the old one. Every node publishes the ids of the keys that it accepts, the one it
//! sends with first, so that a step which would cut somebody off is refused and names them.
//!
//! Keys that came by the admin interface live until the node ends. Absent: keys on disk.

use crate::member::{Health, View};
use serde::Serialize;
use shared::secret::Secret;

/// Keys of one ring.
const KEYS_MAX: usize = 16;
/// Nodes that a refusal names.
const NODES_NAMED_MAX: usize = 32;

/// One key with its name, which says nothing about it.
pub struct NamedKey {
    /// Its id, as nodes publish it.
    pub id: String,
    /// Base64 of 32 bytes.
    pub secret: Secret,
}

/// The keys of this node.
pub struct Rotation {
    /// The first one sends.
    held: Vec<Held>,
    /// The configuration's first key.
    configured_first: Option<String>,
    /// The configuration has another first key than before: it is to send, once everybody
    /// accepts it.
    wanted: Option<String>,
}

struct Held {
    key: NamedKey,
    is_configured: bool,
}

/// Why a step of a rotation was not done. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotationRefused {
    /// Anybody may join; a first key would cut this node off from all that have none.
    #[error(
        "this node gossips without keys; write the first key into gossip.encryption_keys of every node and start \
         them anew"
    )]
    NoKeys,
    /// There is no such key.
    #[error("no key {0} is known here; add it first")]
    Unknown(String),
    /// The bound is reached.
    #[error("there are {KEYS_MAX} keys already; drop those that no node sends with any more")]
    Full,
    /// Some live nodes would not understand this one any more.
    #[error("these live nodes do not accept key {id}: {}; add it to them, or say \"force\"", .nodes.join(", "))]
    NotAccepted {
        /// The key.
        id: String,
        /// The first of them.
        nodes: Vec<String>,
    },
    /// This node itself sends with it.
    #[error("key {0} is what this node sends with; let it send with another one first")]
    Sending(String),
    /// Some live nodes would not be understood any more.
    #[error("these live nodes send with key {id}: {}; let them send with another one, or say \"force\"", .nodes.join(", "))]
    StillSent {
        /// The key.
        id: String,
        /// The first of them.
        nodes: Vec<String>,
    },
}

/// One key as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyStatus {
    /// Names it; says nothing about it.
    pub id: String,
    /// This node sends with it.
    pub sends: bool,
    /// It stands in the configuration; one that does not is gone after a restart.
    pub is_configured: bool,
    /// Live peers that accept it.
    pub accepted_by: Vec<String>,
    /// Live peers that do not.
    pub not_accepted_by: Vec<String>,
    /// Live peers that send with it.
    pub sent_by: Vec<String>,
}

impl Rotation {
    /// The keys of the configuration, the one that sends first.
    pub fn new(configured: Vec<NamedKey>) -> Self {
        let mut rotation = Self { held: Vec::new(), configured_first: None, wanted: None };
        rotation.configure(configured);
        rotation.wanted = None;
        rotation
    }

    /// Takes the keys of a configuration that was read again. Keys that were added since the start
    /// stay. What sends goes on sending while it is held; a first key that is not the one of the
    /// configuration before follows as soon as every live node accepts it, see
    /// [`Rotation::settle`].
    pub fn configure(&mut self, configured: Vec<NamedKey>) {
        let sending = self.sending().map(str::to_owned);
        let first = configured.first().map(|key| key.id.clone());
        if first != self.configured_first {
            self.wanted.clone_from(&first);
            self.configured_first = first;
        }
        let added = std::mem::take(&mut self.held).into_iter().filter(|held| !held.is_configured);
        let added: Vec<Held> = added.filter(|held| configured.iter().all(|key| key.id != held.key.id)).collect();
        for key in configured {
            if !self.holds(&key.id) {
                self.held.push(Held { key, is_configured: true });
            }
        }
        self.held.extend(added);
        self.held.truncate(KEYS_MAX);
        if let Some(sending) = sending {
            self.put_first(&sending);
        }
    }

    /// Sends with what the configuration wants, if everybody accepts it by now. Whether that
    /// changed anything.
    pub fn settle(&mut self, view: &View) -> bool {
        let Some(wanted) = self.wanted.take() else { return false };
        if self.sending() == Some(&wanted) || !self.holds(&wanted) {
            return false;
        }
        if !live_peers(view).all(|peer| peer.accepts(&wanted)) {
            self.wanted = Some(wanted);
            return false;
        }
        self.put_first(&wanted)
    }

    /// Accepts one more key. Whether it was new.
    pub fn add(&mut self, key: NamedKey) -> Result<bool, RotationRefused> {
        if self.held.is_empty() {
            return Err(RotationRefused::NoKeys);
        }
        if self.holds(&key.id) {
            return Ok(false);
        }
        if self.held.len() >= KEYS_MAX {
            return Err(RotationRefused::Full);
        }
        self.held.push(Held { key, is_configured: false });
        Ok(true)
    }

    /// Sends with this key. Whether that changed anything.
    pub fn send_with(&mut self, id: &str, view: &View, is_forced: bool) -> Result<bool, RotationRefused> {
        if !self.holds(id) {
            return Err(RotationRefused::Unknown(id.to_owned()));
        }
        let nodes = named(live_peers(view).filter(|peer| !peer.accepts(id)));
        if !nodes.is_empty() && !is_forced {
            return Err(RotationRefused::NotAccepted { id: id.to_owned(), nodes });
        }
        // Asked for by a person, after whatever the configuration wanted.
        self.wanted = None;
        Ok(self.put_first(id))
    }

    /// Accepts this key no longer.
    pub fn drop_key(&mut self, id: &str, view: &View, is_forced: bool) -> Result<(), RotationRefused> {
        if !self.holds(id) {
            return Err(RotationRefused::Unknown(id.to_owned()));
        }
        if self.sending() == Some(id) {
            return Err(RotationRefused::Sending(id.to_owned()));
        }
        let nodes = named(live_peers(view).filter(|peer| peer.sends_with(id)));
        if !nodes.is_empty() && !is_forced {
            return Err(RotationRefused::StillSent { id: id.to_owned(), nodes });
        }
        self.held.retain(|held| held.key.id != id);
        Ok(())
    }

    /// Ids of all keys, the one that sends first, as they are published.
    pub fn ids(&self) -> Vec<String> {
        self.held.iter().map(|held| held.key.id.clone()).collect()
    }

    /// Copies of all keys, the one that sends first, for the wire.
    pub fn secrets(&self) -> Vec<Secret> {
        self.held.iter().map(|held| held.key.secret.duplicate()).collect()
    }

    /// Every key, as operators see it.
    pub fn status(&self, view: &View) -> Vec<KeyStatus> {
        let shown = self.held.iter().map(|held| {
            let id = &held.key.id;
            KeyStatus {
                id: id.clone(),
                sends: self.sending() == Some(id),
                is_configured: held.is_configured,
                accepted_by: named(live_peers(view).filter(|peer| peer.accepts(id))),
                not_accepted_by: named(live_peers(view).filter(|peer| !peer.accepts(id))),
                sent_by: named(live_peers(view).filter(|peer| peer.sends_with(id))),
            }
        });
        shown.collect()
    }

    fn sending(&self) -> Option<&str> {
        self.held.first().map(|held| held.key.id.as_str())
    }

    fn holds(&self, id: &str) -> bool {
        self.held.iter().any(|held| held.key.id == id)
    }

    fn put_first(&mut self, id: &str) -> bool {
        match self.held.iter().position(|held| held.key.id == id) {
            None | Some(0) => false,
            Some(at) => {
                // The others keep their order.
                if let Some(before) = self.held.get_mut(..=at) {
                    before.rotate_right(1);
                }
                true
            }
        }
    }
}

/// A peer as far as keys go.
struct Peer<'a> {
    id: &'a str,
    /// What it accepts; the first one sends.
    keys: &'a [String],
}

impl Peer<'_> {
    fn accepts(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key == id)
    }

    fn sends_with(&self, id: &str) -> bool {
        self.keys.first().is_some_and(|key| key == id)
    }
}

/// A suspect may be back in a moment; one that leaves needs no key any more.
fn live_peers(view: &View) -> impl Iterator<Item = Peer<'_>> {
    let live = view.members.iter().filter(|member| matches!(member.health, Health::Healthy | Health::Suspect));
    live.map(|member| Peer { id: &member.id, keys: &member.values.about.gossip_keys })
}

fn named<'a>(peers: impl Iterator<Item = Peer<'a>>) -> Vec<String> {
    peers.take(NODES_NAMED_MAX).map(|peer| peer.id.to_owned()).collect()
}

#[cfg(test)]
mod tests;
