//! What the control thread hands to a core: a snapshot, and beside it what must not or cannot be
//! in its bytes — secrets and the live limit rings. Also the small live state. No sockets.

use crate::clock::Nanos;
use crate::limit::LimitRings;
use crate::secret::Secret;
use crate::snapshot::Snapshot;
use std::sync::Arc;

/// One configuration, whole. A request keeps the one it started with.
pub struct Published {
    /// Records, read in place.
    pub snapshot: Snapshot,
    /// Credentials and header values, by the indices in the records. An empty one is a
    /// reference that could not be resolved: its key must not be used.
    pub secrets: Arc<[Secret]>,
    /// Key of the HMAC that virtual keys are looked up by.
    pub lookup_key: Arc<[u8; 32]>,
    /// The node's rings, by limit index; rings outlive a change of configuration.
    pub limits: LimitRings,
    /// Certificate of the client listener; `None`: it speaks plain HTTP.
    pub listener_identity: Option<Arc<ListenerIdentity>>,
}

/// What the client listener proves itself with. Read again by the control thread when its files
/// change; `PartialEq` tells whether they did.
#[derive(PartialEq)]
pub struct ListenerIdentity {
    /// Certificate chain, PEM.
    pub certificates_pem: String,
    /// Private key, PEM.
    pub key_pem: Secret,
}

/// Is this node to be sent traffic?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// Not yet, and why.
    Starting(String),
    /// It has more to do than it can, and why; some new requests are turned away.
    Overloaded(String),
    /// Finishing what runs; new requests belong elsewhere.
    Draining,
}

/// What changes often: readiness, the cluster's health, keys that rest. Small, replaced whole.
#[derive(Clone, Debug)]
pub struct Live {
    /// For `/ready`.
    pub readiness: Readiness,
    /// Members of the cluster, this node included.
    pub members: u32,
    /// Members that are healthy.
    pub healthy_members: u32,
    /// HEALTHY or NOT HEALTHY, as `/cluster/status` shows it.
    pub is_cluster_healthy: bool,
    /// Keys that rest, sorted by provider and key.
    pub resting_keys: Vec<RestingKey>,
    /// Providers that fail for most, or for this node: what part of their requests they still get
    /// before the other providers of a request.
    pub providers: Vec<ProviderShare>,
    /// Parts of their configured weight that providers have in a virtual key's draw.
    pub provider_weights: Vec<ProviderShare>,
    /// Parts of their configured weight that keys have; sorted by provider and key.
    pub key_weights: Vec<KeyWeight>,
    /// Part of the new requests that is turned away.
    pub shed_permille: u16,
}

impl Default for Live {
    /// What holds before anything is known: alone, and not ready.
    fn default() -> Self {
        Self {
            readiness: Readiness::Starting("no configuration yet".to_owned()),
            members: 1,
            healthy_members: 0,
            is_cluster_healthy: false,
            resting_keys: Vec::new(),
            providers: Vec::new(),
            provider_weights: Vec::new(),
            key_weights: Vec::new(),
            shed_permille: 0,
        }
    }
}

/// A part of what a provider would get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderShare {
    /// Provider's name.
    pub provider: String,
    /// Below 1,000.
    pub permille: u16,
}

/// A part of what a key would get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyWeight {
    /// Provider's name.
    pub provider: String,
    /// Key's name.
    pub key: String,
    /// Only for this model; `None`: for all.
    pub model: Option<String>,
    /// 1 to 999.
    pub permille: u16,
}

/// A key that a provider refused or limited, for the time it should be left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestingKey {
    /// Provider's name.
    pub provider: String,
    /// Key's name.
    pub key: String,
    /// Only for this model, as clients say it; `None`: for all.
    pub model: Option<String>,
    /// Why it rests.
    pub reason: RestReason,
    /// Rests until then.
    pub until: Nanos,
}

/// Why a key rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RestReason {
    /// The provider had no room for more (429).
    Limited,
    /// The provider does not take it (401), or wants money first (402).
    Refused,
    /// It may not use the model (403, 404), as more than one virtual key was told. It is still
    /// asked where no other key is left: the provider's own words are worth more than ours.
    Denied,
}

impl RestReason {
    /// As gossip and logs write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Limited => "limited",
            Self::Refused => "refused",
            Self::Denied => "denied",
        }
    }

    /// What [`RestReason::name`] wrote; `None` for the word of a later version.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Limited, Self::Refused, Self::Denied].into_iter().find(|reason| reason.name() == name)
    }
}
