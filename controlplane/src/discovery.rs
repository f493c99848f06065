//! Finding peers. A source says which addresses it sees, all of them, every time; nothing more is
//! asked of it. What a source may not do is here, once for all: hurry, flood, name ourselves or
//! an address that is not allowed, or lose the peers it saw when it fails.
//!
//! Discovery only proposes. An address becomes a peer when gossip hears it with the right key.

use crate::event::Event;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

pub(crate) mod consul;
#[cfg(feature = "kubernetes")]
pub(crate) mod kubernetes;
mod pace;
// The stand-ins are the ones that whole nodes are tested with.
#[cfg(test)]
#[path = "../../tests/it/stand_ins.rs"]
mod stand_ins;

use pace::Pace;

/// Peers of one source that are kept; more are left out, and said so.
pub const PEERS_PER_SOURCE_MAX: usize = 1_024;
/// A source has this long to take back what it registered.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// One way to find peers.
pub(crate) trait Source {
    /// The method, as the configuration calls it.
    fn name(&self) -> &'static str;

    /// All peers that are seen now. The first call answers as soon as it can; a later one may
    /// wait until something changed, and waits at most the discovery interval where nothing can be
    /// watched. A registration that this needs is renewed here too. Dropping the future at any
    /// await does no harm.
    async fn look(&mut self) -> Result<Vec<SocketAddr>, Failure>;

    /// Takes back what was registered, so that others need not wait for it to expire.
    async fn leave(&mut self) {}
}

/// Why a source sees nothing. Its last list stays in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The log line, in the public page's words where it names one: `dns lookup error` …
    pub(crate) line: &'static str,
    /// What happened, without secrets.
    pub(crate) cause: String,
    /// What to do about it.
    pub(crate) remedy: String,
}

/// What every source may know of its node and of its settings.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// This node's id.
    pub(crate) node_id: String,
    /// Where others reach this node's gossip; what is registered.
    pub(crate) advertise: SocketAddr,
    /// `service_name`
    pub(crate) service_name: String,
    /// Port of peers whose source names none.
    pub(crate) bind_port: u16,
    /// One look-up at most.
    pub(crate) dial_timeout: Duration,
    /// Between look-ups where nothing can be watched.
    pub(crate) interval: Duration,
    /// Empty: all addresses are allowed.
    pub(crate) allowed: Vec<IpNet>,
}

impl Surroundings {
    fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allowed.is_empty() || self.allowed.iter().any(|network| network.contains(&address))
    }
}

/// Runs one source until `leaving` turns true, or the control loop is gone.
pub(crate) async fn follow<S: Source>(
    mut source: S,
    surroundings: Surroundings,
    events: mpsc::Sender<Event>,
    mut leaving: watch::Receiver<bool>,
) {
    let mut pace = Pace::new();
    let mut last: Option<Vec<SocketAddr>> = None;
    loop {
        let looked = tokio::select! {
            looked = source.look() => looked,
            _ = leaving.wait_for(|leaving| *leaving) => break,
        };
        let pause = match looked {
            Ok(found) => {
                let peers = admitted(&source, &surroundings, found, last.as_deref());
                if last.as_ref() != Some(&peers) {
                    say_found(source.name(), &peers, last.as_deref());
                    last = Some(peers.clone());
                    if events.send(Event::Discovered { source: source.name(), peers }).await.is_err() {
                        return;
                    }
                }
                pace.after_success()
            }
            Err(failure) => {
                let pause = pace.after_failure();
                if pause.is_worth_saying {
                    say_failed(source.name(), &failure, last.as_ref().map_or(0, Vec::len));
                }
                pause
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause.length) => {}
            _ = leaving.wait_for(|leaving| *leaving) => break,
        }
    }
    if tokio::time::timeout(LEAVE_TIMEOUT, source.leave()).await.is_err() {
        tracing::warn!(source = source.name(), "the registration could not be taken back in time; it will expire");
    }
}

/// What of a source's list may be contacted: sorted, without doubles, ourselves, what is not
/// allowed and what is no host.
fn admitted<S: Source>(
    source: &S,
    surroundings: &Surroundings,
    mut found: Vec<SocketAddr>,
    last: Option<&[SocketAddr]>,
) -> Vec<SocketAddr> {
    found.iter_mut().for_each(|peer| peer.set_ip(peer.ip().to_canonical()));
    found.sort_unstable();
    found.dedup();
    let is_new = |peer: &SocketAddr| last.is_none_or(|last| last.binary_search(peer).is_err());
    found.retain(|peer| {
        if *peer == surroundings.advertise || peer.ip().is_unspecified() || peer.ip().is_multicast() {
            return false;
        }
        let is_allowed = surroundings.allows(peer.ip());
        if !is_allowed && is_new(peer) {
            tracing::warn!(
                source = source.name(),
                %peer,
                "not in allowed address space; add its network to `allowed_address_space` if it is a node of this cluster"
            );
        }
        is_allowed
    });
    if found.len() > PEERS_PER_SOURCE_MAX {
        tracing::warn!(
            source = source.name(),
            found = found.len(),
            kept = PEERS_PER_SOURCE_MAX,
            "more peers than a cluster can have; the rest is left out; narrow what the source selects"
        );
        found.truncate(PEERS_PER_SOURCE_MAX);
    }
    found
}

fn say_found(source: &'static str, peers: &[SocketAddr], last: Option<&[SocketAddr]>) {
    let is_news = peers.iter().any(|peer| last.is_none_or(|last| last.binary_search(peer).is_err()));
    if is_news {
        tracing::info!(source, "discovered {} nodes", peers.len());
    } else {
        tracing::warn!(
            source,
            "no new nodes discovered; {} known. Alone? compare `service_name` and the source's settings with the other nodes'",
            peers.len()
        );
    }
}

fn say_failed(source: &'static str, failure: &Failure, kept: usize) {
    let Failure { line, cause, remedy } = failure;
    tracing::error!(source, kept, "discovery failed: {line}: {cause}; {remedy}");
}
