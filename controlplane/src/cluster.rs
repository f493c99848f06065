//! This node's part in a cluster, as the control loop holds it: gossip, the sources that find peers
//! for it, and what a new configuration may change of it while the node runs.
//!
//! Opened before the cores start, so that a taken port stops the start and nothing else.

use crate::admin::gossip_keys::{KeyFault, KeyStep, KeysStatus};
use crate::discovery::{NotBuilt, Prepared, Running as Sources, own_addresses, prepare};
use crate::entitlements::Others;
use crate::event::Event;
use crate::gossip::frame::NodeName;
use crate::gossip::identity::Identity;
use crate::gossip::keyring::{Keyring, KeyringError};
use crate::gossip::network::Network;
use crate::gossip::rotation::{NamedKey, Rotation};
use crate::gossip::values::{NodeValues, encode};
use crate::gossip::wire::NodeMessage;
use crate::gossip::{Gossip, GossipError, GossipPort, GossipSettings};
use crate::member::View;
use crate::sources;
use crate::state_dir::StateDirError;
use shared::clock::Clock;
use shared::config::model::{Cluster, HostPort, Origin};
use shared::secret::Secret;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Highest version of the protocol between nodes that this program speaks.
pub(crate) const PROTOCOL: u32 = crate::gossip::frame::VERSION_MAX as u32;
/// What the admin interface says with every answer about keys.
const KEYS_NOTE: &str = "keys that are not in the configuration are gone when this node ends, and keys that are there \
                         come back when it is read again: write gossip.encryption_keys of every node as it is here";
/// The gossip key of a node whose configuration has none.
const KEY_VARIABLE: &str = "DEEPINTSHIELD_GOSSIP_KEY";
/// Sources that take back their registrations have this long in all.
const SOURCES_LEAVE_TIMEOUT: Duration = Duration::from_secs(4);

/// Why a node does not start as a part of a cluster. Nothing of it was started.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The gossip port, or its keys.
    #[error(transparent)]
    Gossip(#[from] GossipError),
    /// The keys are none.
    #[error(transparent)]
    Keys(#[from] KeyringError),
    /// The environment names a file that cannot be read.
    #[error("{KEY_VARIABLE}: {0}")]
    KeyFile(String),
    /// Others could not be told where this node is.
    #[error("cluster_config.advertise_address: {0}; name the address and port at which the other nodes reach this one")]
    Advertise(String),
    /// See [`NotBuilt`].
    #[error("{0}")]
    Discovery(String),
}

impl From<NotBuilt> for ClusterError {
    fn from(error: NotBuilt) -> Self {
        Self::Discovery(error.to_string())
    }
}

impl ClusterError {
    /// Whether the configuration has to be changed before another try.
    pub(crate) fn is_configuration(&self) -> bool {
        !matches!(self, Self::Gossip(error) if error.is_taken())
    }
}

/// Everything is open and nothing runs.
pub(crate) struct OpenCluster {
    port: GossipPort,
    sources: Prepared,
    rotation: Rotation,
}

impl OpenCluster {
    /// Opens the gossip port and prepares the sources.
    pub(crate) async fn open(
        cluster: &Cluster,
        identity: Identity,
        network: Arc<dyn Network>,
        clock: Clock,
    ) -> Result<Self, ClusterError> {
        let rotation = Rotation::new(named_keys(cluster)?);
        let keyring = Keyring::new(&cluster.cluster_name, &rotation.secrets())?;
        let advertise = advertise(cluster)?;
        let Identity { id, generations } = identity;
        let node_id = id.as_str().to_owned();
        let settings = GossipSettings::new(cluster, id, generations, keyring.clone(), advertise);
        let port = GossipPort::open(settings, network, clock).await?;
        let sources = prepare(cluster, &node_id, port.advertise(), keyring, clock)?;
        Ok(Self { port, sources, rotation })
    }

    /// See [`GossipPort::not_kept`].
    pub(crate) fn not_kept(&self) -> Option<&StateDirError> {
        self.port.not_kept()
    }
}

/// A node's part, which may be none.
pub(crate) struct ClusterPart {
    running: Option<Running>,
    /// As it runs: what needs a restart is as it was at the start.
    config: Cluster,
}

struct Running {
    gossip: Gossip,
    sources: Sources,
    rotation: Rotation,
}

impl ClusterPart {
    /// Begins to look for peers and to gossip, where there is something to begin with. To be called
    /// inside of the runtime.
    pub(crate) fn begin(open: Option<OpenCluster>, config: Cluster, events: &mpsc::Sender<Event>) -> Self {
        let running = open.map(|OpenCluster { port, sources, rotation }| {
            let sources = sources.start(events);
            let gossip = port.start(events.clone());
            tracing::info!(
                address = %gossip.advertise(),
                cluster = config.cluster_name,
                keys = rotation.ids().len(),
                "gossip has begun"
            );
            Running { gossip, sources, rotation }
        });
        Self { running, config }
    }

    /// Whether there are others to be told anything.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// What the others leave of the limits. A list of peers, which may name this node too, tells how
    /// many there should be before any was heard.
    pub(crate) fn others<'v>(&self, view: &'v View) -> Others<'v> {
        let expected = self.running.as_ref().map_or(1, |_| {
            let listed = u16::try_from(self.config.peers.len()).unwrap_or(u16::MAX).max(1);
            self.config.expected_nodes.map_or(listed, NonZeroU16::get)
        });
        Others::of(view, expected)
    }

    /// Sends messages of one topic.
    pub(crate) fn send(&self, topic: u8, messages: Vec<(SocketAddr, NodeName, Vec<u8>)>) {
        let Some(running) = &self.running else { return };
        for (to, node, bytes) in messages {
            running.gossip.send(to, &node.to_string(), topic, &bytes);
        }
    }

    /// The next message of another node to this one; never comes where it is alone.
    pub(crate) async fn receive(&self) -> NodeMessage {
        match &self.running {
            Some(running) => running.gossip.receive().await,
            None => std::future::pending().await,
        }
    }

    /// Generation of the start; 0 where the node runs alone.
    pub(crate) fn generation(&self) -> u64 {
        self.running.as_ref().map_or(0, |running| running.gossip.generation())
    }

    /// Names of the keys that are accepted.
    pub(crate) fn key_ids(&self) -> Vec<String> {
        self.running.as_ref().map(|running| running.rotation.ids()).unwrap_or_default()
    }

    /// Tells the others everything that this node says of itself.
    pub(crate) fn publish(&self, own: &NodeValues) {
        if let Some(running) = &self.running {
            running.gossip.publish(encode(own));
        }
    }

    /// Tries exactly these addresses.
    pub(crate) fn follow(&self, peers: BTreeSet<SocketAddr>) {
        if let Some(running) = &self.running {
            running.gossip.follow(peers);
        }
    }

    /// Takes over what can be changed in a running node, and says what cannot.
    pub(crate) fn reconfigure(&mut self, new: Cluster) {
        let waiting = needing_a_restart(&self.config, &new);
        if !waiting.is_empty() {
            tracing::warn!("cluster_config has changed in {}; that part is used after a restart", waiting.join(", "));
        }
        let may_be_plain = self.config.gossip.insecure || self.config.bind_address.is_loopback();
        let Some(running) = &mut self.running else { return };
        // Also where the list is the same: a key may come from a file that has changed.
        match named_keys(&new) {
            Ok(keys) if keys.is_empty() && !may_be_plain => {
                tracing::error!("gossip.encryption_keys is empty now; the node keeps the keys that it has");
            }
            Ok(keys) => {
                let before = running.rotation.ids();
                running.rotation.configure(keys);
                if running.rotation.ids() != before {
                    running.rekey(&self.config.cluster_name);
                }
                self.config.gossip.encryption_keys = new.gossip.encryption_keys;
            }
            Err(error) => tracing::error!(%error, "the node keeps the gossip keys that it has"),
        }
    }

    /// Sends with the key that the configuration wants, once everybody accepts it.
    pub(crate) fn settle_keys(&mut self, view: &View) {
        if let Some(running) = &mut self.running
            && running.rotation.settle(view)
        {
            running.rekey(&self.config.cluster_name);
        }
    }

    /// Does a step of a rotation, or refuses it.
    pub(crate) fn rotate(&mut self, step: KeyStep, view: &View) -> Result<KeysStatus, KeyFault> {
        let running = self.running.as_mut().ok_or(KeyFault::NoCluster)?;
        let has_changed = match step {
            KeyStep::Show => false,
            KeyStep::Add(secret) => {
                let key = named_key(&self.config.cluster_name, secret).map_err(|_| KeyFault::NotAKey)?;
                running.rotation.add(key)?
            }
            KeyStep::SendWith { id, is_forced } => running.rotation.send_with(&id, view, is_forced)?,
            KeyStep::Drop { id, is_forced } => {
                running.rotation.drop_key(&id, view, is_forced)?;
                true
            }
        };
        if has_changed {
            running.rekey(&self.config.cluster_name);
        }
        Ok(KeysStatus { keys: running.rotation.status(view), note: KEYS_NOTE })
    }

    /// Tells the others that this node finishes what it has.
    pub(crate) fn say_goodbye(&self) {
        if let Some(running) = &self.running {
            running.gossip.say_goodbye();
        }
    }

    /// Takes back what was registered, stays for the others to hear the goodbye, and ends.
    pub(crate) async fn leave(&mut self) {
        let Some(Running { gossip, sources, .. }) = self.running.take() else { return };
        let sources = async {
            if tokio::time::timeout(SOURCES_LEAVE_TIMEOUT, sources.leave()).await.is_err() {
                tracing::warn!("not every source of discovery left in time; its registration will expire");
            }
        };
        tokio::join!(sources, gossip.leave());
    }
}

impl Running {
    fn rekey(&self, cluster_name: &str) {
        match Keyring::new(cluster_name, &self.rotation.secrets()) {
            Ok(keyring) => {
                let ids = self.rotation.ids();
                tracing::info!(keys = ids.len(), sending = ids.first(), "the gossip keys have changed");
                self.sources.rekey(keyring.clone());
                self.gossip.rekey(keyring);
            }
            Err(error) => tracing::error!(%error, "the node keeps the gossip keys that it has"),
        }
    }
}

/// Fields of `cluster_config` whose new value a running node cannot take over.
fn needing_a_restart(old: &Cluster, new: &Cluster) -> Vec<&'static str> {
    let (old_gossip, new_gossip) = (&old.gossip, &new.gossip);
    let fields = [
        ("enabled", old.enabled == new.enabled),
        ("cluster_name", old.cluster_name == new.cluster_name),
        ("node_id", old.node_id == new.node_id),
        ("peers", old.peers == new.peers),
        ("bind_address", old.bind_address == new.bind_address),
        ("advertise_address", old.advertise_address == new.advertise_address),
        ("expected_nodes", old.expected_nodes == new.expected_nodes),
        ("initial_state", old.initial_state == new.initial_state),
        ("discovery", old.discovery == new.discovery),
        ("gossip.port", old_gossip.port == new_gossip.port),
        ("gossip.interval", old_gossip.interval == new_gossip.interval),
        ("gossip.insecure", old_gossip.insecure == new_gossip.insecure),
        (
            "gossip.config",
            (old_gossip.timeout, old_gossip.success_threshold, old_gossip.failure_threshold)
                == (new_gossip.timeout, new_gossip.success_threshold, new_gossip.failure_threshold),
        ),
    ];
    fields.into_iter().filter(|(_, is_same)| !is_same).map(|(field, _)| field).collect()
}

/// A ring of the configured keys, or of the environment's where there are none.
pub(crate) fn keyring(cluster: &Cluster) -> Result<Keyring, ClusterError> {
    let secrets: Vec<Secret> = named_keys(cluster)?.into_iter().map(|key| key.secret).collect();
    Ok(Keyring::new(&cluster.cluster_name, &secrets)?)
}

/// The configured keys, or the one of the environment where there are none.
fn named_keys(cluster: &Cluster) -> Result<Vec<NamedKey>, ClusterError> {
    let configured = &cluster.gossip.encryption_keys;
    // A fault names the key by its place in the list.
    Keyring::new(&cluster.cluster_name, configured)?;
    let mut secrets: Vec<Secret> = configured.iter().map(Secret::duplicate).collect();
    if secrets.is_empty()
        && let Some(text) = sources::env(KEY_VARIABLE)
    {
        secrets.push(key_of_environment(&text)?);
    }
    let keys = secrets.into_iter().map(|secret| named_key(&cluster.cluster_name, secret));
    Ok(keys.collect::<Result<_, _>>()?)
}

/// With the name that the wire has for it, which tells nothing of the key.
fn named_key(cluster_name: &str, secret: Secret) -> Result<NamedKey, KeyringError> {
    let ring = Keyring::new(cluster_name, std::slice::from_ref(&secret))?;
    let id = ring.key_ids().next().map_or_else(String::new, |id| id.to_string());
    Ok(NamedKey { id, secret })
}

fn key_of_environment(text: &str) -> Result<Secret, ClusterError> {
    match text.strip_prefix("file:") {
        Some(path) => sources::resolve(&Origin::File(path.to_owned()))
            .ok_or_else(|| ClusterError::KeyFile(format!("{path} cannot be read, or is empty"))),
        None => Ok(Secret::new(text.trim())),
    }
}

/// What others are told to connect to: as configured, or where gossip listens; where that is
/// everywhere, the address that packets to other hosts leave from.
pub(crate) fn advertise(cluster: &Cluster) -> Result<SocketAddr, ClusterError> {
    if let Some(configured) = &cluster.advertise_address {
        return resolved(configured, cluster.bind_address);
    }
    let port = cluster.gossip.port;
    if !cluster.bind_address.is_unspecified() {
        return Ok(SocketAddr::new(cluster.bind_address, port));
    }
    let outgoing = outgoing_address(cluster).map_err(|error| {
        ClusterError::Advertise(format!("gossip listens everywhere, and this machine's address is not known ({error})"))
    })?;
    Ok(SocketAddr::new(outgoing, port))
}

fn resolved(advertise: &HostPort, bind: IpAddr) -> Result<SocketAddr, ClusterError> {
    let failed = |reason: String| ClusterError::Advertise(format!("{}: {reason}", advertise.host()));
    let mut found =
        (advertise.host(), advertise.port()).to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    let is_preferred = |address: &SocketAddr| address.is_ipv4() == bind.is_ipv4();
    let first = found.next().ok_or_else(|| failed("it has no address".to_owned()))?;
    Ok(std::iter::once(first).chain(found).find(is_preferred).unwrap_or(first))
}

/// Nothing is sent: connecting a datagram socket only chooses the route. The target is a peer whose
/// address is written down, or an address for documentation, which the default route leads to.
fn outgoing_address(cluster: &Cluster) -> io::Result<IpAddr> {
    let (here, anywhere): (IpAddr, IpAddr) = if cluster.bind_address.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
    } else {
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into())
    };
    let listed = cluster.peers.iter().filter_map(|peer| peer.host().parse::<IpAddr>().ok());
    let targets = listed.filter(|peer| peer.is_ipv4() == here.is_ipv4()).chain([anywhere]);
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    // A network without a way out has no route to anywhere, and addresses all the same.
    let own = || own_addresses().find(|own| own.is_ipv4() == here.is_ipv4() && !own.is_loopback());
    for target in targets {
        let socket = UdpSocket::bind((here, 0))?;
        match socket.connect((target, cluster.gossip.port)).and_then(|()| socket.local_addr()) {
            Ok(address) if !address.ip().is_unspecified() => return Ok(address.ip()),
            Ok(_) => {}
            Err(error) => last = error,
        }
    }
    own().ok_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tests::configuration;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    fn cluster(more: &str) -> Cluster {
        let text = format!(r#"{{"cluster_config": {{"enabled": true, "peers": ["127.0.0.1:10101"]{more}}}}}"#);
        configuration(&text).cluster
    }

    #[test]
    fn what_needs_a_restart_is_named_and_keys_do_not() {
        let old = cluster("");
        assert_eq!(needing_a_restart(&old, &cluster("")), Vec::<&str>::new());
        let keys = cluster(&format!(r#", "gossip": {{"encryption_keys": ["{KEY}"]}}"#));
        assert_eq!(needing_a_restart(&old, &keys), Vec::<&str>::new());
        let other = cluster(r#", "cluster_name": "b", "gossip": {"port": 7, "config": {"timeout_seconds": 3}}"#);
        assert_eq!(needing_a_restart(&old, &other), ["cluster_name", "gossip.port", "gossip.config"]);
    }

    #[test]
    fn a_node_is_reached_where_it_listens_unless_it_says_otherwise() {
        let of = |more: &str| advertise(&cluster(more)).unwrap().to_string();
        assert_eq!(of(r#", "bind_address": "127.0.0.3", "gossip": {"port": 7}"#), "127.0.0.3:7");
        assert_eq!(of(r#", "advertise_address": "10.1.2.3:99""#), "10.1.2.3:99");
        assert_eq!(of(""), "127.0.0.1:10101", "the route to the first peer is over loopback");
    }

    #[test]
    fn a_name_that_is_no_address_is_told_with_the_remedy() {
        let error = advertise(&cluster(r#", "advertise_address": "no.such.host.invalid:1""#)).unwrap_err().to_string();
        assert!(error.contains("no.such.host.invalid") && error.contains("advertise_address"), "{error}");
    }

    #[test]
    fn a_key_of_the_environment_may_stand_in_a_file() {
        assert_eq!(key_of_environment(&format!("{KEY}\n")).unwrap().expose(), KEY);
        let error = key_of_environment("file:/nowhere/key").err().unwrap().to_string();
        assert!(error.contains("DEEPINTSHIELD_GOSSIP_KEY") && error.contains("/nowhere/key"), "{error}");
    }
}
