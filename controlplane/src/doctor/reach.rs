//! Who of the peers answers, by which way, and what stands between. Opens gossip's own port where
//! no node has it, so that answers and the others' own frames come the way they would for a node;
//! otherwise another port of the same address, from which only answers can be seen.

use super::{Place, Remark};
use crate::gossip::keyring::Keyring;
use crate::gossip::network::Network;
use crate::gossip::wire::{PeerFacts, Wire, WireError, WireSettings};
use shared::clock::Clock;
use std::cell::OnceCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// One connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Pings of all peers; long enough for one that only TCP reaches to be known as such.
const PROBING: Duration = Duration::from_secs(6);
const STEP: Duration = Duration::from_millis(200);
/// A peer that TCP does not reach either has so long to answer a ping; nothing slower can come.
const PINGED_IN_VAIN: Duration = Duration::from_secs(2);
/// Clocks further apart than this confuse who reads logs, and who counts generations by them.
const CLOCKS_APART_MAX_MS: u64 = 2_000;

const UNREACHABLE: &str = "nodes discovered but cannot connect";
const UNHEARD: &str = "timeout waiting for response";

/// What probing needs.
pub(super) struct Probing<'a> {
    pub(super) network: Arc<dyn Network>,
    pub(super) keyring: Keyring,
    pub(super) place: &'a Place,
    /// A node of ours has the gossip port.
    pub(super) is_running: bool,
    pub(super) clock: Clock,
}

/// What a connection attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Connected {
    Yes,
    Refused,
    Silent,
    Failed(String),
}

/// Tries all of them at once.
pub(super) async fn try_all(probing: &Probing<'_>, peers: &[SocketAddr], say: &mut dyn FnMut(Remark)) {
    let wire = match open(probing).await {
        Ok(wire) => Some(wire),
        Err(error) => {
            say(of_port(&error));
            None
        }
    };
    let connections: Vec<OnceCell<Connected>> = peers.iter().map(|_| OnceCell::new()).collect();
    let connecting = peers.iter().zip(&connections).map(|(peer, connection)| async {
        drop(connection.set(connect(probing, *peer).await));
    });
    let pinging = async {
        let Some(wire) = &wire else { return };
        let rounds = PROBING.as_millis() / STEP.as_millis().max(1);
        for round in 1..=rounds {
            for peer in peers {
                wire.probe(*peer);
            }
            sleep(STEP).await;
            let is_long = round * STEP.as_millis() >= PINGED_IN_VAIN.as_millis();
            let is_settled = |facts: &PeerFacts, connection: &OnceCell<Connected>| match facts.round_trip {
                Some(_) => !facts.is_tcp_only,
                None => is_long && connection.get().is_some_and(|connected| *connected != Connected::Yes),
            };
            if peers.iter().zip(&connections).all(|(peer, connection)| is_settled(&wire.peer(*peer), connection)) {
                return;
            }
        }
    };
    tokio::join!(futures_util::future::join_all(connecting), pinging);
    for (peer, connection) in peers.iter().zip(connections) {
        let connected = connection.into_inner().unwrap_or(Connected::Silent);
        let facts = wire.as_ref().map(|wire| wire.peer(*peer));
        say(judge(*peer, &connected, facts.as_ref(), &probing.keyring));
        if let Some(offset) = facts.and_then(|facts| facts.clock_offset_ms)
            && offset.unsigned_abs() > CLOCKS_APART_MAX_MS
        {
            let cause = format!("the clock of {peer} is {offset} ms from this machine's");
            let remedy = "let both machines follow a time server (chrony, systemd-timesyncd)";
            say(Remark::wrong("clocks of nodes are apart", cause, remedy));
        }
    }
    if let Some(wire) = wire {
        of_refusals(&wire.counters()).into_iter().for_each(&mut *say);
        wire.close().await;
    }
}

async fn open(probing: &Probing<'_>) -> Result<Wire, WireError> {
    let listen = probing.place.listen;
    let bind = if probing.is_running { SocketAddr::new(listen.ip(), 0) } else { listen };
    let port = if probing.is_running { 0 } else { probing.place.advertise.port() };
    let settings = WireSettings {
        node_id: name_for_one_visit(),
        generation: u64::try_from(probing.clock.wall().as_millis()).unwrap_or(u64::MAX),
        bind,
        advertise: SocketAddr::new(probing.place.advertise.ip(), port),
        keyring: probing.keyring.clone(),
        // The node itself refuses; that was said, and we stay for seconds.
        insecure: true,
        dial_timeout: CONNECT_TIMEOUT,
    };
    Wire::open(Arc::clone(&probing.network), settings, probing.clock).await
}

/// Never that of a node: a second one with its id would be taken for its twin.
pub(super) fn name_for_one_visit() -> String {
    format!("doctor-{:04x}", getrandom::u32().unwrap_or_default() & 0xffff)
}

fn of_port(error: &WireError) -> Remark {
    let remedy = match error {
        WireError::Bind { error, .. } => match error.kind() {
            io::ErrorKind::AddrInUse => {
                "see which program has the port (`ss -tulpn`); stop it, or change `gossip.port` on every node. If it is \
                 this node, its admin listener does not answer: see `server.admin_port`"
            }
            io::ErrorKind::PermissionDenied => "take a `gossip.port` above 1024, or give the right to lower ones",
            _ => "set `bind_address` to an address of this machine (`ip addr`)",
        },
        _ => "see the settings above",
    };
    Remark::wrong("the gossip port cannot be opened", error.to_string(), remedy)
}

async fn connect(probing: &Probing<'_>, peer: SocketAddr) -> Connected {
    match timeout(CONNECT_TIMEOUT, probing.network.connect(probing.place.listen.ip(), peer)).await {
        Ok(Ok(_)) => Connected::Yes,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Connected::Refused,
        Ok(Err(error)) => Connected::Failed(error.to_string()),
        Err(_) => Connected::Silent,
    }
}

fn judge(peer: SocketAddr, connected: &Connected, facts: Option<&PeerFacts>, keyring: &Keyring) -> Remark {
    let port = peer.port();
    let answer = facts.filter(|facts| facts.round_trip.is_some() || facts.last_heard.is_some());
    match (answer, connected) {
        (Some(facts), Connected::Yes) => {
            let name = facts.id.as_deref().unwrap_or("a node");
            let time =
                facts.round_trip.map_or_else(String::new, |time| format!(" in {:.1} ms", time.as_secs_f64() * 1e3));
            if facts.is_tcp_only {
                return Remark::Note(format!(
                    "{peer} is {name} and answers{time} by TCP only: UDP port {port} is blocked one way or both; the \
                     cluster works so, with more load and later notice. Open UDP between all nodes"
                ));
            }
            if !keyring.is_plain() && !facts.speaks_our_key {
                return Remark::wrong(
                    "key rotation is not finished",
                    format!("{peer} ({name}) answers, but does not take the first of this node's gossip keys"),
                    "add that key to `gossip.encryption_keys` there too, and make it the first one only when all have it",
                );
            }
            Remark::Good(format!("{peer} is {name}, answers{time} by UDP, and can be connected to by TCP"))
        }
        (Some(_), _) => Remark::wrong(
            UNREACHABLE,
            format!("{peer} answers by UDP, but TCP port {port} cannot be connected to: {}", connected.why()),
            format!("open TCP port {port} between all nodes, both ways; large messages go by it"),
        ),
        (None, Connected::Yes) => Remark::wrong(
            UNHEARD,
            format!("{peer} can be connected to by TCP, but nothing there answers with this cluster's key and name"),
            "compare `gossip.encryption_keys` and `cluster_config.cluster_name` of both nodes (its log says which of the \
             two it is: \"another gossip key\" or \"another cluster_name\"), and whether a node listens there at all",
        ),
        (None, Connected::Refused) => Remark::wrong(
            UNREACHABLE,
            format!("nobody listens at {peer}"),
            "start the node there, or correct `bind_port`/`gossip.port` and the `bind_address` that it listens on",
        ),
        (None, Connected::Silent | Connected::Failed(_)) => Remark::wrong(
            UNREACHABLE,
            format!("{peer} is not reached by UDP or TCP: {}", connected.why()),
            format!(
                "open port {port} for TCP and UDP, both ways, in firewalls, security groups and NetworkPolicies, and \
                 check that the address is the node's (`ip addr`)"
            ),
        ),
    }
}

impl Connected {
    fn why(&self) -> String {
        match self {
            Self::Yes => "connected".to_owned(),
            Self::Refused => "refused".to_owned(),
            Self::Silent => format!("no answer within {CONNECT_TIMEOUT:?}"),
            Self::Failed(error) => error.clone(),
        }
    }
}

/// What was said to us that we could not take. Names are those of the wire's counters.
pub(super) fn of_refusals(counters: &[(&'static str, u64)]) -> Vec<Remark> {
    counters
        .iter()
        .filter(|(_, count)| *count > 0)
        .filter_map(|(name, count)| {
            let (symptom, cause, remedy) = super::running::refusal(name)?;
            Some(Remark::wrong(symptom, format!("{cause} ({count} frames)"), remedy))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::secret::Secret;

    fn judged(connected: &Connected, facts: Option<&PeerFacts>) -> Remark {
        let key = Secret::new("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
        let keyring = Keyring::new("c", &[key]).unwrap();
        judge("10.0.0.2:10101".parse().unwrap(), connected, facts, &keyring)
    }

    fn answering() -> PeerFacts {
        let round_trip = Some(Duration::from_micros(400));
        PeerFacts { id: Some("n2".to_owned()), round_trip, speaks_our_key: true, ..PeerFacts::default() }
    }

    #[test]
    fn ways_that_are_closed_are_told_apart() {
        let cause = |remark| match remark {
            Remark::Wrong(finding) => finding.cause,
            other => panic!("{other:?}"),
        };
        assert!(matches!(judged(&Connected::Yes, Some(&answering())), Remark::Good(text) if text.contains("n2")));
        let tcp_only = PeerFacts { is_tcp_only: true, ..answering() };
        assert!(matches!(judged(&Connected::Yes, Some(&tcp_only)), Remark::Note(text) if text.contains("TCP only")));
        assert!(cause(judged(&Connected::Refused, Some(&answering()))).contains("TCP port 10101"));
        assert!(cause(judged(&Connected::Yes, None)).contains("key and name"));
        assert!(cause(judged(&Connected::Yes, Some(&PeerFacts::default()))).contains("key and name"));
        assert!(cause(judged(&Connected::Refused, None)).contains("nobody listens"));
        assert!(cause(judged(&Connected::Silent, None)).contains("by UDP or TCP"));
        let other_key = PeerFacts { speaks_our_key: false, ..answering() };
        assert!(cause(judged(&Connected::Yes, Some(&other_key))).contains("first of this node's gossip keys"));
    }

    #[test]
    fn a_visitor_has_a_name_that_fits() {
        assert!(shared::config::model::NodeId::new(&name_for_one_visit()).is_ok());
    }
}
